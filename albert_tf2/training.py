"""The pre-training loop: build, resume, step, evaluate, save.

    >>> recipe = load_recipe(PretrainRecipe, "configs/pretrain_tiny.yaml")
    >>> result = train_and_evaluate(recipe, "records/", "run/")

A run's folder holds all it needs to go on: checkpoints (weights, slots, step,
half-logged numbers), the configuration, the vocabulary, the numbers so far.
The same call resumes it, and what follows is what would have followed
(`input_pipeline` finds the data's position from the step alone).
"""

import contextlib
import dataclasses
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import files, flops, guard, input_pipeline, optimization
from albert_tf2.config import AlbertConfig, PretrainRecipe
from albert_tf2.distribution import create_strategy, worker_of
from albert_tf2.errors import UserError
from albert_tf2.input_pipeline import RecordSet
from albert_tf2.keras_api import keras
from albert_tf2.masking import Masker
from albert_tf2.models import AlbertPretrainer
from albert_tf2.run_log import EVALUATION, RunLog, read_rows
from albert_tf2.snapshots import Snapshots
from albert_tf2.tokenization import Vocabulary
from albert_tf2.train_step import (
    METRICS,
    EvaluationStep,
    PretrainStep,
    evaluation_metrics,
)

CONFIG_FILE, RECIPE_FILE = "albert_config.json", "recipe.json"
# Held-out masks are drawn apart from the training masks.
EVALUATION_SEED = 1
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
    run = Run(recipe, data_dir, workdir, strategy)
    run.start(init_checkpoint, progress=progress)
    with _sigterm_noted() as terminated:
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
    recipe_file = Path(workdir) / RECIPE_FILE
    recipe = PretrainRecipe(**files.read_json(recipe_file))
    run = Run(recipe, data_dir, workdir, strategy)
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
        self.records = input_pipeline.open_records(data_dir)
        held_out = input_pipeline.open_records(data_dir, "eval")
        self.held_out = held_out if held_out.records else None
        self.config = model_config(recipe, self.records)
        self.masker = create_masker(recipe, self.records, self.config)
        self._build()
        self._unigram = None
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
        with self.strategy.scope(), _precision(recipe.precision):
            self.model = AlbertPretrainer(self.config)
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.rate_scale = tf.Variable(1.0, trainable=False)
            # Sums since the last logged row, and of how many steps.
            self.interval = tf.Variable(
                np.zeros(len(METRICS) + 1), trainable=False
            )
            self.schedule = create_schedule(recipe, scale=self.rate_scale)
            self.optimizer = create_optimizer(recipe, self.schedule)
            # Slots now, so that a checkpoint restores into them.
            self._inner_optimizer._create_all_weights(
                self.model.trainable_variables
            )
        self.train_step = PretrainStep(
            self.model,
            self.optimizer,
            accumulation_steps=recipe.gradient_accumulation_steps,
            clip_norm=recipe.clip_norm,
            jit_compile=recipe.jit_compile,
        )

        @tf.function
        def train_steps(iterator, count):
            rows = tf.TensorArray(tf.float32, size=count)
            for number in tf.range(count):
                row = self.strategy.run(self.train_step, (next(iterator),))
                row = self.strategy.experimental_local_results(row)[0]
                rows = rows.write(number, row)
            return rows.stack()  # [count, metrics]

        self._train_steps = train_steps

    @property
    def _inner_optimizer(self):
        return getattr(self.optimizer, "inner_optimizer", self.optimizer)

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
        self.workdir.mkdir(parents=True, exist_ok=True)
        found = self.snapshots.restore_newest()
        step = int(self.step.numpy())
        if found:
            self.say(f"resuming {found} at step {step}")
        elif init_checkpoint is not None:
            self._warm_start(init_checkpoint)
        self._write_descriptions()
        self.log = RunLog(
            self.workdir,
            start_step=step if found else -1,
            train_steps=self.recipe.train_steps,
            enabled=self.worker == 0,
            progress=progress,
        )
        self.say(self.schedule.describe())
        self.say(
            f"{self.records.records:,} records, "
            f"{self.recipe.global_batch_size} per step on "
            f"{self.strategy.num_replicas_in_sync} replica(s); "
            f"{self.model.count_params():,} parameters"
        )

    def _warm_start(self, init_checkpoint) -> None:
        from albert_tf2 import load_pretrained

        source = load_pretrained(init_checkpoint)
        with self.strategy.scope():
            for mine, theirs in zip(
                self.model.variables, source.variables, strict=True
            ):
                if mine.shape != theirs.shape:
                    raise UserError(
                        f"--init_checkpoint {init_checkpoint} does not fit "
                        f"the recipe's model: {mine.name} is {theirs.shape} "
                        f"there and {mine.shape} here"
                    )
                mine.assign(theirs)
        self.say(f"starting from the weights of {init_checkpoint}")

    def _write_descriptions(self) -> None:
        """Puts beside the checkpoints what it takes to use them."""
        if self.worker:
            return
        config_file = self.workdir / CONFIG_FILE
        if config_file.exists():
            before = AlbertConfig.from_json(config_file)
            if before != self.config:
                raise UserError(
                    f"{self.workdir} holds a run of another model "
                    f"({CONFIG_FILE} differs): choose another --workdir"
                )
        self.config.to_json(config_file)
        recipe_file = self.workdir / RECIPE_FILE
        recipe = dataclasses.asdict(self.recipe)
        if recipe_file.exists():
            before = files.read_json(recipe_file)
            for key, value in recipe.items():
                if before.get(key) != value:
                    self.say(
                        f"note: `{key}` was {before.get(key)!r} in the run "
                        f"so far and is {value!r} from now on"
                    )
        files.write_json(recipe_file, recipe)
        vocab_file = Path(self.records.vocab_file)
        if vocab_file.exists():
            shutil.copyfile(vocab_file, self.workdir / vocab_file.name)

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
        timer = _Timer()
        prefix = self.snapshots.prefixes[-1] if step else ""
        while step < recipe.train_steps:
            count = self._steps_until_something(step)
            timer.start(count)
            rows = self._train_steps(iterator, tf.constant(count)).numpy()
            timer.stop()
            self.guard.check(step, rows[:, 0].tolist())
            step += count
            self.step.assign(step)
            self.log.advance(count, float(rows[-1, 0]))
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
            lambda context: input_pipeline.training_dataset(
                self.records,
                self.masker,
                global_batch_size=recipe.global_batch_size,
                seed=recipe.seed,
                start_step=step,
                shuffle_buffer=recipe.shuffle_buffer,
                **self._shares(context),
            )
        )

    def _shares(self, context) -> dict[str, int]:
        workers = context.num_input_pipelines
        return {
            "worker": context.input_pipeline_id,
            "workers": workers,
            "replicas": self.strategy.num_replicas_in_sync // workers,
        }

    def _add_to_interval(self, rows: np.ndarray) -> None:
        # One after another: the sum does not depend on how steps were
        # grouped into calls.
        total = self.interval.numpy()
        for row in rows.astype(np.float64):
            total[:-1] += row
            total[-1] += 1
        self.interval.assign(total)

    def _log(self, step: int, timer: "_Timer") -> None:
        *sums, count = self.interval.numpy().tolist()
        means = {
            name: value / count
            for name, value in zip(METRICS, sums, strict=True)
        }
        self.interval.assign(np.zeros(len(sums) + 1))
        row: dict[str, Any] = {"step": step} | means
        row["learning_rate"] = float(self.schedule(step - 1))
        row |= timer.rates(
            tokens=row.pop("tokens"),
            examples=row.pop("examples"),
            flops=self.recipe.global_batch_size
            * flops.training_flops(
                self.config,
                self.records.max_seq_length,
                predictions_of(self.recipe, self.records),
            ),
        )
        ratios = {}
        if self.recipe.optimizer == "lamb":
            ratios = optimization.trust_ratios(
                self._inner_optimizer,
                self.model.trainable_variables,
                weight_decay=self.recipe.weight_decay,
                bias_correction=self.recipe.bias_correction,
            )
        self.log.training(
            row, {f"trust_ratio/{k}": float(v) for k, v in ratios.items()}
        )

    def evaluate(self) -> dict[str, float]:
        """Returns means over every held-out example once."""
        batch_size = self.recipe.global_batch_size
        replicas = self.strategy.num_replicas_in_sync
        batch_size = max(batch_size // replicas, 1) * replicas
        if self._unigram is None:
            self._unigram = EvaluationStep(
                self.model,
                input_pipeline.unigram_log_probs(
                    self.records, self.config.vocab_size
                ),
            )

            @tf.function
            def one_step(iterator):
                sums = self.strategy.run(self._unigram, (next(iterator),))
                return self.strategy.experimental_local_results(sums)[0]

            self._evaluation_step = one_step
        dataset = self.strategy.distribute_datasets_from_function(
            lambda context: input_pipeline.evaluation_dataset(
                self.held_out,
                self.masker,
                batch_size=batch_size,
                seed=EVALUATION_SEED,
                **self._shares(context),
            )
        )
        iterator = iter(dataset)
        total = 0.0
        for _ in range(-(-self.held_out.records // batch_size)):
            sums = self._evaluation_step(iterator).numpy()
            total = total + sums.astype(np.float64)
        return evaluation_metrics(total)

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


def model_config(recipe: PretrainRecipe, records: RecordSet) -> AlbertConfig:
    """Returns the recipe's model, checked against the records."""
    config = recipe.model_config()
    if recipe.vocab_size_from_data and records.vocab_size:
        config = config.replace(vocab_size=records.vocab_size)
    if records.vocab_size not in (None, config.vocab_size):
        raise UserError(
            f"{records.folder} was built with a vocabulary of "
            f"{records.vocab_size} tokens, but {recipe.model} has "
            f"{config.vocab_size}: build the records with the model's "
            "vocabulary, or pass --set vocab_size_from_data=true"
        )
    longest = min(recipe.max_seq_length, config.max_position_embeddings)
    if records.max_seq_length > longest:
        raise UserError(
            f"{records.folder} holds rows of {records.max_seq_length} tokens, "
            f"but the recipe's limit is {longest}: build the records with "
            f"--max_seq_length {longest}, or raise `max_seq_length` (and the "
            "model's `max_position_embeddings`)"
        )
    return config


def create_masker(
    recipe: PretrainRecipe, records: RecordSet, config: AlbertConfig
) -> Masker | None:
    """Returns what masks compact records; None for classic ones."""
    if records.kind == "classic":
        return None
    return Masker(
        Vocabulary.load(records.vocab_file, size=config.vocab_size),
        max_seq_length=records.max_seq_length,
        max_predictions_per_seq=recipe.max_predictions_per_seq,
        masked_lm_prob=recipe.masked_lm_prob,
        max_ngram=recipe.max_ngram,
        label_style=recipe.label_style,
    )


def predictions_of(recipe: PretrainRecipe, records: RecordSet) -> int:
    """Returns P: classic records bring their own."""
    return records.max_predictions_per_seq or recipe.max_predictions_per_seq


def create_schedule(
    recipe: PretrainRecipe, *, scale: tf.Variable | None = None
) -> optimization.WarmupLinearDecay:
    """Returns the recipe's learning rate, scaled for its batch."""
    return optimization.WarmupLinearDecay(
        optimization.scaled_learning_rate(
            recipe.learning_rate,
            recipe.global_batch_size,
            recipe.scale_learning_rate_from,
        ),
        train_steps=recipe.train_steps,
        warmup_steps=recipe.warmup_steps,
        end_learning_rate=recipe.end_learning_rate,
        scale=scale,
    )


def create_optimizer(recipe: PretrainRecipe, learning_rate):
    """Returns the recipe's optimizer; float16 needs a scaled loss."""
    optimizer = optimization.create_optimizer(
        recipe.optimizer,
        learning_rate,
        weight_decay=recipe.weight_decay,
        beta_1=recipe.beta_1,
        beta_2=recipe.beta_2,
        epsilon=recipe.epsilon,
        lamb_adaptation=recipe.lamb_adaptation,
        bias_correction=recipe.bias_correction,
    )
    if recipe.precision == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer


@contextlib.contextmanager
def _precision(precision: str):
    """Sets how the model computes, while it is built.

    On CPUs bfloat16 is a rewrite of the finished graph by oneDNN, which is
    faster than casts between the layers and leaves XLA aside.
    """
    on_cpu = not tf.config.list_logical_devices("GPU") and not (
        tf.config.list_logical_devices("TPU")
    )
    if precision == "mixed_bfloat16" and on_cpu:
        tf.config.optimizer.set_experimental_options(
            {"auto_mixed_precision_onednn_bfloat16": True}
        )
        precision = "float32"
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


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


class _Timer:
    """Wall time of training steps alone, without the first, traced call."""

    def __init__(self):
        self.steps, self.seconds, self._traced = 0, 0.0, False

    def start(self, steps: int) -> None:
        self._steps, self._began = steps, time.perf_counter()

    def stop(self) -> None:
        if self._traced:
            self.steps += self._steps
            self.seconds += time.perf_counter() - self._began
        self._traced = True

    def rates(self, **per_step: float) -> dict[str, float]:
        """Returns `<name>_per_second` since the last call, if known."""
        steps, seconds = self.steps, self.seconds
        self.steps, self.seconds = 0, 0.0
        if not steps:
            return {}
        speed = steps / seconds
        return {"steps_per_second": speed} | {
            f"{name}_per_second": value * speed
            for name, value in per_step.items()
        }
