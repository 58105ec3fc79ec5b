"""The proof of a conversion, and that it can fail."""

import dataclasses
import hashlib

import numpy as np
import pytest
from model_weights import weights_of

from albert_tf2 import AlbertPretrainer, UserError, paths
from albert_tf2.checkpoints import (
    certificate,
    conversion,
    names,
    read_weights,
    weights,
)


@pytest.fixture
def found(tiny_config):
    return weights_of(AlbertPretrainer(tiny_config))


def test_certificate_holds_what_it_claims(found, tmp_path):
    returned = conversion.convert(found, "tf1", tmp_path / "out")
    written = paths.read_json(tmp_path / "out" / "conversion.json")
    assert written == returned
    assert set(written["variable_map"]) == set(found.arrays)
    assert written["parameters"] == 31324
    assert set(written["max_abs_difference"]) == {
        "sequence_output",
        "pooled_output",
        "mlm_logits",
        "sop_logits",
    }
    described = written["target"]["files"]
    on_disk = {p.name for p in (tmp_path / "out").iterdir()}
    assert set(described) == on_disk - {"conversion.json"}
    for name, entry in described.items():
        content = (tmp_path / "out" / name).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()


def test_certificate_names_no_path_of_this_machine(found, tmp_path):
    conversion.convert(found, "tf1", tmp_path / "out")
    text = (tmp_path / "out" / "conversion.json").read_text()
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("wrong", "kept"), [(1e-6, True), (3e-5, False), (np.nan, False)]
)
def test_a_result_that_differs_is_not_kept(
    wrong, kept, found, tmp_path, monkeypatch
):
    write, run = conversion.TARGETS["tf1"]

    def run_wrongly(folder, inputs):
        outputs = run(folder, inputs)
        outputs["mlm_logits"][0, 0, 0] += wrong
        return outputs

    target = conversion.Target(write, run_wrongly)
    monkeypatch.setitem(conversion.TARGETS, "tf1", target)
    if kept:
        conversion.convert(found, "tf1", tmp_path / "out")
        return
    with pytest.raises(UserError, match="`mlm_logits` by .* nothing was kept"):
        conversion.convert(found, "tf1", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_weight_shows(found, tmp_path, monkeypatch):
    """Each single variable matters to the fixed inputs' outputs."""
    inputs = certificate.fixed_inputs(found.config)
    model = weights.to_model(found)
    expected = certificate.run(model, inputs, found.heads)
    for name, variable in names.variables_by_name(model).items():
        if name.endswith("self/key/bias"):
            continue  # adds the same to every score: softmax forgets it
        before = variable.numpy()
        noise = np.random.default_rng(0).normal(0, 0.1, before.shape)
        variable.assign_add(noise.astype(np.float32))
        actual = certificate.run(model, inputs, found.heads)
        variable.assign(before)
        worst = max(certificate.differences(expected, actual, inputs).values())
        assert worst > certificate.TOLERANCE, name


def test_missing_output_is_refused(found):
    inputs = certificate.fixed_inputs(found.config)
    outputs = certificate.run(weights.to_model(found), inputs, found.heads)
    fewer = {n: a for n, a in outputs.items() if n != "sop_logits"}
    with pytest.raises(UserError, match="and not .*sop_logits"):
        certificate.differences(outputs, fewer, inputs)


def test_what_stands_at_padding_does_not_count():
    inputs = {"input_mask": np.array([[1, 1, 0]])}
    expected = {"sequence_output": np.zeros([1, 3, 2], np.float32)}
    actual = {"sequence_output": np.float32([[[0, 0], [0, 0.5], [9, 9]]])}
    found = certificate.differences(expected, actual, inputs)
    assert found == {"sequence_output": 0.5}


def test_fixed_inputs_are_fixed(tiny_config):
    one, two = (certificate.fixed_inputs(tiny_config) for _ in range(2))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert one["input_mask"].min() == 0  # padding is part of the proof
    assert one["input_type_ids"].max() == 1
    assert (one["input_word_ids"] < tiny_config.vocab_size).all()


def test_an_existing_result_is_kept(found, tmp_path):
    conversion.convert(found, "tf1", tmp_path / "out")
    with pytest.raises(UserError, match="already exists"):
        conversion.convert(found, "tf1", tmp_path / "out")
    conversion.convert(found, "tf2", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "model.index").is_file()
    assert not (tmp_path / "out" / "albert_model.ckpt.index").exists()


@pytest.fixture
def sensitive(tiny_config):
    """The first word's embedding hardly varies: LayerNorm enlarges it."""
    found = weights_of(AlbertPretrainer(tiny_config.replace(layout="google")))
    arrays = dict(found.arrays)
    words = arrays["bert/embeddings/word_embeddings"].copy()
    words[0] = 1.0
    arrays["bert/embeddings/word_embeddings"] = words
    for name in ("token_type", "position"):
        name = f"bert/embeddings/{name}_embeddings"
        arrays[name] = arrays[name] * np.float32(1e-4)
    return dataclasses.replace(found, arrays=arrays)


def limits_of(found, expected=None):
    inputs = certificate.fixed_inputs(found.config)
    inputs["input_word_ids"][:, 3] = 0  # not padding alone
    model = weights.to_model(found)
    expected = expected or certificate.run(model, inputs, found.heads, found)
    return certificate.tolerances(found, inputs, expected)


def test_limits_are_what_rounding_costs_this_model(found, sensitive):
    limits = limits_of(found).values()
    assert certificate.TOLERANCE == min(limits) <= max(limits) < 3e-5
    limits = limits_of(sensitive)
    # Embeddings of 1.0, one bit off, less their mean; divided by what varies.
    assert limits["sequence_output"] > 2**-23 / 1e-4
    assert limits_of(sensitive) == limits  # the same every time


def test_a_heads_own_rounding_counts(found):
    head = {"output_weights": np.zeros([3, 48], np.float32)}
    head["output_bias"] = np.full(3, 1e4, np.float32)
    tuned = dataclasses.replace(found, task_arrays=head)
    limits = limits_of(tuned)
    assert limits["pooled_output"] == certificate.TOLERANCE
    assert limits["task_logits"] > 1e4 * 2**-22


def test_a_broken_source_earns_no_limit(found):
    expected = {"pooled_output": np.full([4, 48], np.nan, np.float32)}
    limits = limits_of(found, expected)
    assert limits == {"pooled_output": certificate.TOLERANCE}


@pytest.mark.parametrize("wrong", ["gelu", "epsilon"])
def test_what_is_wrong_costs_more_than_rounding(wrong):
    """Of a trained model that makes much of a rounding: the starter."""
    starter = read_weights("starter")
    inputs = certificate.fixed_inputs(starter.config)
    expected = certificate.run(weights.to_model(starter), inputs, starter.heads)
    limits = certificate.tolerances(starter, inputs, expected)
    assert limits["sequence_output"] > certificate.TOLERANCE
    act = {"hidden_act": "gelu_erf"} if wrong == "gelu" else {}
    other = dataclasses.replace(starter, config=starter.config.replace(**act))
    model = weights.to_model(other)
    if wrong == "epsilon":
        for layer in model.submodules:
            if hasattr(layer, "epsilon"):
                layer.epsilon = 1e-6
    actual = certificate.run(model, inputs, starter.heads)
    cost = certificate.differences(expected, actual, inputs)
    assert cost["sequence_output"] > 2 * limits["sequence_output"]
