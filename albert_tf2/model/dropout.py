"""Dropout that a training step can draw again.

Keras draws dropout from a stream that no checkpoint holds: a run that goes on
after a restart would differ from one that was never stopped. Inside `seeded`
a draw is a hash instead, and holds no state:

    (seed, step, replica, part of the batch, number of the draw)

Draws are numbered in the order in which the model makes them, so a shared
layer draws afresh each time it is applied. A draw of rate 0 is none. XLA makes
other bits of a seed than TensorFlow's kernels, but always the same. Outside (a
model called by hand, an exported graph) the stream is Keras' own.

    with dropout.seeded(dropout.step_seed(seed, step)):
        outputs = model(inputs, training=True)
"""

import contextlib
import contextvars
from collections.abc import Iterator

import tensorflow as tf

from albert_tf2.keras_api import keras

_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: keeps draws apart from seeds


def _int32(number: int) -> int:
    """Wraps an integer of any size, as int32 arithmetic does."""
    return (number + 2**31) % 2**32 - 2**31


def step_seed(
    seed: int,
    step: tf.Tensor | int,
    *,
    part: tf.Tensor | int = 0,
    parts: int = 1,
) -> tf.Tensor:
    """Returns the seed of one part of a step on this replica: int32 [2].

    Args:
        seed: The run's.
        step: The number of steps done before.
        part: Which part of an accumulated batch this is.
        parts: How many there are.
    """
    replica = tf.distribute.get_replica_context()
    number, replicas = (
        (0, 1)
        if replica is None
        else (replica.replica_id_in_sync_group, replica.num_replicas_in_sync)
    )
    count = (tf.cast(step, tf.int32) * replicas + number) * parts + part
    return tf.stack([tf.constant(_int32(seed)), count])


class _Draws:
    """The seeds of one draw after another."""

    def __init__(self, seed: tf.Tensor):
        self.seed = seed
        self.number = 0  # of the next draw

    def next(self) -> tf.Tensor:
        number, self.number = self.number, self.number + 1
        return self.seed + tf.constant([_int32(number * _GOLDEN), 0])


_DRAWS: contextvars.ContextVar[_Draws | None] = contextvars.ContextVar(
    "dropout_draws", default=None
)


@contextlib.contextmanager
def seeded(seed: tf.Tensor) -> Iterator[None]:
    """Draws from a seed, int32 [2], whatever is traced in this block."""
    token = _DRAWS.set(_Draws(seed))
    try:
        yield
    finally:
        _DRAWS.reset(token)


def place() -> int:
    """Returns the number of the next draw; 0 outside `seeded`."""
    draws = _DRAWS.get()
    return 0 if draws is None else draws.number


@contextlib.contextmanager
def from_place(number: int) -> Iterator[None]:
    """Draws what was drawn from a place on, again; then goes on from the end.

    Args:
        number: Of `place`, in the same `seeded` block.
    """
    draws = _DRAWS.get()
    end = place()
    if draws is not None:
        draws.number = number
    try:
        yield
    finally:
        if draws is not None:
            draws.number = max(end, draws.number)


class Dropout(keras.layers.Dropout):
    """Keras' own layer; inside `seeded` its draws can be repeated."""

    def call(
        self, inputs: tf.Tensor, training: bool | None = None
    ) -> tf.Tensor:
        draws = _DRAWS.get()
        if draws is None:
            return super().call(inputs, training=training)
        if not training or not self.rate:
            return inputs
        return tf.nn.experimental.stateless_dropout(
            inputs, self.rate, seed=draws.next()
        )
