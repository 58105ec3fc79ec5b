"""Sentence vectors as a model: an encoder without a head, and its losses.

A pair is read as two texts, each by itself; SimCSE's pair is a text beside
itself, whose two rows draw other dropout. Both losses compare every row of a
batch with every other one.
"""

import tensorflow as tf

from albert_tf2 import features
from albert_tf2.finetuning.model import TaskModel
from albert_tf2.keras_api import keras
from albert_tf2.model import layers, pooling
from albert_tf2.settings import SIMCSE
from albert_tf2.tasks import base
from albert_tf2.tasks.sentence_vectors import SCALE

# Below any cosine, scaled: what must not count.
ABSENT = -1e9


class VectorModel(TaskModel):
    """An encoder that gives vectors of length 1.

    Call inputs: the encoder's dict, int32 [B, T], or [B, 2, T] for pairs.
    Call output: float32 [B, H], or [B, 2, H]; 0 for a row of padding.
    """

    def __init__(
        self, encoder: keras.layers.Layer, pooling: str, loss: str, **kwargs
    ):
        """Takes the encoder.

        Args:
            encoder: An `AlbertEncoder`, or a `hub.KerasLayer` of one.
            pooling: One of `settings.POOLINGS`.
            loss: One of `settings.VECTOR_LOSSES`.
            **kwargs: For the Keras base class.
        """
        super().__init__(encoder, None, base.VECTORS, **kwargs)
        self.pooling = pooling
        self.vector_loss = loss

    def call(
        self, inputs: dict[str, tf.Tensor], training: bool | None = None
    ) -> tf.Tensor:
        outer, length = [], None
        if inputs[features.INPUT_MASK].shape.rank == 3:
            *outer, length = layers.dynamic_shape(inputs[features.INPUT_MASK])
            inputs = {
                name: tf.reshape(tensor, [outer[0] * outer[1], length])
                for name, tensor in inputs.items()
            }
        outputs = pooling.encode(self.encoder, inputs, self.pooling, training)
        vectors = pooling.sentence_vector(
            outputs, inputs[features.INPUT_MASK], self.pooling
        )
        if outer:
            vectors = tf.reshape(vectors, [*outer, vectors.shape[-1]])
        return vectors

    def loss_sum(
        self, logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        """Returns the loss times the sum of the weights: a scalar.

        Args:
            logits: [B, 2, H].
            labels: float32 [B]; SimCSE has none to look at.
            weights: float32 [B], 0 for padding.
        """
        first, second = logits[:, 0], logits[:, 1]
        if self.vector_loss == SIMCSE:
            return tf.reduce_sum(weights * simcse(first, second, weights))
        cosines = tf.reduce_sum(first * second, axis=-1)
        return tf.reduce_sum(weights) * cosent(cosines, labels, weights)


def cosent(
    cosines: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """Returns log(1 + sum of exp(scale (cos_j - cos_i))), label_i > label_j.

    Pairs of a higher label shall be nearer, whatever the labels are (Su
    Jianlin, https://kexue.fm/archives/8847). A batch whose labels are all
    alike teaches nothing: 0.

    Args:
        cosines: float32 [B].
        labels: float32 [B].
        weights: float32 [B]; rows of 0 do not count.

    Returns:
        A scalar.
    """
    real = weights > 0
    counts = (
        (labels[:, tf.newaxis] > labels[tf.newaxis, :])
        & real[:, tf.newaxis]
        & real[tf.newaxis, :]
    )  # [B, B]: the row shall be nearer than the column
    gaps = SCALE * (cosines[tf.newaxis, :] - cosines[:, tf.newaxis])
    gaps = tf.reshape(tf.where(counts, gaps, ABSENT), [-1])
    return tf.reduce_logsumexp(tf.concat([[0.0], gaps], axis=0))


def simcse(
    first: tf.Tensor, second: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """Returns -log p(own partner) among all partners: [B].

    Of each text's vector under one dropout, its vector under another is to be
    found among those of the batch (2104.08821, equation 4).

    Args:
        first: float32 [B, H], of length 1.
        second: The same texts' under another dropout.
        weights: float32 [B]; rows of 0 are nobody's partner.
    """
    scores = SCALE * tf.matmul(first, second, transpose_b=True)  # [B, B]
    scores = tf.where(weights[tf.newaxis, :] > 0, scores, ABSENT)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.range(tf.shape(scores)[0]), logits=scores
    )
