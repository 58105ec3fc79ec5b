"""`verify` finds what is wrong with an export."""

import shutil
import subprocess

import numpy as np
import pytest

from albert_tf2 import AlbertPretrainer, UserError
from albert_tf2.hub_export import verify
from albert_tf2.hub_export.encoder import export_encoder
from albert_tf2.hub_export.preprocessor import export_preprocessor
from albert_tf2.hub_export.serving import export_serving
from albert_tf2.paths import saved_models
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import SPECIAL_TOKENS, Tokenizer

pytestmark = pytest.mark.usefixtures("warm_python")


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    tokens = [*SPECIAL_TOKENS, *(chr(0x4E00 + i) for i in range(197))]
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def pretrainer(tiny_config):
    return AlbertPretrainer(tiny_config)


@pytest.fixture
def encoder(pretrainer, vocab_file, tmp_path):
    return export_encoder(
        pretrainer, Tokenizer(vocab_file), tmp_path / "encoder" / "1"
    )


def check(*export):
    return [line for _, line in verify.verify([verify.Export(*export)])]


def test_probe_inputs_are_always_the_same():
    first, second = verify.probe_inputs(202), verify.probe_inputs(202)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    assert first["input_mask"].sum(axis=1).tolist() == [9, 4, 1]


def test_a_sound_encoder_passes(pretrainer, encoder):
    facts = check(encoder, "encoder", verify.expected_outputs(pretrainer))
    assert len(facts) == 4
    assert "dropout 0" in facts[0]


def test_other_weights_are_found(pretrainer, encoder):
    expected = verify.expected_outputs(pretrainer)
    expected["sop_logits"] = expected["sop_logits"] + 1e-3
    with pytest.raises(UserError, match="sop_logits"):
        check(encoder, "encoder", expected)


@pytest.mark.parametrize(
    ("size", "wrong", "holds"),
    [(0.1, 1e-5, True), (0.1, 3e-5, False), (50.0, 5e-4, True)],
)
def test_large_logits_may_round_more(size, wrong, holds):
    expected = np.array([0.0, -size])
    if holds:
        found = verify._close("x", expected + wrong, expected, verify.TOLERANCE)
        assert found == pytest.approx(wrong)
        return
    with pytest.raises(AssertionError, match="x"):
        verify._close("x", expected + wrong, expected, verify.TOLERANCE)


def test_another_way_to_cut_is_found(pretrainer, vocab_file, tmp_path):
    """A serving model that does not fold what it should."""
    folder = export_serving(
        pretrainer, Tokenizer(vocab_file), tmp_path / "serving" / "1"
    )
    for normalize in (False, True):
        tokenizer = Tokenizer(vocab_file, TextSettings(normalize=normalize))
        expected = verify.expected_embeddings(pretrainer, tokenizer, 128)
        if normalize:
            with pytest.raises(UserError, match="embedding"):
                check(folder, "serving", expected)
        else:
            facts = check(folder, "serving", expected)
            assert facts[0].startswith("embedding differs")


def test_a_missing_vocabulary_is_found(encoder):
    (encoder / "assets" / "vocab.txt").unlink()
    told = f"{encoder}/assets/vocab.txt is not what was exported .*missing"
    with pytest.raises(UserError, match=told):
        check(encoder, "encoder")
    shutil.rmtree(encoder / "assets.extra")  # as another program writes it
    with pytest.raises(UserError, match="does not hold what a encoder must"):
        check(encoder, "encoder")


def swap_tokens(folder):
    """Puts another vocabulary beside the graph."""
    asset = folder / "assets" / "vocab.txt"
    lines = asset.read_text("utf-8").splitlines()
    swapped = [*lines[:5], *reversed(lines[5:])]
    asset.write_text("\n".join(swapped) + "\n", encoding="utf-8")


def test_another_vocabulary_is_found(vocab_file, tmp_path):
    """The graph cuts by one vocabulary, the asset is another."""
    folder = export_preprocessor(Tokenizer(vocab_file), tmp_path / "out")
    swap_tokens(folder)
    with pytest.raises(UserError, match="vocab.txt .*its SHA-256 is another"):
        check(folder, "preprocessor")
    saved_models.write_sums(folder)
    with pytest.raises(UserError, match="does not hold what a preprocessor"):
        check(folder, "preprocessor")


def test_one_process_checks_all_and_names_the_wrong_one(
    encoder, vocab_file, tmp_path, monkeypatch
):
    """The encoder first: tf.text is not loaded yet, and it must do without."""
    other = export_preprocessor(Tokenizer(vocab_file), tmp_path / "out")
    exports = [
        verify.Export(other, "preprocessor"),
        verify.Export(encoder, "encoder"),
    ]
    started, run = [], subprocess.run

    def noted(command, **options):
        started.append([w for w in command if w in verify.CHECKS])
        return run(command, **options)

    monkeypatch.setattr(verify.subprocess, "run", noted)
    kinds = [export.kind for export, _ in verify.verify(exports)]
    assert kinds == ["encoder", *["preprocessor"] * 3]
    assert started == [["encoder", "preprocessor"]]
    swap_tokens(other)
    saved_models.write_sums(other)
    with pytest.raises(UserError, match=f"{other} does not hold"):
        list(verify.verify(exports))


def test_the_command_checks_all_versions(tmp_path, capsys, monkeypatch):
    folders = ["encoder/1", "encoder/2", "preprocessor/1"]
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(
        verify, "verify", lambda exports: [(e, "holds") for e in exports]
    )
    assert verify.main(["--export_dir", str(tmp_path)]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "encoder/1: holds",
        "encoder/2: holds",
        "preprocessor/1: holds",
    ]


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no export"):
        verify.main(["--export_dir", str(tmp_path)])
