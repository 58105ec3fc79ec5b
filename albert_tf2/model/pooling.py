"""One vector for a whole sequence: the mean over its real tokens."""

import tensorflow as tf


def sum_of_tokens(sequence: tf.Tensor, input_mask: tf.Tensor) -> tf.Tensor:
    """Adds up the vectors of the real tokens, [CLS] and [SEP] among them.

    Args:
        sequence: [B, T, H], an encoder's `sequence_output`.
        input_mask: int32 [B, T], 0 for padding.

    Returns:
        float32 [B, H], in the direction of the mean.
    """
    weights = tf.cast(input_mask, tf.float32)[:, :, tf.newaxis]  # [B, T, 1]
    return tf.reduce_sum(sequence * weights, axis=1)


def mean_of_tokens(sequence: tf.Tensor, input_mask: tf.Tensor) -> tf.Tensor:
    """Returns the mean of what `sum_of_tokens` adds up: float32 [B, H]."""
    count = tf.reduce_sum(tf.cast(input_mask, tf.float32), axis=1)  # [B]
    return sum_of_tokens(sequence, input_mask) / count[:, tf.newaxis]
