"""The benchmark runs, and its formula counts what is really opened."""

import re
import runpy
from importlib import resources
from pathlib import Path

PATH = Path(__file__).parents[1] / "benchmarks" / "builder_at_scale.py"


def test_the_formula_counts_the_files_that_a_build_opens(tmp_path, capfd):
    sample = resources.files("albert_tf2.data") / "sample"
    (tmp_path / "vocab.txt").write_text(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n。\n的\n", "utf-8"
    )
    program = runpy.run_path(str(PATH))
    for number_of_workers in ("1", "2"):
        program["main"](
            ["--input_file", f"{sample}/corpus/*.txt",
             "--vocab_file", f"{tmp_path}/vocab.txt",
             "--workdir", f"{tmp_path}", "--segmenter", "none",
             "--num_workers", number_of_workers,
             "--gigabytes", "0.0008", "0.0012"]
        )  # fmt: skip
        told = capfd.readouterr().out
        found = re.findall(r"([\d,]+) files opened, ([\d,]+) by the f", told)
        assert len(found) == 2, told
        for counts in found:
            opened, expected = (int(n.replace(",", "")) for n in counts)
            # A stretch of few parts has no rows for some shards.
            assert 0.75 * expected <= opened <= expected, told
        assert "300 GB: " in told
