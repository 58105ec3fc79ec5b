"""How much arithmetic a step is, and how much this machine can do."""

import time

import tensorflow as tf

from albert_tf2.config import AlbertConfig


def forward_flops(config: AlbertConfig, length: int) -> int:
    """Returns the multiply-adds (times two) of the encoder, per row.

    L * T * (8 H^2 + 4 H I + 4 T H) + 2 E H T + 2 H^2: projections, feed
    forward, attention; the embedding projection; the pooler.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    per_token = 8 * hidden**2 + 4 * hidden * inner + 4 * length * hidden
    return (
        config.num_hidden_layers * length * per_token
        + 2 * config.embedding_size * hidden * length
        + 2 * hidden**2
    )


def training_flops(config: AlbertConfig, length: int, predictions: int) -> int:
    """Returns the same for a training step, per row: three forwards.

    Each masked position goes through H -> E -> V; the backward pass is twice
    the forward one.
    """
    head = 2 * config.embedding_size * (config.hidden_size + config.vocab_size)
    return 3 * (forward_flops(config, length) + predictions * head)


def measured_peak(dtype: tf.DType = tf.float32, *, size: int = 1024) -> float:
    """Measures FLOP/s of a square matrix product on the default device."""
    left = tf.ones([size, size], dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        tf.matmul(left, left).numpy()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
