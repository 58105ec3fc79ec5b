"""The pre-training loss: masked words plus sentence order.

    mlm_loss = sum(w * nll) / (sum(w) + 1e-5)     over the masked positions
    sop_loss = sum(w * nll) / sum(w)              over the pairs
    loss     = mlm_loss + sop_loss

as in the originals, where each row holds one pair and w is 0 or 1. The sums
are kept apart from the division, because a batch that is spread over replicas,
accumulated in parts or evaluated in many steps has one denominator: its own.
"""

import tensorflow as tf

from albert_tf2 import features
from albert_tf2.model import fusion

# The originals' guard against a batch without masked words.
MLM_EPSILON = 1e-5


def _weighted(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns the sums of w * nll, of w and of w * [argmax is the label]."""
    labels = tf.reshape(labels, [-1])
    weights = tf.reshape(tf.cast(weights, tf.float32), [-1])
    logits = tf.reshape(logits, [-1, logits.shape[-1]])
    if fusion.are_enabled():
        nll, guess = fusion.sparse_nll(labels, logits)
    else:
        nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        guess = tf.argmax(logits, -1, output_type=labels.dtype)
    # Of equal logits the first one counts: else a model whose logits are all
    # alike would be right always. In bfloat16 3 % of the rows are such ties.
    correct = tf.cast(guess == labels, tf.float32)
    return {
        "nll": tf.reduce_sum(weights * nll),
        "weight": tf.reduce_sum(weights),
        "correct": tf.reduce_sum(weights * correct),
    }


def sentence_order_weights(labels: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns the pairs' weights [B, K]; all 1 where a batch names none."""
    if features.SENTENCE_ORDER_WEIGHTS in labels:
        return labels[features.SENTENCE_ORDER_WEIGHTS]
    return tf.ones_like(labels[features.SENTENCE_ORDER_LABELS], tf.float32)


def pretraining_sums(
    outputs: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Returns the six sums of a batch; sums of batches may be added.

    Args:
        outputs: `mlm_logits` [B, P, V] and `sop_logits` [B, 2] or [B, K, 2].
        labels: `masked_lm_ids` and `masked_lm_weights` [B, P],
            `sentence_order_labels` and, where rows hold several pairs,
            `sentence_order_weights` [B, K].

    Returns:
        Scalars `{mlm,sop}_{nll,weight,correct}`.
    """
    mlm = _weighted(
        outputs[features.MLM_LOGITS],
        labels[features.MASKED_LM_IDS],
        labels[features.MASKED_LM_WEIGHTS],
    )
    sop = _weighted(
        outputs[features.SOP_LOGITS],
        labels[features.SENTENCE_ORDER_LABELS],
        sentence_order_weights(labels),
    )
    return {
        f"{head}_{name}": value
        for head, sums in (("mlm", mlm), ("sop", sop))
        for name, value in sums.items()
    }


def batch_weights(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the weights of a batch, `{mlm,sop}_weight`, before its loss."""
    return {
        "mlm_weight": tf.reduce_sum(batch[features.MASKED_LM_WEIGHTS]),
        "sop_weight": tf.reduce_sum(sentence_order_weights(batch)),
    }


def means(
    sums: dict[str, tf.Tensor], weights: dict[str, tf.Tensor] | None = None
) -> dict[str, tf.Tensor]:
    """Turns sums into `loss`, `{mlm,sop}_loss` and `{mlm,sop}_accuracy`.

    Args:
        sums: Of `pretraining_sums`.
        weights: Of `batch_weights`, where `sums` are of a part of a batch
            only: the results then are the part's shares in the batch's.
    """
    weights = weights or sums
    mlm_weight = weights["mlm_weight"] + MLM_EPSILON
    sop_weight = tf.maximum(weights["sop_weight"], 1.0)
    mlm_loss = sums["mlm_nll"] / mlm_weight
    sop_loss = sums["sop_nll"] / sop_weight
    return {
        "loss": mlm_loss + sop_loss,
        "mlm_loss": mlm_loss,
        "sop_loss": sop_loss,
        "mlm_accuracy": sums["mlm_correct"] / mlm_weight,
        "sop_accuracy": sums["sop_correct"] / sop_weight,
    }
