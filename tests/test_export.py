"""The `export` command: what it writes, what it refuses, what it leaves."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from checks import check_refused

from albert_tf2 import AlbertPretrainer, UserError, paths
from albert_tf2.checkpoints import save_pretrained
from albert_tf2.hub_export import export, verify
from albert_tf2.text.tokenization import SPECIAL_TOKENS

pytestmark = pytest.mark.usefixtures("warm_python")


@pytest.fixture
def checkpoint(tiny_config, tmp_path):
    """A folder with a small model and its vocabulary."""
    tokens = [*SPECIAL_TOKENS, *(chr(0x4E00 + i) for i in range(197))]
    vocab_file = tmp_path / "vocab.txt"
    vocab_file.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return save_pretrained(
        AlbertPretrainer(tiny_config),
        tmp_path / "checkpoint",
        vocab_file=vocab_file,
    )


def run(checkpoint, export_dir, *flags):
    return export.main(
        ["--checkpoint", str(checkpoint), "--export_dir", str(export_dir)]
        + list(flags)
    )


def test_everything_is_written_and_verified(checkpoint, tmp_path, capsys):
    """`--what all`, calibrated and with folded signs, in one go."""
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("一丁七\n万丈三上下\n", encoding="utf-8")
    out = tmp_path / "out"
    (checkpoint / "text_settings.json").unlink()  # else the flag is refused
    flags = ["--what", "all", "--seq_length", "16", "--normalize"]
    flags += ["--calibration_file", str(sentences)]
    assert run(checkpoint, out, *flags) == 0
    printed = capsys.readouterr().out
    for fact in (
        "ids equal the Python tokenizer's",
        "mlm_logits differs from the model in memory by",
        "sop_logits differs from the model in memory by",
        "embedding differs from the model in memory by",
        "takes strings",
    ):
        assert f"verified: {fact}" in printed
    for name in export.WHAT:
        # Parts that need packages nothing else needs: only by their names.
        asked = name not in ("litert", "onnx")
        assert (out / name / "1").is_dir() == asked
    names = sorted(path.name for path in (out / "tflite" / "1").iterdir())
    assert [name for name in names if name.endswith(".tflite")] == sorted(
        f"embedding_{precision}_{kind}.tflite"
        for precision in ("dynamic_int8", "fp16", "fp32", "int8")
        for kind in (16, "dynamic", "strings")
        if kind != "strings" or precision in ("fp32", "dynamic_int8")
    )
    losses = json.loads((out / "tflite/1/quantization.json").read_text())
    assert set(losses) == {"fp16", "dynamic_int8", "int8"}
    card = (out / "cards" / "1" / "encoder.md").read_text("utf-8")
    for precision, lost in losses.items():
        assert lost["sentences"] == 2 and lost["neighbours"] is None
        assert f"| {precision} | 2 | {lost['mean_cosine']:.4f} |" in card
    preprocessor = tf.saved_model.load(str(out / "preprocessor" / "1"))
    encoder = tf.saved_model.load(str(out / "encoder" / "1"))
    outputs = encoder(preprocessor(tf.constant(["一丁"])))
    assert outputs["sequence_output"].shape == (1, 16, 48)


def test_an_existing_version_stays(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "verify", lambda *args: [])  # slow
    flags = ["--what", "preprocessor"]
    run(checkpoint, tmp_path / "out", *flags)
    folder = tmp_path / "out" / "preprocessor"
    written = (folder / "1" / "saved_model.pb").stat().st_mtime_ns
    with pytest.raises(UserError, match="--version 2.*--overwrite"):
        run(checkpoint, tmp_path / "out", *flags)
    assert (folder / "1" / "saved_model.pb").stat().st_mtime_ns == written
    run(checkpoint, tmp_path / "out", *flags, "--version", "2")
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
    run(checkpoint, tmp_path / "out", *flags, "--overwrite")
    assert (folder / "1" / "saved_model.pb").stat().st_mtime_ns > written


def test_a_half_restored_model_is_refused(checkpoint, tmp_path):
    """A configuration with more layers than the checkpoint holds."""
    path = checkpoint / "albert_config.json"
    config = paths.read_json(path) | {"parameter_sharing": "none"}
    paths.write_json(path, config)
    with pytest.raises(UserError, match="3 layers.*1 in the checkpoint"):
        run(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_lost_model_is_refused(tiny_config, checkpoint, tmp_path):
    pretrainer = AlbertPretrainer(tiny_config)
    bias = pretrainer.encoder.pooler.bias
    bias.assign(np.full(bias.shape, np.nan))
    save_pretrained(
        pretrainer,
        tmp_path / "lost",
        vocab_file=checkpoint / "vocab.txt",
    )
    with pytest.raises(UserError, match="pooler.*not finite"):
        run(tmp_path / "lost", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_of_another_size_is_refused(checkpoint, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("\n".join(SPECIAL_TOKENS) + "\n", encoding="utf-8")
    flags = ["--vocab_file", str(other)]
    with pytest.raises(UserError, match="is not the vocabulary"):
        run(checkpoint, tmp_path / "out", *flags)
    for name in ("text_settings.json", "vocab.txt"):  # nothing to compare with
        (checkpoint / name).unlink()
    with pytest.raises(UserError, match="5 tokens.*202"):
        run(checkpoint, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--what", "encoders"], "unknown part `encoders`"),
        (["--vocab_file", "missing.txt"], "missing.txt does not exist"),
        (["--dropout", "1.5"], "`dropout` must be a number of at least 0"),
        ([], "absent"),  # the checkpoint
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(flags, message, tmp_path):
    check_refused(
        "albert_tf2.hub_export.export",
        *("--checkpoint", "absent", "--export_dir", tmp_path / "out", *flags),
        says=message,
        may_load_tensorflow=True,
        cwd=tmp_path,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.large
def test_two_exports_are_the_same_bytes(checkpoint, tmp_path):
    """But for the random number that TensorFlow puts into each."""
    for name in ("first", "second"):
        subprocess.run(
            [sys.executable, "-m", "albert_tf2.hub_export.export"]
            + ["--checkpoint", str(checkpoint)]
            + ["--export_dir", str(tmp_path / name)]
            + ["--what", "preprocessor,encoder,serving,tflite"]
            + ["--seq_length", "16"],
            check=True,
        )
    different = set()
    for path in (tmp_path / "first").rglob("*"):
        twin = tmp_path / "second" / path.relative_to(tmp_path / "first")
        if path.is_file() and path.read_bytes() != twin.read_bytes():
            different.add(path.name)
    assert different <= {"fingerprint.pb"}


def test_no_proof_is_an_assert():
    """`python -O` takes those out, and would print "verified" all the same."""
    tree = ast.parse(Path(verify.__file__).read_text(encoding="utf-8"))
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    with pytest.raises(AssertionError, match="7"):
        verify._need(False, 7)
