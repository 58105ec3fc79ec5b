"""The report's figures against counts made by hand, and the builder's."""

import json
import random
import re

import pytest
from test_build_pretraining_data import build

from albert_tf2 import UserError
from albert_tf2.data import build_pretraining_data, report, scripts, workers
from albert_tf2.data.build_config import BuildConfig

VOCABULARY = '[PAD] [UNK] [CLS] [SEP] [MASK] 国 人 。 a ##b "'.split()
CHARACTERS = "的一是在不了有和这中大为上个"
VOCABULARY += CHARACTERS
TEXT = (
    "国人。\n国國人。\n\n"  # 國 is unknown
    "国人。\n国國人。\n\n"  # the same document again
    "ab abc。\n\n"  # one sentence, an unknown word
    "😀7。\r\nか。\n\n"
)


def run(tmp_path, text=TEXT, *, out="out", **changes):
    """Reports on a text; returns the folder and the figures."""
    (tmp_path / "a.txt").write_text(text, "utf-8", newline="")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), "utf-8")
    settings = {
        "input_file": tmp_path / "a.txt", "vocab_file": tmp_path / "vocab.txt",
        "output_dir": tmp_path / out, "max_seq_length": 16,
        "segmenter": "none", "global_batch_size": 2, "short_seq_prob": 0,
        "num_workers": 1, **changes,
    }  # fmt: skip
    flags = [
        word
        for name, value in settings.items()
        for word in (f"--{name}", str(value))
    ]
    assert report.main(flags) == 0
    figures = (tmp_path / out / "report.json").read_text("utf-8")
    return tmp_path / out, json.loads(figures)


def test_figures(tmp_path):
    _, figures = run(tmp_path)
    assert figures["documents"] == 4
    assert figures["sentences"] == 7
    # The third document is a ##b [UNK] 。; 😀7 and か are words of their own.
    assert figures["tokens"] == 7 + 7 + 4 + 2 + 2
    unknown = {u["word"]: u["count"] for u in figures["unknown_words"]}
    assert unknown == {"國": 2, "abc": 1, "😀7": 1, "か": 1}
    assert figures["unknown_words"][0] == {
        "word": "國", "count": 2, "context": "国國人。"
    }  # fmt: skip
    assert figures["unknown_share"] == pytest.approx(5 / 22)
    assert figures["duplicate_documents"] == 1
    assert figures["repeated_documents"] == [
        {"count": 2, "begins": "国人。 国國人。"}
    ]
    assert figures["few_han_documents"] == 2
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


def test_text_and_page(tmp_path):
    text = TEXT.replace("国人。", "国人。<script>alert(1)</script>", 1)
    folder, _ = run(tmp_path, text)
    told = (folder / "report.txt").read_text("utf-8")
    assert "4 documents, 7 sentences" in told
    assert "國 2" in told
    page = (folder / "report.html").read_text("utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert re.search("国<mark>國</mark>人。", page)
    # A row as the model will see it, with its masks.
    assert 'class="mask">«' in page or 'class="random">{' in page
    assert "places filled" in page
    assert "http" not in page  # nothing comes from elsewhere


@pytest.mark.parametrize(
    "text, told",
    [
        ("国人。\n\n" * 30, "blank lines after every line?"),
        ("国人。\n人国。\n" * 30, "has no blank line, so its 60 sentences"),
        ("国人。\r人国。\r" * 30, "line ends that are not LF"),
        ("国人。" * 100 + "\n", "pass --split_sentences true"),
        (TEXT, "1 documents stand twice: --drop_duplicates exact"),
        (
            "国“人”。\n" * 2,
            "4 [UNK] are signs that fold into known ones (“ ”)",
        ),
        ("国國。\n" * 2, "2 other [UNK] (國): give the commonest tokens"),
        ("国人&nbsp;<br/>。\n" * 2, "4 HTML left-overs: --strip_html true"),
        (
            "国人人国人人国人人国人。\n" * 3,
            "2 lines stand twice in their document: --drop_repeated_lines true",
        ),
        ("ab\nab\n\n", "1 documents have few Chinese characters"),
        ("国國人\n", "% simplified, which are different tokens"),
    ],
)
def test_findings_name_their_remedy(tmp_path, text, told):
    _, figures = run(tmp_path, text)
    assert [one for one in figures["findings"] if told in one]


def test_a_corpus_in_order_has_no_findings(tmp_path):
    rng = random.Random(1)
    lines = ["".join(rng.choices(CHARACTERS, k=23)) + "。" for _ in range(400)]
    text = "\n\n".join("\n".join(lines[n : n + 2]) for n in range(0, 400, 2))
    _, figures = run(tmp_path, text, max_seq_length=52)
    assert figures["documents"] == 200 and figures["findings"] == []
    told = (tmp_path / "out/report.txt").read_text("utf-8")
    assert "nothing amiss found" in told


def test_signs_that_are_folded_are_not_told_again(tmp_path):
    _, figures = run(tmp_path, "国“人”。\n" * 2, normalize="true")
    assert figures["unknown_foldable"] == 0
    assert not [one for one in figures["findings"] if "--normalize" in one]


def test_builder_and_report_say_the_same_of_borders(tmp_path, capsys):
    _, figures = run(tmp_path, "国人。\n\n" * 30)
    capsys.readouterr()
    build_pretraining_data.main(
        ["--input_file", str(tmp_path / "a.txt"), "--vocab_file",
         str(tmp_path / "vocab.txt"), "--output_dir", str(tmp_path / "built"),
         "--max_seq_length", "16", "--segmenter", "none", "--short_seq_prob",
         "0", "--num_workers", "1"]
    )  # fmt: skip
    notes = [
        line.removeprefix("note: ")
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("note: ")
    ]
    assert notes and set(notes) <= set(figures["findings"])


def test_same_figures_for_any_number_of_workers(tmp_path):
    """Units of 64 bytes, so that documents are cut and results overtake."""
    text = "".join(
        f"{'国人' * (n % 7)}。\n{'國' * (n % 5)}人{n}。\n" + "\n" * (n % 3)
        for n in range(200)
    )
    (tmp_path / "a.txt").write_text(text, "utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), "utf-8")

    def figures(num_workers):
        plan = build_pretraining_data.make_plan(
            str(tmp_path / "a.txt"), str(tmp_path / "vocab.txt"),
            str(tmp_path / "out"),
            BuildConfig(segmenter="none", unit_bytes=64, max_seq_length=16),
            plan_class=report.ReportPlan,
        )  # fmt: skip
        analysis = report.look(plan, workers.Workers(num_workers))
        return analysis.result(8), analysis.rows()

    one, rows = figures(1)
    assert figures(3) == (one, rows) and len(rows) == 6
    # Documents are counted whole, though units cut them.
    assert one["documents_split"] > 0
    documents = [part for part in re.split("\n\n+", text) if part.strip()]
    assert one["documents"] == len(documents)
    lengths = one["document_lengths"]
    assert sum(lengths["counts"]) == len(documents)
    assert lengths["mean"] == pytest.approx(one["tokens"] / len(documents))


def test_duplicates_are_those_that_the_builder_drops(shared, tmp_path):
    """On real text with some documents copied, and some changed a little."""
    source = shared / "datasets/corpus/small_mixed.txt"
    documents = source.read_text("utf-8").split("\n\n")
    again = [d.replace("的", "之", 1) for d in documents[:9]]
    text = "\n\n".join([*documents, *documents[3:5], *again])
    vocab_file = shared / "datasets/vocab/vocab.txt"
    (tmp_path / "a.txt").write_text(text + "\n", "utf-8")
    settings = {"segmenter": "none", "unit_bytes": 1 << 16}
    plan = build_pretraining_data.make_plan(
        str(tmp_path / "a.txt"), str(vocab_file), str(tmp_path / "out"),
        BuildConfig(**settings), plan_class=report.ReportPlan,
    )  # fmt: skip
    figures = report.look(plan, workers.Workers(1)).result(8)
    manifest = build(
        [str(tmp_path / "a.txt")], str(vocab_file), tmp_path / "built",
        drop_duplicates="near", **settings
    )  # fmt: skip
    counts = manifest["counts"]
    assert figures["duplicate_documents"] == counts["dropped_exact_duplicates"]
    assert (
        figures["near_duplicate_documents"]
        == (counts["dropped_near_duplicates"])
    )
    assert figures["near_duplicate_documents"] >= 7


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
    assert scripts.script_of(character) == script


def test_what_the_builder_refuses_the_report_refuses(tmp_path):
    good, bad = "国人。\n".encode() * 8, b"\xb5\xc4\n"
    (tmp_path / "b.txt").write_bytes(good * 2 + bad)
    (tmp_path / "c.txt").write_bytes((b"a" * 64 + b"\n") * 1100 + bad * 900)
    settings = {"input_file": tmp_path / "b.txt", "on_error": "skip"}
    assert run(tmp_path, **settings)[1]["lines_not_utf8"] == 1
    with pytest.raises(UserError, match="900 of 2,000 lines .* a tenth"):
        run(tmp_path, **settings | {"input_file": tmp_path / "c.txt"})


def test_a_file_in_place_of_the_folder_is_told_at_once(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out is a file: name a folder"):
        run(tmp_path, "")
    assert (tmp_path / "out").read_text() == "mine"


def test_an_empty_corpus_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no document"):
        run(tmp_path, "\n")
