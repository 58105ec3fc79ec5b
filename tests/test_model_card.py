"""The cards: what they say was measured, and the archives unpack and load."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the graph's operations

from albert_tf2 import AlbertPretrainer, UserError, paths
from albert_tf2.hub_export import model_card
from albert_tf2.hub_export.encoder import export_encoder
from albert_tf2.hub_export.preprocessor import export_preprocessor
from albert_tf2.text.tokenization import SPECIAL_TOKENS, Tokenizer

pytestmark = pytest.mark.usefixtures("warm_python")


@pytest.fixture
def exported(tiny_config, tmp_path, monkeypatch):
    """Encoder and preprocessor, and a run that recorded itself."""
    monkeypatch.setattr(model_card, "PARITY_CHARACTERS", list("一丁Σ，“\u200d"))
    monkeypatch.setattr(model_card, "DEFAULT_SEQ_LENGTH", 8)
    monkeypatch.setattr(model_card, "CALLS", 2)
    tokens = [*SPECIAL_TOKENS, *(chr(0x4E00 + i) for i in range(197))]
    vocab_file = tmp_path / "vocab.txt"
    vocab_file.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = Tokenizer(vocab_file)
    pretrainer = AlbertPretrainer(tiny_config)
    out = tmp_path / "out"
    export_encoder(pretrainer, tokenizer, out / "encoder" / "1")
    export_preprocessor(tokenizer, out / "preprocessor" / "1")
    run = tmp_path / "run"
    run.mkdir()
    row = {"mlm_accuracy": 0.25, "mlm_loss": 4.5, "sop_accuracy": 0.75}
    lines = [json.dumps({"step": step, **row}) for step in (100, 1200)]
    (run / "evaluation.jsonl").write_text("\n".join(lines) + "\n")
    paths.write_json(
        run / "recipe.json",
        {
            "train_steps": 1200,
            "global_batch_size": 32,
            "max_seq_length": 64,
            "optimizer": "lamb",
            "seed": 7,
        },
    )
    (run / "curves.png").write_bytes(b"a picture")
    paths.write_json(
        run / "manifest.json", {"counts": {"documents": 3, "tokens": 4567}}
    )
    return pretrainer, tokenizer, out, run


def test_cards_hold_what_was_measured(exported):
    pretrainer, tokenizer, out, run = exported
    folder = Path(
        model_card.export_cards(
            pretrainer, tokenizer, out, workdir=run, data_dir=run
        )
    )
    card = (folder / "encoder.md").read_text("utf-8")
    count = sum(int(np.prod(v.shape)) for v in pretrainer.encoder.weights)
    for fact in (
        "# Module albert-tf2/albert_zh/1",
        "module-type: text-embedding",
        "language: zh-cn",
        f"{count:,} parameters",
        "step 1,200: masked words 25.0% right",
        "sentence order 75.0% right",
        "lamb, seed 7",
        "3 documents, 4,567 tokens",
        paths.sha256(run / "manifest.json"),
        tokenizer.vocabulary.sha256,
        "![training curves](curves.png)",
        "albert-tf2/albert_zh_preprocess/1",
        "| encoder SavedModel |",
    ):
        assert fact in card, fact
    assert (folder / "curves.png").read_bytes() == b"a picture"
    preprocessor = (folder / "preprocessor.md").read_text("utf-8")
    assert "module-type: text-preprocessing" in preprocessor
    assert "6 texts" in preprocessor and "the ids of 0 differ" in preprocessor


def test_what_was_not_recorded_is_said(exported):
    pretrainer, tokenizer, out, _ = exported
    folder = Path(model_card.export_cards(pretrainer, tokenizer, out))
    card = (folder / "encoder.md").read_text("utf-8")
    assert "were not evaluated" in card
    assert "No training recipe was recorded" in card
    assert "curves.png" not in card


def test_archives_unpack_to_a_model(exported, tmp_path):
    """Kaggle's form: the SavedModel at the archive's root."""
    pretrainer, tokenizer, out, _ = exported
    folder = Path(model_card.export_cards(pretrainer, tokenizer, out))
    kaggle = folder / "kaggle" / "preprocessor"
    with tarfile.open(kaggle / "albert_zh_preprocess.tar.gz") as archive:
        assert "saved_model.pb" in archive.getnames()
        archive.extractall(tmp_path / "unpacked", filter="data")
    loaded = tf.saved_model.load(str(tmp_path / "unpacked"))
    assert loaded(tf.constant(["一"]))["input_mask"].numpy().sum() == 3
    instance = paths.read_json(kaggle / "model-instance-metadata.json")
    assert instance["framework"] == "tensorFlow2"
    assert instance["fineTunable"] is False

    first = (kaggle / "albert_zh_preprocess.tar.gz").read_bytes()
    again = tmp_path / "again.tar.gz"
    model_card.write_archive(out / "preprocessor" / "1", again)
    assert again.read_bytes() == first


def test_existing_cards_stay(exported):
    pretrainer, tokenizer, out, _ = exported
    model_card.export_cards(pretrainer, tokenizer, out)
    with pytest.raises(UserError, match="already exists"):
        model_card.export_cards(pretrainer, tokenizer, out)
