"""docs/domain.md: every command runs, on messy files of its domain."""

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess

import domain_sample
import pytest
from test_readme import ROOT, blocks, without_comments

from albert_tf2 import AlbertConfig, Vocabulary, save_pretrained
from albert_tf2.data import vocabulary
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.training.run_log import read_rows

PAGE = "docs/domain.md"
# What makes a run long; the test runs the same commands for a few steps.
SMALLER = {
    "train_steps=1500": "train_steps=6",
    "warmup_steps=100": "warmup_steps=2",
    "num_train_epochs=3": "max_train_steps=2",
}


def commands():
    return [
        line
        for language, code in blocks(PAGE)
        if language == "bash"
        for line in without_comments(code.replace("\\\n", ""))
    ]


def test_links_lead_somewhere():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / "docs" / target).exists(), target


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the files of the page's first block."""
    folder = tmp_path_factory.mktemp("domain")
    domain_sample.write(folder)
    (folder / "configs").symlink_to(ROOT / "configs")
    # The model to continue: a general vocabulary, three free slots, random.
    vocab_file = folder / "general.txt"
    vocabulary.main(
        ["--input_file", f"{ROOT}/data/sample/corpus/*.txt", "--output",
         str(vocab_file), "--vocab_size", "2500"]
    )  # fmt: skip
    tokens = [
        token
        for token in Vocabulary.load(vocab_file).tokens
        if token in ("[unused1]", "[unused2]", "[unused3]")
        or "[unused" not in token
    ]
    vocab_file.write_bytes(Vocabulary(tokens).to_bytes())
    config = AlbertConfig(
        vocab_size=len(tokens),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    save_pretrained(
        AlbertPretrainer(config), folder / "base", vocab_file=vocab_file
    )
    return folder


@pytest.fixture(scope="module")
def ran(place):
    """Runs the page from top to bottom; returns what was printed."""
    if shutil.which("iconv") is None:
        pytest.skip("needs the program iconv")
    told = {}
    with contextlib.chdir(place):
        for line in commands():
            for there, here in SMALLER.items():
                line = line.replace(there, here)
            told[line] = run(line)
    return told


def run(line):
    """Runs a command; ours in this process, to load TensorFlow once."""
    if not line.startswith("python -m "):
        subprocess.run(line, shell=True, check=True)
        return ""
    module, *arguments = shlex.split(line)[2:]
    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        assert importlib.import_module(module).main(arguments) == 0, line
    return printed.getvalue()


def output(ran, module):
    (text,) = [text for line, text in ran.items() if f" -m {module} " in line]
    return text


def test_the_files_are_as_messy_as_the_page_says(place):
    raw = (place / "raw" / "notes.csv").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")
    text = raw.decode("gb18030")
    assert text.startswith("编号,title,content\n") or "\r\n" in text
    assert "<br/>&nbsp;" in text


def test_copies_and_html_are_gone_from_the_records(ran, place):
    told = output(ran, "albert_tf2.data.build_pretraining_data")
    assert re.search(r"junk: [1-9]\d+ HTML left-overs", told)
    assert re.search(r"dropped: 1\d duplicates", told)
    assert "(0.00 % [UNK])" in told
    manifest = json.loads((place / "records" / "manifest.json").read_text())
    held_out = [s["records"] for s in manifest["shards"]]
    assert sum(held_out) > 100
    assert "<br" not in output(ran, "albert_tf2.data.inspect_records")


def test_the_vocabulary_grew_and_the_model_with_it(ran, place):
    before = Vocabulary.load(place / "base" / "vocab.txt")
    now = Vocabulary.load(place / "vocab.txt")
    assert len(now) > len(before)
    assert {"😃", "##😃", "espresso", "kafubot"} <= set(now.ids)
    assert not any("[unused" in token for token in now.tokens[1:4])
    told = output(ran, "albert_tf2.data.vocabulary")
    assert "0 slots free; 3 assigned" in told and "behind the last" in told
    config = AlbertConfig.from_json(place / "domain" / "albert_config.json")
    assert config.vocab_size == len(now)
    assert "new words in free slots of base" in "".join(ran.values())


def test_the_gain_is_measured_on_documents_held_out(ran, place):
    rows = read_rows(place / "domain" / "evaluation.jsonl")
    assert rows[0]["step"] == 0 and rows[-1]["step"] == 6
    assert rows[-1]["mlm_loss"] < rows[0]["mlm_loss"]
    (told,) = [text for line, text in ran.items() if "--evaluate" in line]
    assert f"{rows[-1]['mlm_loss']:.6g}" in told


def test_the_classifiers_answer(ran):
    told = output(ran, "albert_tf2.predict")
    assert any(label in told for label in domain_sample.PARTS)


def test_the_report_says_what_the_page_says(ran):
    """But for how many: the vocabulary decides what is [UNK], and near."""
    (shown,) = [code for _, code in blocks(PAGE) if "what to look" in code]
    told = output(ran, "albert_tf2.data.report")
    for line in shown.splitlines()[:4]:
        assert re.search(re.sub(r"\d+", r"\\d+", re.escape(line)), told)
