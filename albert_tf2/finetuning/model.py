"""An encoder with a task's head, and the loss.

classification   pooled   [B, H]    -> logits [B, n]
multi_label      pooled   [B, H]    -> logits [B, n], each label by itself
regression       pooled   [B, H]    -> [B, 1], a scaled score
choice           pooled   [B*C, H]  -> logits [B, C]
tagging          sequence [B, T, H] -> logits [B, T, n]
span             sequence [B, T, H] -> logits [B, T, 2]

Sentence vectors have no head: see `vectors.py`.
"""

from typing import Any

import tensorflow as tf

from albert_tf2 import features
from albert_tf2.keras_api import keras
from albert_tf2.model import layers, pooling
from albert_tf2.model.dropout import Dropout
from albert_tf2.tasks import base

# Below any real logit: a choice that is not there has no share in the softmax.
ABSENT = -1e9


class TaskHead(keras.layers.Layer):
    """dropout(x) W^T + b, as the originals' fine-tuning head.

    Models whose LayerNorm comes first (`preln`) have none after their last
    layer, so their head normalises what it reads.

    Call input: [..., H]. Call output: float32 logits [..., n].
    """

    def __init__(
        self,
        outputs: int,
        hidden_size: int,
        *,
        dropout: float = 0.1,
        normalize: bool = False,
        initializer_range: float = 0.02,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """Creates the variables.

        Args:
            outputs: n.
            hidden_size: H.
            dropout: On the input, in training.
            normalize: Whether a LayerNorm comes first.
            initializer_range: Spread of the initial weights.
            seed: Of the initial weights.
            **kwargs: For the Keras base class.
        """
        super().__init__(**kwargs)
        self.dropout = Dropout(dropout)
        with tf.name_scope(self.name):
            self.layer_norm = (
                layers.layer_norm("LayerNorm", hidden_size)
                if normalize
                else None
            )
            # [n, H], as the originals store it.
            self.output_weights = self.add_weight(
                name="output_weights",
                shape=[outputs, hidden_size],
                initializer=keras.initializers.TruncatedNormal(
                    stddev=initializer_range, seed=seed
                ),
            )
            self.output_bias = self.add_weight(
                name="output_bias", shape=[outputs], initializer="zeros"
            )
        self.built = True

    def call(
        self, hidden: tf.Tensor, training: bool | None = None
    ) -> tf.Tensor:
        *outer, width = layers.dynamic_shape(hidden)
        hidden = tf.reshape(
            tf.cast(hidden, self.compute_dtype), [-1, width]
        )  # [B, H] or [B*T, H]
        if self.layer_norm is not None:
            hidden = self.layer_norm(hidden)
        hidden = self.dropout(hidden, training=training)
        logits = tf.matmul(hidden, self.output_weights, transpose_b=True)
        logits = tf.cast(logits + self.output_bias, tf.float32)
        return tf.reshape(logits, [*outer, logits.shape[-1]])


class TaskModel(keras.Model):
    """An encoder and a head.

    Call inputs: the encoder's dict, int32 [B, T]; for tasks with choices
    [B, C, T], where the mask of a missing choice is all 0.
    Call output: float32 logits (see the module).
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        head: TaskHead | None,
        kind: str,
        **kwargs,
    ):
        """Joins the parts.

        Args:
            encoder: An `AlbertEncoder`, or a `hub.KerasLayer` of one.
            head: The head; None where a subclass does without.
            kind: One of the kinds in `base`.
            **kwargs: For the Keras base class.
        """
        super().__init__(**kwargs)
        self.encoder = encoder
        self.head: Any = head
        self.kind = kind

    def call(
        self, inputs: dict[str, tf.Tensor], training: bool | None = None
    ) -> tf.Tensor:
        if self.kind == base.CHOICE:
            batch, choices, length = layers.dynamic_shape(
                inputs[features.INPUT_MASK]
            )
            present = inputs[features.INPUT_MASK][:, :, 0] > 0  # [B, C]
            inputs = {
                name: tf.reshape(tensor, [batch * choices, length])
                for name, tensor in inputs.items()
            }
        if self.kind in (base.TAGGING, base.SPAN):
            outputs = self.encoder(inputs, training=training)
            read = outputs[features.SEQUENCE_OUTPUT]
        else:
            outputs = pooling.encode(self.encoder, inputs, "pooled", training)
            read = outputs[features.POOLED_OUTPUT]
        logits = self.head(read, training=training)
        if self.kind == base.CHOICE:
            logits = tf.reshape(logits, [batch, choices])
            logits = tf.where(present, logits, ABSENT)
        return logits

    def loss_sum(
        self, logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        """See the function `loss_sum`."""
        return loss_sum(self.kind, logits, labels, weights)


def draws_own_dropout(encoder: keras.layers.Layer) -> bool:
    """Whether an encoder is a hub module whose training graph draws numbers.

    Its draws are inside the graph, out of reach of `model.dropout`.
    """
    loaded = getattr(encoder, "resolved_object", None)
    if loaded is None:
        return False
    for function in getattr(loaded.__call__, "concrete_functions", []):
        graph = function.graph.as_graph_def()
        inner = (node for f in graph.library.function for node in f.node_def)
        for node in [*graph.node, *inner]:
            if node.op.startswith(("Random", "Rng")):
                return True
    return False


def loss_sum(
    kind: str, logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """Returns the sum of weight * loss: a scalar.

    The loss is the negative log likelihood, and the squared error of a
    score. The caller divides by the sum of the weights of the whole global
    batch, whichever replica holds which part of it.

    Args:
        kind: One of the kinds in `base`.
        logits: What `TaskModel` returns.
        labels: int32 [B], for tagging [B, T], for spans [B, 2]; float32
            [B, n] of 0 and 1 for several labels, float32 [B] for scores.
        weights: float32, the shape of `labels`.
    """
    if kind == base.MULTI_LABEL:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        return tf.reduce_sum(weights * losses)
    if kind == base.REGRESSION:
        return tf.reduce_sum(weights * tf.square(logits[:, 0] - labels))
    if kind == base.SPAN:
        logits = tf.transpose(logits, [0, 2, 1])  # [B, 2, T]
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits(
        # A label without weight may be a filler such as -1.
        labels=tf.maximum(labels, 0),
        logits=logits,
    )
    return tf.reduce_sum(weights * nll)
