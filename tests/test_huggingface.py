"""Hugging Face folders, judged by transformers itself."""

import json
import pickle

import numpy as np
import pytest
from model_weights import weights_of

from albert_tf2 import AlbertPretrainer, UserError
from albert_tf2.checkpoints import (
    huggingface,
    huggingface_bert,
    load_pretrained,
    read_weights,
    weights,
)

torch = pytest.importorskip("torch", reason="pip install .[huggingface]")
transformers = pytest.importorskip("transformers")

GOOGLE = ("google_toy", "google_groups_toy", "google_samewidth_toy")


def random_inputs(config, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, config.vocab_size, [3, 12])
    mask = np.ones_like(ids)
    mask[1, 7:] = 0
    types = np.repeat([[0] * 5 + [1] * 7], 3, axis=0)
    positions = np.array([[1, 4], [2, 3], [5, 11]])
    return {
        "input_word_ids": ids.astype(np.int32),
        "input_mask": mask.astype(np.int32),
        "input_type_ids": types.astype(np.int32),
        "masked_lm_positions": positions.astype(np.int32),
    }


def compare(model, theirs, expected_sop="sop_logits"):
    """Runs both; returns the largest difference over real tokens."""
    inputs = random_inputs(model.config)
    ours = model(inputs)
    with torch.no_grad():
        outputs = theirs.eval()(
            input_ids=torch.tensor(inputs["input_word_ids"]).long(),
            attention_mask=torch.tensor(inputs["input_mask"]).long(),
            token_type_ids=torch.tensor(inputs["input_type_ids"]).long(),
            output_hidden_states=True,
        )
    real = inputs["input_mask"].astype(bool)
    found = [
        np.abs(
            ours["sequence_output"].numpy()[real]
            - outputs.hidden_states[-1].numpy()[real]
        ).max()
    ]
    mlm = outputs.prediction_logits.numpy()
    rows = np.arange(len(mlm))[:, None]
    at = mlm[rows, inputs["masked_lm_positions"]]
    found.append(np.abs(ours["mlm_logits"].numpy() - at).max())
    sop = getattr(outputs, expected_sop).numpy()
    found.append(np.abs(ours["sop_logits"].numpy() - sop).max())
    return max(found)


@pytest.fixture(params=GOOGLE)
def google(request, golden_folder):
    return read_weights(golden_folder / "pretraining" / request.param)


def test_albert_loads_in_transformers(google, tmp_path):
    huggingface.write(google, tmp_path)
    theirs, report = transformers.AlbertForPreTraining.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert compare(weights.to_model(google), theirs) < 2e-5


def test_albert_round_trip_is_bit_exact(google, tmp_path):
    huggingface.write(google, tmp_path)
    again = read_weights(tmp_path)
    assert again.config == google.config
    assert again.kind == "huggingface"
    assert set(again.arrays) == set(google.arrays)
    for name, array in google.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)


def test_albert_saved_by_transformers(google, tmp_path):
    """transformers -> ours, through its own save_pretrained."""
    huggingface.write(google, tmp_path / "ours")
    theirs = transformers.AlbertForPreTraining.from_pretrained(
        tmp_path / "ours"
    )
    theirs.save_pretrained(tmp_path / "theirs")
    model = load_pretrained(tmp_path / "theirs")
    assert compare(model, theirs) < 2e-5


def hf_config(**changes):
    values = {
        "vocab_size": 202,
        "embedding_size": 16,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
        "hidden_act": "gelu_new",
    }
    return transformers.AlbertConfig(**{**values, **changes})


@pytest.mark.parametrize("act", ["gelu_new", "gelu", "relu"])
def test_models_born_in_transformers(act, tmp_path):
    """Their "gelu" is the exact one; ours must be it too, then."""
    theirs = transformers.AlbertForPreTraining(hf_config(hidden_act=act))
    theirs.save_pretrained(tmp_path)
    assert compare(load_pretrained(tmp_path), theirs) < 2e-5


def test_bin_file(tmp_path):
    theirs = transformers.AlbertForPreTraining(hf_config())
    theirs.config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    assert compare(load_pretrained(tmp_path), theirs) < 2e-5


def test_bare_albert_model(tmp_path):
    theirs = transformers.AlbertModel(hf_config())
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no mlm and no sop head"):
        model = load_pretrained(tmp_path)
    np.testing.assert_array_equal(
        model.encoder.pooler.kernel.numpy().T,
        theirs.pooler.weight.detach().numpy(),
    )


def test_sequence_classifier_round_trip(tmp_path):
    labels = {0: "坏", 1: "中", 2: "好"}
    theirs = transformers.AlbertForSequenceClassification(
        hf_config(id2label=labels, label2id={v: k for k, v in labels.items()})
    )
    theirs.save_pretrained(tmp_path / "theirs")
    found = read_weights(tmp_path / "theirs")
    np.testing.assert_array_equal(
        found.task_arrays["output_weights"],
        theirs.classifier.weight.detach().numpy(),
    )
    assert found.task_labels == ("坏", "中", "好")
    huggingface.write(found, tmp_path / "again")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "again"
    )
    assert again.config.id2label == labels
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_token_classifier_is_told_apart(tmp_path):
    theirs = transformers.AlbertForTokenClassification(hf_config())
    theirs.save_pretrained(tmp_path)
    # It has no pooler by design, and its head reads tokens.
    with pytest.warns(UserWarning, match="has no pooler"):
        found = read_weights(tmp_path)
    assert found.task_kind == "tagging"
    with pytest.warns(UserWarning, match="no mlm and no sop head"):
        model = weights.to_model(found)
    assert not model.encoder.pooler.kernel.numpy().any()


class Opens:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_in_bin_is_not_run(writer, tmp_path):
    hf_config().save_pretrained(tmp_path)
    bait, path = tmp_path / "owned", tmp_path / "pytorch_model.bin"
    if writer == "torch":
        torch.save({"x": Opens(bait)}, path)
    else:
        path.write_bytes(pickle.dumps({"x": Opens(bait)}))
    with pytest.raises(UserError, match="more than weights"):
        load_pretrained(tmp_path)
    assert not bait.exists()


def safetensors_bytes(header, data=b""):
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a tensor file at all",
        (1 << 62).to_bytes(8, "little") + b"{}",
        safetensors_bytes(
            {
                "albert.pooler.bias": {
                    "dtype": "F32",
                    "shape": [50000, 50000],
                    "data_offsets": [0, 10_000_000_000],
                }
            }
        ),
        safetensors_bytes(
            {
                "a": {
                    "dtype": "F32",
                    "shape": [4],
                    "data_offsets": [0, 10_000_000_000],
                }
            },
            bytes(16),
        ),
    ],
    ids=["empty", "text", "long header", "10 GB", "offsets"],
)
def test_hostile_safetensors(content, tmp_path):
    hf_config().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "only `albert` folders"),
        ({"layer_norm_eps": 1e-6}, "`layer_norm_eps` is 1e-06"),
        ({"hidden_act": "silu"}, "`hidden_act` must be one of"),
        ({"hidden_size": 64}, "`hidden_size` is 64"),
        ({"num_hidden_groups": 2}, "the groups are"),
    ],
)
def test_configurations_that_do_not_fit(changes, message, tmp_path):
    transformers.AlbertForPreTraining(hf_config()).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path)


def test_untied_decoder_is_refused(tmp_path):
    theirs = transformers.AlbertForPreTraining(hf_config())
    theirs.config.save_pretrained(tmp_path)
    tensors = {n: t.clone() for n, t in theirs.state_dict().items()}
    tensors["predictions.decoder.weight"] += 1
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="ALBERT ties the two"):
        load_pretrained(tmp_path)


def test_projection_between_equal_sizes_is_refused(tmp_path):
    theirs = transformers.AlbertForPreTraining(hf_config(embedding_size=48))
    theirs.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not the identity"):
        load_pretrained(tmp_path)


def test_brightmart_as_bert(golden_folder, tmp_path):
    found = read_weights(
        golden_folder / "pretraining" / "brightmart_postln_toy"
    )
    huggingface_bert.write(found, tmp_path)
    theirs, report = transformers.BertForPreTraining.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    difference = compare(
        weights.to_model(found), theirs, "seq_relationship_logits"
    )
    assert difference < 2e-5


@pytest.mark.parametrize("sharing", ["attention", "ffn", "none"])
def test_other_sharing_as_bert(sharing, tiny_config, tmp_path):
    """BERT has weights of its own in every layer: any sharing fits."""
    model = AlbertPretrainer(tiny_config.replace(parameter_sharing=sharing))
    huggingface_bert.write(weights_of(model), tmp_path)
    theirs = transformers.BertForPreTraining.from_pretrained(tmp_path)
    assert compare(model, theirs, "seq_relationship_logits") < 2e-5


@pytest.mark.parametrize("groups", [2, 5])
def test_groups_and_unshared_google(groups, tiny_config, tmp_path):
    """With more groups than layers, only the used ones are written."""
    config = tiny_config.replace(layout="google", num_hidden_groups=groups)
    model = AlbertPretrainer(config)
    huggingface.write(weights_of(model), tmp_path)
    theirs, report = transformers.AlbertForPreTraining.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert compare(model, theirs) < 2e-5
    assert compare(load_pretrained(tmp_path), theirs) < 2e-5


def test_unshared_google(tiny_config, tmp_path):
    config = tiny_config.replace(layout="google", parameter_sharing="none")
    model = AlbertPretrainer(config)
    huggingface.write(weights_of(model), tmp_path)
    theirs = transformers.AlbertForPreTraining.from_pretrained(tmp_path)
    assert compare(model, theirs) < 2e-5


@pytest.mark.parametrize(
    ("writer", "changes", "message"),
    [
        (huggingface, {}, "--to huggingface-bert writes it"),
        (huggingface, {"ln_type": "preln"}, "pre-LN has no BERT form"),
        (huggingface_bert, {"ln_type": "preln"}, "neither their Albert"),
        (huggingface_bert, {"layout": "google"}, "writes it as an Albert"),
        (
            huggingface,
            {"layout": "google", "parameter_sharing": "ffn"},
            "shares only its `ffn`",
        ),
    ],
)
def test_what_cannot_be_expressed(
    writer, changes, message, tiny_config, tmp_path
):
    found = weights_of(AlbertPretrainer(tiny_config.replace(**changes)))
    with pytest.raises(UserError, match=message):
        writer.write(found, tmp_path)


@pytest.mark.parametrize("layout", ["google", "brightmart"])
def test_tokenizer_is_bert(layout, tiny_config, shared_vocab, tmp_path):
    from albert_tf2 import Tokenizer

    config = tiny_config.replace(layout=layout, vocab_size=21128)
    found = weights_of(AlbertPretrainer(config), vocab_file=shared_vocab)
    writer = huggingface if layout == "google" else huggingface_bert
    writer.write(found, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert "Bert" in type(theirs).__name__
    text = "我喜欢 ALBERT，2020年的模型！"
    ids = theirs(text)["input_ids"]
    assert ids == [101, *Tokenizer(shared_vocab).tokenize(text).ids, 102]
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["pad_token_id"], saved["bos_token_id"]) == (0, 101)


@pytest.mark.parametrize("lower", [True, False])
def test_lower_case_goes_and_comes(lower, tiny_config, shared_vocab, tmp_path):
    """Through `tokenizer_config.json`, which transformers reads, too."""
    from albert_tf2 import Tokenizer
    from albert_tf2.text.text_settings import TextSettings

    config = tiny_config.replace(layout="google", vocab_size=21128)
    found = weights_of(
        AlbertPretrainer(config),
        vocab_file=shared_vocab,
        text_settings=TextSettings(do_lower_case=lower),
    )
    huggingface.write(found, tmp_path)
    text = "使用ALBERT模型 É"
    expected = Tokenizer(tmp_path).tokenize(text).ids
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text)["input_ids"] == [101, *expected, 102]
    (tmp_path / "text_settings.json").unlink()  # as others write a folder
    again = read_weights(tmp_path)
    assert again.text_settings.do_lower_case is lower
    assert load_pretrained(tmp_path).text_settings == again.text_settings


def test_what_their_tokenizer_does_otherwise_is_told(
    tiny_config, shared_vocab, tmp_path
):
    from albert_tf2.text.text_settings import TextSettings

    config = tiny_config.replace(layout="google", vocab_size=21128)
    found = weights_of(
        AlbertPretrainer(config),
        vocab_file=shared_vocab,
        text_settings=TextSettings(normalize=True),
    )
    with pytest.warns(UserWarning, match="transformers' tokenizer does not do"):
        huggingface.write(found, tmp_path)
    assert read_weights(tmp_path).text_settings.normalize
    path = tmp_path / "tokenizer_config.json"
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(values | {"tokenize_chinese_chars": False}))
    with pytest.warns(UserWarning, match="`tokenize_chinese_chars` is False"):
        read_weights(tmp_path)
    path.write_text(json.dumps(values | {"do_lower_case": "no"}))
    with pytest.raises(UserError, match="must be true or false. Rec.*'no'"):
        read_weights(tmp_path)
