"""The loop of both kinds of training: step, log, evaluate, save, go back.

A plain loop and not Orbit's controller, because exact resume, rollback and the
guard of every step reach inside the loop, which a controller keeps to itself.

    batches -> some steps on the device -> the guard -> a logged row
      -> evaluation -> checkpoint -> ...

What differs between pre-training and fine-tuning is a `Trainer`. What is here
is the same for both: a run's folder holds all that it needs to go on, and
what follows a restart is what would have followed without one.
"""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.errors import Preempted, UserError
from albert_tf2.keras_api import keras
from albert_tf2.training import guard
from albert_tf2.training.early_stopping import Best
from albert_tf2.training.meters import Interval, Timer
from albert_tf2.training.optimization import WarmupLinearDecay
from albert_tf2.training.precision import scales_loss
from albert_tf2.training.run_log import Row, RunLog
from albert_tf2.training.snapshots import Snapshots
from albert_tf2.training.workers import Workers

MAX_ROLLBACKS = 5
# What every step reports, beside what is its kind's own.
LOSS, GRADIENT_NORM = "loss", "gradient_norm"


class Trainer(Protocol):
    """What differs between the kinds of training.

    Attributes:
        model: What is saved.
        optimizer: Of `optimization.recipe_optimizer`.
        schedule: Its rate, with a `scale` that a rollback halves.
        metrics: What a step reports, `loss` first, `gradient_norm` among it.
        programs: How many programs were compiled so far: steps during which
            it grows are not timed.
    """

    model: keras.Model
    optimizer: keras.optimizers.legacy.Optimizer
    schedule: WarmupLinearDecay

    @property
    def metrics(self) -> Sequence[str]: ...

    @property
    def programs(self) -> int: ...

    def batches(self, step: int) -> Iterator[Any]:
        """Yields the batches of a step and of those that follow."""

    def run_steps(
        self, batches: Iterator[Any], step: int, count: int
    ) -> np.ndarray:
        """Makes some steps; returns their metrics: float32 [count, M]."""

    def logged(self, row: Row, speed: float | None) -> tuple[Row, Row]:
        """Returns the row to write, and scalars for TensorBoard alone.

        Args:
            row: `step`, `learning_rate`, and the means of the metrics over
                the steps since the last row.
            speed: Steps per second, if known.
        """

    def evaluate(self, step: int) -> dict[str, float]:
        """Returns the figures on held-out rows; nothing without such rows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """When what happens, in steps, and what happens when it goes wrong."""

    train_steps: int
    steps_per_epoch: float
    log_every: int
    eval_every: int
    checkpoint_every: int
    keep_checkpoints: int
    # Steps between two looks at the losses: the device does not wait.
    steps_per_loop: int
    on_divergence: str
    # Whether the model is evaluated before its first step.
    evaluates_untrained: bool = False
    # See `RunLog`.
    work: Callable[[int], float] = float


class Loop:
    """Drives a trainer from where its folder stands to the last step."""

    def __init__(
        self,
        trainer: Trainer,
        plan: Plan,
        workdir: paths.PathLike,
        *,
        best: Best | None = None,
        workers: Workers | None = None,
        shared_folder: bool = True,
        progress: bool = True,
        say: Callable[[str], None] = print,
    ):
        """Creates what a checkpoint holds; reads and writes nothing yet.

        Args:
            trainer: What to train, and how.
            plan: When.
            workdir: The run's folder.
            best: For runs that keep their best model.
            workers: Those who train together.
            shared_folder: Whether `workdir` is one for all of them: then
                only worker 0 writes and speaks.
            progress: Whether to show a bar, and not a line per logged step.
            say: Takes lines for the console.
        """
        self.trainer, self.plan, self.best = trainer, plan, best
        self._workers = workers or Workers()
        worker = self._workers.index if shared_folder else 0
        self._log = RunLog(
            workdir,
            train_steps=plan.train_steps,
            steps_per_epoch=plan.steps_per_epoch,
            work=plan.work,
            enabled=worker == 0,
            progress=progress,
            say=say,
        )
        self.say = self._log.say
        self._rate_scale: Any = trainer.schedule.scale
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._evaluated = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self._interval = Interval(trainer.metrics)
        self.snapshots = Snapshots(
            tf.train.Checkpoint(
                model=trainer.model,
                optimizer=trainer.optimizer,
                step=self.step,
                rate_scale=self._rate_scale,
                interval=self._interval,
                evaluated=self._evaluated,
                **({"best": best} if best else {}),
            ),
            workdir,
            keep=plan.keep_checkpoints,
            worker=worker,
            report=self.say,
        )
        self._saved = -1  # the step of the checkpoint that the run stands on
        self._guard, self._timer = guard.Guard(), Timer()
        self._rollbacks = 0

    def resume(self) -> bool:
        """Restores the newest checkpoint; says whether there was one.

        Raises:
            UserError: If the workers have none in common.
        """
        found = self.snapshots.restore_newest()
        steps = self._workers.values(int(self.step))
        if min(steps) < int(self.step):
            # Some worker was killed before it had saved, too.
            found = self.snapshots.restore_newest(at_most=min(steps))
        steps = self._workers.values(int(self.step))
        if len(set(steps)) > 1:
            raise UserError(
                f"{self.snapshots.folder}: the workers hold no checkpoint in "
                f"common, theirs are of the steps {steps}: copy the newest "
                "one to all of them, or choose another workdir"
            )
        if found:
            self._saved = int(self.step)
            self.say(f"resuming {found} at step {self._saved}")
        return found is not None

    def run(
        self,
        terminated: Sequence[int] = (),
        owner: paths.Lock | None = None,
    ) -> int:
        """Trains to the end, rolling back if asked.

        Args:
            terminated: Of `sigterm_noted`.
            owner: Of `run_folder.owned`. A bucket's may be lost to a second
                run while this one was out of reach: it ends, and writes
                nothing more.

        Returns:
            The number of steps done.

        Raises:
            Preempted: After SIGTERM, and saving.
            guard.Diverged: If the loss is lost and nothing can be done.
        """
        self._log.open(self._saved)
        try:
            while True:
                try:
                    return self._run_from_here(terminated, owner)
                except guard.Diverged as error:
                    self._roll_back(error)
        finally:
            self._log.close()

    def _run_from_here(
        self, terminated: Sequence[int], owner: paths.Lock | None
    ) -> int:
        plan, step = self.plan, int(self.step)
        batches = self.trainer.batches(step)
        while True:
            if owner is not None:
                owner.check()
            # First, because an evaluation may take longer than a machine
            # that is taken away waits. It is made up for after the restart.
            if self._workers.any(bool(terminated)):
                self._leave(step)
            self._evaluate_if_due(step)
            if self._is_done(step) or self._is_due(step, plan.checkpoint_every):
                self._save(step)
            if self._is_done(step):
                self._workers.part()
                return step
            step = self._advance(batches, step)
            if self._is_due(step, plan.log_every):
                self._log_interval(step)

    def _is_due(self, step: int, every: int) -> bool:
        return step > 0 and (step % every == 0 or step >= self.plan.train_steps)

    def _is_done(self, step: int) -> bool:
        is_final = self.best is not None and self.best.is_final
        return is_final or step >= self.plan.train_steps

    def _advance(self, batches: Iterator[Any], step: int) -> int:
        """Makes the steps until something is due; returns the new step."""
        plan, trainer = self.plan, self.trainer
        stops = [step + plan.steps_per_loop, plan.train_steps]
        for every in (plan.log_every, plan.checkpoint_every, plan.eval_every):
            stops.append(step - step % every + every)
        count = min(stops) - step
        programs = trainer.programs
        if not programs:
            self.say("compiling the step: this may take a minute")
        self._timer.start()
        rows = trainer.run_steps(batches, step, count)  # [count, M]
        self._timer.stop(count if trainer.programs == programs else 0)
        by_name = dict(zip(trainer.metrics, rows.T.tolist(), strict=True))
        self._guard.check(
            step,
            by_name[LOSS],
            # Those that are not finite were skipped, and the scale lowered.
            None if scales_loss(trainer.optimizer) else by_name[GRADIENT_NORM],
        )
        step += count
        self.step.assign(step)
        self._log.advance(
            count,
            {name: by_name[name][-1] for name in by_name if LOSS in name},
        )
        self._interval.add(rows)
        return step

    def _log_interval(self, step: int) -> None:
        means, counts = self._interval.take()
        row: Row = {"step": step} | means
        if scales_loss(self.trainer.optimizer):
            row["skipped_steps"] = counts[LOSS] - counts[GRADIENT_NORM]
        row["learning_rate"] = float(self.trainer.schedule(step - 1))
        self._log.training(*self.trainer.logged(row, self._timer.speed()))

    def _evaluate_if_due(self, step: int) -> None:
        due = self._is_due(step, self.plan.eval_every) or (
            step == 0 and self.plan.evaluates_untrained
        )
        if not due or step <= int(self._evaluated):
            return
        figures = self.trainer.evaluate(step)
        if figures:
            self._log.evaluation({"step": step} | figures)
        if self.best is not None:
            self.best.update(step, figures)
        self._evaluated.assign(step)

    def _save(self, step: int) -> None:
        if step > max(self._saved, 0):
            self.snapshots.save(step)
            self._saved = step

    def _leave(self, step: int) -> None:
        self._save(step)
        saved = self.snapshots.newest or "nothing, as no step was done"
        self.say(f"SIGTERM: saved {saved}; the same command goes on")
        self._workers.part()
        raise Preempted(f"stopped by SIGTERM at step {step}")

    def _roll_back(self, error: guard.Diverged) -> None:
        """Goes back to the newest checkpoint, at half the rate."""
        remedy = "lower `learning_rate`, or warm up for longer"
        if self.plan.on_divergence == "stop":
            raise guard.Diverged(
                f"{error}: {remedy}, or pass --set on_divergence=rollback"
            ) from error
        if self._rollbacks == MAX_ROLLBACKS:
            raise guard.Diverged(
                f"{error}, after {MAX_ROLLBACKS} rollbacks: {remedy}"
            ) from error
        halved = float(self._rate_scale) / 2
        if self.snapshots.restore_newest() is None:
            raise guard.Diverged(
                f"{error}, before the first checkpoint: {remedy}"
            ) from error
        self._rate_scale.assign(halved)
        self._rollbacks += 1
        self._guard = guard.Guard()
        step = self._saved = int(self.step)
        self._log.rewind(step)
        self.say(f"{error}; back to step {step} at {halved:g} times the rate")


@contextlib.contextmanager
def sigterm_noted() -> Iterator[list[int]]:
    """Yields a list that is filled when SIGTERM arrives."""
    received: list[int] = []
    try:
        before = signal.signal(
            signal.SIGTERM, lambda number, _: received.append(number)
        )
    except ValueError:  # not in the main thread: someone else's signal
        yield received
        return
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
