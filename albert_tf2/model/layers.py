"""The parts of the encoder: embeddings, attention, feed-forward.

Read top to bottom with `models.py`. Shapes: B batch, T sequence, E embedding,
H hidden, N heads, D per head, I intermediate, V vocabulary, S token types.

Between the embeddings and the outputs a sequence travels flat, as [B*T, H]:
every projection is then one plain matrix product, which CPUs, GPUs and TPUs
run fastest. Layers build their variables at once, under readable names, so
that a model can be counted, loaded and decayed before its first call.

References: ALBERT, Lan et al., https://arxiv.org/abs/1909.11942; attention,
Vaswani et al., https://arxiv.org/abs/1706.03762.
"""

import tensorflow as tf

from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.keras_api import keras
from albert_tf2.model import attention, fusion
from albert_tf2.model.dropout import Dropout

# The originals' epsilon; any other is visible in the fifth decimal.
# In place of positions: of each sequence its first token, [CLS].
FIRST = "first"
LAYER_NORM_EPSILON = 1e-12
# Added to the scores of padded keys, as in the originals.
MASKED_SCORE = -10000.0


def activation(name: str):
    """Returns an activation; "gelu" is the tanh form, as in the originals.

    "gelu_erf" is the exact form: what Hugging Face's files call "gelu".
    """
    if name == "relu":
        return tf.nn.relu

    def gelu(x):
        return tf.nn.gelu(x, approximate=name != "gelu_erf")

    return gelu


def initializer(config: AlbertConfig) -> keras.initializers.Initializer:
    """Returns a fresh initializer: Keras warns when one is used twice."""
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


class Dense(keras.layers.Dense):
    """Keras' own; steps on some CPUs keep its product and its bias apart."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if not fusion.parts_biases(self.compute_dtype):
            return super().call(inputs)
        *outer, width = dynamic_shape(inputs)
        product = self.product(tf.reshape(inputs, [-1, width]))
        output = fusion.add_bias(product, self.bias)
        return tf.reshape(output, [*outer, self.units])

    def product(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns x W without the bias: [N, inputs] -> [N, units]."""
        return tf.matmul(tf.cast(rows, self.compute_dtype), self.kernel)


def dense(config: AlbertConfig, name: str, inputs: int, units: int) -> Dense:
    """Returns a built Dense layer with kernel [inputs, units] and a bias."""
    layer = Dense(units, kernel_initializer=initializer(config), name=name)
    with tf.name_scope(name):
        layer.build([None, inputs])
    return layer


def activated(dense: Dense, rows: tf.Tensor, name: str) -> tf.Tensor:
    """Returns activation(x W + b), [N, units], as one pass where it can be.

    Args:
        dense: W and b.
        rows: x, [N, inputs].
        name: Of the activation.
    """
    if name == "gelu" and fusion.are_enabled():
        return fusion.gelu(dense.product(rows), dense.bias)
    if name.startswith("gelu"):
        fused = fusion.known_dense_gelu(
            rows, dense.kernel, dense.bias, approximate=name != "gelu_erf"
        )
        if fused is not None:
            return fused
    return activation(name)(dense(rows))


class LayerNorm(keras.layers.LayerNormalization):
    """Keras' own over the last axis; steps on CPUs fuse it."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if fusion.is_known_layer_norm(inputs):
            return fusion.known_layer_norm(
                inputs, self.gamma, self.beta, epsilon=self.epsilon
            )
        if fusion.are_enabled():
            return fusion.layer_norm(
                inputs, self.gamma, self.beta, epsilon=self.epsilon
            )
        return super().call(inputs)

    def of_sum(
        self, hidden: tf.Tensor, dense: Dense, inputs: tf.Tensor
    ) -> tf.Tensor:
        """Returns LN(hidden + dense(inputs)) in one pass after the product."""
        return fusion.layer_norm(
            dense.product(inputs),
            self.gamma,
            self.beta,
            epsilon=self.epsilon,
            residual=hidden,
            bias=dense.bias,
        )


def layer_norm(name: str, width: int) -> LayerNorm:
    """Returns a built LayerNorm over the last axis."""
    layer = LayerNorm(epsilon=LAYER_NORM_EPSILON, name=name)
    with tf.name_scope(name):
        layer.build([None, width])
    return layer


def dynamic_shape(tensor: tf.Tensor) -> list[int | tf.Tensor]:
    """Returns the dimensions, static where they are known."""
    dynamic = tf.shape(tensor)
    return [
        dynamic[axis] if size is None else size
        for axis, size in enumerate(tensor.shape.as_list())
    ]


def rows_at(
    hidden: tf.Tensor, positions: tf.Tensor | str, batch: int | tf.Tensor
) -> tf.Tensor:
    """Picks tokens of flat sequences.

    Args:
        hidden: [B*T, H].
        positions: int32 [B, Q]; or FIRST, a slice, which eight bits bear.
        batch: B.

    Returns:
        [B*Q, H].
    """
    if isinstance(positions, str):
        return tf.reshape(hidden, [batch, -1, hidden.shape[-1]])[:, 0]
    length = tf.shape(hidden)[0] // batch
    starts = length * tf.range(batch)
    return tf.gather(hidden, tf.reshape(positions + starts[:, None], [-1]))


class Embeddings(keras.layers.Layer):
    """Factorized embeddings: words live at E, much smaller than H.

    Section 3.1 of 1909.11942: V*E + E*H parameters in place of V*H.

    brightmart: x = LN(E1[ids] @ E2 + types + positions), all but E1 at H.
    google:     x = LN(E1[ids] + types + positions), all at E; the encoder
                projects to H afterwards, with a bias.

    Call inputs: `input_word_ids` and `input_type_ids`, int32 [B, T], and
    optionally `input_position_ids`, int32 [B, T] (else 0..T-1).
    Call output: [B*T, W], W = H for brightmart and E for google.
    """

    def __init__(self, config: AlbertConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        brightmart = config.layout == "brightmart"
        width = config.hidden_size if brightmart else config.embedding_size
        self.width = width
        with tf.name_scope(self.name):
            self.word_embeddings = self._table(
                "word_embeddings", config.vocab_size, config.embedding_size
            )
            self.word_projection = (
                self._table(
                    "word_embeddings_2",
                    config.embedding_size,
                    config.hidden_size,
                )
                if brightmart
                else None
            )
            self.token_type_embeddings = self._table(
                "token_type_embeddings", config.type_vocab_size, width
            )
            self.position_embeddings = self._table(
                "position_embeddings", config.max_position_embeddings, width
            )
            self.layer_norm = layer_norm("LayerNorm", width)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.built = True

    def _table(self, name: str, rows: int, width: int) -> tf.Variable:
        return self.add_weight(
            name=name,
            shape=[rows, width],
            initializer=initializer(self.config),
        )

    def call(
        self,
        input_word_ids: tf.Tensor,
        *,
        input_type_ids: tf.Tensor,
        input_position_ids: tf.Tensor | None = None,
        training: bool | None = None,
    ) -> tf.Tensor:
        batch, length = dynamic_shape(input_word_ids)
        if input_position_ids is None:
            self._check_length(length)
        words = self.look_up(tf.reshape(input_word_ids, [-1]))  # [B*T, E]
        if self.word_projection is not None:
            words = tf.matmul(words, self.word_projection)  # [B*T, H]
        types = self.look_up_types(tf.reshape(input_type_ids, [-1]))  # [B*T, W]
        if input_position_ids is None:
            positions = tf.tile(
                self.position_embeddings[:length], [batch, 1]
            )  # [B*T, W]
        else:
            positions = tf.gather(
                self.position_embeddings,
                tf.reshape(input_position_ids, [-1]),
            )
        return self.dropout(
            self.layer_norm(words + types + positions), training=training
        )

    def look_up(self, word_ids: tf.Tensor) -> tf.Tensor:
        """Returns the words' vectors: int32 [N] -> [N, E]."""
        return tf.gather(self.word_embeddings, word_ids)

    def look_up_types(self, type_ids: tf.Tensor) -> tf.Tensor:
        """Returns the segments' vectors: int32 [N] -> [N, W]."""
        # A product with one-hot rows: its gradient is a product too, where a
        # gather's would be a scatter of N rows into a few.
        rows = tf.one_hot(
            type_ids, self.config.type_vocab_size, dtype=self.compute_dtype
        )
        return tf.matmul(rows, self.token_type_embeddings)

    def _check_length(self, length: int | tf.Tensor) -> None:
        most = self.config.max_position_embeddings
        if isinstance(length, int) and length > most:
            raise UserError(
                f"`input_word_ids` must have at most {most} tokens, the "
                f"model's `max_position_embeddings`. Received: {length}"
            )


def attention_bias(
    input_mask: tf.Tensor,
    input_pair_ids: tf.Tensor | None = None,
    dtype: tf.DType = tf.float32,
) -> tf.Tensor:
    """Returns what is added to the attention scores: 0 or `MASKED_SCORE`.

    Only keys are masked. In a row that holds several pairs, a token sees the
    tokens of its own pair alone, as if each pair were a row:

        input_pair_ids: 1 1 1 2 2 0   ->  token 0 sees tokens 0, 1, 2

    Args:
        input_mask: int32 [B, T], 1 for real tokens.
        input_pair_ids: int32 [B, T], 0 for padding, k for the k-th pair.
        dtype: The scores' type.

    Returns:
        [B, 1, 1, T], or [B, 1, T, T] where `input_pair_ids` is given.
    """
    if input_pair_ids is None:
        visible = tf.cast(input_mask[:, None, None, :], dtype)
    else:
        same_pair = tf.equal(
            input_pair_ids[:, None, :, None], input_pair_ids[:, None, None, :]
        )
        visible = tf.cast(same_pair, dtype) * tf.cast(
            input_mask[:, None, None, :], dtype
        )
    return (1.0 - visible) * MASKED_SCORE


def softmax(scores: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Returns softmax(scores + bias) over the last axis, in `scores.dtype`."""
    if fusion.are_enabled():
        return fusion.softmax(scores, bias)
    # In float32: bfloat16 keeps 8 bits, too few for a sum of T.
    return tf.cast(
        tf.nn.softmax(tf.cast(scores, tf.float32) + bias), scores.dtype
    )


def _add_and_norm(
    block: "AttentionBlock | FeedForwardBlock",
    hidden: tf.Tensor,
    inputs: tf.Tensor,
    training: bool | None,
) -> tf.Tensor:
    """Ends a block: its last projection, dropout, residual and LayerNorm."""
    postln = block.config.ln_type != "preln"
    drops = training and block.dropout.rate
    if fusion.are_enabled() and postln and not drops:
        return block.layer_norm.of_sum(hidden, block.output_dense, inputs)
    output = hidden + block.dropout(
        block.output_dense(inputs), training=training
    )
    return block.layer_norm(output) if postln else output


class AttentionBlock(keras.layers.Layer):
    """Multi-head self-attention with its residual and LayerNorm.

    postln: LN(x + drop(W_o MHA(x)));  preln: x + drop(W_o MHA(LN(x))).

    Call inputs: hidden [B*T, H]; bias as `attention_bias` returns it;
    `batch_size` B; optionally `positions`, int32 [B, Q] or FIRST, of the tokens
    whose output is wanted. Call output: [B*T, H], or [B*Q, H].
    """

    def __init__(self, config: AlbertConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        hidden = config.hidden_size
        with tf.name_scope(self.name):
            self.query = dense(config, "query", hidden, hidden)
            self.key = dense(config, "key", hidden, hidden)
            self.value = dense(config, "value", hidden, hidden)
            self.output_dense = dense(config, "output", hidden, hidden)
            self.layer_norm = layer_norm("LayerNorm", hidden)
        self.probs_dropout = Dropout(config.attention_probs_dropout_prob)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.built = True

    def call(
        self,
        hidden: tf.Tensor,
        *,
        bias: tf.Tensor,
        batch_size: int | tf.Tensor,
        positions: tf.Tensor | str | None = None,
        training: bool | None = None,
    ) -> tf.Tensor:
        preln = self.config.ln_type == "preln"
        inputs = self.layer_norm(hidden) if preln else hidden
        asking = inputs  # the tokens that look at all others
        if positions is not None:
            asking = rows_at(inputs, positions, batch_size)  # [B*Q, H]
            if preln:
                hidden = rows_at(hidden, positions, batch_size)
            else:
                hidden = asking
            if isinstance(positions, str):
                bias = bias[:, :, :1]
            elif bias.shape[2] != 1:
                bias = tf.gather(bias[:, 0], positions, batch_dims=1)[:, None]
        context = self._attend(asking, inputs, bias, batch_size, training)
        return _add_and_norm(self, hidden, context, training)

    def _attend(self, asking, inputs, bias, batch_size, training):
        heads = self.config.num_attention_heads
        width = self.config.hidden_size
        size = width // heads

        def split(x):  # [B*T, H] -> [B, N, T, D]
            x = tf.reshape(x, [batch_size, -1, heads, size])
            return tf.transpose(x, [0, 2, 1, 3])

        query = split(self.query(asking) * (size**-0.5))
        key = split(self.key(inputs))
        value = split(self.value(inputs))
        drops = training and self.probs_dropout.rate
        if attention.is_lean() and not drops:
            context = attention.attend(query, key, value, bias)
        else:
            scores = tf.matmul(query, key, transpose_b=True)  # [B, N, T|Q, T]
            probs = softmax(scores, bias)
            probs = self.probs_dropout(probs, training=training)
            context = tf.matmul(probs, value)
        context = tf.transpose(context, [0, 2, 1, 3])
        return tf.reshape(context, [-1, width])  # [B*T, H] or [B*Q, H]


class FeedForwardBlock(keras.layers.Layer):
    """Two projections H -> I -> H with their residual and LayerNorm.

    postln: LN(x + drop(W_2 gelu(W_1 x)));
    preln: x + drop(W_2 gelu(W_1 LN(x))).

    Call input and output: [B*T, H].
    """

    def __init__(self, config: AlbertConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        hidden, inner = config.hidden_size, config.intermediate_size
        with tf.name_scope(self.name):
            self.intermediate_dense = dense(
                config, "intermediate", hidden, inner
            )
            self.output_dense = dense(config, "output", inner, hidden)
            self.layer_norm = layer_norm("LayerNorm", hidden)
        self.activation = activation(config.hidden_act)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.built = True

    def call(
        self, hidden: tf.Tensor, training: bool | None = None
    ) -> tf.Tensor:
        preln = self.config.ln_type == "preln"
        inputs = self.layer_norm(hidden) if preln else hidden
        act = self.config.hidden_act
        inner = activated(self.intermediate_dense, inputs, act)  # [B*T, I]
        return _add_and_norm(self, hidden, inner, training)
