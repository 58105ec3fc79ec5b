"""Attention for steps that XLA compiles whole: less traffic, the same numbers.

A TPU waits for its memory here: each [B, N, T, T] that is written and read
again costs more than the products around it. Between the products stand

    weights = exp(scores - largest)        in the products' type, not float32
    context = (weights V) / sum(weights)   [.., T, D] is divided, not [.., T, T]

and the gradient of the softmax takes its sum over T from sum(dC * C) over D,
which needs no [T, T] (2205.14135, section 3 and appendix B). The weights are
all that is kept for it.

    with attention.lean():
        outputs = model(inputs, training=True)
"""

import contextlib
import contextvars

import tensorflow as tf

_ENABLED = contextvars.ContextVar("lean_attention", default=False)


@contextlib.contextmanager
def lean(enabled: bool = True):
    """Writes attention so where it is traced in this block, in this thread."""
    token = _ENABLED.set(enabled)
    try:
        yield
    finally:
        _ENABLED.reset(token)


def is_lean() -> bool:
    """Says whether what is traced now should be written so."""
    return _ENABLED.get()


def suits(jit_compile: bool) -> bool:
    """Says whether XLA will compile a step whole: if asked to, or on a TPU."""
    return jit_compile or bool(tf.config.list_logical_devices("TPU"))


def attend(
    query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    """Returns softmax(Q K^T + bias) V, [B, N, Q, D], without dropout.

    Args:
        query: [B, N, Q, D], scaled; of the type of `key` and `value`.
        key: [B, N, T, D].
        value: [B, N, T, D].
        bias: float32 [B, 1, 1 or Q, T], a constant.
    """
    dtype = query.dtype

    def wide(x):
        return tf.cast(x, tf.float32)

    @tf.custom_gradient
    def compute(query, key, value):
        scores = wide(tf.matmul(query, key, transpose_b=True)) + bias
        largest = tf.reduce_max(scores, -1, keepdims=True)
        weights = tf.cast(tf.exp(scores - largest), dtype)  # [B, N, Q, T]
        total = tf.reduce_sum(wide(weights), -1, keepdims=True)
        context = wide(tf.matmul(weights, value)) / total

        def gradient(upstream):
            # d scores = weights (share V^T - along), share = upstream / total
            share = wide(upstream) / total
            along = tf.reduce_sum(share * context, -1, keepdims=True)
            share = tf.cast(share, dtype)
            of_weights = tf.raw_ops.BatchMatMulV3(
                x=share, y=value, adj_y=True, Tout=tf.float32
            )  # what is close to `along` must not be rounded before
            of_scores = tf.cast(wide(weights) * (of_weights - along), dtype)
            return (
                tf.matmul(of_scores, key),
                tf.matmul(of_scores, query, transpose_a=True),
                tf.matmul(weights, share, transpose_a=True),
            )

        return tf.cast(context, dtype), gradient

    return compute(query, key, value)
