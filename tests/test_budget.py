"""A budget of time: the steps it pays for, and what a resumed run keeps."""

import dataclasses

import numpy as np
import pytest

from albert_tf2 import paths, pretrain, settings
from albert_tf2.errors import UserError
from albert_tf2.pretraining import budget
from albert_tf2.pretraining.growth import Stage
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.training.workers import Workers


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("90s", 90),
        ("150m", 9000),
        ("2h", 7200),
        ("1.5h", 5400),
        ("1d", 86_400),
        *((text, 0) for text in ("", "90", "m", "-2h", "2 h", "2hours", "0s")),
    ],
)
def test_times(text, seconds):
    assert settings.seconds(text) == seconds


class FakeRun:
    """Steps of one layer take 1 s, of four 4 s; compiling 30 s each."""

    metrics = ("loss", "tokens")

    class records:
        records = 1000

    class held_out:
        records = 240

    def __init__(self, recipe):
        self.recipe, self.now = recipe, 0.0
        half = recipe.train_steps // 2
        self.stages = (Stage(1, 0, half), Stage(4, half, recipe.train_steps))
        self.compiled: set[int] = set()

    def batches(self, step):
        return iter(())

    def run_steps(self, batches, step, count):
        stage = self.stages[step >= self.stages[0].end]
        if stage.depth not in self.compiled:
            self.compiled.add(stage.depth)
            self.now += 30.0
        assert stage.first <= step and step + count <= stage.end
        self.now += stage.depth * count
        return np.tile(np.float32([0.0, 500.0]), [count, 1])


RECIPE = PretrainRecipe(
    budget="2h",
    train_steps=1000,
    warmup_steps=50,
    global_batch_size=8,
    eval_every=100,
)


def resolve(recipe, workdir, workers=None):
    runs, lines = [], []

    def new_run(recipe):
        runs.append(FakeRun(recipe))
        return runs[0]

    found = budget.resolved(
        recipe,
        workdir,
        new_run,
        workers or Workers(),
        say=lines.append,
        clock=lambda: runs[0].now if runs else 0.0,
    )
    return found, runs, "\n".join(lines)


def test_the_steps_that_a_time_pays_for(tmp_path):
    found, [run], said = resolve(RECIPE, tmp_path)
    # Half of the steps are of one layer, half of four: 2.5 s each. An
    # evaluation is a third of 4 s, 30 times: 40 s.
    left = 7200 - run.now - 60 - 2 * 40
    assert found.train_steps == int(left / (2.5 + 40 / 100))
    assert found.warmup_steps == round(found.train_steps * 0.05)
    assert (
        dataclasses.replace(found, train_steps=1000, warmup_steps=50) == RECIPE
    )
    assert f"{found.train_steps:,} steps" in said and "expected end 2" in said
    tokens = found.train_steps * 500 / 1e6
    assert f"{tokens:,.3g} M tokens, {found.train_steps * 8 / 1000:.2g}" in said
    # So few seconds do not even pay for compiling.
    with pytest.raises(UserError, match="90s leaves no time to train"):
        resolve(dataclasses.replace(RECIPE, budget="90s"), tmp_path)
    without = dataclasses.replace(RECIPE, budget=None)
    assert resolve(without, tmp_path) == (without, [], "")


def test_a_run_that_goes_on_is_not_measured_again(tmp_path):
    began = dataclasses.replace(RECIPE, train_steps=777, warmup_steps=38)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-5.index").touch()
    paths.write_json(tmp_path / "run.json", {"kind": "pre-training"})
    paths.write_json(tmp_path / "recipe.json", dataclasses.asdict(began))
    found, runs, said = resolve(RECIPE, tmp_path)
    assert (found, runs) == (began, []) and "777 steps, as found" in said
    other = dataclasses.replace(RECIPE, budget="3h")
    with pytest.raises(UserError, match="began with --budget 2h and 777 steps"):
        resolve(other, tmp_path)
    plain = dataclasses.replace(began, budget=None)
    paths.write_json(tmp_path / "recipe.json", dataclasses.asdict(plain))
    with pytest.raises(UserError, match="began with no --budget and 777"):
        resolve(RECIPE, tmp_path)
    # Another kind of run is refused where runs are compared.
    paths.write_json(tmp_path / "run.json", {"kind": "fine-tuning"})
    assert resolve(RECIPE, tmp_path) == (RECIPE, [], "")


def test_xla_says_nothing_in_the_midst_of_the_first_steps(monkeypatch):
    events = []
    monkeypatch.setattr(budget, "hear_xla_out", lambda: events.append("XLA"))
    run = FakeRun(RECIPE)
    make_steps = run.run_steps
    run.run_steps = lambda *a: events.append("steps") or make_steps(*a)
    budget.measure(run, lambda: run.now, 10.0)
    assert events[:2] == ["XLA", "steps"]


def test_processes_that_train_together_have_no_budget(tmp_path):
    workers = Workers()
    workers.count = 2
    with pytest.raises(UserError, match="here are 2, .* --set train_steps"):
        resolve(RECIPE, tmp_path, workers)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--budget", "2hours"], "a time above 0, such as 90s, 150m or 2h"),
        (["--budget", "0m"], "Received: `budget='0m'`"),
        (
            ["--budget", "2h", "--set", "train_steps=100"],
            "--budget 2h finds the steps itself",
        ),
        (["--set", "grow_depth=4:0.5"], "`grow_depth=4:0.5`"),
    ],
)
def test_wrong_budgets_are_told_before_tensorflow_loads(
    arguments, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(pretrain, "_run", lambda *_: pytest.fail("ran"))
    where = ["--data_dir", str(tmp_path), "--workdir", str(tmp_path / "w")]
    with pytest.raises(UserError, match=message):
        pretrain.main([*where, "--set", "optimizer=adamw", *arguments])
