"""The loop with a trainer that costs nothing: when what happens."""

import itertools
import json
import math
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2.errors import Preempted, UserError
from albert_tf2.keras_api import keras
from albert_tf2.training import guard
from albert_tf2.training.early_stopping import Best
from albert_tf2.training.loop import Loop, Plan, sigterm_noted
from albert_tf2.training.optimization import WarmupLinearDecay
from albert_tf2.training.run_log import read_rows

PLAN = dict(
    train_steps=12,
    steps_per_epoch=4.0,
    log_every=4,
    eval_every=6,
    checkpoint_every=5,
    keep_checkpoints=3,
    steps_per_loop=3,
    on_divergence="stop",
)


class Sums:
    """Its weight sums the numbers of its batches; its loss falls."""

    metrics = ("loss", "gradient_norm", "batches")

    def __init__(self, workdir, *, figures=None, best=None, **plan):
        self.model = tf.Module()
        self.model.weight = tf.Variable(0.0)
        self.schedule = WarmupLinearDecay(
            1.0,
            train_steps=12,
            warmup_steps=0,
            scale=tf.Variable(1.0, trainable=False),
        )
        self.optimizer = keras.optimizers.legacy.SGD(self.schedule)
        self.programs = 0
        self.given = figures or {}
        self.said, self.calls, self.kept = [], [], []
        self.loop = Loop(
            self,
            Plan(**(PLAN | plan)),
            workdir,
            best=best,
            progress=False,
            say=self.said.append,
        )

    def batches(self, step):
        return itertools.count(step)

    def run_steps(self, batches, step, count):
        self.calls.append((step, count))
        self.programs = 1
        numbers = [next(batches) for _ in range(count)]
        assert numbers == list(range(step, step + count))
        self.model.weight.assign_add(sum(numbers))
        return np.array([self.row(n) for n in numbers], np.float32)

    def row(self, number):
        return [1 / (number + 1), 1.0, 1.0]

    def logged(self, row, speed):
        return row | ({"steps_per_second": speed} if speed else {}), {}

    def evaluate(self, step):
        self.said.append(f"evaluated at {step}")
        figure = self.given.get(step, self.given.get("always"))
        return {} if figure is None else {"figure": figure}

    def evaluations(self):
        return [
            int(line.rsplit(" ", 1)[1])
            for line in self.said
            if line.startswith("evaluated")
        ]


def rows_of(workdir, name="metrics.jsonl"):
    return [row["step"] for row in read_rows(workdir / name)]


def test_everything_happens_when_it_is_due(tmp_path):
    trainer = Sums(tmp_path, figures={"always": 0.5})
    assert not trainer.loop.resume()
    assert trainer.loop.run() == 12
    # Calls end where something is due, and hold three steps at most.
    assert trainer.calls == [
        (0, 3), (3, 1), (4, 1), (5, 1), (6, 2), (8, 2), (10, 2)
    ]  # fmt: skip
    assert rows_of(tmp_path) == [4, 8, 12]
    assert trainer.evaluations() == [6, 12]
    assert rows_of(tmp_path, "evaluation.jsonl") == [6, 12]
    assert trainer.loop.snapshots.steps == [5, 10, 12]
    first, *_, last = read_rows(tmp_path / "metrics.jsonl")
    assert first["loss"] == pytest.approx(np.mean([1, 1 / 2, 1 / 3, 1 / 4]))
    assert first["learning_rate"] == pytest.approx(1 - 3 / 12)
    assert "skipped_steps" not in first
    assert last["steps_per_second"] > 0


def test_the_last_step_is_due_whatever_it_is(tmp_path):
    trainer = Sums(tmp_path, figures={"always": 0.5}, train_steps=11)
    assert trainer.loop.run() == 11
    assert rows_of(tmp_path) == [4, 8, 11]
    assert trainer.evaluations() == [6, 11]
    assert trainer.loop.snapshots.steps == [5, 10, 11]


def test_who_is_stopped_does_not_evaluate_first(tmp_path):
    """It may take longer than a machine that is taken away waits."""
    trainer = Sums(tmp_path, figures={"always": 0.5})
    with pytest.raises(Preempted):
        trainer.loop.run(AfterSteps(trainer, 6))
    assert trainer.evaluations() == []
    assert trainer.loop.snapshots.steps == [5, 6]


def test_the_untrained_model_is_evaluated_if_asked(tmp_path):
    trainer = Sums(tmp_path, figures={"always": 0.5}, evaluates_untrained=True)
    trainer.loop.run()
    assert trainer.evaluations() == [0, 6, 12]


def test_compiling_is_said_once_and_not_timed(tmp_path):
    trainer = Sums(tmp_path)
    trainer.loop.run()
    said = [line for line in trainer.said if "compiling" in line]
    assert len(said) == 1 and trainer.said.index(said[0]) == 0
    # The first three of the four steps were compiled: one is timed.
    timed = "steps_per_second" in read_rows(tmp_path / "metrics.jsonl")[0]
    assert timed
    slow = Sums(tmp_path / "slow", steps_per_loop=4)
    slow.loop.run()
    rows = read_rows(tmp_path / "slow" / "metrics.jsonl")
    assert ["steps_per_second" in row for row in rows] == [False, True, True]


class AfterSteps:
    def __init__(self, trainer, step):
        self.trainer, self.step = trainer, step

    def __bool__(self):
        return int(self.trainer.loop.step) >= self.step


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, stop):
    """At any step: also where a row or an evaluation is due."""
    whole = Sums(tmp_path / "whole", figures={"always": 0.5})
    whole.loop.run()
    first = Sums(tmp_path / "cut", figures={"always": 0.5})
    with pytest.raises(Preempted, match="SIGTERM"):
        first.loop.run(AfterSteps(first, stop))
    assert f"ckpt-{int(first.loop.step)}; the same command" in first.said[-1]
    second = Sums(tmp_path / "cut", figures={"always": 0.5})
    assert second.loop.resume()
    assert second.loop.run() == 12
    assert float(second.model.weight) == float(whole.model.weight)
    evaluations = first.evaluations() + second.evaluations()
    assert evaluations == [6, 12]
    for name in ("metrics.jsonl", "evaluation.jsonl"):
        rows, others = (
            read_rows(tmp_path / folder / name) for folder in ("cut", "whole")
        )
        for row in [*rows, *others]:
            row.pop("steps_per_second", None)
        assert rows == others


def test_sigterm_before_the_first_step_saves_nothing(tmp_path):
    trainer = Sums(tmp_path)
    with pytest.raises(Preempted):
        trainer.loop.run([signal.SIGTERM])
    assert "nothing, as no step was done" in trainer.said[-1]
    assert trainer.loop.snapshots.steps == [] and trainer.calls == []


def test_sigterm_is_noted_and_then_left_to_others():
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_noted() as received:
        assert not received
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_finished_run_does_nothing_more(tmp_path):
    Sums(tmp_path, figures={"always": 0.5}).loop.run()
    again = Sums(tmp_path, figures={"always": 0.5})
    assert again.loop.resume() and again.loop.run() == 12
    assert again.calls == [] and again.evaluations() == []
    assert rows_of(tmp_path) == [4, 8, 12]


class Breaking(Sums):
    """Gives a bad row at some steps, once or always."""

    def __init__(self, *arguments, broken, always=False, **more):
        super().__init__(*arguments, **more)
        self.broken, self.always = dict(broken), always

    def row(self, number):
        take = self.broken.get if self.always else self.broken.pop
        return take(number, None) or super().row(number)


NAN_LOSS, NAN_NORM = [math.nan, 1.0, 1.0], [1.0, math.inf, 1.0]


@pytest.mark.parametrize(
    "row, name", [(NAN_LOSS, "loss"), (NAN_NORM, "gradient's norm")]
)
def test_divergence_stops_before_it_is_saved(tmp_path, row, name):
    """A gradient that is lost takes the weights: no checkpoint may have it."""
    trainer = Breaking(tmp_path, broken={9: row})
    with pytest.raises(UserError, match=f"the {name} became .* at step 10"):
        trainer.loop.run()
    assert trainer.loop.snapshots.steps == [5]


def test_a_rollback_halves_the_rate_and_leaves_each_row_once(tmp_path):
    trainer = Breaking(
        tmp_path,
        broken={8: NAN_LOSS, 11: NAN_NORM},
        on_divergence="rollback",
        figures={"always": 0.5},
    )
    assert trainer.loop.run() == 12
    assert float(trainer.schedule.scale) == 0.25
    assert float(trainer.model.weight) == sum(range(12))
    told = [line for line in trainer.said if "back to step" in line]
    assert len(told) == 2 and "at 0.5 times" in told[0]
    assert "back to step 5" in told[0] and "at 0.25 times" in told[1]
    assert "back to step 10" in told[1]
    for name, steps in (("metrics", [4, 8, 12]), ("evaluation", [6, 12])):
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == steps
    rates = [r["learning_rate"] for r in read_rows(tmp_path / "metrics.jsonl")]
    assert rates[-1] == pytest.approx(0.25 * (1 - 11 / 12))


def test_an_explosion_is_forgotten_after_the_rollback(tmp_path):
    trainer = Breaking(
        tmp_path, broken={7: [100.0, 1.0, 1.0]}, on_divergence="rollback"
    )
    assert trainer.loop.run() == 12
    told = [line for line in trainer.said if "back to step" in line]
    assert len(told) == 1 and "the loss exploded" in told[0]


def test_rollbacks_end_some_time_and_need_a_checkpoint(tmp_path):
    hopeless = Breaking(
        tmp_path / "a",
        broken={8: NAN_LOSS},
        always=True,
        on_divergence="rollback",
    )
    with pytest.raises(guard.Diverged, match="after 5 rollbacks: lower"):
        hopeless.loop.run()
    assert float(hopeless.schedule.scale) == 0.5**5
    early = Breaking(
        tmp_path / "b", broken={3: NAN_LOSS}, on_divergence="rollback"
    )
    with pytest.raises(guard.Diverged, match="before the first checkpoint"):
        early.loop.run()


def test_steps_that_overflow_in_float16_are_skipped_and_counted(tmp_path):
    trainer = Breaking(tmp_path, broken={4: NAN_NORM, 6: NAN_NORM})
    trainer.optimizer = keras.mixed_precision.LossScaleOptimizer(
        trainer.optimizer
    )
    assert trainer.loop.run() == 12
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["skipped_steps"] for row in rows] == [0, 2, 0]
    assert [row["gradient_norm"] for row in rows] == [1.0, 1.0, 1.0]


def with_best(workdir, figures, *, patience=0, **plan):
    kept = []
    best = Best(
        lambda step, figures: kept.append(step),
        metric="figure",
        patience=patience,
    )
    plan = dict(eval_every=1, checkpoint_every=1, train_steps=12) | plan
    trainer = Sums(workdir, figures=figures, best=best, **plan)
    trainer.kept = kept
    return trainer


@pytest.mark.parametrize("figure", [0.7, 0.5, 0.1 + 0.2, 1 / 3, 0.0, -2.5])
def test_an_equal_figure_is_no_better(tmp_path, figure):
    """Rounded to float32, 0.7 would be beaten by itself for ever."""
    trainer = with_best(tmp_path, {"always": figure}, patience=3)
    assert trainer.loop.run() == 4
    assert trainer.kept == [1] and int(trainer.loop.best.step) == 1


def test_a_better_figure_renews_the_patience(tmp_path):
    figures = {1: 0.5, 2: 0.4, 3: 0.6, 4: 0.5, 5: 0.6, 6: 0.6, 7: 0.9}
    trainer = with_best(tmp_path, figures, patience=3)
    assert trainer.loop.run() == 6
    assert trainer.kept == [1, 3] and int(trainer.loop.best.step) == 3
    forever = with_best(tmp_path / "b", figures | {"always": 0.1}, patience=0)
    assert forever.loop.run() == 12
    assert forever.kept == [1, 3, 7]


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_patience_outlives_a_restart(tmp_path, stop):
    figures = {1: 0.5, 2: 0.7, "always": 0.7}
    first = with_best(tmp_path, figures, patience=4)
    with pytest.raises(Preempted):
        first.loop.run(AfterSteps(first, stop))
    second = with_best(tmp_path, figures, patience=4)
    second.loop.resume()
    assert second.loop.run() == 6
    assert first.kept + second.kept == [1, 2]
    assert rows_of(tmp_path, "evaluation.jsonl") == [1, 2, 3, 4, 5, 6]
    # Its patience is over: the same again ends at once.
    third = with_best(tmp_path, figures, patience=4)
    third.loop.resume()
    assert third.loop.run() == 6 and third.calls == []


def test_without_figures_the_last_model_is_the_best(tmp_path):
    trainer = with_best(tmp_path, {}, patience=1, eval_every=5)
    assert trainer.loop.run() == 12
    assert trainer.kept == [5, 10, 12]


def test_a_figure_that_is_none_is_worse_than_any(tmp_path):
    figures = {1: math.nan, 2: -1.0, 3: math.nan, "always": -2.0}
    trainer = with_best(tmp_path, figures)
    trainer.loop.run()
    assert trainer.kept == [1, 2]
    (first, *_) = (tmp_path / "evaluation.jsonl").read_text().splitlines()
    assert json.loads(first) == {"step": 1, "figure": None}


@pytest.mark.parametrize("scheme", ["ram:/", "file://"])
def test_a_run_on_another_file_system(tmp_path, scheme):
    workdir = f"{scheme}{tmp_path}"
    first = Sums(workdir)
    with pytest.raises(Preempted):
        first.loop.run(AfterSteps(first, 7))
    second = Sums(workdir)
    assert second.loop.resume() and second.loop.run() == 12
    assert float(second.model.weight) == sum(range(12))
    rows = read_rows(f"{workdir}/metrics.jsonl")
    assert [row["step"] for row in rows] == [4, 8, 12]
