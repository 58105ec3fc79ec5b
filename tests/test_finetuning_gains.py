"""What settings are worth: resumed, paired by seed, judged by chance."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import task_samples as samples

PATH = Path(__file__).parents[1] / "benchmarks" / "finetuning_gains.py"


@pytest.fixture(scope="module")
def gains():
    spec = importlib.util.spec_from_file_location("finetuning_gains", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["finetuning_gains"] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module


def test_runs_are_made_once_and_compared_by_seed(
    gains, tmp_path, checkpoint, capsys
):
    samples.write_lcqmc(tmp_path / "data" / "lcqmc")
    command = ["--data_dir", str(tmp_path / "data"), "--workdir"]
    command += [str(tmp_path / "w"), "--init_checkpoint", str(checkpoint)]
    command += ["--tasks", "lcqmc", "--seeds", "1", "2"]
    command += ["--set", "max_train_steps=2", "--set", "max_seq_length=24"]
    command += ["--set", "global_batch_size=4", "--set", "max_train_rows=7"]
    runs = tmp_path / "w" / "runs.jsonl"
    assert gains.main([*command, "--minutes", "1e-9"]) == 0
    assert "time is up" in capsys.readouterr().out and not runs.exists()
    command += ["--settings", "distilled"]
    assert gains.main(command) == 0
    lines = [json.loads(line) for line in runs.read_text().splitlines()]
    assert [(line["setting"], line["seed"]) for line in lines] == [
        *(("plain", 1), ("plain", 2), ("distilled", 1), ("distilled", 2)),
    ]
    assert {line["train_rows"] for line in lines} == {7}
    folder = tmp_path / "w" / "lcqmc"
    logits = np.load(folder / "teacher.npy")
    assert logits.shape == (7, 2) and logits.any()
    recipe = json.loads(
        (folder / "distilled" / "seed-2" / "recipe.json").read_text()
    )
    assert recipe["teacher"] == str(folder / "teacher.npy")
    table = (tmp_path / "w" / "table.md").read_text("utf-8")
    assert table in capsys.readouterr().out
    assert table.count("| lcqmc |") == 2 and "distilled: does not pay" in table
    assert gains.main(command) == 0  # nothing is left to do
    assert " of 4: " not in capsys.readouterr().out
    # Nor does a line count that was cut off, or is of another recipe.
    runs.write_text(runs.read_text()[:-30])
    assert len(gains.read_lines(runs)) == 3
    for key, other in (("recipe", ["r_drop=1"]), ("start", "x"), ("seed", 3)):
        asked = {k: lines[0][k] for k in ("task", "setting", "seed", "recipe")}
        assert gains.line_of(lines, asked) == lines[0]
        assert gains.line_of(lines, asked | {key: other}) is None


def test_a_gain_is_what_chance_would_hardly_bring(gains):
    assert gains.verdict([1.0, 1.2, 0.8]) == "pays"
    assert gains.verdict([-1.0, -1.2, -0.8]) == "costs"
    assert gains.verdict([3.0, -1.0, 1.0]) == "no difference seen"
    # A row more in each run is no gain, however alike the runs are.
    assert gains.verdict([0.05, 0.05]) == "no difference seen"
    assert gains.verdict([-0.05, -0.05]) == "no difference seen"
    assert gains.verdict([0.15, 0.15]) == "pays"
    assert gains.verdict([9.0]) == "one seed tells nothing"
    # The mean is 2.92 of its errors at the border: 2 degrees of freedom.
    spread = np.array([1.0, 0.0, -1.0])  # error 1 / sqrt(3)
    for mean, told in ((1.68, "no difference seen"), (1.70, "pays")):
        assert gains.verdict(list(mean + spread)) == told


def test_what_pays_on_two_tasks_pays(gains):
    args = argparse.Namespace(
        tasks=["lcqmc", "tnews", "ocnli"],
        settings=["plain", "r_drop=1", "accumulation=2"],
        seeds=[1, 2, 3],
        set=[],
        teachers={},
        start="x",
    )
    better = {"r_drop=1": ("lcqmc", "ocnli"), "accumulation=2": ("tnews",)}
    lines = [
        gains.key_of(task, setting, seed, args)
        | {
            "metric": "accuracy",
            "figure": 0.6
            + seed / 100
            + (0.02 + seed / 1e4) * (task in better.get(setting, ())),
            "seconds": 30 if setting == "r_drop=1" else 20,
        }
        for task in args.tasks
        for setting in args.settings
        for seed in args.seeds
    ]
    table = gains.table(lines, args)
    assert (
        "| ocnli | r_drop=1 | accuracy 64.02 ± 1.01 | +2.02 ± 0.01 | 1.50 |"
        in (table)
    )
    assert "r_drop=1: pays (2 of 3 tasks)" in table
    assert "accumulation=2: does not pay (1 of 3 tasks)" in table
    lines = [
        line for line in lines if (line["task"], line["seed"]) != ("ocnli", 3)
    ]
    table = gains.table(lines[:-1], args)
    assert "accumulation=2: not measured on all tasks yet" in table
    assert "| one seed tells nothing |" in table


def test_every_setting_is_one_of_a_recipe(gains):
    from albert_tf2 import finetune

    for row in gains.ROWS.values():
        for settings in gains.SETTINGS.values():
            finetune.read_recipe(row.task, None, [*row.settings, *settings])
