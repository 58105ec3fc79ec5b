"""Layers computed twice, so that one layer's values are in memory, not all.

The backward pass needs what the forward pass computed. Inside `layers_twice`
only each layer's input is kept, [B*T, H], and the layer is computed again when
its gradient is due: with the same dropout, and so with the same numbers
(1604.06174). The last layer's turn comes at once, so it is never repeated.

    with recomputation.layers_twice():
        outputs = model(inputs, training=True)
"""

import contextlib
import contextvars
from collections.abc import Callable

import tensorflow as tf

from albert_tf2.model import dropout

_ENABLED = contextvars.ContextVar("layers_twice", default=False)


@contextlib.contextmanager
def layers_twice(enabled: bool = True):
    """Recomputes the layers that are traced in this block, in this thread."""
    token = _ENABLED.set(enabled)
    try:
        yield
    finally:
        _ENABLED.reset(token)


def are_enabled() -> bool:
    """Says whether layers that are traced now should be computed twice."""
    return _ENABLED.get()


def computed_again(
    layer: Callable[[tf.Tensor], tf.Tensor], hidden: tf.Tensor
) -> tf.Tensor:
    """Returns layer(hidden), of which only `hidden` is kept.

    Args:
        layer: Of one tensor; what else it reads is no function of variables.
        hidden: float [N, H].
    """
    # The gradient is traced outside the blocks that this one is traced in.
    now = contextvars.copy_context()
    place = dropout.place()

    @tf.recompute_grad
    def twice(hidden):
        def once():
            with dropout.from_place(place):
                return layer(hidden)

        return now.copy().run(once)

    return twice(hidden)
