"""The loss against a NumPy loop, and its sums against the whole batch."""

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2.model import losses


def random_batch(rng, batch):
    outputs = {
        "mlm_logits": rng.normal(size=[batch, 3, 11]).astype(np.float32),
        "sop_logits": rng.normal(size=[batch, 2, 2]).astype(np.float32),
    }
    labels = {
        "masked_lm_ids": rng.integers(0, 11, [batch, 3], dtype=np.int32),
        "masked_lm_weights": np.float32(rng.integers(0, 2, [batch, 3])),
        "sentence_order_labels": rng.integers(0, 2, [batch, 2], dtype=np.int32),
        "sentence_order_weights": np.float32(rng.integers(0, 2, [batch, 2])),
    }
    return outputs, labels


def batch_means(outputs, labels):
    return losses.means(losses.pretraining_sums(outputs, labels))


def loop(logits, labels, weights):
    nll = hits = total = 0.0
    for index in np.ndindex(labels.shape):
        row = logits[index].astype(np.float64)
        log_prob = row - np.log(np.exp(row).sum())
        nll -= weights[index] * log_prob[labels[index]]
        hits += weights[index] * (row.argmax() == labels[index])
        total += weights[index]
    return nll, hits, total


def test_losses_equal_a_loop():
    outputs, labels = random_batch(np.random.default_rng(0), 5)
    result = batch_means(outputs, labels)
    nll, hits, total = loop(
        outputs["mlm_logits"],
        labels["masked_lm_ids"],
        labels["masked_lm_weights"],
    )
    assert result["mlm_loss"].numpy() == pytest.approx(nll / total, rel=1e-5)
    assert result["mlm_accuracy"].numpy() == pytest.approx(
        hits / total, rel=1e-5
    )
    nll, hits, total = loop(
        outputs["sop_logits"],
        labels["sentence_order_labels"],
        labels["sentence_order_weights"],
    )
    assert result["sop_loss"].numpy() == pytest.approx(nll / total, rel=1e-5)
    assert result["sop_accuracy"].numpy() == pytest.approx(
        hits / total, rel=1e-5
    )
    assert result["loss"].numpy() == pytest.approx(
        (result["mlm_loss"] + result["sop_loss"]).numpy()
    )


def test_sums_of_parts_make_the_whole():
    outputs, labels = random_batch(np.random.default_rng(1), 6)

    def part(values, rows):
        return {name: value[rows] for name, value in values.items()}

    parts = [
        losses.pretraining_sums(part(outputs, rows), part(labels, rows))
        for rows in (slice(0, 1), slice(1, 6))
    ]
    added = tf.nest.map_structure(lambda a, b: a + b, *parts)
    whole = batch_means(outputs, labels)
    for name, value in losses.means(added).items():
        assert value.numpy() == pytest.approx(whole[name].numpy(), rel=1e-5)


def test_batch_without_weights_costs_nothing():
    outputs, labels = random_batch(np.random.default_rng(2), 2)
    labels = {
        name: np.zeros_like(value) if "weights" in name else value
        for name, value in labels.items()
    }
    assert batch_means(outputs, labels)["loss"].numpy() == 0.0


def test_parts_have_their_share_in_the_batchs_loss():
    """What a replica, or an accumulated part, adds to the whole batch's."""
    outputs, labels = random_batch(np.random.default_rng(3), 6)
    weights = losses.batch_weights(labels)
    shares = []
    for rows in (slice(0, 2), slice(2, 6)):
        part = {name: value[rows] for name, value in labels.items()}
        logits = {name: value[rows] for name, value in outputs.items()}
        sums = losses.pretraining_sums(logits, part)
        shares.append(losses.means(sums, weights))
    for name, value in batch_means(outputs, labels).items():
        total = sum(share[name].numpy() for share in shares)
        assert total == pytest.approx(value.numpy(), rel=1e-5), name


@pytest.mark.parametrize("compiled", [False, True])
def test_of_equal_logits_the_first_counts(compiled):
    """Logits that are all alike are right as often as one fixed guess."""
    labels = tf.constant([0, 1, 2, 2])
    logits = tf.constant(
        [[5.0, 5.0, 5.0], [5.0, 5.0, 1.0], [1.0, 5.0, 5.0], [1.0, 2.0, 5.0]]
    )
    batch = {
        "masked_lm_ids": labels[None],
        "masked_lm_weights": tf.ones([1, 4]),
        "sentence_order_labels": tf.constant([[1], [0]]),
        "sentence_order_weights": tf.ones([2, 1]),
    }
    outputs = {"mlm_logits": logits[None], "sop_logits": tf.zeros([2, 2])}
    sums = tf.function(losses.pretraining_sums, jit_compile=compiled)
    result = sums(outputs, batch)
    assert result["mlm_correct"].numpy() == 2.0  # the first and the last
    assert result["sop_correct"].numpy() == 1.0
