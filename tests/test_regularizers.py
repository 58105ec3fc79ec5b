"""R-Drop and distillation against NumPy loops."""

import numpy as np
import pytest
import task_samples as samples
import tensorflow as tf

from albert_tf2 import features
from albert_tf2.finetuning import feeding, regularizers, step
from albert_tf2.finetuning.model import ABSENT, TaskHead, TaskModel, loss_sum
from albert_tf2.keras_api import keras
from albert_tf2.model.albert import AlbertEncoder
from albert_tf2.tasks import base, registry

rng = np.random.default_rng(0)


def distributions(kind, logits):
    """Yields (place of its weight, probabilities) of each answer."""
    for b, row in enumerate(np.asarray(logits, np.float64)):
        if kind in (base.CLASSIFICATION, base.CHOICE):
            yield (b,), base.softmax(row)
        elif kind == base.TAGGING:
            for t, token in enumerate(row):
                yield (b, t), base.softmax(token)
        elif kind == base.SPAN:
            for end in (0, 1):
                yield (b, end), base.softmax(row[:, end])
        elif kind == base.MULTI_LABEL:
            for n, logit in enumerate(row):
                yes = 1 / (1 + np.exp(-logit))
                yield (b, n), np.array([yes, 1 - yes])


def kl(p, q):
    return sum(x * np.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)


SHAPES = {  # of logits, of weights
    base.CLASSIFICATION: ([3, 4], [3]),
    base.CHOICE: ([3, 4], [3]),
    base.TAGGING: ([3, 5, 4], [3, 5]),
    base.SPAN: ([3, 5, 2], [3, 2]),
    base.MULTI_LABEL: ([3, 4], [3, 4]),
}


def problem(kind):
    of_logits, of_weights = SHAPES[kind]
    first, second = rng.normal(0, 2, [2, *of_logits]).astype(np.float32)
    if kind == base.CHOICE:  # a row of three choices
        first[1, 3] = second[1, 3] = ABSENT
    weights = rng.uniform(0.5, 2, of_weights).astype(np.float32)
    weights[2] = 0  # padding
    return first, second, weights


@pytest.mark.parametrize("kind", SHAPES)
def test_r_drop_is_the_symmetric_divergence(kind):
    first, second, weights = problem(kind)
    expected = sum(
        weights[place] * (kl(p, q) + kl(q, p)) / 2
        for (place, p), (_, q) in zip(
            distributions(kind, first),
            distributions(kind, second),
            strict=True,
        )
    )
    found = regularizers.r_drop(kind, first, second, weights)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("kind", SHAPES)
def test_distillation_is_the_divergence_from_the_teacher(kind, temperature):
    student, teacher, weights = problem(kind)
    expected = temperature**2 * sum(
        weights[place] * kl(p, q)
        for (place, p), (_, q) in zip(
            distributions(kind, teacher / temperature),
            distributions(kind, student / temperature),
            strict=True,
        )
    )
    found = regularizers.distillation(
        kind, student, teacher, weights, temperature=temperature
    )
    assert float(found) == pytest.approx(expected, rel=1e-5)
    same = regularizers.distillation(
        kind, student, student, weights, temperature=temperature
    )
    assert float(same) == pytest.approx(0, abs=1e-5)


def test_a_scores_divergence_is_its_squared_difference():
    first, second = (
        np.float32([[1.0], [2.0], [9.0]]),
        np.float32([[3], [1], [0]]),
    )
    weights = np.float32([1, 2, 0])
    kind = base.REGRESSION
    assert float(regularizers.r_drop(kind, first, second, weights)) == 6
    found = regularizers.distillation(
        kind, first, second, weights, temperature=5.0
    )
    assert float(found) == 6


# --- in the step


class Watched(TaskModel):
    seen = []  # the logits of each call

    def call(self, inputs, training=None):
        logits = super().call(inputs, training=training)
        Watched.seen.append(logits)
        return logits


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A model that a step may train, and a batch."""
    vocab_file = samples.write_vocab(tmp_path_factory.mktemp("vocab"))
    keras.utils.set_random_seed(0)
    config = samples.small_config(vocab_file)
    head = TaskHead(3, config.hidden_size, dropout=0.5, seed=1, name="head")
    model = Watched(AlbertEncoder(config), head, base.CLASSIFICATION)
    ids = rng.integers(5, config.vocab_size, [4, 6]).astype(np.int32)
    mask = np.ones([4, 6], np.int32)
    mask[1, 4:] = mask[3] = 0
    batch = {
        features.INPUT_WORD_IDS: ids,
        features.INPUT_MASK: mask,
        features.INPUT_TYPE_IDS: np.zeros_like(ids),
        "labels": np.int32([0, 2, 1, -1]),
        "weights": np.float32([1, 0.5, 2, 0]),
        "total_weight": np.float32(3.5),
    }
    return model, {name: tf.constant(value) for name, value in batch.items()}


def stepped(model, **settings):
    return step.FinetuneStep(
        model, keras.optimizers.legacy.SGD(1.0), seed=3, **settings
    )


def passes(model, batch, count, **settings):
    """Returns the logits of each pass of a step, its loss and gradients."""
    model.seen.clear()
    gradients, loss = stepped(model, **settings).gradients(batch, 5)
    assert len(model.seen) == count
    return [logits.numpy() for logits in model.seen], float(loss), gradients


def test_r_drop_takes_two_passes_with_other_dropout(setting):
    model, batch = setting
    (a, b), loss, _ = passes(model, batch, 2, r_drop=0.7)
    assert np.abs(a - b).max() > 0.01
    kind, weights = model.kind, batch["weights"]
    expected = (
        float(loss_sum(kind, a, batch["labels"], weights))
        + float(loss_sum(kind, b, batch["labels"], weights))
    ) / 2 + 0.7 * float(regularizers.r_drop(kind, a, b, weights))
    assert loss == pytest.approx(expected / 3.5, rel=1e-5)


def test_a_teacher_has_its_share_of_the_loss(setting):
    model, batch = setting
    teacher = rng.normal(size=[4, 3]).astype(np.float32)
    batch = batch | {"teacher_logits": tf.constant(teacher)}
    (logits,), loss, _ = passes(
        model,
        batch,
        1,
        distillation_weight=0.25,
        distillation_temperature=3.0,
    )
    kind, weights = model.kind, batch["weights"]
    expected = 0.75 * float(
        loss_sum(kind, logits, batch["labels"], weights)
    ) + 0.25 * float(
        regularizers.distillation(
            kind, logits, teacher, weights, temperature=3.0
        )
    )
    assert loss == pytest.approx(expected / 3.5, rel=1e-5)


def test_parts_of_a_batch_have_its_gradients(setting):
    """Without dropout the same, however the batch is cut."""
    model, batch = setting
    model.head.dropout.rate = 0.0
    try:
        whole, loss = stepped(model).gradients(batch)
        cut = tf.function(stepped(model, accumulation_steps=2).gradients)
        parts, loss_of_parts = cut(batch)
        assert float(loss) == pytest.approx(float(loss_of_parts), rel=1e-5)
        for a, b in zip(whole, parts, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)
    finally:
        model.head.dropout.rate = 0.5


def test_each_part_draws_its_own_dropout(setting):
    """Two equal halves: with the same draws their gradients were equal."""
    model, batch = setting
    batch = {
        name: value if value.shape.rank == 0 else tf.concat([value[:2]] * 2, 0)
        for name, value in batch.items()
    }
    seeds = []
    a_step = stepped(model, accumulation_steps=2)
    part = a_step._part
    a_step._part = lambda b, seed: (seeds.append(seed.numpy()), part(b, seed))[
        1
    ]
    a_step.gradients(batch, 4)
    assert not np.array_equal(*seeds)


def test_a_teachers_logits_as_a_batch():
    """Missing choices and places of a text have no share."""

    def array(name, logits, **sizes):
        return feeding.logit_array(registry.create(name), logits, **sizes)

    found = array("c3", [np.ones(4), np.ones(2)], size=3, length=9)
    np.testing.assert_array_equal(
        found, [[1] * 4, [1, 1, ABSENT, ABSENT], [0] * 4]
    )
    found = array("cmrc2018", [np.ones([2, 2])], size=2, length=3)
    np.testing.assert_array_equal(found[0], [[1, 1], [1, 1], [ABSENT] * 2])
    assert not found[1].any()
    found = array("lcqmc", [np.array([1, 2])], size=2, length=3)
    np.testing.assert_array_equal(found, [[1, 2], [0, 0]])
    assert array("cluener", [np.ones([2, 21])], size=1, length=3).shape == (
        *(1, 3, 21),
    )
