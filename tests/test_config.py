"""Configurations are strict, typed and told apart."""

import json

import pytest

from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_configurations():
    sizes = "tiny small base large xlarge xxlarge".split()
    for size in sizes:
        brightmart = AlbertConfig.from_name(f"albert_{size}_zh")
        google = AlbertConfig.from_name(f"albert_{size}_zh_google")
        assert brightmart.layout == "brightmart"
        assert google.layout == "google"
        # xxlarge is the only pre-LN model of albert_zh.
        expected = "preln" if size == "xxlarge" else "postln"
        assert brightmart.ln_type == expected
        for config in (brightmart, google):
            assert config.hidden_dropout_prob == 0.0
            assert config.attention_probs_dropout_prob == 0.0
            assert config.vocab_size == 21128


def test_json_round_trip(tmp_path, tiny_config):
    for config in (
        tiny_config.replace(ln_type="preln"),
        tiny_config.replace(parameter_sharing="ffn"),
        tiny_config.replace(layout="google", num_hidden_groups=3),
    ):
        config.to_json(tmp_path / "config.json")
        assert AlbertConfig.from_json(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("values", "layout", "ln_type"),
    [
        ({"ln_type": "postln"}, "brightmart", "postln"),
        ({"ln_type": None}, "brightmart", "postln"),
        ({"ln_type": "preln"}, "brightmart", "preln"),
        ({}, "brightmart", "postln"),
        ({"num_hidden_groups": 1, "gap_size": 0}, "google", "postln"),
        ({"directionality": "bidi"}, "brightmart", "postln"),
    ],
)
def test_layout_follows_from_the_keys(values, layout, ln_type):
    config = AlbertConfig.from_dict({"vocab_size": 10, **values})
    assert (config.layout, config.ln_type) == (layout, ln_type)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hiden_size": 3}, "my.json: unknown key `hiden_size`; did you mean"),
        ({"hidden_size": "3"}, "my.json: `hidden_size` must be a whole number"),
        ({"hidden_size": True}, "`hidden_size=True`"),
        ({"hidden_size": 0}, "`hidden_size` must be a whole number from 1"),
        ({"hidden_size": 10}, "must be divisible by `num_attention_heads`"),
        ({"hidden_act": "swish"}, "must be one of gelu"),
        (
            {"hidden_dropout_prob": 1.0},
            "must be a number of at",
        ),
        (
            {"num_hidden_groups": 2, "layout": "brightmart"},
            "must be google for groups",
        ),
        ({"num_hidden_groups": 1, "ln_type": "pre"}, "no pre-LN variant"),
        (
            {"num_hidden_groups": 2, "parameter_sharing": "none"},
            "needs one group",
        ),
    ],
)
def test_wrong_values_are_told_in_one_line(values, message):
    with pytest.raises(UserError) as caught:
        AlbertConfig.from_dict({"vocab_size": 10, **values}, source="my.json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_are_named_in_errors(tmp_path):
    missing = tmp_path / "missing.json"
    with pytest.raises(UserError, match=r"missing\.json does not exist"):
        AlbertConfig.from_json(missing)
    broken = write(tmp_path / "broken.json", '{\n "vocab_size": 1,\n}')
    with pytest.raises(UserError, match=r"broken\.json, line 3: not valid"):
        AlbertConfig.from_json(broken)
    listed = write(tmp_path / "list.json", json.dumps([1]))
    with pytest.raises(UserError, match="an object of JSON"):
        AlbertConfig.from_json(listed)
    with pytest.raises(UserError, match="did you mean `albert_tiny_zh`"):
        AlbertConfig.from_name("albert_tyny_zh")


def test_keys_that_no_program_reads_are_left_out(tmp_path):
    """They stand in published files, Hugging Face's old ones among them."""
    config = AlbertConfig.from_name("albert_tiny_zh_google")
    path = tmp_path / "albert_config.json"
    extra = {"layers_to_keep": [], "net_structure_type": 0, "use_einsum": True}
    path.write_text(json.dumps(config.to_dict() | extra), "utf-8")
    assert AlbertConfig.from_json(path) == config
    path.write_text(json.dumps(config.to_dict() | {"layer_to_keep": []}))
    with pytest.raises(UserError, match="layer_to_keep"):
        AlbertConfig.from_json(path)
