"""What a task's model computes, its losses, and the arrays that feed them."""

import types

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2 import features
from albert_tf2.finetuning.feeding import label_arrays, predict_logits
from albert_tf2.finetuning.model import TaskHead, TaskModel, loss_sum
from albert_tf2.finetuning.vectors import VectorModel
from albert_tf2.model import layers
from albert_tf2.model.albert import AlbertEncoder
from albert_tf2.settings import COSENT
from albert_tf2.tasks import base
from albert_tf2.tasks.encoding import Example, Packed


def examples(*labels):
    packed = Packed([2, 3], [0, 0])
    return [Example(i, (packed,), label) for i, label in enumerate(labels)]


def loss(kind, logits, arrays):
    logits = np.array(logits, np.float32)
    return float(loss_sum(kind, logits, arrays["labels"], arrays["weights"]))


def test_several_labels_are_each_a_choice_of_two():
    given = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    arrays = label_arrays(base.MULTI_LABEL, examples(*given), size=3, length=2)
    np.testing.assert_array_equal(arrays["labels"][:2], given)
    # The third row is padding: it weighs nothing.
    np.testing.assert_array_equal(
        arrays["weights"], [[1] * 3, [1] * 3, [0] * 3]
    )
    logits = [[2.0, -1.0, 0.5], [0.0, 3.0, -3.0], [9.0, 9.0, 9.0]]
    share = 1 / (1 + np.exp(-np.array(logits[:2])))
    likelihood = np.where(given, share, 1 - share)
    assert loss(base.MULTI_LABEL, logits, arrays) == pytest.approx(
        -np.log(likelihood).sum(), rel=1e-5
    )


def test_scores_are_learned_by_their_squared_error():
    arrays = label_arrays(
        base.REGRESSION, examples(0.5, -1.0), size=3, length=2
    )
    np.testing.assert_array_equal(arrays["labels"], [0.5, -1.0, 0.0])
    np.testing.assert_array_equal(arrays["weights"], [1, 1, 0])
    logits = [[2.5], [-1.5], [7.0]]
    assert loss(base.REGRESSION, logits, arrays) == pytest.approx(4.25)


def test_a_row_weighs_what_its_class_does():
    arrays = label_arrays(
        base.CLASSIFICATION,
        examples(1, 0),
        size=3,
        length=8,
        class_weights=np.array([0.5, 2.0]),
    )
    assert arrays["weights"].tolist() == [2.0, 0.5, 0.0]


def test_logits_come_back_in_the_order_given_and_without_padding():
    rows = [
        Example(i, (Packed([i + 5] * n, [0] * n),))
        for i, n in enumerate((3, 5, 9))
    ]
    found = predict_logits(
        lambda inputs: inputs["input_word_ids"],
        rows,
        task=types.SimpleNamespace(kind=base.TAGGING, choices=1),
        batch_size=2,
    )
    assert [row.tolist() for row in found] == [[5] * 3, [6] * 5, [7] * 9]


@pytest.mark.parametrize(
    ("kind", "rows_of_the_last"),
    [
        (base.CLASSIFICATION, 6),
        (base.CHOICE, 6),
        ("cls", 6),
        (base.TAGGING, 30),
        (base.SPAN, 30),
        ("mean", 30),
    ],
)
def test_the_last_layer_computes_what_is_read_of_it(
    tiny_config, monkeypatch, kind, rows_of_the_last
):
    """Six texts of five tokens; [CLS] alone needs the last layer of one."""
    encoder = AlbertEncoder(tiny_config)
    if kind in ("cls", "mean"):
        model = VectorModel(encoder, kind, COSENT)
    else:
        model = TaskModel(encoder, TaskHead(1, tiny_config.hidden_size), kind)
    shape = [3, 2, 5] if kind in (base.CHOICE, "cls", "mean") else [6, 5]
    inputs = dict.fromkeys(features.ENCODER_INPUTS, tf.ones(shape, tf.int32))
    rows, feed_forward = [], layers.FeedForwardBlock.call

    def seen(block, hidden, training=None):
        rows.append(hidden.shape[0])
        return feed_forward(block, hidden, training=training)

    monkeypatch.setattr(layers.FeedForwardBlock, "call", seen)
    for training in (True, False):
        rows.clear()
        model(inputs, training=training)
        assert rows == [30, 30, rows_of_the_last]
