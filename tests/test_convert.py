"""The converter's command line, on every target it has."""

import json

import numpy as np
import pytest
from checks import check_layout, check_refused

from albert_tf2 import AlbertPretrainer, UserError, convert
from albert_tf2.checkpoints import (
    conversion,
    load_pretrained,
    read_weights,
    save_pretrained,
)

pytestmark = pytest.mark.usefixtures("warm_python")

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY += [chr(0x4E00 + i) for i in range(202 - len(VOCABULARY))]


@pytest.fixture
def source(request, tiny_config, tmp_path):
    changes = getattr(request, "param", {})
    vocab_file = tmp_path / "vocab.txt"
    vocab_file.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    model = AlbertPretrainer(tiny_config.replace(**changes))
    return save_pretrained(model, tmp_path / "source", vocab_file=vocab_file)


def run(*args):
    return convert.main([str(arg) for arg in args])


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({}, "tf2"),
        ({}, "tf1"),
        ({"ln_type": "preln"}, "tf1"),
        ({"layout": "google"}, "tf1"),
        ({"layout": "google"}, "huggingface"),
        ({}, "huggingface-bert"),
        ({"ln_type": "preln"}, "onnx"),
        ({"layout": "google", "num_hidden_groups": 2}, "onnx"),
    ],
    indirect=["source"],
)
def test_targets(source, target, tmp_path, capsys):
    if target.startswith("huggingface"):
        pytest.importorskip("transformers", reason="[huggingface]")
    if target == "onnx":
        pytest.importorskip("tf2onnx", reason="pip install .[onnx]")
    check_layout(source, target, tmp_path / "out")
    assert "certificate: " in capsys.readouterr().out


@pytest.mark.parametrize("source", [{"layout": "google"}], indirect=True)
def test_tf1_to_ours_to_tf1_and_back(source, tmp_path):
    """A chain through four formats ends with the bits it began with."""
    pytest.importorskip("transformers", reason="[huggingface]")
    place = source
    for i, target in enumerate(["tf1", "huggingface", "tf2", "tf1"]):
        out = tmp_path / f"step{i}"
        run("--input", place, "--output", out, "--to", target)
        place = out
    for before, after in zip(
        load_pretrained(source).variables,
        load_pretrained(place).variables,
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)


@pytest.mark.large
@pytest.mark.parametrize(
    "source", [{}, {"ln_type": "preln"}, {"layout": "google"}], indirect=True
)
def test_hub_there_and_back(source, tmp_path):
    check_layout(source, "hub", tmp_path / "out")
    assert read_weights(tmp_path / "out").kind == "hub"


def test_hub_needs_a_vocabulary(source, tmp_path):
    (source / "vocab.txt").unlink()
    with pytest.raises(UserError, match="no vocab.txt"):
        run("--input", source, "--output", tmp_path / "o", "--to", "hub")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ({}, "huggingface", "cannot be a Hugging Face Albert"),
        ({"ln_type": "preln"}, "huggingface", "pre-LN has no BERT form"),
        ({"ln_type": "preln"}, "huggingface-bert", "neither their Albert"),
        ({"hidden_act": "gelu_erf"}, "tf1", "the exact gelu"),
    ],
    indirect=["source"],
)
def test_refusals_keep_nothing(source, target, message, tmp_path):
    if target.startswith("huggingface"):
        pytest.importorskip("transformers", reason="[huggingface]")
        pytest.importorskip("torch", reason="[huggingface]")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=message):
        run("--input", source, "--output", out, "--to", target)
    assert not out.exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".out")]


def test_strip_keeps_the_format(golden_folder, tmp_path):
    golden = golden_folder
    config = golden / "pretraining" / "google_toy" / "albert_config.json"
    slots = golden / "optimizer" / "google_toy_lamb"
    out = tmp_path / "out"
    run("--input", slots, "--output", out, "--strip", "--config", config)
    before, after = (
        read_weights(slots, config=read_weights(out).config),
        (read_weights(out)),
    )
    assert (before.dropped, after.dropped) == (65, 0)
    assert after.kind == "tf1"
    size = (out / "albert_model.ckpt.data-00000-of-00001").stat().st_size
    assert size == 4 * sum(array.size for array in after.arrays.values())


def test_strip_our_own(tiny_config, tmp_path):
    import tensorflow as tf

    from albert_tf2.keras_api import keras

    model = AlbertPretrainer(tiny_config)
    optimizer = keras.optimizers.legacy.Adam()
    optimizer.apply_gradients(
        [(tf.ones_like(v), v) for v in model.trainable_variables]
    )
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    checkpoint.save(str(tmp_path / "work" / "checkpoints" / "ckpt"))
    tiny_config.to_json(tmp_path / "work" / "albert_config.json")
    out = tmp_path / "out"
    run("--input", tmp_path / "work", "--output", out, "--strip")
    held = tf.train.list_variables(str(out / "model"))
    assert not [name for name, _ in held if "OPTIMIZER" in name]
    assert read_weights(tmp_path / "work").dropped > 2 * len(model.variables)


def test_classifier_head_goes_along(golden_folder, tmp_path):
    folder = golden_folder / "classifier" / "google_toy"
    with pytest.warns(UserWarning, match="no mlm and no sop head"):
        run("--input", folder, "--output", tmp_path / "tf1", "--to", "tf1")
    before, after = read_weights(folder), read_weights(tmp_path / "tf1")
    for name, array in before.task_arrays.items():
        np.testing.assert_array_equal(array, after.task_arrays[name])


@pytest.mark.filterwarnings("ignore:.*no mlm and no sop head")
@pytest.mark.parametrize(
    ("layout", "target"),
    [
        ("google_toy", "huggingface"),
        ("brightmart_postln_toy", "huggingface-bert"),
    ],
)
def test_classifier_in_transformers(layout, target, golden_folder, tmp_path):
    """A classifier that albert_zh fine-tuned answers alike in transformers."""
    torch = pytest.importorskip("torch", reason="[huggingface]")
    transformers = pytest.importorskip("transformers")
    folder = golden_folder / "classifier" / layout
    expected = np.load(folder / "golden.npz")
    out = tmp_path / "out"
    run("--input", folder, "--output", out, "--to", target)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    with torch.no_grad():
        logits = model.eval()(
            input_ids=torch.tensor(expected["input_ids"]).long(),
            attention_mask=torch.tensor(expected["input_mask"]).long(),
            token_type_ids=torch.tensor(expected["segment_ids"]).long(),
        ).logits
    probabilities = torch.softmax(logits, -1).numpy()
    np.testing.assert_allclose(
        probabilities, expected["probabilities"], rtol=0, atol=2e-5
    )


@pytest.fixture
def fine_tuned(tiny_config, tmp_path):
    """A folder as `finetune` leaves it in workdir/model."""
    import tensorflow as tf

    from albert_tf2 import AlbertEncoder
    from albert_tf2.finetuning.model import TaskHead, TaskModel

    folder = tmp_path / "model"
    head = TaskHead(3, tiny_config.hidden_size, name="head")
    head.output_bias.assign([1.0, 2.0, 3.0])
    encoder = AlbertEncoder(tiny_config)
    model = TaskModel(encoder, head, "classification")
    tf.train.Checkpoint(model=model).write(str(folder / "model"))
    tiny_config.to_json(folder / "albert_config.json")
    task = {"kind": "classification", "labels": ["bad", "fair", "good"]}
    (folder / "task.json").write_text(json.dumps(task))
    return folder, model


@pytest.mark.filterwarnings("ignore:.*no mlm and no sop head")
def test_our_classifier_in_transformers(fine_tuned, tmp_path):
    torch = pytest.importorskip("torch", reason="[huggingface]")
    transformers = pytest.importorskip("transformers")
    folder, ours = fine_tuned
    out = tmp_path / "out"
    run("--input", folder, "--output", out, "--to", "huggingface-bert")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        out
    )
    assert theirs.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    ids = np.random.default_rng(0).integers(5, 202, [2, 9])
    with torch.no_grad():
        actual = theirs.eval()(input_ids=torch.tensor(ids)).logits.numpy()
    expected = ours(
        {
            "input_word_ids": ids.astype(np.int32),
            "input_mask": np.ones_like(ids, np.int32),
            "input_type_ids": np.zeros_like(ids, np.int32),
        }
    )
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore:.*no mlm and no sop head")
def test_our_classifier_under_the_original_names(fine_tuned, tmp_path):
    folder, ours = fine_tuned
    run("--input", folder, "--output", tmp_path / "out", "--to", "tf1")
    head = read_weights(tmp_path / "out").task_arrays
    np.testing.assert_array_equal(head["output_bias"], [1, 2, 3])
    np.testing.assert_array_equal(
        head["output_weights"], ours.head.output_weights
    )


@pytest.mark.filterwarnings("ignore:.*no mlm and no sop head")
def test_a_head_of_a_task_that_is_half_known_goes_along(
    fine_tuned, tmp_path, capsys
):
    folder, ours = fine_tuned
    (folder / "task.json").write_text('{"kind": "tagging"}')
    out = tmp_path / "out"
    run("--input", folder, "--output", out, "--to", "tf2")
    assert "task_logits" in capsys.readouterr().out
    certificate = json.loads((out / "conversion.json").read_text())
    assert certificate["left_out"]["task_head"] == []
    assert certificate["task"] == {"kind": "tagging", "labels": []}
    again = read_weights(out)
    np.testing.assert_array_equal(
        again.task_arrays["output_weights"], ours.head.output_weights
    )
    assert again.task_kind == "tagging"


def test_describe(golden_folder, capsys):
    folder = golden_folder / "pretraining" / "brightmart_preln_toy"
    assert run("--describe", folder) == 0
    text = capsys.readouterr().out
    for part in (
        "TensorFlow 1 checkpoint",
        "brightmart, preln",
        "31,324 (encoder ",
        "mlm, sop",
        "202 tokens, fits",
        "sha256",
    ):
        assert part in text


def test_describe_a_wrong_vocabulary(source, capsys):
    (source / "vocab.txt").write_text("\n".join(VOCABULARY[:-1]) + "\n")
    run("--describe", source)
    assert "DOES NOT FIT: the model has 202" in capsys.readouterr().out


def test_targets_are_those_of_the_help():
    assert set(convert.TARGETS) == set(conversion.TARGETS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--input", "x"], "--input and --output are needed"),
        (["--input", "x", "--output", "y"], "one of --to and --strip"),
        (["--input", "x", "--output", "y", "--to", "tf3"], "invalid choice"),
        (
            ["--input", "no/such/place", "--output", "y", "--to", "tf1"],
            "no/such/place does not exist",
        ),
        (["--input", "x", "--output", ".", "--to", "tf1"], "already exists"),
    ],
)
def test_bad_input_exits_2_with_one_line(args, message, tmp_path):
    check_refused("albert_tf2.convert", *args, says=message, cwd=tmp_path)


def test_list(capsys):
    assert run("--list") == 0
    text = capsys.readouterr().out
    assert "albert_xxlarge_zh_google" in text
    assert "storage.googleapis.com/albert_zh/albert_tiny_489k.zip" in text
