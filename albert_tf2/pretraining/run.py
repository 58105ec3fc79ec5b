"""What pre-training brings to the loop: its records, step and evaluation.

    >>> recipe = load_recipe(PretrainRecipe, "configs/pretrain_tiny.yaml")
    >>> result = train_and_evaluate(recipe, "records/", "run/")

The same call resumes a run, and what follows is what would have followed:
`records.pipeline` finds the data's position from the step alone, dropout is
drawn from it, and the rest is in the checkpoints (`training.loop`).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.checkpoints.warm_start import warm_start
from albert_tf2.errors import UserError
from albert_tf2.keras_api import keras
from albert_tf2.model import flops
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.pretraining import budget, first_heads, growth, word_vectors
from albert_tf2.pretraining.evaluation import Evaluator
from albert_tf2.pretraining.identity import identity_of, put_beside
from albert_tf2.pretraining.recipe_parts import (
    check_shares,
    create_masker,
    create_schedule,
    model_config,
    predictions_of,
)
from albert_tf2.pretraining.step import METRICS, PretrainStep
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.records import pipeline
from albert_tf2.records.record_set import (
    ClassicRecords,
    damage_told,
    open_records,
)
from albert_tf2.settings import CONSTRUCTED, COUNTED
from albert_tf2.training import guard, optimization, run_folder
from albert_tf2.training.distribution import create_strategy, distributed
from albert_tf2.training.identity import PRETRAINING
from albert_tf2.training.loop import Loop, Plan, sigterm_noted
from albert_tf2.training.precision import model_precision, unwrapped
from albert_tf2.training.run_log import EVALUATION, Row, read_rows
from albert_tf2.training.workers import Workers

# What a new model may begin with, in place of random numbers.
BEGINNINGS = {"word_vectors": COUNTED, "attention_heads": CONSTRUCTED}


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
    """

    step: int
    checkpoint: str
    first: dict[str, float] | None
    last: dict[str, float] | None


def train_and_evaluate(
    recipe: PretrainRecipe,
    data_dir: paths.PathLike,
    workdir: paths.PathLike,
    strategy: tf.distribute.Strategy | str = "auto",
    *,
    init_checkpoint: paths.PathLike | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Trains, or goes on training, until `recipe.train_steps`.

    With `recipe.budget` these are found first (see `budget`).

    Args:
        recipe: How to train.
        data_dir: What the builder wrote.
        workdir: The run's folder; resumed if it holds a checkpoint.
        strategy: A strategy, or the name of one.
        init_checkpoint: Weights to start a new run from, in any form that
            `load_pretrained` reads. A run that is resumed does without;
            another one than it began from is refused.
        progress: Whether to show a progress bar.

    Raises:
        Preempted: After SIGTERM, and saving, or when another worker is gone:
            the same call goes on.
    """
    if isinstance(strategy, str):
        strategy = create_strategy(strategy)
    workers = Workers(strategy)
    with (
        workers.watched(),
        run_folder.owned(workdir, worker=workers.index) as owner,
        sigterm_noted() as terminated,
    ):
        workers.check_shared(workdir)
        new = init_checkpoint is None and not run_folder.has_state(workdir)
        if new and recipe.attention_heads == CONSTRUCTED:
            # Whether the model has room, before time is spent.
            first_heads.frequencies(recipe.model_config())
        recipe = budget.resolved(
            recipe,
            workdir,
            lambda recipe: Run(recipe, data_dir, workdir, strategy),
            workers,
        )
        run = Run(recipe, data_dir, workdir, strategy, progress=progress)
        run.start(init_checkpoint)
        return run.train(terminated, owner)


def evaluate(
    workdir: paths.PathLike,
    data_dir: paths.PathLike,
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
    if not run.loop.snapshots.restore_newest():
        raise UserError(f"{workdir} holds no checkpoint: pre-train first")
    return {"step": int(run.loop.step)} | run.figures()


class Run:
    """A model, its optimizer and its records: a `loop.Trainer`."""

    metrics = METRICS

    def __init__(self, recipe, data_dir, workdir, strategy, *, progress=False):
        self.recipe = recipe
        self.workdir = workdir
        if isinstance(strategy, str):
            strategy = create_strategy(strategy)
        self.strategy = strategy
        self.workers = Workers(strategy)
        self.records = open_records(data_dir)
        held_out = open_records(data_dir, "eval")
        self.held_out = held_out if held_out.records else None
        self.config = model_config(recipe, self.records)
        check_shares(recipe, strategy.num_replicas_in_sync)
        self.masker = create_masker(recipe, self.records, self.config)
        self.stages = growth.stages(recipe, self.config)
        self._build()
        self._evaluators: dict[int, Evaluator] = {}
        self._peak = None
        self.loop = Loop(
            self,
            Plan(
                train_steps=recipe.train_steps,
                steps_per_epoch=self.records.records / recipe.global_batch_size,
                log_every=recipe.log_every,
                eval_every=recipe.eval_every,
                checkpoint_every=recipe.checkpoint_every,
                keep_checkpoints=recipe.keep_checkpoints,
                steps_per_loop=recipe.steps_per_loop,
                on_divergence=recipe.on_divergence,
                evaluates_untrained=True,
                work=self._work,
            ),
            workdir,
            workers=self.workers,
            progress=progress,
        )
        self.say = self.loop.say

    def _build(self) -> None:
        """Creates variables, all from the recipe's seed."""
        recipe = self.recipe
        keras.utils.set_random_seed(recipe.seed)
        with self.strategy.scope(), model_precision(recipe.precision):
            self.model = AlbertPretrainer(self.config)
            self.schedule = create_schedule(
                recipe, scale=tf.Variable(1.0, trainable=False)
            )
            self.optimizer = optimization.recipe_optimizer(
                recipe, self.schedule, self.model.trainable_variables
            )
        self._train_steps = {
            stage.depth: self._steps_of(stage.depth) for stage in self.stages
        }

    def _steps_of(self, depth: int) -> Any:  # a tf.function
        """Returns the function that makes some steps of one depth."""
        recipe = self.recipe
        train_step = PretrainStep(
            self.model,
            self.optimizer,
            accumulation_steps=recipe.gradient_accumulation_steps,
            clip_norm=recipe.clip_norm,
            jit_compile=recipe.jit_compile,
            recompute=recipe.gradient_checkpointing,
            seed=recipe.seed,
            depth=depth,
        )

        # Written out: to convert a loop of Python's takes a second.
        @tf.function(autograph=False)
        def train_steps(iterator, step, count):
            def one_more(number, rows):
                row = self.strategy.run(
                    train_step, (next(iterator), step + number)
                )
                row = self.strategy.experimental_local_results(row)[0]
                return number + 1, rows.write(number, row)

            rows = tf.TensorArray(tf.float32, size=count)
            _, rows = tf.while_loop(
                lambda number, _: number < count, one_more, (0, rows)
            )
            return rows.stack()  # [count, metrics]

        return train_steps

    def stage_at(self, step: int) -> growth.Stage:
        """Returns the stage of a step; of those after the last, the last."""
        for stage in self.stages:
            if step < stage.end:
                return stage
        return self.stages[-1]

    def start(self, init_checkpoint: paths.PathLike | None) -> None:
        """Resumes, or starts from a checkpoint or as the recipe begins.

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
        if self.loop.resume():
            pass
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
            for name, value in BEGINNINGS.items():
                if getattr(self.recipe, name) == value:
                    self.say(f"`{name}={value}` is for new models: not here")
        elif self.recipe.grow_vocabulary:
            raise UserError(
                "recipe: `grow_vocabulary` grows the table of a checkpoint: "
                "name it with --init_checkpoint, or leave the setting away "
                "(`vocab_size_from_data` takes the size from the records)"
            )
        else:
            self.begin()
        if self.workers.index == 0:
            put_beside(self.workdir, self.config, self.records)
            run_folder.describe(self.workdir, what, changes, say=self.say)
        self._tell_plan()

    def begin(self) -> None:
        """Gives a new model what its recipe has it begin with."""
        if self.recipe.word_vectors == COUNTED:
            self._begin_with_counts()
        if self.recipe.attention_heads == CONSTRUCTED:
            with self.strategy.scope():
                first_heads.begin_with(
                    self.model,
                    seed=self.recipe.seed,
                    workers=self.workers,
                    say=self.say,
                )

    def _begin_with_counts(self) -> None:
        """Fills the word embeddings with what the records tell."""
        if isinstance(self.records, ClassicRecords):
            raise UserError(
                "recipe: `word_vectors=counted` reads the tokens of records, "
                f"and those of {self.records.folder} are masked: build them "
                "with --masking dynamic, or pass --set word_vectors=random"
            )
        assert self.masker is not None, "compact records are masked here"
        with self.strategy.scope(), damage_told(self.records):
            word_vectors.begin_with(
                self.model,
                self.records,
                self.masker,
                seed=self.recipe.seed,
                workers=self.workers,
                say=self.say,
            )

    def _tell_plan(self) -> None:
        recipe, records = self.recipe, self.records.records
        self._peak = self._measured_peak()
        self.say(self.schedule.describe())
        self.say(
            f"{records:,} records, {recipe.global_batch_size:,} per step on "
            f"{self.strategy.num_replicas_in_sync} replica(s): "
            f"{recipe.train_steps:,} steps are "
            f"{recipe.train_steps * recipe.global_batch_size / records:,.1f} "
            f"epoch(s); {self.model.count_params():,} parameters"
        )
        if len(self.stages) > 1:
            parts = [f"{s.depth} to step {s.end:,}" for s in self.stages]
            self.say(f"layers: {', '.join(parts)}")

    def _measured_peak(self) -> float | None:
        """Returns FLOP/s of all replicas; of a TPU, this host knows none."""
        if isinstance(self.strategy, tf.distribute.TPUStrategy):
            return None
        mixed = self.recipe.precision.removeprefix("mixed_")
        peak = flops.measured_peak(tf.dtypes.as_dtype(mixed))
        # Logical CPUs share one set of cores.
        gpus = len(tf.config.list_logical_devices("GPU"))
        return peak * (self.strategy.num_replicas_in_sync if gpus else 1)

    def train(
        self,
        terminated: Sequence[int] = (),
        owner: paths.Lock | None = None,
    ) -> TrainingResult:
        """Runs from the current step to the last (see `Loop.run`)."""
        step = self.loop.run(terminated, owner)
        rows = read_rows(paths.join(self.workdir, EVALUATION))
        return TrainingResult(
            step=step,
            checkpoint=self.loop.snapshots.newest,
            first=rows[0] if rows and rows[0]["step"] == 0 else None,
            last=rows[-1] if rows else None,
        )

    @property
    def programs(self) -> int:
        return sum(
            steps.experimental_get_tracing_count()
            for steps in self._train_steps.values()
        )

    def batches(self, step: int) -> Iterator[dict[str, tf.Tensor]]:
        recipe = self.recipe
        return iter(
            distributed(
                self.strategy,
                lambda share: pipeline.training_dataset(
                    self.records,
                    self.masker,
                    global_batch_size=recipe.global_batch_size,
                    seed=recipe.seed,
                    start_step=step,
                    shuffle_buffer=recipe.shuffle_buffer,
                    **share,
                ),
            )
        )

    def run_steps(self, batches, step: int, count: int) -> np.ndarray:
        rows, end = [], step + count
        while step < end:
            stage = self.stage_at(step)
            some = max(min(end, stage.end) - step, 1)
            with damage_told(self.records):
                rows.append(
                    self._train_steps[stage.depth](
                        batches, tf.constant(step), tf.constant(some)
                    ).numpy()
                )
            step += some
        return np.concatenate(rows)

    def _flops(self, depth: int) -> float:
        """Returns the floating-point operations of a step of some layers."""
        predictions = predictions_of(self.recipe, self.records)
        return self.recipe.global_batch_size * flops.training_flops(
            self.config.replace(num_hidden_layers=depth),
            self.records.max_seq_length,
            predictions,
            predictions + self.records.max_pairs,
        )

    def _work(self, step: int) -> float:
        """Returns the floating-point operations of the steps before one."""
        return sum(
            self._flops(stage.depth)
            * max(min(step, stage.end) - stage.first, 0)
            for stage in self.stages
        )

    def logged(self, row: Row, speed: float | None) -> tuple[Row, Row]:
        per_step = {
            "steps": 1.0,
            "tokens": row["tokens"],
            "examples": row["examples"],
            "flops": self._flops(self.stage_at(row["step"] - 1).depth),
        }
        row = {name: row[name] for name in row if name not in per_step}
        if speed:
            for name, value in per_step.items():
                row[f"{name}_per_second"] = value * speed
            if self._peak is not None:
                share = row["flops_per_second"] / self._peak
                row["share_of_measured_peak"] = share
        ratios = {}
        if self.recipe.optimizer == "lamb":
            ratios = optimization.trust_ratios(
                unwrapped(self.optimizer),
                self.model.trainable_variables,
                weight_decay=self.recipe.weight_decay,
                bias_correction=self.recipe.bias_correction,
            )
        return row, {f"trust_ratio/{k}": float(v) for k, v in ratios.items()}

    def figures(self) -> dict[str, float]:
        """Returns means over every held-out example once."""
        assert self.held_out is not None
        # The layers that the step before had: more are not trained yet.
        depth = self.stage_at(int(self.loop.step) - 1).depth
        if depth not in self._evaluators:
            self._evaluators[depth] = Evaluator(
                self.model,
                self.strategy,
                self.records,
                self.held_out,
                self.masker,
                batch_size=self.recipe.global_batch_size,
                depth=depth,
            )
        with damage_told(self.held_out):
            return self._evaluators[depth].evaluate()

    def evaluate(self, step: int) -> dict[str, float]:
        if self.held_out is None:
            return {}
        row = self.figures()
        self.say(
            f"step {step}: held-out loss {row['loss']:.4f} (MLM "
            f"{row['mlm_loss']:.4f}, accuracy {row['mlm_accuracy']:.1%}; SOP "
            f"{row['sop_loss']:.4f}, accuracy {row['sop_accuracy']:.1%}); "
            f"guessing by character frequency {row['unigram_loss']:.4f}"
        )
        for remark in guard.remarks(row) if step else ():
            self.say(f"note: {remark}")
        return row
