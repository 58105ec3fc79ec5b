"""One optimizer step of pre-training, as every device runs it.

    batch of this replica -> parts -> loss and gradients -> sum of parts
      -> sum over replicas -> clip by global norm -> LAMB or AdamW

The losses are divided by the weights of the whole global batch, before the
gradients are taken. So a step means the same however its batch is cut: into
parts (gradient accumulation), over replicas, or over machines; dropout alone
is drawn for each part and replica anew (`model.dropout`).

There is no string, no host call and no dynamic shape in here: the same
function compiles for a TPU (`tpu_check`).
"""

from collections.abc import Sequence

import tensorflow as tf

from albert_tf2 import features
from albert_tf2.keras_api import keras
from albert_tf2.model import (
    attention,
    dropout,
    fusion,
    losses,
    recomputation,
)
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.records.pipeline import split_batch
from albert_tf2.training.distribution import all_reduce
from albert_tf2.training.precision import Update

# What a step reports, in this order.
METRICS = (
    "loss",
    "mlm_loss",
    "sop_loss",
    "mlm_accuracy",
    "sop_accuracy",
    "gradient_norm",
    "tokens",  # not padding
    "examples",  # pairs
)


class PretrainStep:
    """Callable in a replica: batch [b, ...] -> metrics, float32 [8]."""

    def __init__(
        self,
        model: AlbertPretrainer,
        optimizer: keras.optimizers.legacy.Optimizer,
        *,
        accumulation_steps: int = 1,
        clip_norm: float = 1.0,
        jit_compile: bool = False,
        recompute: bool = False,
        seed: int = 0,
        depth: int | None = None,
    ):
        """Prepares a step.

        Args:
            model: The model to train.
            optimizer: Of `optimization.create_optimizer`.
            accumulation_steps: The parts that a replica's batch is cut into.
            clip_norm: The largest global norm of the gradients.
            jit_compile: Compile loss and gradients with XLA.
            recompute: Keep layers' inputs alone (`model.recomputation`).
            seed: Of the dropout.
            depth: Train the first so many layers alone (`growth`).
        """
        self.model = model
        self.seed, self.depth = seed, depth
        self.accumulation_steps = accumulation_steps
        self.recompute = recompute
        self.fuses = not jit_compile and fusion.suits_devices()
        self.lean = attention.suits(jit_compile)
        self._update = Update(
            optimizer,
            model.trainable_variables,
            clip_norm=clip_norm,
            fuses=self.fuses,
        )
        # The update is apart: what crosses replicas cannot be compiled on its
        # own.
        self._compute = tf.function(
            self.gradients,
            jit_compile=True if jit_compile else None,
            autograph=accumulation_steps > 1,  # for its loop
        )

    @tf.autograph.experimental.do_not_convert
    def __call__(
        self, batch: dict[str, tf.Tensor], step: tf.Tensor | int = 0
    ) -> tf.Tensor:
        """Makes the step that follows `step` others."""
        weights = all_reduce(losses.batch_weights(batch))
        gradients, sums = self._compute(batch, weights, step)
        *gradients, sums = all_reduce([*gradients, sums])
        return _metrics(sums, self._update(gradients))

    def gradients(
        self,
        batch: dict[str, tf.Tensor],
        weights: dict[str, tf.Tensor],
        step: tf.Tensor | int = 0,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Returns the gradients and `loss_sums` of this replica's batch.

        Args:
            batch: Of this replica.
            weights: Of the global batch (see `losses.means`).
            step: How many steps were done before.
        """
        count = self.accumulation_steps
        if count == 1:
            seed = dropout.step_seed(self.seed, step)
            return self._part(batch, weights, seed)
        parts = {
            name: tf.reshape(value, [count, -1, *value.shape[1:]])
            for name, value in batch.items()
        }
        gradients = [
            tf.zeros(variable.shape)
            for variable in self.model.trainable_variables
        ]
        sums = tf.zeros([len(SUMS)])
        for number in tf.range(count):
            part = {name: value[number] for name, value in parts.items()}
            seed = dropout.step_seed(self.seed, step, part=number, parts=count)
            more, more_sums = self._part(part, weights, seed)
            gradients = tf.nest.map_structure(tf.add, gradients, more)
            sums += more_sums
        return gradients, sums

    @tf.autograph.experimental.do_not_convert
    def _part(self, batch, weights, seed):
        inputs, labels = split_batch(batch)
        with (
            fusion.single_passes(self.fuses),
            attention.lean(self.lean),
            recomputation.layers_twice(self.recompute),
            dropout.seeded(seed),
            tf.GradientTape() as tape,
        ):
            outputs = self.model.logits(inputs, training=True, depth=self.depth)
            sums = losses.pretraining_sums(outputs, labels)
            loss = losses.means(sums, weights)["loss"]
            loss = self._update.scaled(loss)
        gradients = tape.gradient(loss, self.model.trainable_variables)
        # Lookups give sparse gradients; sums over replicas want dense ones.
        gradients = [tf.convert_to_tensor(value) for value in gradients]
        return gradients, loss_sums(sums, batch)


SUMS = (
    "mlm_nll",
    "mlm_weight",
    "mlm_correct",
    "sop_nll",
    "sop_weight",
    "sop_correct",
    "tokens",
)


def loss_sums(
    sums: dict[str, tf.Tensor], batch: dict[str, tf.Tensor]
) -> tf.Tensor:
    """Packs what `losses.pretraining_sums` returned as float32 [7]."""
    tokens = tf.reduce_sum(tf.cast(batch[features.INPUT_MASK], tf.float32))
    return tf.stack([(sums | {"tokens": tokens})[name] for name in SUMS])


def _named(sums: Sequence) -> dict:
    """Gives each of `SUMS` its name."""
    return {name: sums[i] for i, name in enumerate(SUMS)}


def _metrics(sums: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
    named = _named(tf.unstack(sums, len(SUMS)))
    values = losses.means(named) | {
        "gradient_norm": norm,
        "tokens": named["tokens"],
        "examples": named["sop_weight"],
    }
    return tf.stack([values[name] for name in METRICS])


class EvaluationStep:
    """Callable in a replica: batch -> `SUMS` and unigram nll, float32 [8]."""

    def __init__(
        self,
        model: AlbertPretrainer,
        unigram_log_probs,
        depth: int | None = None,
    ):
        self.model, self.depth = model, depth
        self.unigram = tf.constant(unigram_log_probs, tf.float32)  # [V]

    @tf.autograph.experimental.do_not_convert
    def __call__(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        inputs, labels = split_batch(batch)
        with fusion.single_passes(fusion.suits_devices()):
            outputs = self.model.logits(
                inputs, training=False, depth=self.depth
            )
        sums = loss_sums(losses.pretraining_sums(outputs, labels), batch)
        guess = tf.gather(self.unigram, labels[features.MASKED_LM_IDS])
        guess *= labels[features.MASKED_LM_WEIGHTS]
        unigram_nll = -tf.reduce_sum(guess)
        return all_reduce(tf.concat([sums, [unigram_nll]], 0))


def evaluation_metrics(sums) -> dict[str, float]:
    """Turns the added results of `EvaluationStep` into means."""
    *sums, unigram_nll = (float(value) for value in sums)
    named = _named(sums)
    result = {name: float(value) for name, value in losses.means(named).items()}
    return result | {
        "unigram_loss": unigram_nll / max(named["mlm_weight"], 1.0),
        "examples": named["sop_weight"],
        "masked_tokens": named["mlm_weight"],
    }
