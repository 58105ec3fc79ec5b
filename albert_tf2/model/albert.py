"""The encoder and the pretrainer: where the parts become ALBERT."""

from typing import Any

import tensorflow as tf

from albert_tf2 import features
from albert_tf2.config import AlbertConfig
from albert_tf2.keras_api import keras
from albert_tf2.model import heads, layers, recomputation


def used_groups(config: AlbertConfig) -> list[int]:
    """Returns the google groups that some layer uses, in order.

    Layer l of L uses group int(l / L * G), so with G > L some stay unused and
    no checkpoint holds them.
    """
    count = config.num_hidden_layers
    return sorted(
        {int(i / count * config.num_hidden_groups) for i in range(count)}
    )


def layer_plan(config: AlbertConfig) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Says which attention and feed-forward block each layer applies.

    This is the whole of cross-layer parameter sharing (1909.11942, section
    3.1): a layer is a choice of blocks, and sharing is choosing one again.

        all, 3 layers        ((0, 0),), ((0, 0),), ((0, 0),)
        attention, 3 layers  ((0, 0),), ((0, 1),), ((0, 2),)
        2 groups x 2 inner   ((0, 0), (1, 1)), ..., ((2, 2), (3, 3))

    Returns:
        For each layer, the (attention index, feed-forward index) pairs that
        it applies in turn.
    """
    count = config.num_hidden_layers
    if config.parameter_sharing != "all":
        attention_shared = config.parameter_sharing == "attention"
        ffn_shared = config.parameter_sharing == "ffn"
        return tuple(
            ((0 if attention_shared else i, 0 if ffn_shared else i),)
            for i in range(count)
        )
    groups = used_groups(config)
    inner = config.inner_group_num
    plan = []
    for i in range(count):
        group = groups.index(int(i / count * config.num_hidden_groups))
        blocks = range(group * inner, (group + 1) * inner)
        plan.append(tuple((block, block) for block in blocks))
    return tuple(plan)


class _ConfiguredModel(keras.Model):
    """A model that its `AlbertConfig` describes whole."""

    def __init__(
        self, config: AlbertConfig, name: str | None = None, **kwargs: Any
    ):
        super().__init__(name=name, **kwargs)
        self.config = config

    def get_config(self):
        return {"config": self.config.to_dict(), "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        del custom_objects
        return cls(AlbertConfig.from_dict(config["config"]), config["name"])


class AlbertEncoder(_ConfiguredModel):
    """ALBERT without its pre-training heads.

    Call inputs, a dict of int32 tensors:

    - `input_word_ids` [B, T];
    - `input_mask` [B, T], 1 for real tokens;
    - `input_type_ids` [B, T], 0 for the first segment and 1 for the second;
    - `input_pair_ids` and `input_position_ids` [B, T], only where rows hold
      several pairs (see `layers.attention_bias`).

    Call outputs, a dict of float32 tensors whatever the precision policy:

    - `sequence_output` [B, T, H];
    - `pooled_output` [B, H], and `default`, the same again;
    - `encoder_outputs`, a list of L x [B, T, H], of which the last is the
      sequence output.

    Args:
        config: Sizes and variants.
        name: Of the Keras model.
        **kwargs: Of `keras.Model`.

    Example:
        >>> config = AlbertConfig.from_name("albert_tiny_zh")
        >>> encoder = AlbertEncoder(config)
        >>> encoder(preprocessor(["今天天气很好"]))["pooled_output"].shape
        TensorShape([1, 312])

    Reference: https://arxiv.org/abs/1909.11942
    """

    def __init__(
        self, config: AlbertConfig, name: str = "encoder", **kwargs: Any
    ):
        super().__init__(config, name=name, **kwargs)
        self.plan = layer_plan(config)
        applied = [pair for layer in self.plan for pair in layer]
        with tf.name_scope(self.name):
            self.embeddings = layers.Embeddings(config, name="embeddings")
            self.embedding_hidden_mapping_in = (
                layers.dense(
                    config,
                    "embedding_hidden_mapping_in",
                    config.embedding_size,
                    config.hidden_size,
                )
                if self.embeddings.width != config.hidden_size
                else None
            )
            self.attention_layers = [
                layers.AttentionBlock(config, name=f"attention_{i}")
                for i in range(1 + max(pair[0] for pair in applied))
            ]
            self.feed_forward_layers = [
                layers.FeedForwardBlock(config, name=f"feed_forward_{i}")
                for i in range(1 + max(pair[1] for pair in applied))
            ]
            self.pooler = layers.dense(
                config, "pooler", config.hidden_size, config.hidden_size
            )
        self.built = True

    def call(
        self, inputs: dict[str, tf.Tensor], training: bool | None = None
    ) -> dict[str, tf.Tensor | list[tf.Tensor]]:
        encoder_outputs = self._run(inputs, training)
        sequence = encoder_outputs[-1]
        pooled = self.pool(sequence[:, 0])
        return {
            features.SEQUENCE_OUTPUT: sequence,
            features.POOLED_OUTPUT: pooled,
            features.DEFAULT: pooled,
            features.ENCODER_OUTPUTS: encoder_outputs,
        }

    def at_positions(
        self,
        inputs: dict[str, tf.Tensor],
        positions: tf.Tensor | str,
        training: bool | None = None,
        depth: int | None = None,
    ) -> tf.Tensor:
        """Returns the sequence output at some positions alone, at less cost.

        The last layer answers for those tokens only: its keys and values are
        all tokens', but its queries and feed-forward are theirs. With a sixth
        of the tokens asked for, most of a layer is saved, and nothing changes.

        Args:
            inputs: As for a call.
            positions: int32 [B, Q]; or `layers.FIRST`, Q = 1.
            training: As for a call.
            depth: Apply the first so many layers alone (`growth`).

        Returns:
            float32 [B, Q, H].
        """
        return self._run(inputs, training, positions, depth)[-1]

    def of_first_tokens(
        self, inputs: dict[str, tf.Tensor], training: bool | None = None
    ) -> dict[str, tf.Tensor]:
        """Returns what a call says of the first tokens, [CLS], at less cost.

        Of four layers a fifth of the arithmetic is saved (`at_positions`).

        Args:
            inputs: As for a call, as tensors.
            training: As for a call.

        Returns:
            `sequence_output` [B, 1, H] and `pooled_output` [B, H].
        """
        sequence = self.at_positions(inputs, layers.FIRST, training)
        return {
            features.SEQUENCE_OUTPUT: sequence,
            features.POOLED_OUTPUT: self.pool(sequence[:, 0]),
        }

    def project(self, words: tf.Tensor) -> tf.Tensor:
        """Brings embeddings to the width of the layers.

        Args:
            words: float [N, E]; [N, H] where there is nothing to do.

        Returns:
            float [N, H].
        """
        layer = self.embedding_hidden_mapping_in
        return words if layer is None else layer(words)

    def _run(
        self, inputs, training, last_positions=None, depth=None
    ) -> list[tf.Tensor]:
        """Returns every layer's output, the last one at some positions."""
        plan = self.plan[:depth]
        word_ids = inputs[features.INPUT_WORD_IDS]
        batch, length = layers.dynamic_shape(word_ids)
        bias = layers.attention_bias(
            inputs[features.INPUT_MASK], inputs.get(features.INPUT_PAIR_IDS)
        )
        hidden = self.embeddings(
            word_ids,
            input_type_ids=inputs[features.INPUT_TYPE_IDS],
            input_position_ids=inputs.get(features.INPUT_POSITION_IDS),
            training=training,
        )
        hidden = self.project(hidden)  # [B*T, H]

        outputs = []
        for number, layer in enumerate(plan, 1):
            for block, (attention, feed_forward) in enumerate(layer, 1):
                is_last = number == len(plan) and block == len(layer)
                positions = last_positions if is_last else None
                if isinstance(positions, str):
                    length = 1
                elif positions is not None:
                    length = layers.dynamic_shape(positions)[1]

                def apply(
                    hidden,
                    attend=self.attention_layers[attention],
                    feed=self.feed_forward_layers[feed_forward],
                    positions=positions,
                ):
                    hidden = attend(
                        hidden,
                        bias=bias,
                        batch_size=batch,
                        positions=positions,
                        training=training,
                    )
                    return feed(hidden, training=training)

                if recomputation.are_enabled() and not is_last:
                    hidden = recomputation.computed_again(apply, hidden)
                else:
                    hidden = apply(hidden)
            shape = [batch, length, self.config.hidden_size]
            outputs.append(tf.cast(tf.reshape(hidden, shape), tf.float32))
        return outputs

    def pool(self, first_tokens: tf.Tensor) -> tf.Tensor:
        """Returns tanh(W x + b) of the [CLS] vectors.

        Args:
            first_tokens: [..., H].

        Returns:
            float32 [..., H].
        """
        return tf.cast(tf.tanh(self.pooler(first_tokens)), tf.float32)


class AlbertPretrainer(_ConfiguredModel):
    """The encoder with its masked-LM and sentence-order heads.

    Call inputs: the encoder's, and `masked_lm_positions`, int32 [B, P]. Rows
    that hold several pairs add `cls_positions`, int32 [B, K].

    Call outputs: the encoder's, and float32 `mlm_logits` [B, P, V] (where
    positions were given) and `sop_logits` [B, 2] ([B, K, 2] with
    `cls_positions`).

    Args:
        config: Sizes and variants.
        name: Of the Keras model.
        **kwargs: Of `keras.Model`.
    """

    def __init__(
        self, config: AlbertConfig, name: str = "pretrainer", **kwargs: Any
    ):
        super().__init__(config, name=name, **kwargs)
        self.encoder = AlbertEncoder(config)
        self.mlm_head = heads.MaskedLMHead(config, name="mlm_head")
        self.sop_head = heads.SentenceOrderHead(config, name="sop_head")
        self.built = True

    def call(
        self, inputs: dict[str, tf.Tensor], training: bool | None = None
    ) -> dict[str, tf.Tensor | list[tf.Tensor]]:
        outputs = dict(self.encoder(inputs, training=training))
        sequence = outputs[features.SEQUENCE_OUTPUT]
        if features.CLS_POSITIONS in inputs:
            pooled = self.encoder.pool(
                tf.gather(
                    sequence, inputs[features.CLS_POSITIONS], batch_dims=1
                )
            )  # [B, K, H]
        else:
            pooled = outputs[features.POOLED_OUTPUT]
        outputs[features.SOP_LOGITS] = self.sop_head(pooled)
        if features.MASKED_LM_POSITIONS in inputs:
            masked = tf.gather(
                sequence, inputs[features.MASKED_LM_POSITIONS], batch_dims=1
            )  # [B, P, H]
            outputs[features.MLM_LOGITS] = self.mlm_head(
                masked, embeddings=self.encoder.embeddings
            )
        return outputs

    def logits(
        self,
        inputs: dict[str, tf.Tensor],
        training: bool | None = None,
        depth: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Returns the two heads' logits alone, which is all the loss needs.

        The same numbers as a call's, for the price of one layer less (see
        `AlbertEncoder.at_positions`).

        Args:
            inputs: As for a call, with `masked_lm_positions`.
            training: Whether dropout is live.
            depth: Apply the first so many layers alone.

        Returns:
            float32 `mlm_logits` [B, P, V] and `sop_logits` [B, 2], or
            [B, K, 2] with `cls_positions`.
        """
        masked = inputs[features.MASKED_LM_POSITIONS]
        several = features.CLS_POSITIONS in inputs
        first = (
            inputs[features.CLS_POSITIONS]
            if several
            else tf.zeros_like(masked[:, :1])
        )  # [B, K], K = 1 where a row holds one pair
        hidden = self.encoder.at_positions(
            inputs, tf.concat([first, masked], 1), training, depth
        )
        count = layers.dynamic_shape(first)[1]
        pooled = self.encoder.pool(hidden[:, :count])  # [B, K, H]
        return {
            features.SOP_LOGITS: self.sop_head(
                pooled if several else pooled[:, 0]
            ),
            features.MLM_LOGITS: self.mlm_head(
                hidden[:, count:], embeddings=self.encoder.embeddings
            ),
        }
