"""Random draws that are hashes of (seed, row, purpose, index), in tensor ops.

So a draw does not depend on the batch size, on how many workers share the
batch, or on where a run was resumed, and is the same on every device.
"""

import tensorflow as tf

# Purposes of random draws: each gets its own stream.
ORDER, LENGTHS, TILES, ACTION, REPLACEMENT = range(1, 6)
GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: spreads consecutive counters


def mix(bits: tf.Tensor) -> tf.Tensor:
    """Scrambles uint32 values one to one (MurmurHash3's finalizer)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        shifted = tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32))
        bits = tf.bitwise.bitwise_xor(bits, shifted)
        if factor is not None:
            bits *= tf.constant(factor, tf.uint32)
    return bits


def random_bits(keys: tf.Tensor, purpose: int, index: tf.Tensor) -> tf.Tensor:
    """Returns uint32 bits for `index` [B or 1, N] of rows `keys` [B]."""
    golden = tf.constant(GOLDEN, tf.uint32)
    stream = mix(keys ^ tf.constant(purpose * 0x7FEB352D, tf.uint32))
    return mix(stream[:, None] + tf.cast(index, tf.uint32) * golden)


def uniform(bits: tf.Tensor) -> tf.Tensor:
    """Turns uint32 bits into float32 in [0, 1), exactly, on any device."""
    top = tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32))
    return tf.cast(tf.cast(top, tf.int32), tf.float32) * 2.0**-24


def below(bits: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
    """Turns uint32 bits into int32 in [0, limit); 0 where limit is 0.

    limit * (1 - 2^-24) never rounds up to a limit below 2^24.
    """
    return tf.cast(uniform(bits) * tf.cast(limit, tf.float32), tf.int32)


def take(values: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Gathers along axis 1, row by row; `index` is clipped into range."""
    last = tf.shape(values)[1] - 1
    return tf.gather(values, tf.clip_by_value(index, 0, last), batch_dims=1)
