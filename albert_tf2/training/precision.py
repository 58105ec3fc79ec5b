"""How a model computes, and the update that its gradients make.

float32, mixed_bfloat16 or mixed_float16: variables are float32 always.
float16 has no numbers below 6e-8, where many gradients lie, so its loss is
scaled before it is differentiated, and the gradients back again. The factor
grows until gradients overflow; such a step is skipped (1710.03740).
"""

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from albert_tf2.keras_api import keras
from albert_tf2.training import distribution

FLOAT16 = "mixed_float16"


@contextlib.contextmanager
def model_precision(precision: str) -> Iterator[None]:
    """Sets how layers that are built in this block compute."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def scales_loss(optimizer: keras.optimizers.legacy.Optimizer) -> bool:
    """Whether an optimizer scales the loss, and skips steps that overflow."""
    return isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)


def unwrapped(
    optimizer: keras.optimizers.legacy.Optimizer,
) -> keras.optimizers.legacy.Optimizer:
    """Returns the optimizer inside the one that scales the loss, if any."""
    return optimizer.inner_optimizer if scales_loss(optimizer) else optimizer


class Update:
    """Callable in a replica: gradients, summed over all -> their norm.

    Unscales, clips by the global norm and applies them.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.legacy.Optimizer,
        variables: Sequence[tf.Variable],
        *,
        clip_norm: float = 1.0,
        fuses: bool = False,
    ):
        """Prepares an update.

        Args:
            optimizer: Of `optimization.create_optimizer`.
            variables: What to update.
            clip_norm: The largest global norm of the gradients.
            fuses: Whether to compile it into single passes over memory, unless
                it is one: Adam's kernel is, and uses all cores.
        """
        self.optimizer = optimizer
        self.variables = variables
        self.clip_norm = clip_norm
        self.fuses = fuses and not (
            scales_loss(optimizer)
            or isinstance(optimizer, keras.optimizers.legacy.Adam)
        )
        self._fused = tf.function(
            self._apply, jit_compile=True, autograph=False
        )

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Returns what to differentiate in place of the loss."""
        if scales_loss(self.optimizer):
            return self.optimizer.get_scaled_loss(loss)
        return loss

    def __call__(self, gradients: list[tf.Tensor]) -> tf.Tensor:
        """Updates the variables.

        Args:
            gradients: Of the scaled loss, dense.

        Returns:
            The global norm before clipping, float32; not finite where the
            step was skipped.
        """
        if scales_loss(self.optimizer):
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        if self.fuses and distribution.updates_alone():
            return self._fused(gradients)
        return self._apply(gradients)

    def _apply(self, gradients):
        gradients, norm = tf.clip_by_global_norm(gradients, self.clip_norm)
        self.optimizer.apply_gradients(
            [(gradients[i], v) for i, v in enumerate(self.variables)],
            experimental_aggregate_gradients=False,
        )
        return norm
