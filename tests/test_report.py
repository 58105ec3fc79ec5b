"""The report's figures against counts made by hand."""

import json

import pytest

from albert_tf2 import UserError
from albert_tf2.data import report

VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] 国 人 。 a ##b".split()
TEXT = (
    "国人。\n国國人。\n\n"  # 國 is unknown
    "国人。\n国國人。\n\n"  # the same document again
    "ab abc。\n\n"  # one sentence, an unknown word
    "😀7。\r\nか。\n\n"
)


@pytest.fixture
def made(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, "utf-8", newline="")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), "utf-8")
    flags = ["--input_file", str(tmp_path / "a.txt"), "--vocab_file",
             str(tmp_path / "vocab.txt"), "--output_dir",
             str(tmp_path / "out"), "--max_seq_length", "16",
             "--segmenter", "none", "--global_batch_size", "2",
             "--short_seq_prob", "0"]  # fmt: skip
    assert report.main(flags) == 0
    return tmp_path / "out"


def test_figures(made):
    figures = json.loads((made / "report.json").read_text("utf-8"))
    assert figures["documents"] == 4
    assert figures["sentences"] == 7
    # The third document is a ##b [UNK] 。; 😀7 and か are words of their own.
    assert figures["tokens"] == 7 + 7 + 4 + 2 + 2
    assert dict(figures["unknown_words"]) == {
        "國": 2, "abc": 1, "😀7": 1, "か": 1
    }  # fmt: skip
    assert figures["unknown_share"] == pytest.approx(5 / 22)
    assert figures["duplicate_documents"] == 1
    assert figures["one_sentence_documents"] == 1
    assert figures["sentence_order_share"] == 0.75
    assert figures["sentence_lengths"]["counts"][0] == 7
    assert figures["sentence_lengths"]["mean"] == pytest.approx(22 / 7)
    assert figures["document_lengths"]["longest"] == 7
    # A pair for each document, each with three special tokens; rows of 16
    # hold one pair.
    assert (figures["pairs"], figures["records"]) == (4, 4)
    assert figures["tokens_per_epoch"] == 22 + 4 * 3
    assert figures["padding_share"] == pytest.approx(1 - 34 / 64)
    assert figures["steps_per_epoch"] == 2
    total = figures["characters"]
    assert figures["scripts"]["traditional"] * total == pytest.approx(2)
    assert figures["scripts"]["simplified"] * total == pytest.approx(4)
    assert figures["scripts"]["emoji"] * total == pytest.approx(1)
    assert sum(figures["scripts"].values()) == pytest.approx(1)


def test_text_and_page(made):
    text = (made / "report.txt").read_text("utf-8")
    assert "4 documents, 7 sentences, 22 tokens" in text
    assert "國 2" in text
    pytest.importorskip("matplotlib")
    assert (made / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "character, script",
    [
        ("国", "simplified"),
        ("國", "traditional"),
        ("人", "common Chinese"),
        ("㐀", "rare Chinese"),
        ("é", "Latin"),
        ("か", "Hiragana"),
        ("カ", "Katakana"),
        ("한", "Hangul"),
        ("я", "other letters"),
        ("７", "digits"),
        ("，", "punctuation"),
        ("😀", "emoji"),
        ("\u3000", "white space and control"),
        ("℃", "other signs"),
    ],
)
def test_scripts(character, script):
    assert report.script_of(character) == script


def test_an_empty_corpus_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("\n", "utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), "utf-8")
    with pytest.raises(UserError, match="no document"):
        report.main(["--input_file", str(tmp_path / "a.txt"), "--vocab_file",
                     str(tmp_path / "vocab.txt"), "--output_dir",
                     str(tmp_path / "out")])  # fmt: skip
