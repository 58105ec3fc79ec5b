"""The command behind the TFLite table: one row per variant, for all models."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from albert_tf2.finetuning import encoders
from albert_tf2.model.albert import AlbertEncoder
from albert_tf2.tasks import base, registry
from albert_tf2.text.tokenization import SPECIAL_TOKENS, Tokenizer

pytestmark = pytest.mark.usefixtures("warm_python")

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "tflite_latency.py"


@pytest.fixture
def given(tiny_config, tmp_path):
    """A configuration, a fine-tuned model, a vocabulary and labelled pairs."""
    letters = (chr(0x4E00 + i) for i in range(197))
    vocab_file = tmp_path / "vocab.txt"
    tokens = [*SPECIAL_TOKENS, *letters]
    vocab_file.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tiny_config.to_json(tmp_path / "small.json")
    task = registry.create("lcqmc")
    loaded = encoders.own_encoder(
        AlbertEncoder(tiny_config), Tokenizer(vocab_file), tiny_config
    )
    encoders.save(
        tmp_path / "tuned",
        model=encoders.build(task, loaded, seed=0),
        task=task,
        loaded=loaded,
        lengths=base.Lengths(max_seq_length=16),
    )
    rows = ["text_a\ttext_b\tlabel", *["一丁\t七万\t1", "丁\t丁\t0"] * 20]
    (tmp_path / "dev.txt").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
    )


def test_one_table_for_each_model(given):
    """One model is tuned, the other is not: only the first is judged."""
    flags = ["--vocab_file", "vocab.txt", "--dev_file", "dev.txt"]
    flags += ["--max_rows", "5", "--calls", "1", "--lengths", "16"]
    flags += ["--precisions", "dynamic_int8"]
    result = run(given, "tuned", "small.json", *flags)
    assert result.returncode == 0, result.stderr
    tuned, small = result.stdout.split("## ")[1:]
    assert tuned.startswith("tuned, batch 1")
    assert small.startswith("small.json, batch 1")
    assert "of 5 rows" in tuned and "rows" not in small
    for table, is_judged in ((tuned, True), (small, False)):
        rows = [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in table.splitlines()
            if line.startswith("| dynamic_int8")
        ]
        assert [row[1] for row in rows] == ["16 fixed", "16 dynamic"]
        for row in rows:
            assert len(row) == (9 if is_judged else 6)
            least, p50, p95 = map(float, row[3].split(" / "))
            assert 0 < least <= p50 <= p95
            assert float(row[5]) > 0  # peak memory
            assert all(row)
    reference = re.search(r"TensorFlow, 16 tokens: (\d+).00% of", tuned)
    # Of the labels 1 0 1 0 1, as the two texts are answered.
    assert int(reference[1]) in (0, 40, 60, 100)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["small.json"], "give --dev_file"),
        (["small.json", "--dev_file", "none.txt"], "none.txt does not exist"),
        (["tuned", "--dev_file", "vocab.txt"], "text, text and label"),
    ],
)
def test_bad_input_is_one_line(given, arguments, message):
    result = run(given, *arguments)
    assert result.returncode == 2
    assert message in result.stderr.strip().splitlines()[-1]
