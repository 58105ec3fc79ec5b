"""The two pre-training heads: masked words and sentence order."""

import tensorflow as tf

from albert_tf2.config import AlbertConfig
from albert_tf2.keras_api import keras
from albert_tf2.model import fusion, layers


class MaskedLMHead(keras.layers.Layer):
    """Scores the vocabulary at the masked positions, tied to the embeddings.

    brightmart: h = LN(gelu(W x)) at H;  logits = (h E2^T) E1^T + bias.
    google:     h = LN(gelu(W x)) at E;  logits = h E1^T + bias.

    Masked positions alone come here: P is a sixth of T, and the product with
    V is the dearest of a small model.

    Call inputs: the sequence output at those positions, [B, P, H]; the
    encoder's `embeddings`, handed over at each call so that the tied tables
    stay the encoder's alone.
    Call output: float32 logits [B, P, V].
    """

    def __init__(self, config: AlbertConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        brightmart = config.layout == "brightmart"
        width = config.hidden_size if brightmart else config.embedding_size
        with tf.name_scope(self.name):
            with tf.name_scope("transform"):
                self.transform_dense = layers.dense(
                    config, "dense", config.hidden_size, width
                )
                self.transform_layer_norm = layers.layer_norm(
                    "LayerNorm", width
                )
            self.output_bias = self.add_weight(
                name="output_bias",
                shape=[config.vocab_size],
                initializer="zeros",
            )
        self.built = True

    def call(
        self, hidden: tf.Tensor, *, embeddings: layers.Embeddings
    ) -> tf.Tensor:
        batch, count, width = layers.dynamic_shape(hidden)
        hidden = tf.reshape(hidden, [-1, width])  # [B*P, H]
        hidden = self.transform_layer_norm(
            layers.activated(
                self.transform_dense, hidden, self.config.hidden_act
            )
        )
        if embeddings.word_projection is not None:
            hidden = tf.matmul(
                hidden, embeddings.word_projection, transpose_b=True
            )  # [B*P, E]
        logits = tf.matmul(
            hidden, embeddings.word_embeddings, transpose_b=True
        )  # [B*P, V]
        if fusion.are_enabled():
            logits = fusion.add_bias(logits, self.output_bias, tf.float32)
        else:
            logits = tf.cast(logits + self.output_bias, tf.float32)
        return tf.reshape(logits, [batch, count, self.config.vocab_size])


class SentenceOrderHead(keras.layers.Layer):
    """Tells segments in order (0) from swapped ones (1), from the pooled [CLS].

    Sentence-order prediction, section 3.1 of 1909.11942.

    Call input: [..., H]. Call output: float32 logits [..., 2].
    """

    def __init__(self, config: AlbertConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        with tf.name_scope(self.name):
            # [2, H], as every released checkpoint stores it.
            self.output_weights = self.add_weight(
                name="output_weights",
                shape=[2, config.hidden_size],
                initializer=layers.initializer(config),
            )
            self.output_bias = self.add_weight(
                name="output_bias", shape=[2], initializer="zeros"
            )
        self.built = True

    def call(self, pooled: tf.Tensor) -> tf.Tensor:
        logits = tf.matmul(pooled, self.output_weights, transpose_b=True)
        return tf.cast(logits + self.output_bias, tf.float32)
