"""Fused passes against TensorFlow's own operations, values and gradients."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2.model import fusion, layers, losses
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.pretraining.step import PretrainStep


def value_and_gradients(function, *inputs, upstream):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    return [value, *tape.gradient(value, inputs, output_gradients=upstream)]


def assert_same(fused, plain, *inputs, tolerance=2e-6):
    """Compares eagerly and in a graph: the two can differ."""
    upstream = tf.random.stateless_normal(plain(*inputs).shape, [1, 2])
    upstream = tf.cast(upstream, plain(*inputs).dtype)
    expected = value_and_gradients(plain, *inputs, upstream=upstream)
    graph = tf.function(value_and_gradients)
    for run in (value_and_gradients, graph):
        found = run(fused, *inputs, upstream=upstream)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            a, b = (tf.cast(t, tf.float32).numpy() for t in (a, b))
            np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def normal(*shape, scale=1.0, seed=0):
    return scale * tf.random.stateless_normal(shape, [seed, 0])


def test_add_bias():
    # A lambda: a decorated function does not survive as an argument.
    assert_same(
        lambda x, bias: fusion.add_bias(x, bias),
        lambda x, bias: x + bias,
        normal(64, 48),
        normal(48, seed=1),
        tolerance=1e-5,
    )


@pytest.mark.parametrize(
    ("onednn", "dtype", "together"),
    [
        (True, "float32", 0),
        (False, "float32", 1),
        # BiasAdd's gradient would be summed in eight bits.
        (False, "mixed_bfloat16", 0),
    ],
)
def test_a_product_takes_its_bias_along_where_onednn_does_not_compute(
    tiny_config, monkeypatch, onednn, dtype, together
):
    monkeypatch.setattr(fusion, "_has_onednn", lambda: onednn)
    dense = layers.Dense(32, dtype=dtype)
    dense.build([None, 48])

    @tf.function(autograph=False)
    def step(x):
        with fusion.single_passes():
            return dense(x)

    graph = step.get_concrete_function(tf.ones([64, 48])).graph
    types = [operation.type for operation in graph.get_operations()]
    assert types.count("BiasAdd") == together


def test_gelu():
    assert_same(
        lambda x, bias: fusion.gelu(x, bias),
        lambda x, bias: tf.nn.gelu(x + bias, approximate=True),
        normal(64, 48, scale=3.0),
        normal(48, seed=1),
        tolerance=2e-5,  # 1 + tanh cancels far below 0
    )


@pytest.mark.parametrize("act", ["gelu", "gelu_erf", "relu"])
def test_an_activation_keeps_its_form_where_steps_are_fused(tiny_config, act):
    dense = layers.dense(tiny_config, "dense", 48, 32)
    dense.kernel.assign(normal(48, 32))
    dense.bias.assign(normal(32, seed=1))
    x = normal(64, 48, seed=2)
    with fusion.single_passes():
        found = layers.activated(dense, x, act)
    expected = layers.activation(act)(dense(x))
    # The two forms of GELU differ by up to 5e-4.
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_a_bias_gets_the_sum_of_a_long_columns_gradients():
    """Added in float16 it would overflow."""
    upstream = tf.repeat(tf.constant([30.0, -30.0], tf.float16), 3000)[:, None]
    x, bias = tf.zeros([6000, 1], tf.float16), tf.zeros([1], tf.float16)
    _, _, found = value_and_gradients(
        fusion.add_bias, x, bias, upstream=upstream
    )
    assert found.dtype == tf.float16
    np.testing.assert_array_equal(found, [0.0])


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_a_biased_sum_may_be_wider_than_the_product(dtype):
    x = tf.cast(normal(64, 48), dtype)
    bias = tf.cast(normal(48, seed=1), dtype)
    found = fusion.add_bias(x, bias, tf.float32)
    assert found.dtype == tf.float32
    x, bias = (tf.cast(t, tf.float32) for t in (x, bias))
    np.testing.assert_array_equal(found, x + bias)


def test_dropout_is_no_less_where_steps_are_fused(tiny_config):
    """A block that drops is not one pass."""
    config = tiny_config.replace(hidden_dropout_prob=0.5, ln_type="postln")
    block = layers.FeedForwardBlock(config)
    block.output_dense.bias.assign(tf.ones_like(block.output_dense.bias))
    hidden = normal(8, config.hidden_size)
    with fusion.single_passes():
        whole, dropped = (block(hidden, training=t) for t in (False, True))
    assert np.abs(whole - dropped).max() > 0.1


@pytest.mark.parametrize("epsilon", [layers.LAYER_NORM_EPSILON, 0.5])
def test_layer_norm(epsilon):
    def plain(x, gamma, beta):
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        scale = tf.math.rsqrt(variance + epsilon)
        return (x - mean) * scale * gamma + beta

    assert_same(
        lambda *values: fusion.layer_norm(*values, epsilon=epsilon),
        plain,
        normal(64, 48, scale=3.0),
        normal(48, seed=1),
        normal(48, seed=2),
        tolerance=5e-6,
    )


def test_layer_norm_of_a_sum():
    def plain(x, gamma, beta, residual, bias):
        x = x + residual + bias
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + 1e-12) * gamma + beta

    assert_same(
        lambda x, gamma, beta, residual, bias: fusion.layer_norm(
            x, gamma, beta, epsilon=1e-12, residual=residual, bias=bias
        ),
        plain,
        normal(64, 48, scale=3.0),
        normal(48, seed=1),
        normal(48, seed=2),
        normal(64, 48, seed=3),
        normal(48, seed=4),
        tolerance=1e-5,
    )


def test_softmax():
    bias = tf.where(normal(4, 1, 1, 10, seed=3) > 1.0, -10000.0, 0.0)
    assert_same(
        lambda scores: fusion.softmax(scores, bias),
        lambda scores: tf.nn.softmax(scores + bias),
        normal(4, 2, 6, 10, scale=4.0),
    )


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_sparse_nll(scale):
    """Also where the label's own probability is 0 in float32."""
    logits = normal(64, 300, scale=scale)
    labels = tf.random.stateless_uniform([64], [5, 5], 0, 300, tf.int32)
    _, guess = fusion.sparse_nll(labels, logits)
    assert guess.dtype == labels.dtype
    np.testing.assert_array_equal(guess, tf.argmax(logits, -1))
    assert_same(
        lambda x: fusion.sparse_nll(labels, x)[0],
        lambda x: tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x),
        logits,
        tolerance=5e-6,
    )


def test_bfloat16_computes_in_float32():
    """Rounded once at the end: within half a step of bfloat16's 8 bits."""
    x = tf.cast(normal(64, 48, scale=3.0), tf.bfloat16)
    bias = tf.cast(normal(48, seed=2), tf.bfloat16)
    wide = tf.cast(x, tf.float32) + tf.cast(bias, tf.float32)
    wide = tf.nn.gelu(wide, approximate=True)
    found = fusion.gelu(x, bias)
    assert found.dtype == tf.bfloat16
    np.testing.assert_allclose(
        tf.cast(found, tf.float32), wide, rtol=2**-8, atol=1e-5
    )
    bias = normal(1, 48, seed=1)
    probs = fusion.softmax(x, bias)
    assert probs.dtype == tf.bfloat16
    np.testing.assert_allclose(
        tf.cast(probs, tf.float32),
        tf.nn.softmax(tf.cast(x, tf.float32) + bias),
        rtol=2**-8,
    )


def pretraining_batch(config, *, batch=3, length=12, pairs=1, seed=0):
    rng = np.random.default_rng(seed)
    values = {
        "input_word_ids": rng.integers(5, config.vocab_size, [batch, length]),
        "input_mask": np.arange(length) < rng.integers(6, length, [batch, 1]),
        "input_type_ids": rng.integers(0, 2, [batch, length]),
        "masked_lm_positions": rng.integers(1, 6, [batch, 4]),
        "masked_lm_ids": rng.integers(5, config.vocab_size, [batch, 4]),
        "sentence_order_labels": rng.integers(0, 2, [batch, pairs]),
    }
    values = {k: tf.constant(v, tf.int32) for k, v in values.items()}
    values["masked_lm_weights"] = tf.constant([[1.0, 1, 1, 0]] * batch)
    values["sentence_order_weights"] = tf.ones([batch, pairs])
    if pairs > 1:
        half = length // 2
        values["input_pair_ids"] = tf.constant(
            [[1] * half + [2] * half] * batch
        )
        values["input_position_ids"] = tf.constant(
            [[*range(half), *range(half)]] * batch
        )
        values["cls_positions"] = tf.constant([[0, half]] * batch)
    return values


CHANGES = [
    {"layout": "google"},
    {"layout": "brightmart", "ln_type": "postln"},
    {"layout": "brightmart", "ln_type": "preln"},
]


def scattered(config):
    model = AlbertPretrainer(config)
    rng = np.random.default_rng(3)
    for variable in model.variables:
        variable.assign(rng.normal(0, 0.1, variable.shape))
    return model


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize(
    "changes", [*CHANGES, {"layout": "google", "inner_group_num": 2}], ids=str
)
def test_logits_are_those_of_a_whole_call(tiny_config, changes, pairs):
    """The last layer at some positions: less work, the same numbers."""
    model = scattered(tiny_config.replace(**changes))
    batch = pretraining_batch(model.config, pairs=pairs)
    whole, some = model(batch), model.logits(batch)
    assert set(some) == {"mlm_logits", "sop_logits"}
    for name, value in some.items():
        np.testing.assert_allclose(
            value, whole[name], atol=2e-5, rtol=2e-5, err_msg=name
        )


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_step_has_the_gradients_of_the_plain_model(tiny_config, changes, pairs):
    model = scattered(tiny_config.replace(**changes))
    batch = pretraining_batch(model.config, pairs=pairs)
    step = PretrainStep(model, optimizer=None)
    assert step.fuses
    found, _ = step.gradients(batch, losses.batch_weights(batch))
    with tf.GradientTape() as tape:
        outputs = model(batch, training=True)
        loss = losses.means(losses.pretraining_sums(outputs, batch))["loss"]
    expected = tape.gradient(loss, model.trainable_variables)
    for a, b, variable in zip(
        found, expected, model.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(
            a, tf.convert_to_tensor(b), atol=2e-5, err_msg=variable.name
        )


def test_only_a_training_step_fuses(tiny_config):
    """An exported graph holds no function that must be compiled."""
    model = AlbertPretrainer(tiny_config)
    batch = pretraining_batch(model.config)
    traced = tf.function(lambda: model(batch, training=True)["mlm_logits"])
    definition = traced.get_concrete_function().graph.as_graph_def()
    assert "_XlaMustCompile" not in str(definition)
    with fusion.single_passes():
        traced = tf.function(lambda: model(batch, training=True)["mlm_logits"])
        definition = traced.get_concrete_function().graph.as_graph_def()
    assert "_XlaMustCompile" in str(definition)
    assert not fusion.are_enabled()


def optimized_ops(function, *inputs):
    """Returns the operations of a graph as TensorFlow runs it."""
    from tensorflow.python.eager import context

    running = context.context()
    running.enable_graph_collection()
    function(*inputs)
    found = running.export_run_metadata()
    running.disable_graph_collection()
    return [
        " ".join([node.op, *map(bytes.decode, node.attr["fused_ops"].list.s)])
        for graphs in found.function_graphs
        for node in graphs.post_optimization_graph.node
    ]


def predicting(model, known):
    """Returns a step for any sizes, traced with known chains or without."""
    sizes = tf.TensorSpec([None, None], tf.int32)
    names = ("input_word_ids", "input_mask", "input_type_ids")

    @tf.function(input_signature=[dict.fromkeys(names, sizes)], autograph=False)
    def step(inputs):
        with fusion.known_chains(known):
            return model(inputs, training=False)["sequence_output"]

    return step


@pytest.mark.parametrize("act", ["gelu", "gelu_erf", "relu"])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_known_chains_give_the_same_numbers(
    tiny_config, changes, act, monkeypatch
):
    monkeypatch.setattr(fusion, "_has_avx512", lambda: True)
    monkeypatch.setattr(fusion, "_has_onednn", lambda: True)
    model = scattered(tiny_config.replace(hidden_act=act, **changes)).encoder
    batch = pretraining_batch(model.config)
    batch = {n: batch[n] for n in list(batch)[:3]}
    known, plain = (predicting(model, known) for known in (True, False))
    np.testing.assert_allclose(known(batch), plain(batch), atol=1e-5, rtol=1e-5)
    written = known.get_concrete_function().graph.as_graph_def()
    assert "FusedBatchNormV3" in str(written)
    # What is exported is traced without.
    written = plain.get_concrete_function().graph.as_graph_def()
    assert "FusedBatchNormV3" not in str(written)


@pytest.mark.skipif(
    not fusion._has_onednn(), reason="TensorFlow is without oneDNN here"
)
def test_products_of_a_fused_step_are_left_alone(tiny_config):
    """None is made one with its bias: that kernel knows no AMX."""
    model = scattered(tiny_config.replace(layout="google"))
    batch = pretraining_batch(model.config)
    step = PretrainStep(model, optimizer=None)
    weights = losses.batch_weights(batch)
    ops = optimized_ops(step._compute, batch, weights, tf.constant(0))
    assert "_MklMatMul" in ops or "MatMul" in ops
    # The two columns of the sentences' order alone.
    assert sum("BiasAdd" in op for op in ops) <= 1


@pytest.mark.skipif(
    not fusion._has_onednn(), reason="TensorFlow is without oneDNN here"
)
def test_known_chains_become_one_kernel_each(tiny_config, monkeypatch):
    """The optimizer knows them: none is left as it was written."""
    monkeypatch.setattr(fusion, "_has_avx512", lambda: True)
    config = tiny_config.replace(layout="google")
    model = AlbertPretrainer(config).encoder
    batch = pretraining_batch(config)
    batch = {n: batch[n] for n in list(batch)[:3]}
    layers_ = config.num_hidden_layers
    ops = optimized_ops(predicting(model, True), batch)
    assert ops.count("_MklLayerNorm") == 1 + 2 * layers_
    fused = "_FusedMatMul BiasAdd GeluApproximate"
    assert ops.count(fused) == layers_
    assert not {"FusedBatchNormV3", "SquaredDifference", "Tanh"} & set(ops)


def test_without_onednn_nothing_is_written_for_it(tiny_config, monkeypatch):
    """Unfused, the normalization took eight times as long."""
    monkeypatch.setattr(fusion, "_has_onednn", lambda: False)
    model = AlbertPretrainer(tiny_config).encoder
    batch = pretraining_batch(tiny_config)
    step = predicting(model, True)
    step({n: batch[n] for n in list(batch)[:3]})
    written = step.get_concrete_function().graph.as_graph_def()
    assert "FusedBatchNormV3" not in str(written)


@pytest.mark.parametrize("setting", ["0", "1"])
def test_onednn_is_asked_of_tensorflow_itself(setting):
    code = "from albert_tf2.model import fusion; print(fusion._has_onednn())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": setting},
        capture_output=True,
        text=True,
        check=True,
    )
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    assert done.stdout.strip() == str(setting == "1" and on_x86)


def test_without_avx512_gelu_stays_tensorflows(tiny_config, monkeypatch):
    """There oneDNN's takes longer."""
    monkeypatch.setattr(fusion, "_has_avx512", lambda: False)
    monkeypatch.setattr(fusion, "_has_onednn", lambda: True)
    block = layers.FeedForwardBlock(tiny_config)
    with fusion.known_chains():
        assert (
            fusion.known_dense_gelu(
                normal(2, tiny_config.hidden_size),
                block.intermediate_dense.kernel,
                block.intermediate_dense.bias,
                approximate=True,
            )
            is None
        )
