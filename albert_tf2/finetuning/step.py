"""One optimizer step of fine-tuning, as every device runs it.

    batch of this replica -> parts -> loss and gradients -> sum of parts
      -> sum over replicas -> clip by global norm -> AdamW or LAMB

The loss is divided by the weight of the whole global batch, so that the
update is that of the batch, wherever its rows were. What may be added to the
loss of the labels is in `regularizers`.
"""

import tensorflow as tf

from albert_tf2 import features
from albert_tf2.finetuning import regularizers
from albert_tf2.finetuning.model import TaskModel
from albert_tf2.keras_api import keras
from albert_tf2.model import attention, dropout, fusion, recomputation
from albert_tf2.training.distribution import all_reduce
from albert_tf2.training.precision import Update

# What a step reports, in this order.
METRICS = ("loss", "gradient_norm")


class FinetuneStep:
    """Callable in a replica: batch [b, ...] -> metrics, float32 [2]."""

    def __init__(
        self,
        model: TaskModel,
        optimizer: keras.optimizers.legacy.Optimizer,
        *,
        accumulation_steps: int = 1,
        r_drop: float = 0.0,
        distillation_weight: float = 0.0,
        distillation_temperature: float = 1.0,
        clip_norm: float = 1.0,
        jit_compile: bool = False,
        recompute: bool = False,
        fuses: bool = False,
        seed: int = 0,
    ):
        """Prepares a step.

        Args:
            model: The model to train.
            optimizer: Of `optimization.create_optimizer`.
            accumulation_steps: The parts that a replica's batch is cut into.
            r_drop: The weight of the divergence between two passes.
            distillation_weight: A teacher's share of the loss.
            distillation_temperature: What both logits are divided by.
            clip_norm: The largest global norm of the gradients.
            jit_compile: Compile loss and gradients with XLA.
            recompute: Keep layers' inputs alone (`model.recomputation`).
            fuses: Compile chains of element-wise operations alone
                (`model.fusion`), unless everything is compiled.
            seed: Of the dropout.
        """
        self.model = model
        self.accumulation_steps = accumulation_steps
        self.r_drop = r_drop
        self.distillation_weight = distillation_weight
        self.distillation_temperature = distillation_temperature
        self.fuses = fuses and not jit_compile
        self.lean = attention.suits(jit_compile)
        self.recompute = recompute
        self.seed = seed
        self._update = Update(
            optimizer,
            model.trainable_variables,
            clip_norm=clip_norm,
            fuses=self.fuses,
        )
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
        gradients, loss = self._compute(batch, step)
        *gradients, loss = all_reduce([*gradients, loss])
        norm = self._update(gradients)
        return tf.stack([loss, norm])

    def gradients(
        self, batch: dict[str, tf.Tensor], step: tf.Tensor | int = 0
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Returns the gradients and the loss of this replica's batch.

        Args:
            batch: The model's inputs, `labels` and `weights` (see
                `model.loss_sum`), the `total_weight` of the global batch,
                and a teacher's `teacher_logits`.
            step: How many steps were done before.
        """
        count = self.accumulation_steps
        if count == 1:
            return self._part(batch, dropout.step_seed(self.seed, step))
        parts = {
            name: value
            if value.shape.rank == 0
            else tf.reshape(
                value, tf.concat([[count, -1], tf.shape(value)[1:]], 0)
            )
            for name, value in batch.items()
        }
        gradients = [
            tf.zeros(variable.shape)
            for variable in self.model.trainable_variables
        ]
        loss = tf.zeros([])
        for number in tf.range(count):
            part = {
                name: value if value.shape.rank == 0 else value[number]
                for name, value in parts.items()
            }
            seed = dropout.step_seed(self.seed, step, part=number, parts=count)
            more, more_loss = self._part(part, seed)
            gradients = tf.nest.map_structure(tf.add, gradients, more)
            loss += more_loss
        return gradients, loss

    @tf.autograph.experimental.do_not_convert
    def _part(self, batch, seed):
        """Returns gradients and loss of some rows."""
        with (
            fusion.single_passes(self.fuses),
            attention.lean(self.lean),
            recomputation.layers_twice(self.recompute),
            dropout.seeded(seed),
        ):
            with tf.GradientTape() as tape:
                loss = self._loss(batch)
                scaled = self._update.scaled(loss)
            gradients = tape.gradient(
                scaled,
                self.model.trainable_variables,
                # A hub encoder brings variables that this task does not use.
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
        return [tf.convert_to_tensor(value) for value in gradients], loss

    def _loss(self, batch):
        """Returns the loss of one pass, or of two: a scalar."""
        inputs = {name: batch[name] for name in features.ENCODER_INPUTS}
        logits = self.model(inputs, training=True)
        loss = self._loss_of(logits, batch)
        if self.r_drop:
            # Draws are numbered, so these are others (`model.dropout`).
            again = self.model(inputs, training=True)
            loss = (loss + self._loss_of(again, batch)) / 2
            loss += self.r_drop * regularizers.r_drop(
                self.model.kind, logits, again, batch["weights"]
            )
        return loss / batch["total_weight"]

    def _loss_of(self, logits, batch):
        """Returns the sum of the rows' losses, by labels and by a teacher."""
        kind, weights = self.model.kind, batch["weights"]
        loss = self.model.loss_sum(logits, batch["labels"], weights)
        share = self.distillation_weight
        if not share:
            return loss
        return (1.0 - share) * loss + share * regularizers.distillation(
            kind,
            logits,
            batch["teacher_logits"],
            weights,
            temperature=self.distillation_temperature,
        )
