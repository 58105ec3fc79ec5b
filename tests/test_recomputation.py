"""Layers computed again in the backward pass: the same numbers."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from test_fusion import pretraining_batch, scattered

from albert_tf2.model import dropout, layers, losses, recomputation
from albert_tf2.pretraining.step import PretrainStep

DROPPED = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}


def gradients(model, batch, **how):
    step = PretrainStep(model, optimizer=None, seed=3, **how)
    found, sums = step._compute(batch, losses.batch_weights(batch), 7)
    return [*found, sums]


def assert_same(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)
    assert any(np.abs(b).max() > 1e-3 for b in expected)


@pytest.mark.parametrize(
    "changes, how",
    [
        ({"layout": "google"}, {}),
        ({"layout": "google"}, {"jit_compile": True}),
        (
            {"parameter_sharing": "none", "ln_type": "preln"},
            {"accumulation_steps": 2},
        ),
    ],
    ids=["plain", "compiled", "in parts"],
)
def test_a_step_has_the_same_gradients(tiny_config, changes, how):
    """The same draws of dropout, though they are drawn twice."""
    model = scattered(tiny_config.replace(**changes, **DROPPED))
    batch = pretraining_batch(model.config, batch=4, pairs=2)
    expected = gradients(model, batch, **how)
    found = gradients(model, batch, recompute=True, **how)
    assert_same(found, expected, atol=2e-6, rtol=1e-5)
    # Dropout was at work: other draws are other gradients.
    with contextlib.suppress(AssertionError):
        plain = scattered(model.config.replace(hidden_dropout_prob=0.0))
        assert_same(gradients(plain, batch, **how), expected, atol=1e-4)
        pytest.fail("dropout changed nothing")


def test_all_layers_but_the_last_are_computed_twice(tiny_config, monkeypatch):
    model = scattered(tiny_config)
    batch = pretraining_batch(model.config)
    calls = []
    call = layers.FeedForwardBlock.call

    def counted(self, hidden, **more):
        calls.append(int(hidden.shape[0]))
        return call(self, hidden, **more)

    monkeypatch.setattr(layers.FeedForwardBlock, "call", counted)
    gradients(model, batch)
    assert len(calls) == 3
    gradients(model, batch, recompute=True)
    assert len(calls) == 3 + 3 + 2
    assert calls[3:5] == calls[6:]  # the two below the last
    # A model that is called by hand keeps everything, as ever.
    model(batch, training=True)
    assert len(calls) == 8 + 3 and not recomputation.are_enabled()


def test_what_is_kept_is_the_input_alone():
    """Of ten big products in a layer none outlives the forward pass."""
    kernel = tf.Variable(tf.eye(16))

    def layer(hidden):
        for _ in range(10):
            hidden = tf.sin(hidden @ kernel)
        return hidden

    def outputs_used(recompute):
        @tf.function(autograph=False)
        def step(hidden):
            with tf.GradientTape() as tape:
                if recompute:
                    hidden = recomputation.computed_again(layer, hidden)
                else:
                    hidden = layer(hidden)
                loss = tf.reduce_sum(hidden)
            return loss, tape.gradient(loss, kernel)

        graph = step.get_concrete_function(tf.TensorSpec([8, 16])).graph
        sines = [op for op in graph.get_operations() if op.type == "Sin"]
        first = sines[:10]  # those of the forward pass
        return [
            reader.type
            for sine in first[:-1]
            for reader in sine.outputs[0].consumers()
        ]

    plain, again = outputs_used(False), outputs_used(True)
    # Each is read by the next product, and by that one's gradient if kept.
    assert len(plain) == 18 and len(again) == 9


def test_draws_go_on_after_those_that_were_repeated():
    with dropout.seeded(tf.constant([1, 2])):
        start = dropout.place()
        layer = dropout.Dropout(0.5)
        ones = tf.ones([1000])
        first, second = (layer(ones, training=True) for _ in range(2))
        with dropout.from_place(start):
            again = layer(ones, training=True)
        third = layer(ones, training=True)
        assert dropout.place() == 3
    np.testing.assert_array_equal(again, first)
    for a, b in ((first, second), (second, third), (first, third)):
        assert np.abs(a - b).max() > 0
