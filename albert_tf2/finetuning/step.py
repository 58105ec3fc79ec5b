"""One optimizer step of fine-tuning, as every device runs it.

    batch of this replica -> loss and gradients -> sum over replicas
      -> clip by global norm -> AdamW or LAMB

The loss is divided by the weight of the whole global batch, so that the
update is that of the batch, wherever its rows were.
"""

import tensorflow as tf

from albert_tf2 import features
from albert_tf2.finetuning.model import TaskModel
from albert_tf2.keras_api import keras
from albert_tf2.model import dropout, fusion
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
        clip_norm: float = 1.0,
        jit_compile: bool = False,
        fuses: bool = False,
        seed: int = 0,
    ):
        """Prepares a step.

        Args:
            model: The model to train.
            optimizer: Of `optimization.create_optimizer`.
            clip_norm: The largest global norm of the gradients.
            jit_compile: Compile loss and gradients with XLA.
            fuses: Compile chains of element-wise operations alone
                (`model.fusion`), unless everything is compiled.
            seed: Of the dropout.
        """
        self.model = model
        self.fuses = fuses and not jit_compile
        self.seed = seed
        self._update = Update(
            optimizer,
            model.trainable_variables,
            clip_norm=clip_norm,
            fuses=self.fuses,
        )
        self._compute = tf.function(
            self.gradients, jit_compile=True if jit_compile else None
        )

    def __call__(
        self, batch: dict[str, tf.Tensor], step: tf.Tensor | int = 0
    ) -> tf.Tensor:
        """Makes the step that follows `step` others."""
        gradients, loss = self._compute(batch, step)
        *gradients, loss = all_reduce([*gradients, loss])
        return tf.stack([loss, self._update(gradients)])

    def gradients(
        self, batch: dict[str, tf.Tensor], step: tf.Tensor | int = 0
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Returns the gradients and the loss of this replica's batch.

        Args:
            batch: The model's inputs, `labels` and `weights` (see
                `model.loss_sum`), and the `total_weight` of the global batch.
            step: How many steps were done before.
        """
        inputs = {name: batch[name] for name in features.ENCODER_INPUTS}
        with (
            fusion.single_passes(self.fuses),
            dropout.seeded(dropout.step_seed(self.seed, step)),
            tf.GradientTape() as tape,
        ):
            logits = self.model(inputs, training=True)
            loss = self.model.loss_sum(
                logits, batch["labels"], batch["weights"]
            )
            loss /= batch["total_weight"]
            scaled = self._update.scaled(loss)
        gradients = tape.gradient(
            scaled,
            self.model.trainable_variables,
            # A hub encoder brings variables that this task does not use.
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [tf.convert_to_tensor(value) for value in gradients], loss
