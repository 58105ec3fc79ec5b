"""What fine-tuning brings to the loop: its rows, its step, its best model.

The order of the rows and the dropout follow from the seed and the step, so a
run that was interrupted goes on as if it had not been (`training.loop`).
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.finetuning import feeding, matching_heads
from albert_tf2.finetuning.model import draws_own_dropout
from albert_tf2.finetuning.step import METRICS, FinetuneStep
from albert_tf2.model import fusion
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.tasks import base
from albert_tf2.tasks.encoding import (
    LENGTH_MULTIPLE,
    collate,
    training_order,
)
from albert_tf2.training.early_stopping import Best
from albert_tf2.training.loop import Loop, Plan
from albert_tf2.training.optimization import (
    WarmupLinearDecay,
    recipe_optimizer,
)
from albert_tf2.training.run_log import Row
from albert_tf2.training.workers import Workers

# Fused passes are compiled anew for every length of batch, for a second or
# two: shorter runs would not earn that back. Even lengths are half as many,
# for half a token of padding.
FUSED_FROM_STEPS = 1000
FUSED_LENGTH_MULTIPLE = 2
# Steps between two looks at the losses.
STEPS_PER_LOOP = 10


class Run:
    """One training: a `loop.Trainer`, and what the loop is told."""

    metrics = METRICS

    def __init__(self, tuner, examples, train_rows, dev_rows, taught=None):
        # `taught`: a teacher's logits of each example.
        self.tuner, self.recipe = tuner, tuner.recipe
        self.model, self.strategy = tuner.model, tuner.strategy
        self.examples, self.dev_rows = examples, dev_rows
        self.taught: list[np.ndarray] | None = taught
        self.lengths = np.array([example.length for example in examples])
        batch_size = self.recipe.global_batch_size
        self.steps_per_epoch = math.ceil(len(examples) / batch_size)
        self.total = total_steps(self.recipe, self.steps_per_epoch)
        self.class_weights = (
            balanced_weights(tuner.task, train_rows)
            if (self.recipe.class_weights == "balanced")
            else None
        )
        self._build()
        self.best = Best(
            self._keep_best,
            metric=tuner.task.metric,
            patience=self.recipe.early_stopping_patience,
        )
        self.loop = Loop(
            self,
            Plan(
                train_steps=self.total,
                steps_per_epoch=self.steps_per_epoch,
                log_every=self.recipe.log_every,
                eval_every=self.recipe.eval_every or self.steps_per_epoch,
                checkpoint_every=self.recipe.checkpoint_every,
                keep_checkpoints=self.recipe.keep_checkpoints,
                steps_per_loop=STEPS_PER_LOOP,
                on_divergence=self.recipe.on_divergence,
            ),
            tuner.workdir,
            best=self.best,
            workers=Workers(self.strategy),
            shared_folder=False,  # each has its own, `worker-N/`
            progress=False,
            say=tuner.say,
        )

    def _build(self) -> None:
        recipe = self.recipe
        variables = self.model.trainable_variables
        with self.strategy.scope():
            self.schedule = WarmupLinearDecay(
                recipe.learning_rate,
                train_steps=self.total,
                warmup_steps=int(recipe.warmup_proportion * self.total),
                scale=tf.Variable(1.0, trainable=False),
            )
            self.optimizer = recipe_optimizer(recipe, self.schedule, variables)
        fuses = self.total >= FUSED_FROM_STEPS and fusion.suits_devices()
        # What is compiled for each length should meet few of them.
        self._compiles = fuses or recipe.jit_compile
        self._length_multiple = (
            LENGTH_MULTIPLE
            if recipe.jit_compile
            else max(
                feeding.length_multiple(),
                FUSED_LENGTH_MULTIPLE if fuses else 1,
            )
        )
        train_step = FinetuneStep(
            self.model,
            self.optimizer,
            accumulation_steps=recipe.gradient_accumulation_steps,
            r_drop=recipe.r_drop,
            distillation_weight=(
                0.0 if self.taught is None else recipe.distillation_weight
            ),
            distillation_temperature=recipe.distillation_temperature,
            clip_norm=recipe.clip_norm,
            jit_compile=recipe.jit_compile,
            recompute=recipe.gradient_checkpointing,
            fuses=fuses,
            seed=recipe.seed,
        )

        self._one_step = feeding.OnReplicas(
            self.strategy,
            train_step,
            fixed=self.tuner.fixed_length is not None,
        )
        self._lengths_seen: set[int] = set()

    def _begin(self) -> None:
        """Gives a new run what its recipe has it begin with."""
        if self.recipe.matching_heads:
            with self.strategy.scope():
                matching_heads.begin(
                    self.model.encoder,
                    self.recipe.matching_heads,
                    self.examples,
                    vocabulary=self.tuner.tokenizer.vocabulary,
                    seed=self.recipe.seed,
                    workers=Workers(self.strategy),
                    say=self.tuner.say,
                )

    def execute(
        self,
        terminated: Sequence[int] = (),
        owner: paths.Lock | None = None,
    ) -> dict[str, Any]:
        """Trains; leaves the best weights in the model.

        Args:
            terminated: Of `loop.sigterm_noted`.
            owner: Of `run_folder.owned`.

        Returns:
            `steps`, `best_step` and `seconds`.
        """
        began = time.monotonic()
        say = self.tuner.say
        if not self.loop.resume():
            self._begin()
        say(self.schedule.describe())
        say(
            f"{self.total:,} steps are "
            f"{self.total / self.steps_per_epoch:.1f} epoch(s)"
        )
        if draws_own_dropout(self.model.encoder):
            say(
                "note: this encoder draws its own dropout, which a restart "
                "cannot repeat: a resumed run will not equal an uninterrupted "
                "one bit for bit"
            )
        steps = self.loop.run(terminated, owner)
        if steps < self.total:
            say(
                f"no better figure for {int(self.best.worse)} evaluations: "
                f"stopped at step {steps}"
            )
        self.tuner.load_best()
        return {
            "steps": steps,
            "best_step": int(self.best.step),
            "seconds": round(time.monotonic() - began, 1),
        }

    @property
    def programs(self) -> int:
        # The step is traced once; what XLA compiles in it, for each length.
        return len(self._lengths_seen)

    def batches(self, step: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields the global batches of a step and of those that follow."""
        while True:
            epoch, first = divmod(step, self.steps_per_epoch)
            order = training_order(
                self.lengths,
                self.recipe.global_batch_size,
                self.recipe.seed,
                epoch,
            )
            for indices in order[first:]:
                batch = self._batch([self.examples[i] for i in indices])
                if self.taught is not None:
                    batch["teacher_logits"] = feeding.logit_array(
                        self.tuner.task,
                        [self.taught[i] for i in indices],
                        size=self.recipe.global_batch_size,
                        length=batch["input_mask"].shape[-1],
                    )
                yield batch
                step += 1

    def _batch(self, examples: Sequence[Any]) -> dict[str, np.ndarray]:
        size = self.recipe.global_batch_size
        batch = collate(
            examples,
            size=size,
            choices=self.tuner.task.choices,
            length=self.tuner.fixed_length,
            multiple=self._length_multiple,
            positions=self.tuner.loaded.positions,
        )
        length = batch["input_mask"].shape[-1]
        self._lengths_seen.add(length if self._compiles else 0)
        batch |= feeding.label_arrays(
            self.tuner.task.kind,
            examples,
            size=size,
            length=length,
            class_weights=self.class_weights,
        )
        total = max(batch["weights"].sum(), 1e-6)
        return batch | {"total_weight": np.array(total, np.float32)}

    def run_steps(
        self, batches: Iterator[dict[str, np.ndarray]], step: int, count: int
    ) -> np.ndarray:
        rows = []
        for number in range(step, step + count):
            row = self._one_step(next(batches), tf.constant(number))
            rows.append(self.strategy.experimental_local_results(row)[0])
        # One wait for the device, for all of them.
        return tf.stack(rows).numpy()

    def logged(self, row: Row, speed: float | None) -> tuple[Row, Row]:
        return row | ({"steps_per_second": speed} if speed else {}), {}

    def evaluate(self, step: int) -> dict[str, float]:
        if not self.dev_rows:
            return {}
        figures = self.tuner.evaluate(self.dev_rows)
        self.tuner.say(f"step {step}  dev: {base.figures_text(figures)}")
        return figures

    def _keep_best(self, step: int, figures: dict[str, float]) -> None:
        self.tuner.save_model({"step": step, "dev": figures})


def total_steps(recipe: FinetuneRecipe, steps_per_epoch: int) -> int:
    """Returns how many steps a run makes."""
    total = max(1, round(recipe.num_train_epochs * steps_per_epoch))
    return min(total, recipe.max_train_steps or total)


def balanced_weights(task: base.Task, rows: Sequence[Any]) -> np.ndarray:
    """Returns [n]: rows / (n * rows of the class), 0 for an absent class."""
    if task.kind != base.CLASSIFICATION:
        raise UserError(
            "recipe: `class_weights=balanced` is for classification, and "
            f"task {task.name} is not"
        )
    counts = Counter(row.label for row in rows)
    return np.array(
        [
            len(rows) / (len(task.labels) * counts[label])
            if counts[label]
            else 0.0
            for label in task.labels
        ],
        np.float32,
    )
