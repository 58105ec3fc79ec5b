"""The pre-training loop: build, resume, step, evaluate, save.

    >>> recipe = load_recipe(PretrainRecipe, "configs/pretrain_tiny.yaml")
    >>> result = train_and_evaluate(recipe, "records/", "run/")

A run's folder holds all it needs to go on: checkpoints (weights, slots, step,
half-logged numbers), the configuration, the vocabulary, the numbers so far.
The same call resumes it, and what follows is what would have followed
(`records.pipeline` finds the data's position from the step alone).
"""

import contextlib
import dataclasses
import signal
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import files, paths
from albert_tf2.checkpoints.warm_start import warm_start
from albert_tf2.errors import UserError
from albert_tf2.keras_api import keras
from albert_tf2.model import flops
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.pretraining.evaluation import Evaluator
from albert_tf2.pretraining.identity import identity_of, put_beside
from albert_tf2.pretraining.recipe_parts import (
    create_masker,
    create_schedule,
    model_config,
    predictions_of,
)
from albert_tf2.pretraining.step import METRICS, PretrainStep
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.records import pipeline
from albert_tf2.training import guard, optimization, run_folder
from albert_tf2.training.distribution import create_strategy, shares, worker_of
from albert_tf2.training.identity import PRETRAINING
from albert_tf2.training.precision import model_precision, unwrapped
from albert_tf2.training.run_log import EVALUATION, RunLog, Timer, read_rows
from albert_tf2.training.snapshots import Snapshots

MAX_ROLLBACKS = 5


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        step: The last step done.
        checkpoint: The prefix of its checkpoint.
        first: The evaluation before training (`loss`, `mlm_loss`,
            `mlm_accuracy`, `sop_loss`, `sop_accuracy`, `unigram_loss`), or
            None without held-out documents.
        last: The newest evaluation.
        interrupted: SIGTERM came: run the same again to go on.
    """

    step: int
    checkpoint: str
    first: dict[str, float] | None
    last: dict[str, float] | None
    interrupted: bool = False


def train_and_evaluate(
    recipe: PretrainRecipe,
    data_dir: files.PathLike,
    workdir: files.PathLike,
    strategy: tf.distribute.Strategy | str = "auto",
    *,
    init_checkpoint: files.PathLike | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Trains, or goes on training, until `recipe.train_steps`.

    Args:
        recipe: How to train.
        data_dir: What the builder wrote.
        workdir: The run's folder; resumed if it holds a checkpoint.
        strategy: A strategy, or the name of one.
        init_checkpoint: Weights to start a new run from, in any form that
            `load_pretrained` reads. A run that is resumed ignores it.
        progress: Whether to show a progress bar.
    """
    if isinstance(strategy, str):
        strategy = create_strategy(strategy)
    worker, _ = worker_of(strategy)
    with (
        run_folder.owned(workdir, worker=worker),
        _sigterm_noted() as terminated,
    ):
        run = Run(recipe, data_dir, workdir, strategy)
        run.start(init_checkpoint, progress=progress)
        try:
            return run.train(terminated)
        finally:
            run.log.close()


def evaluate(
    workdir: files.PathLike,
    data_dir: files.PathLike,
    strategy: tf.distribute.Strategy | str = "auto",
) -> dict[str, float]:
    """Evaluates the newest checkpoint of a run on held-out documents."""
    run_folder.expect(workdir, PRETRAINING)
    recipe = run_folder.read_recipe(workdir, PRETRAINING)
    # The run's own copy: the file that the recipe names may be gone.
    config_file = paths.join(workdir, run_folder.CONFIG_FILE)
    if paths.exists(config_file):
        recipe = dataclasses.replace(recipe, model=config_file)
    run = Run(recipe, data_dir, workdir, strategy)
    run_folder.check_vocabulary(workdir, run.records.vocabulary())
    if run.held_out is None:
        raise UserError(
            f"{data_dir} has no held-out documents: build the records with "
            "--eval_fraction above 0"
        )
    if run.snapshots.restore_newest() is None:
        raise UserError(f"{workdir} holds no checkpoint: pre-train first")
    return {"step": int(run.step.numpy())} | run.evaluate()


class Run:
    """A model, its optimizer, its data and its folder."""

    def __init__(self, recipe, data_dir, workdir, strategy):
        self.recipe = recipe
        self.workdir = Path(workdir)
        if isinstance(strategy, str):
            strategy = create_strategy(strategy)
        self.strategy = strategy
        self.worker, _ = worker_of(strategy)
        self.records = pipeline.open_records(data_dir)
        held_out = pipeline.open_records(data_dir, "eval")
        self.held_out = held_out if held_out.records else None
        self.config = model_config(recipe, self.records)
        self.masker = create_masker(recipe, self.records, self.config)
        self._build()
        self._evaluator = None
        self._peak = None
        self.guard = guard.Guard()
        self.log = None
        self.snapshots = Snapshots(
            tf.train.Checkpoint(
                model=self.model,
                optimizer=self.optimizer,
                step=self.step,
                rate_scale=self.rate_scale,
                interval=self.interval,
            ),
            self.workdir,
            keep=recipe.keep_checkpoints,
            worker=self.worker,
            report=self.say,
        )

    def _build(self) -> None:
        """Creates variables, all from the recipe's seed."""
        recipe = self.recipe
        keras.utils.set_random_seed(recipe.seed)
        with self.strategy.scope(), model_precision(recipe.precision):
            self.model = AlbertPretrainer(self.config)
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.rate_scale = tf.Variable(1.0, trainable=False)
            # Sums since the last logged row, and of how many steps.
            self.interval = tf.Variable(
                np.zeros(len(METRICS) + 1), trainable=False
            )
            self.schedule = create_schedule(recipe, scale=self.rate_scale)
            self.optimizer = optimization.recipe_optimizer(
                recipe, self.schedule, self.model.trainable_variables
            )
        self.train_step = PretrainStep(
            self.model,
            self.optimizer,
            accumulation_steps=recipe.gradient_accumulation_steps,
            clip_norm=recipe.clip_norm,
            jit_compile=recipe.jit_compile,
            seed=recipe.seed,
        )

        @tf.function
        def train_steps(iterator, step, count):
            rows = tf.TensorArray(tf.float32, size=count)
            for number in tf.range(count):
                row = self.strategy.run(
                    self.train_step, (next(iterator), step + number)
                )
                row = self.strategy.experimental_local_results(row)[0]
                rows = rows.write(number, row)
            return rows.stack()  # [count, metrics]

        self._train_steps = train_steps

    def say(self, text: str) -> None:
        """Prints on the first worker, above the bar if there is one."""
        if self.log is not None:
            self.log.say(text)
        elif self.worker == 0:
            print(text, flush=True)

    def start(self, init_checkpoint, *, progress: bool) -> None:
        """Resumes, or starts from a checkpoint or from random weights.

        The order matters: what this folder has done so far wins.
        """
        what = identity_of(
            self.recipe,
            self.config,
            self.records,
            self.held_out,
            init_checkpoint=init_checkpoint,
            strategy=self.strategy,
        )
        changes = run_folder.check(self.workdir, what)
        found = self.snapshots.restore_newest()
        step = int(self.step.numpy())
        if found:
            self.say(f"resuming {found} at step {step}")
        elif init_checkpoint is not None:
            with self.strategy.scope():
                warm_start(
                    self.model,
                    init_checkpoint,
                    vocabulary=what.vocabulary,
                    text_settings=self.records.text_settings,
                    grow=self.recipe.grow_vocabulary,
                    say=self.say,
                )
            self.say(f"starting from the weights of {init_checkpoint}")
        elif self.recipe.grow_vocabulary:
            raise UserError(
                "recipe: `grow_vocabulary` grows the table of a checkpoint: "
                "name it with --init_checkpoint, or leave the setting away "
                "(`vocab_size_from_data` takes the size from the records)"
            )
        if self.worker == 0:
            put_beside(self.workdir, self.config, self.records)
            run_folder.describe(self.workdir, what, changes, say=self.say)
        self.log = RunLog(
            self.workdir,
            start_step=step if found else -1,
            train_steps=self.recipe.train_steps,
            enabled=self.worker == 0,
            progress=progress,
        )
        self._peak = self._measured_peak()
        self.say(self.schedule.describe())
        self.say(
            f"{self.records.records:,} records, "
            f"{self.recipe.global_batch_size} per step on "
            f"{self.strategy.num_replicas_in_sync} replica(s); "
            f"{self.model.count_params():,} parameters"
        )

    def _measured_peak(self) -> float | None:
        """Returns FLOP/s of all replicas; of a TPU, this host knows none."""
        if isinstance(self.strategy, tf.distribute.TPUStrategy):
            return None
        mixed = self.recipe.precision.removeprefix("mixed_")
        peak = flops.measured_peak(tf.dtypes.as_dtype(mixed))
        # Logical CPUs share one set of cores.
        gpus = len(tf.config.list_logical_devices("GPU"))
        return peak * (self.strategy.num_replicas_in_sync if gpus else 1)

    def train(self, terminated) -> TrainingResult:
        """Runs from the current step to the last, rolling back if asked."""
        if int(self.step.numpy()) == 0:
            self._evaluate_and_log()
        for _ in range(MAX_ROLLBACKS):
            try:
                return self._train_from_here(terminated)
            except guard.Diverged as error:
                self._roll_back(error)
        return self._train_from_here(terminated)

    def _roll_back(self, error: guard.Diverged) -> None:
        if self.recipe.on_divergence == "stop":
            raise guard.Diverged(
                f"{error}: lower `learning_rate`, lengthen `warmup_steps`, or "
                "pass --set on_divergence=rollback"
            ) from error
        scale = float(self.rate_scale.numpy()) / 2
        if self.snapshots.restore_newest() is None:
            raise guard.Diverged(
                f"{error}, before the first checkpoint: lower "
                "`learning_rate` or lengthen `warmup_steps`"
            ) from error
        self.rate_scale.assign(scale)
        self.guard = guard.Guard()
        step = int(self.step.numpy())
        self.log.rewind(step)
        self.say(f"{error}; back to step {step} at {scale:g} times the rate")

    def _train_from_here(self, terminated) -> TrainingResult:
        recipe = self.recipe
        step = int(self.step.numpy())
        iterator = iter(self._training_batches(step))
        timer = Timer()
        prefix = self.snapshots.newest if step else ""
        traced = False
        while step < recipe.train_steps:
            count = self._steps_until_something(step)
            timer.start()
            rows = self._train_steps(
                iterator, tf.constant(step), tf.constant(count)
            ).numpy()
            timer.stop(count if traced else 0)
            traced = True
            self.guard.check(step, rows[:, 0].tolist())
            step += count
            self.step.assign(step)
            self.log.advance(
                count, dict(zip(METRICS[:3], rows[-1].tolist(), strict=False))
            )
            self._add_to_interval(rows)
            last = step == recipe.train_steps
            if step % recipe.log_every == 0 or last:
                self._log(step, timer)
            if step % recipe.eval_every == 0 or last:
                self._evaluate_and_log()
            if step % recipe.checkpoint_every == 0 or last or terminated:
                prefix = self.snapshots.save(step)
            if terminated and not last:
                self.say(f"SIGTERM: saved {prefix}; the same command goes on")
                return self._result(prefix, interrupted=True)
        return self._result(prefix)

    def _result(self, prefix, interrupted=False) -> TrainingResult:
        rows = read_rows(self.workdir / EVALUATION)
        return TrainingResult(
            step=int(self.step.numpy()),
            checkpoint=prefix,
            first=rows[0] if rows and rows[0]["step"] == 0 else None,
            last=rows[-1] if rows else None,
            interrupted=interrupted,
        )

    def _steps_until_something(self, step: int) -> int:
        recipe = self.recipe
        stops = [step + recipe.steps_per_loop, recipe.train_steps]
        for every in (
            recipe.log_every,
            recipe.checkpoint_every,
            recipe.eval_every,
        ):
            stops.append(step - step % every + every)
        return min(stops) - step

    def _training_batches(self, step: int):
        recipe = self.recipe
        return self.strategy.distribute_datasets_from_function(
            lambda context: pipeline.training_dataset(
                self.records,
                self.masker,
                global_batch_size=recipe.global_batch_size,
                seed=recipe.seed,
                start_step=step,
                shuffle_buffer=recipe.shuffle_buffer,
                **shares(self.strategy, context),
            )
        )

    def _add_to_interval(self, rows: np.ndarray) -> None:
        # One after another: the sum does not depend on how steps were
        # grouped into calls.
        total = self.interval.numpy()
        for row in rows.astype(np.float64):
            total[:-1] += row
            total[-1] += 1
        self.interval.assign(total)

    def _log(self, step: int, timer: Timer) -> None:
        *sums, count = self.interval.numpy().tolist()
        means = {
            name: value / count
            for name, value in zip(METRICS, sums, strict=True)
        }
        self.interval.assign(np.zeros(len(sums) + 1))
        row: dict[str, Any] = {"step": step} | means
        row["learning_rate"] = float(self.schedule(step - 1))
        predictions = predictions_of(self.recipe, self.records)
        per_step = {
            "steps": 1.0,
            "tokens": row.pop("tokens"),
            "examples": row.pop("examples"),
            "flops": self.recipe.global_batch_size
            * flops.training_flops(
                self.config,
                self.records.max_seq_length,
                predictions,
                predictions + self.records.max_pairs,
            ),
        }
        if speed := timer.speed():
            for name, value in per_step.items():
                row[f"{name}_per_second"] = value * speed
        if self._peak is not None and "flops_per_second" in row:
            row["share_of_measured_peak"] = row["flops_per_second"] / self._peak
        ratios = {}
        if self.recipe.optimizer == "lamb":
            ratios = optimization.trust_ratios(
                unwrapped(self.optimizer),
                self.model.trainable_variables,
                weight_decay=self.recipe.weight_decay,
                bias_correction=self.recipe.bias_correction,
            )
        self.log.training(
            row, {f"trust_ratio/{k}": float(v) for k, v in ratios.items()}
        )

    def evaluate(self) -> dict[str, float]:
        """Returns means over every held-out example once."""
        if self._evaluator is None:
            self._evaluator = Evaluator(
                self.model,
                self.strategy,
                self.records,
                self.held_out,
                self.masker,
                batch_size=self.recipe.global_batch_size,
            )
        return self._evaluator.evaluate()

    def _evaluate_and_log(self) -> None:
        if self.held_out is None:
            return
        step = int(self.step.numpy())
        row = {"step": step} | self.evaluate()
        self.log.evaluation(row)
        self.say(
            f"step {step}: held-out loss {row['loss']:.4f} (MLM "
            f"{row['mlm_loss']:.4f}, accuracy {row['mlm_accuracy']:.1%}; SOP "
            f"{row['sop_loss']:.4f}, accuracy {row['sop_accuracy']:.1%}); "
            f"guessing by character frequency {row['unigram_loss']:.4f}"
        )
        if step:
            for remark in guard.remarks(row):
                self.say(f"note: {remark}")


@contextlib.contextmanager
def _sigterm_noted():
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
