"""One vector for a whole sequence: of its tokens, of [CLS], or the pooler's."""

from collections.abc import Mapping

import tensorflow as tf

from albert_tf2 import features
from albert_tf2.keras_api import keras
from albert_tf2.model.albert import AlbertEncoder


def encode(
    encoder: keras.layers.Layer,
    inputs: dict[str, tf.Tensor],
    pooling: str,
    training: bool | None = None,
) -> Mapping[str, tf.Tensor]:
    """Returns an encoder's outputs as far as a pooling reads them.

    Args:
        encoder: An `AlbertEncoder`, or a `hub.KerasLayer` of one.
        inputs: Its inputs, int32 [B, T].
        pooling: One of `settings.POOLINGS`.
        training: As for the encoder.

    Returns:
        `pooled_output` [B, H], and `sequence_output` [B, T, H], of which the
        first token alone may be there: [B, 1, H].
    """
    if pooling == "mean" or not isinstance(encoder, AlbertEncoder):
        return encoder(inputs, training=training)
    return encoder.of_first_tokens(inputs, training=training)


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


def pooled(
    outputs: Mapping[str, tf.Tensor], input_mask: tf.Tensor, pooling: str
) -> tf.Tensor:
    """Returns what stands for each text: [B, H].

    Args:
        outputs: An encoder's.
        input_mask: int32 [B, T], 0 for padding.
        pooling: One of `settings.POOLINGS`.
    """
    if pooling == "pooled":
        return outputs[features.POOLED_OUTPUT]
    sequence = outputs[features.SEQUENCE_OUTPUT]  # [B, T, H]
    if pooling == "cls":
        return sequence[:, 0]
    return mean_of_tokens(sequence, input_mask)


def sentence_vector(
    outputs: Mapping[str, tf.Tensor], input_mask: tf.Tensor, pooling: str
) -> tf.Tensor:
    """Returns the vector of a model that was tuned for vectors.

    It has length 1; a row without any token is 0, and so is its gradient.

    Args:
        outputs: An encoder's.
        input_mask: int32 [B, T], 0 for padding.
        pooling: One of `settings.POOLINGS`.

    Returns:
        float32 [B, H].
    """
    if pooling == "mean":
        # The mean's divisor would cancel, and be 0 for a row of padding.
        sequence = tf.cast(outputs[features.SEQUENCE_OUTPUT], tf.float32)
        vectors = sum_of_tokens(sequence, input_mask)
    else:
        vectors = tf.cast(pooled(outputs, input_mask, pooling), tf.float32)
    return tf.math.l2_normalize(vectors, axis=-1)
