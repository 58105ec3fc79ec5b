"""The feed-forward block in blocks: the same numbers from smaller products."""

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2.hub_export.xnnpack import blocked_feed_forward
from albert_tf2.model import layers


@pytest.mark.parametrize("ln_type", ["postln", "preln"])
@pytest.mark.parametrize("inner, blocks", [(96, 2), (100, 3), (48, 1)])
def test_blocks_change_nothing(ln_type, inner, blocks, tiny_config):
    """Also where I is no multiple of H; each block is two products."""
    config = tiny_config.replace(ln_type=ln_type, intermediate_size=inner)
    layer = layers.FeedForwardBlock(config)
    rng = np.random.default_rng(0)
    for variable in layer.variables:
        variable.assign(rng.normal(size=variable.shape))
    hidden = tf.constant(rng.normal(size=(5, config.hidden_size)), tf.float32)
    whole = layer(hidden)
    with blocked_feed_forward():
        parts = layer(hidden)
        traced = tf.function(layer).get_concrete_function(hidden)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)
    kinds = [operation.type for operation in traced.graph.get_operations()]
    assert kinds.count("MatMul") == 2 * blocks


def test_the_method_comes_back():
    method = layers.FeedForwardBlock.call
    with pytest.raises(KeyError), blocked_feed_forward():
        assert layers.FeedForwardBlock.call is not method
        raise KeyError
    assert layers.FeedForwardBlock.call is method
