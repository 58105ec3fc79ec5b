"""Layer-wise rates: which variable has which, and what an update makes."""

import numpy as np
import pytest
import task_samples as samples
import tensorflow as tf
from lamb import HAS_LAMB

from albert_tf2.finetuning import layer_rates
from albert_tf2.finetuning.model import TaskHead, TaskModel
from albert_tf2.model.albert import AlbertEncoder
from albert_tf2.tasks import base
from albert_tf2.training import optimization


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    return samples.write_vocab(tmp_path_factory.mktemp("vocab"))


def model_of(vocab_file, **changes):
    config = samples.small_config(vocab_file, **changes)
    head = TaskHead(2, config.hidden_size, name="head")
    return TaskModel(AlbertEncoder(config), head, base.CLASSIFICATION)


# The group above has the rate itself; half of it, a quarter of it, ...
SHARED = {"embeddings": 0.25, "attention_0": 0.5, "feed_forward_0": 0.5}
GROUPS = {
    "as released": ({}, SHARED),
    "google": (
        {"layout": "google"},
        SHARED | {"embedding_hidden_mapping_in": 0.25},
    ),
    "nothing shared": (
        {"parameter_sharing": "none", "num_hidden_layers": 3},
        {
            "embeddings": 1 / 16,
            **{f"attention_{i}": 0.5 ** (3 - i) for i in range(3)},
            **{f"feed_forward_{i}": 0.5 ** (3 - i) for i in range(3)},
        },
    ),
    # The shared block is applied by the last layer too.
    "attention shared": (
        {"parameter_sharing": "attention", "num_hidden_layers": 2},
        {
            "embeddings": 1 / 8,
            "attention_0": 0.5,
            "feed_forward_0": 0.25,
            "feed_forward_1": 0.5,
        },
    ),
    "two groups": (
        {"layout": "google", "num_hidden_groups": 2, "num_hidden_layers": 4},
        {
            "embeddings": 1 / 8,
            "embedding_hidden_mapping_in": 1 / 8,
            "attention_0": 0.25,
            "feed_forward_0": 0.25,
            "attention_1": 0.5,
            "feed_forward_1": 0.5,
        },
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_each_group_has_a_share_of_the_one_above(vocab_file, name):
    changes, expected = GROUPS[name]
    model = model_of(vocab_file, **changes)
    factors = layer_rates.factors(model, 0.5)
    assert len(factors) == len(model.trainable_variables)
    seen = set()
    for variable, factor in factors.items():
        parts = variable.split("/")
        own = [part for part in parts if part in expected]
        assert len(own) <= 1
        assert factor == (expected[own[0]] if own else 1.0), variable
        assert own or "pooler" in parts or "head" in parts, variable
        seen |= set(own)
    assert seen == set(expected)
    told = layer_rates.describe(model, 0.5)
    assert f"embeddings {expected['embeddings']:.4g}, block 1 of " in told


@pytest.mark.parametrize(
    "name, corrects",
    [("adamw", True), ("adamw", False), ("lamb", True)],
)
def test_an_update_at_a_share_of_the_rate(name, corrects):
    """Three steps of two variables equal those of two optimizers."""
    if name == "lamb" and not HAS_LAMB:
        pytest.skip("needs LAMB")
    rng = np.random.default_rng(0)
    start = rng.normal(size=[2, 3, 4]).astype(np.float32)
    gradients = rng.normal(size=[3, 2, 3, 4]).astype(np.float32)
    settings = {"weight_decay": 0.3, "bias_correction": corrects}

    def updated(rates, factors=None):
        variables = [
            tf.Variable(value, name=f"part_{i}")
            for i, value in enumerate(start)
        ]
        optimizers = [
            optimization.create_optimizer(
                name, rate, factors=factors, **settings
            )
            for rate in rates
        ]
        for step in gradients:
            pairs = list(zip(step, variables, strict=True))
            if len(optimizers) == 1:
                optimizers[0].apply_gradients(pairs)
                continue
            for optimizer, pair in zip(optimizers, pairs, strict=True):
                optimizer.apply_gradients([pair])
        return [variable.numpy() for variable in variables]

    found = updated([0.1], {"part_0": 0.25, "part_1": 1.0})
    expected = updated([0.025, 0.1])
    for a, b, before in zip(found, expected, start, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        assert np.abs(a - before).max() > 1e-3


def test_a_sparse_gradient_has_its_share_too():
    def updated(rate, factors):
        variable = tf.Variable(tf.ones([3, 2]), name="embeddings")
        optimizer = optimization.create_optimizer(
            "adamw", rate, weight_decay=0.5, factors=factors
        )
        gradient = tf.IndexedSlices(tf.fill([1, 2], 0.3), [1])
        optimizer.apply_gradients([(gradient, variable)])
        return variable.numpy()

    np.testing.assert_allclose(
        updated(0.1, {"embeddings": 0.5}), updated(0.05, None), rtol=1e-6
    )


def test_copies_of_a_variable_have_one_name():
    variable = tf.Variable(1.0, name="head/kernel")
    assert optimization.plain_name(variable) == "head/kernel"
    for name in ("head/kernel/replica_1:0", "head/kernel/replica_12"):

        class Copy:
            pass

        copy = Copy()
        copy.name = name
        assert optimization.plain_name(copy) == "head/kernel"


def test_the_recipes_optimizer_has_the_shares(vocab_file):
    """Of SGD-like first steps: Adam's first change is the rate itself."""
    from albert_tf2.recipes import FinetuneRecipe

    model = model_of(vocab_file)
    recipe = FinetuneRecipe(weight_decay=0.0)
    schedule = optimization.WarmupLinearDecay(
        0.01, train_steps=10, warmup_steps=0
    )
    optimizer = optimization.recipe_optimizer(
        recipe,
        schedule,
        model.trainable_variables,
        factors=layer_rates.factors(model, 0.5),
    )
    before = [v.numpy() for v in model.trainable_variables]
    optimizer.apply_gradients(
        (tf.ones_like(v), v) for v in model.trainable_variables
    )
    for old, variable in zip(before, model.trainable_variables, strict=True):
        share = 1.0
        if "encoder" in variable.name and "pooler" not in variable.name:
            share = 0.25 if "embeddings" in variable.name else 0.5
        np.testing.assert_allclose(
            old - variable.numpy(),
            0.01 * share,
            rtol=1e-3,
            err_msg=variable.name,
        )
