"""The feed-forward block, written as XNNPACK runs it fastest.

TFLite computes on CPUs with XNNPACK, whose float32 product reads all weights
once for every few rows. Those of an [H, I] product (1.5 MB for tiny) do not
stay in the caches near a core; cut into I / H blocks of [H, H], each does:

    gelu(x W1 + b1) W2  =  sum over blocks  gelu(x W1[:, b] + b1[b]) W2[b, :]

The sum is the same but for the order of additions. albert_tiny then takes
0.92 of the time at 128 tokens. Eight-bit weights are a quarter of the size,
and each of their products converts its input first: they stay whole.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from albert_tf2.model import layers


@contextlib.contextmanager
def blocked_feed_forward() -> Iterator[None]:
    """Traces every `FeedForwardBlock` in this block as a sum of blocks.

    The method is replaced, because a fine-tuned classifier arrives as a
    function whose layers cannot be reached.
    """
    block: Any = layers.FeedForwardBlock
    whole = block.call
    block.call = _call_in_blocks
    try:
        yield
    finally:
        block.call = whole


def _call_in_blocks(
    self: layers.FeedForwardBlock,
    hidden: tf.Tensor,
    training: bool | None = None,
) -> tf.Tensor:
    """Does what `FeedForwardBlock.call` does in inference: [B*T, H]."""
    assert not training, "TFLite models are for inference"
    preln = self.config.ln_type == "preln"
    inputs = self.layer_norm(hidden) if preln else hidden
    first, second = self.intermediate_dense, self.output_dense
    width = self.config.hidden_size
    output = hidden
    for start in range(0, self.config.intermediate_size, width):
        block = slice(start, start + width)
        inner = tf.matmul(inputs, first.kernel[:, block]) + first.bias[block]
        product = tf.matmul(self.activation(inner), second.kernel[block])
        if start == 0:
            product += second.bias  # here it is part of the product
        output += product
    return output if preln else self.layer_norm(output)
