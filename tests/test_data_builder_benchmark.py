"""The builder's benchmark runs, and counts what it says it counts."""

import importlib.util
import sys
from pathlib import Path

from albert_tf2.data import records

PATH = Path(__file__).parents[1] / "benchmarks" / "data_builder.py"


def load_benchmark():
    spec = importlib.util.spec_from_file_location("data_builder", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_measures_stages_and_the_command(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("今天晴。\n明天也晴。\n\n" * 300, "utf-8")
    vocabulary = "[PAD] [UNK] [CLS] [SEP] [MASK] 今 天 晴 明 也 。".split()
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")
    flags = ["--input_file", str(tmp_path / "a.txt"), "--vocab_file",
             str(tmp_path / "vocab.txt"), "--segmenter", "none",
             "--workers", "1", "2", "--repeat", "2"]  # fmt: skip
    assert load_benchmark().main(flags) == 0
    told = capsys.readouterr().out
    for stage in ("read", "tokenize", "segment", "pair", "write", "all"):
        assert f"  {stage} " in told
    assert "1 workers:" in told and "with 2 workers as with 1" in told


def test_commands_are_measured_and_records_counted(tmp_path):
    benchmark = load_benchmark()
    code = "x = bytearray(200_000_000); print(sum(range(2_000_000)))"
    usage = benchmark.run_and_measure([sys.executable, "-c", code])
    assert usage.peak_mb > 190
    assert 0 < usage.cpu <= usage.wall * 2
    path = tmp_path / "records"
    path.write_bytes(b"".join(records.frame([b"one", b"", b"three"])))
    assert benchmark.count_records(str(path)) == 3
