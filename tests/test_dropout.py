"""Dropout: where it is, and that a step's draws can be repeated."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2 import AlbertEncoder
from albert_tf2.finetuning.model import TaskHead
from albert_tf2.keras_api import keras
from albert_tf2.model import dropout, fusion, layers, losses
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.pretraining.step import PretrainStep

pytestmark = pytest.mark.usefixtures("warm_python")

RATE = 0.25


def zeros(values) -> float:
    return float(np.mean(np.asarray(values) == 0.0))


@pytest.fixture
def preln(tiny_config):
    """Blocks whose output is their input plus what dropout leaves."""
    return tiny_config.replace(ln_type="preln")


def hidden_of(config, rows=300):
    rng = np.random.default_rng(1)
    return rng.normal(size=[rows, config.hidden_size]).astype(np.float32)


def share_dropped(layer, training, **call):
    """The share of zeros in what a block of `preln` adds to its input."""
    hidden = call.pop("hidden")
    return zeros(layer(hidden, training=training, **call) - hidden)


@pytest.mark.parametrize("rate", [0.0, RATE])
def test_the_embeddings_are_dropped(tiny_config, rate):
    config = tiny_config.replace(hidden_dropout_prob=rate)
    ids = np.random.default_rng(0).integers(0, 200, [8, 40])
    layer = layers.Embeddings(config)
    for training, expected in ((True, rate), (False, 0.0)):
        output = layer(ids, input_type_ids=0 * ids, training=training)
        assert zeros(output) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("rate", [0.0, RATE])
def test_what_attention_adds_is_dropped(preln, rate):
    layer = layers.AttentionBlock(preln.replace(hidden_dropout_prob=rate))
    call = dict(hidden=hidden_of(preln), bias=tf.zeros([3, 1, 1, 100]))
    for training, expected in ((True, rate), (False, 0.0)):
        found = share_dropped(layer, training, batch_size=3, **call)
        assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("rate", [0.0, RATE])
def test_what_the_feed_forward_adds_is_dropped(preln, rate):
    layer = layers.FeedForwardBlock(preln.replace(hidden_dropout_prob=rate))
    for training, expected in ((True, rate), (False, 0.0)):
        found = share_dropped(layer, training, hidden=hidden_of(preln))
        assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("rate", [0.0, RATE])
def test_the_probabilities_of_attention_are_dropped(preln, rate):
    """One token sees itself alone, so what it gets is all or nothing."""
    layer = layers.AttentionBlock(
        preln.replace(attention_probs_dropout_prob=rate)
    )
    layer.value.bias.assign(tf.ones_like(layer.value.bias))
    rows = 2000
    call = dict(hidden=hidden_of(preln, rows), bias=tf.zeros([rows, 1, 1, 1]))
    layer.output_dense.kernel.assign(tf.eye(preln.hidden_size))
    for training, expected in ((True, rate), (False, 0.0)):
        found = share_dropped(layer, training, batch_size=rows, **call)
        assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("rate", [0.0, RATE])
def test_what_the_tasks_head_reads_is_dropped(rate):
    head = TaskHead(1, 1, dropout=rate)
    head.output_weights.assign([[1.0]])
    for training, expected in ((True, rate), (False, 0.0)):
        logits = head(tf.ones([3000, 1]), training=training)
        assert zeros(logits) == pytest.approx(expected, abs=0.03)
        assert float(tf.reduce_max(logits)) == pytest.approx(1 / (1 - expected))


@pytest.fixture
def encoder(tiny_config):
    return AlbertEncoder(
        tiny_config.replace(
            hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1
        )
    )


INPUTS = {
    "input_word_ids": tf.ones([2, 16], tf.int32),
    "input_mask": tf.ones([2, 16], tf.int32),
    "input_type_ids": tf.zeros([2, 16], tf.int32),
}


def pooled(encoder, seed=None, training=True):
    if seed is None:
        return encoder(INPUTS, training=training)["pooled_output"].numpy()
    with dropout.seeded(seed):
        return encoder(INPUTS, training=training)["pooled_output"].numpy()


def test_without_a_seed_every_call_draws_anew(encoder):
    assert np.any(pooled(encoder) != pooled(encoder))
    traced = tf.function(lambda: encoder(INPUTS, training=True)["default"])
    assert np.any(traced().numpy() != traced().numpy())
    plain = pooled(encoder, training=False)
    np.testing.assert_array_equal(plain, pooled(encoder, training=False))


def test_a_seed_decides_everything_and_each_part_of_it_counts(encoder):
    def drawn(*arguments, **more):
        return pooled(encoder, dropout.step_seed(*arguments, **more))

    first = drawn(7, 3)
    np.testing.assert_array_equal(first, drawn(7, tf.constant(3)))
    others = [drawn(8, 3), drawn(7, 4), drawn(7, 3, part=1, parts=2)]
    for other in [*others, pooled(encoder, training=False)]:
        assert np.any(first != other)
    # Outside of the block nothing is left of it.
    assert np.any(pooled(encoder) != pooled(encoder))


def test_no_part_of_any_step_has_the_seed_of_another():
    seeds = {
        tuple(dropout.step_seed(7, step, part=part, parts=3).numpy())
        for step in range(20)
        for part in range(3)
    }
    assert len(seeds) == 60
    assert dropout.step_seed(2**40 + 5, 2**33 - 2**33).numpy()[0] == 5


def test_a_shared_layer_draws_anew_each_time_it_is_applied():
    layer = dropout.Dropout(0.5)
    with dropout.seeded(dropout.step_seed(7, 0)):
        first, second = (
            layer(tf.ones([500]), training=True).numpy() for _ in range(2)
        )
    assert 0.3 < np.mean(first == second) < 0.7


def test_outside_of_the_block_no_seed_decides():
    layer, x = dropout.Dropout(0.5), tf.ones([500])
    seed = dropout.step_seed(7, 0)
    with dropout.seeded(seed):
        _, second = (layer(x, training=True).numpy() for _ in range(2))
    with dropout.seeded(seed):
        layer(x, training=True)
    assert np.any(layer(x, training=True).numpy() != second)


def test_layers_without_dropout_do_not_count():
    """So that a head draws the same under any encoder without dropout."""
    layer, none = dropout.Dropout(0.5), dropout.Dropout(0.0)
    found = []
    for before in ([], [none, none]):
        with dropout.seeded(dropout.step_seed(7, 0)):
            for other in before:
                np.testing.assert_array_equal(other([1.0], training=True), 1.0)
            found.append(layer(tf.ones([50]), training=True).numpy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("fuses", [False, True])
def test_a_graph_draws_as_an_eager_call_does(encoder, fuses):
    @tf.function
    def traced(step):
        with (
            fusion.single_passes(fuses),
            dropout.seeded(dropout.step_seed(7, step)),
        ):
            return encoder(INPUTS, training=True)["pooled_output"]

    for step in (3, 4):
        expected = pooled(encoder, dropout.step_seed(7, step))
        np.testing.assert_allclose(
            traced(tf.constant(step)), expected, atol=1e-5
        )


def test_a_compiled_program_repeats_its_draws(tiny_config):
    layer = dropout.Dropout(RATE)

    @tf.function(jit_compile=True)
    def compiled(step):
        with dropout.seeded(dropout.step_seed(7, step)):
            return layer(tf.ones([4000]), training=True)

    first, second = (compiled(tf.constant(step)).numpy() for step in (3, 4))
    assert zeros(first) == pytest.approx(RATE, abs=0.03)
    np.testing.assert_array_equal(first, compiled(tf.constant(3)))
    assert 0.5 < np.mean(first == second) < 0.8


def gradients_by_step(tiny_config, *, parts=1, **rates):
    """Returns a function from a step's number to all gradients, flat."""
    keras.utils.set_random_seed(0)
    model = AlbertPretrainer(tiny_config.replace(num_hidden_layers=1, **rates))
    pretrain_step = PretrainStep(
        model, optimizer=None, accumulation_steps=parts, seed=7
    )
    rows = 2 * parts
    batch = {
        **{name: tf.tile(x[:1], [rows, 1]) for name, x in INPUTS.items()},
        "masked_lm_positions": tf.constant([[1, 2]] * rows),
        "masked_lm_ids": tf.constant([[5, 6]] * rows),
        "masked_lm_weights": tf.ones([rows, 2]),
        "sentence_order_labels": tf.constant([[1]] * rows),
        "sentence_order_weights": tf.ones([rows, 1]),
    }

    @tf.function
    def flat(step):
        weights = losses.batch_weights(batch)
        gradients, _ = pretrain_step.gradients(batch, weights, step)
        return tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    return lambda step: flat(tf.constant(step)).numpy()


@pytest.mark.parametrize("name", ["hidden", "attention_probs"])
def test_a_pretraining_step_draws_from_its_number(tiny_config, name):
    flat = gradients_by_step(tiny_config, **{f"{name}_dropout_prob": 0.2})
    first, again, second = flat(0), flat(0), flat(1)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 1e-4


def test_parts_of_a_batch_draw_apart(tiny_config):
    """Two equal halves: drawn alike, their mean would be the half's own."""
    half, both = (
        gradients_by_step(tiny_config, parts=parts, hidden_dropout_prob=0.2)(0)
        for parts in (1, 2)
    )
    assert np.abs(half - both).max() > 1e-3


TWO_REPLICAS = """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2)
from albert_tf2.model import dropout
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
seeds = strategy.run(lambda: dropout.step_seed(7, tf.constant(3)))
print([seed.numpy().tolist() for seed in seeds.values])
"""


def test_replicas_draw_apart():
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[[7, 6], [7, 7]]", done.stderr[-2000:]
