"""How much arithmetic a step is, and how much this machine can do."""

import time

import tensorflow as tf

from albert_tf2.config import AlbertConfig


def forward_flops(
    config: AlbertConfig, length: int, positions: int | None = None
) -> int:
    """Returns the multiply-adds (times two) of the encoder, per row.

    L * T * (8 H^2 + 4 H I + 4 T H) + 2 E H T + 2 H^2: projections, feed
    forward, attention; the embedding projection; the pooler.

    Args:
        config: The sizes.
        length: T.
        positions: Where the last layer answers (`AlbertEncoder.at_positions`),
            None for everywhere. Its keys and values are of all tokens.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    keys_and_values = 4 * hidden**2
    the_rest = 4 * hidden**2 + 4 * hidden * inner + 4 * length * hidden
    answers = (config.num_hidden_layers - 1) * length
    answers += length if positions is None else positions
    return (
        config.num_hidden_layers * length * keys_and_values
        + answers * the_rest
        + 2 * config.embedding_size * hidden * length
        + 2 * hidden**2
    )


def training_flops(
    config: AlbertConfig,
    length: int,
    predictions: int,
    positions: int | None = None,
) -> int:
    """Returns the same for a training step, per row: three forwards.

    Each of the `predictions` masked positions goes through H -> E -> V; the
    backward pass is twice the forward one. `positions` as in `forward_flops`:
    a step's are the masked ones and a [CLS] for each pair.
    """
    head = 2 * config.embedding_size * (config.hidden_size + config.vocab_size)
    forward = forward_flops(config, length, positions)
    return 3 * (forward + predictions * head)


def measured_peak(dtype: tf.DType = tf.float32, *, size: int = 1024) -> float:
    """Measures FLOP/s of a square matrix product on the default device."""
    left = tf.ones([size, size], dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        tf.matmul(left, left).numpy()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
