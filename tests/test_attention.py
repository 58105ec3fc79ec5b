"""Attention of steps that XLA compiles whole, against the plain one."""

import numpy as np
import pytest
import tensorflow as tf
from test_fusion import CHANGES, assert_same, pretraining_batch, scattered

from albert_tf2.model import attention, layers, losses
from albert_tf2.pretraining.step import PretrainStep

SIZES = {"query": [2, 3, 4, 8], "key": [2, 3, 10, 8], "value": [2, 3, 10, 8]}


def drawn(dtype=tf.float32, scale=2.0):
    return [
        tf.cast(scale * tf.random.stateless_normal(size, [seed, 0]), dtype)
        for seed, size in enumerate(SIZES.values())
    ]


def masked():
    hidden = tf.random.stateless_uniform([2, 1, 4, 10], [7, 0]) > 0.7
    return tf.where(hidden, layers.MASKED_SCORE, 0.0)


def plain(query, key, value, bias):
    scores = tf.matmul(query, key, transpose_b=True)
    return tf.matmul(layers.softmax(scores, bias), value)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_values_and_gradients_are_the_plain_ones(scale):
    bias = masked()
    assert_same(
        lambda *inputs: attention.attend(*inputs, bias),
        lambda *inputs: plain(*inputs, bias),
        *drawn(scale=scale),
        tolerance=2e-5 * scale,
    )


def test_bfloat16_is_as_near_to_float32_as_the_plain_one():
    inputs, bias = drawn(tf.bfloat16), masked()
    upstream = tf.cast(
        tf.random.stateless_normal(SIZES["query"], [9, 0]), tf.bfloat16
    )

    @tf.function(jit_compile=True)
    def found(function, inputs, upstream):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            context = function(*inputs, bias)
        gradients = tape.gradient(context, inputs, output_gradients=upstream)
        return [tf.cast(x, tf.float32) for x in (context, *gradients)]

    exact = found(
        plain,
        [tf.cast(x, tf.float32) for x in inputs],
        tf.cast(upstream, tf.float32),
    )
    lean, usual = (
        found(function, inputs, upstream)
        for function in (attention.attend, plain)
    )
    for true, ours, theirs in zip(exact, lean, usual, strict=True):
        error, usual_error = (
            float(tf.sqrt(tf.reduce_mean((x - true) ** 2)))
            for x in (ours, theirs)
        )
        assert error < 1.25 * usual_error


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_lean_step_has_the_plain_models_gradients(
    tiny_config, changes, pairs
):
    model = scattered(tiny_config.replace(**changes))
    batch = pretraining_batch(model.config, pairs=pairs)
    step = PretrainStep(model, optimizer=None, jit_compile=True)
    assert step.lean and not step.fuses
    weights = losses.batch_weights(batch)
    found, sums = step.gradients(batch, weights)
    step.lean = False
    expected, expected_sums = step.gradients(batch, weights)
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-5)
    for a, b, variable in zip(
        found, expected, model.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-5, err_msg=variable.name)


def test_probabilities_that_are_dropped_are_written_down(tiny_config):
    config = tiny_config.replace(attention_probs_dropout_prob=0.5)
    block = layers.AttentionBlock(config)
    hidden = tf.random.stateless_normal([6, config.hidden_size], [1, 0])
    bias = tf.zeros([2, 1, 1, 3])
    with attention.lean():
        whole, dropped = (
            block(hidden, bias=bias, batch_size=2, training=training)
            for training in (False, True)
        )
    assert np.abs(whole - dropped).max() > 1e-3
    assert not attention.is_lean()


def test_nothing_of_float32_is_as_large_as_the_scores():
    """What is kept for the gradient is in the products' type."""

    @tf.function
    def gradients(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            context = attention.attend(*inputs, tf.zeros([2, 1, 1, 10]))
        return tape.gradient(context, inputs)

    graph = gradients.get_concrete_function(*drawn(tf.bfloat16)).graph
    products = [op for op in graph.get_operations() if "MatMul" in op.type]
    assert len(products) == 6
    for op in products:
        assert {x.dtype for x in op.inputs} == {tf.bfloat16}
