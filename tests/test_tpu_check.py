"""The train step as a TPU program: exported here, compiled by libtpu."""

import importlib.util

import pytest
import tensorflow as tf

from albert_tf2 import AlbertConfig, tpu_check
from albert_tf2.errors import UserError
from albert_tf2.recipes import PretrainRecipe

has_compiler = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jax", "libtpu"))),
    reason="no TPU compiler: pip install -e '.[tpu_check]'",
)
# Neither it nor a JAX with the TPU compiler, which needs NumPy 2.
without_stablehlo = tf.__version__.startswith("2.15.")


@pytest.fixture
def toy(tmp_path):
    AlbertConfig(
        vocab_size=200,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    ).to_json(tmp_path / "albert_config.json")
    return {
        "model": str(tmp_path / "albert_config.json"),
        "max_seq_length": 64,
        "max_predictions_per_seq": 8,
        "global_batch_size": 16,
        "gradient_accumulation_steps": 2,
        "precision": "mixed_bfloat16",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }


@pytest.mark.skipif(
    without_stablehlo, reason="TensorFlow 2.15 cannot write StableHLO"
)
def test_the_exported_step_is_static_and_has_no_host_calls(toy):
    text = tpu_check.export_step(PretrainRecipe(**toy), 4)
    assert "stablehlo.dot_general" in text and "bf16" in text
    assert "mhlo.copy" not in text
    for forbidden in ("tensor<?", "infeed", "outfeed", "send", "!tf"):
        assert forbidden not in text, forbidden
    assert "8x64xi32" in text  # two parts of four rows


@pytest.mark.skipif(
    not without_stablehlo, reason="about TensorFlow 2.15, without StableHLO"
)
def test_a_tensorflow_without_stablehlo_is_told(toy):
    with pytest.raises(UserError, match="2.15.* cannot write StableHLO"):
        tpu_check.export_step(PretrainRecipe(**toy), 4)


@has_compiler
def test_a_toy_compiles_and_reports(toy, capsys):
    overrides = [f"--set={key}={value}" for key, value in toy.items()]
    assert tpu_check.main(["--topology", "v5e:2x2", *overrides]) == 0
    printed = capsys.readouterr().out
    assert "2 x 64 per core, 2 part(s)" in printed
    for fact in ("compiles: yes", "of 16 GiB", "FLOP", "steps/s"):
        assert fact in printed


@has_compiler
@pytest.mark.large
def test_tiny_compiles_with_the_work_that_the_formula_says(capsys):
    from albert_tf2.model.flops import training_flops

    recipe = PretrainRecipe(
        model="albert_tiny_zh",
        max_seq_length=128,
        max_predictions_per_seq=20,
        precision="mixed_bfloat16",
    )
    facts = tpu_check.compile_step(recipe, 32, "v5e:2x2")
    assert facts["fits"] and facts["memory"] < tpu_check.GIB
    # Heads look at 20 masked positions and, packed, at the [CLS] of 4 pairs.
    expected = 32 * training_flops(recipe.model_config(), 128, 20, 20 + 4)
    assert facts["flops"] == pytest.approx(expected, rel=0.05)


@has_compiler
@pytest.mark.large
def test_a_batch_that_does_not_fit_is_told():
    recipe = PretrainRecipe(model="albert_base_zh", precision="mixed_bfloat16")
    facts = tpu_check.compile_step(recipe, 2048, "v5e:2x2")
    assert not facts["fits"] and facts["reason"]


def test_largest_batch_is_found_by_halving(toy, monkeypatch):
    tried = []

    def compile_step(recipe, batch, topology):
        tried.append(batch)
        return {"fits": batch <= 53}

    monkeypatch.setattr(tpu_check, "compile_step", compile_step)
    recipe = PretrainRecipe(**toy)
    largest = tpu_check.largest_batch(recipe, 4, {"fits": True}, "v5e:2x2")
    assert 53 / (1 + 1 / 8) <= largest <= 53 and len(tried) < 10
    assert tpu_check.largest_batch(recipe, 64, {"fits": False}, "v5e:2x2") > 46


@pytest.mark.parametrize("topology", ["v9:2x2", "v5e", "v5e:ax2"])
def test_wrong_topologies_are_named(topology):
    with pytest.raises(UserError, match="--topology must be one of v4, v5e"):
        tpu_check.main(["--topology", topology])
    assert tpu_check.read_topology("v5e:2x4")[1] == 8


def test_the_bound_is_the_slower_of_arithmetic_and_memory(toy):
    facts = {
        "fits": True,
        "memory": tpu_check.GIB,
        "arguments": 1,
        "temporary": 1,
        "flops": 197e12,
        "bytes_accessed": 819e9 / 2,
    }
    chip, _ = tpu_check.read_topology("v5e:2x2")
    recipe = PretrainRecipe(**toy)
    # Two parts: the work that XLA counts once is done twice.
    text = tpu_check.report(recipe, 4, facts, chip, "v5e:2x2")
    assert "bound: 0.5 steps/s, 4 rows/s per core, by arithmetic" in text
    facts["bytes_accessed"] = 819e9 * 2
    text = tpu_check.report(recipe, 4, facts, chip, "v5e:2x2")
    assert "bound: 0.25 steps/s" in text and "memory traffic" in text
