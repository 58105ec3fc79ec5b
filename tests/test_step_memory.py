"""The benchmark of a step's memory: its points, its figures, one real step."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import step_memory

SMALL = {"length": 16, "layers": 2, "rows": 2}


def found(peak):
    return {"peak_mb": peak, "wall": 0.5, "cpu": 1.0, "losses": [1.0]}


def test_every_axis_grows_from_the_same_step():
    points = step_memory.points()
    names = [step_memory.name_of(point) for point in points]
    assert len(set(names)) == len(names)
    assert {"2 x 512, 4 layers", "2 x 2048, 4 layers"} <= set(names)
    for axis, values in step_memory.GROWING.items():
        assert step_memory.BASE[axis] in values
        for value in values:
            assert step_memory.BASE | {axis: value} in points


def test_what_is_there_is_kept_told_and_drawn(tmp_path, monkeypatch, capsys):
    asked = []

    def measured(contender, point, args):
        asked.append((contender, step_memory.name_of(point)))
        return found(100.0 * point["rows"] * len(contender))

    monkeypatch.setattr(step_memory, "in_own_process", measured)
    flags = [f"--workdir={tmp_path}", "--points", "1 x 512, 4 layers"]
    assert step_memory.main([*flags, "--contenders", "ours"]) == 0
    figure = tmp_path / "figure.png"
    assert step_memory.main([*flags, f"--figure={figure}"]) == 0
    assert asked == [
        (contender, "1 x 512, 4 layers") for contender in step_memory.CONTENDERS
    ]
    rows = capsys.readouterr().out.strip().splitlines()[-3:]
    assert rows == [
        "| 1 x 512, 4 layers | ours | 400 | 500 | 1,000 |",
        "|  | ours, recomputed | 1,600 | 500 | 1,000 |",
        "|  | Hugging Face | 1,200 | 500 | 1,000 |",
    ]
    assert figure.read_bytes().startswith(b"\x89PNG")
    kept = json.loads((tmp_path / "memory.json").read_text())
    line = step_memory._line(kept, "rows", "ours", "peak_mb")
    assert list(line) == [(1, 400.0)]


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="Linux alone"
)
def test_a_step_is_measured_and_recomputed_to_the_same_losses():
    losses = []
    for contender in (step_memory.OURS, step_memory.RECOMPUTED):
        args = SimpleNamespace(model="albert_tiny_zh_google", steps=1)
        row = step_memory.in_own_process(contender, SMALL, args)
        assert row["peak_mb"] > 1 and 0 < row["cpu"] and 0 < row["wall"]
        losses.append(row["losses"])
    assert losses[0] != [losses[0][0]] * 2  # weights moved
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
