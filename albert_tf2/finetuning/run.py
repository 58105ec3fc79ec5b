"""One training: the order of the rows, the update, when to stop.

The state is a checkpoint; the order of the rows and the dropout follow from
the seed and the step. So a run that was interrupted goes on as if it had not
been.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import features
from albert_tf2.errors import UserError
from albert_tf2.finetuning import feeding
from albert_tf2.finetuning.model import TaskModel, loss_sum
from albert_tf2.model import dropout, fusion
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.tasks import base
from albert_tf2.tasks.encoding import collate, training_order
from albert_tf2.training import optimization
from albert_tf2.training.distribution import all_reduce
from albert_tf2.training.precision import Update
from albert_tf2.training.run_log import RunLog
from albert_tf2.training.snapshots import Snapshots

# Fused passes are compiled anew for every length of batch, for a second or
# two: shorter runs would not earn that back.
FUSED_FROM_STEPS = 500
KEPT_CHECKPOINTS = 2


class Run:
    """The state of one training, apart from what only predicting needs."""

    def __init__(self, tuner, examples, train_rows, dev_rows):
        self.tuner, self.recipe = tuner, tuner.recipe
        self.examples, self.dev_rows = examples, dev_rows
        self.lengths = np.array([example.length for example in examples])
        self.batch_size = self.recipe.global_batch_size
        self.steps_per_epoch = math.ceil(len(examples) / self.batch_size)
        self.total = max(
            1, round(self.recipe.num_train_epochs * self.steps_per_epoch)
        )
        if self.recipe.max_train_steps is not None:
            self.total = min(self.total, self.recipe.max_train_steps)
        self.eval_every = self.recipe.eval_every or self.steps_per_epoch
        self.class_weights = (
            balanced_weights(tuner.task, train_rows)
            if (self.recipe.class_weights == "balanced")
            else None
        )
        self.schedule = make_schedule(self.recipe, self.total)
        fuses = self.total >= FUSED_FROM_STEPS and fusion.suits_devices()
        with tuner.strategy.scope():
            self.optimizer = optimization.recipe_optimizer(
                self.recipe, self.schedule, tuner.model.trainable_variables
            )
        # Ordinary variables, outside the scope: the host alone reads them.
        self.step = tf.Variable(0, dtype=tf.int64, name="step")
        # As wide as the figures: rounded, a figure would beat itself.
        self.best_value = tf.Variable(
            -np.inf, dtype=tf.float64, name="best_value"
        )
        self.best_step = tf.Variable(0, dtype=tf.int64, name="best_step")
        self.worse = tf.Variable(0, dtype=tf.int64, name="worse")
        self.train_step = make_train_step(
            tuner.model,
            self.optimizer,
            tuner.strategy,
            self.recipe,
            fuses=fuses,
        )
        self.snapshots = Snapshots(
            tf.train.Checkpoint(
                model=tuner.model,
                optimizer=self.optimizer,
                step=self.step,
                best_value=self.best_value,
                best_step=self.best_step,
                worse=self.worse,
            ),
            tuner.workdir,
            keep=KEPT_CHECKPOINTS,
            report=tuner.say,
        )

    def execute(self) -> dict[str, Any]:
        self._restore()
        total = self.total
        began, first = time.monotonic(), int(self.step)
        # The number of steps done. Reading `self.step` or a loss would make
        # the host wait for the device, so that happens when logging alone.
        number = first
        losses: list[tf.Tensor] = []
        epoch, order = -1, []
        while number < total and not self._is_patience_over():
            if number // self.steps_per_epoch != epoch:
                epoch = number // self.steps_per_epoch
                order = training_order(
                    self.lengths, self.batch_size, self.recipe.seed, epoch
                )
            indices = order[number % self.steps_per_epoch]
            losses.append(self._train_on(indices, number))
            number += 1
            if number % self.recipe.log_every == 0 or number == total:
                self._report(number, losses, first, began)
                losses = []
            if number % self.eval_every == 0 or number == total:
                self._evaluate(number)
            if number % self.recipe.checkpoint_every == 0 or number == total:
                self._save(number)
        if number < total:
            self.tuner.say(
                f"no better figure for {int(self.worse)} evaluations: stopped "
                f"at step {number}"
            )
            self._save(number)
        self.log.close()
        self.tuner.load_best()
        return {
            "steps": number,
            "best_step": int(self.best_step),
            "seconds": round(time.monotonic() - began, 1),
        }

    def _save(self, number: int) -> None:
        self.step.assign(number)
        self.snapshots.save(number)

    def _restore(self) -> None:
        if self.snapshots.restore_newest():
            self.tuner.say(f"resumed at step {int(self.step)} of {self.total}")
        self.log = RunLog(
            self.tuner.workdir,
            start_step=int(self.step),
            train_steps=self.total,
            progress=False,
            say=self.tuner.say,
        )

    def _train_on(self, indices: np.ndarray, number: int) -> tf.Tensor:
        """Makes step `number`, counted from 0; returns its loss."""
        part = [self.examples[i] for i in indices]
        batch = collate(
            part,
            size=self.batch_size,
            choices=self.tuner.task.choices,
            length=self.tuner.fixed_length,
            positions=self.tuner.loaded.positions,
        )
        batch |= feeding.label_arrays(
            self.tuner.task.kind,
            part,
            size=self.batch_size,
            length=batch["input_mask"].shape[-1],
            class_weights=self.class_weights,
        )
        batch["total_weight"] = np.array(
            max(batch["weights"].sum(), 1e-6), np.float32
        )
        batch = feeding.distribute(self.tuner.strategy, batch)
        return self.train_step(batch, tf.constant(number))

    def _is_patience_over(self) -> bool:
        patience = self.recipe.early_stopping_patience
        return 0 < patience <= int(self.worse)

    def _report(self, number, losses, first, began) -> None:
        rate = (number - first) / (time.monotonic() - began)
        loss = float(tf.add_n(losses)) / len(losses)
        if not math.isfinite(loss):
            raise UserError(
                f"the loss became {loss} within the {len(losses)} steps "
                f"before step {number}: lower `learning_rate` (now "
                f"{self.recipe.learning_rate:g})"
            )
        self.log.training(
            {
                "step": number,
                "loss": loss,
                "learning_rate": float(self.schedule(number - 1)),
                "steps_per_second": round(rate, 3),
            },
            {},
        )

    def _evaluate(self, number: int) -> None:
        """Keeps the model if it is the best so far."""
        task = self.tuner.task
        figures = self.tuner.evaluate(self.dev_rows) if self.dev_rows else {}
        value = figures.get(task.metric, 0.0)
        if figures:
            self.log.evaluation({"step": number, **figures})
            shown = base.figures_text(figures)
            self.tuner.say(f"step {number}  dev: {shown}")
        # Without dev rows the last model is the one to keep.
        if value > float(self.best_value) or not figures:
            self.best_value.assign(value)
            self.best_step.assign(number)
            self.worse.assign(0)
            self.tuner.save_model({"step": number, "dev": figures})
        else:
            self.worse.assign_add(1)


def make_schedule(
    recipe: FinetuneRecipe, total_steps: int
) -> optimization.WarmupLinearDecay:
    """Returns the originals' schedule over the steps of a run."""
    return optimization.WarmupLinearDecay(
        recipe.learning_rate,
        train_steps=total_steps,
        warmup_steps=int(recipe.warmup_proportion * total_steps),
    )


def make_train_step(
    model: TaskModel,
    optimizer: Any,
    strategy: tf.distribute.Strategy,
    recipe: FinetuneRecipe,
    *,
    fuses: bool = False,
) -> Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]:
    """Returns a function from a distributed batch to its mean loss.

    Its second argument is how many steps were done before.

    Gradients are summed over the replicas before they are clipped, so that
    the update is that of the whole batch, wherever its rows were.

    Args:
        model: What to train.
        optimizer: Of `optimization.recipe_optimizer`.
        strategy: The devices.
        recipe: Its clipping and compiling.
        fuses: Whether to compile element-wise chains (`fusion`), unless the
            recipe has everything compiled.
    """
    variables = model.trainable_variables
    update = Update(
        optimizer, variables, clip_norm=recipe.clip_norm, fuses=fuses
    )

    @tf.function(jit_compile=recipe.jit_compile)
    def loss_and_gradients(batch, number):
        inputs = {name: batch[name] for name in features.ENCODER_INPUTS}
        with (
            fusion.single_passes(fuses and not recipe.jit_compile),
            dropout.seeded(dropout.step_seed(recipe.seed, number)),
            tf.GradientTape() as tape,
        ):
            logits = model(inputs, training=True)
            loss = loss_sum(
                model.kind, logits, batch["labels"], batch["weights"]
            )
            # The weight of the global batch, so that replicas add up.
            loss /= batch["total_weight"]
            target = update.scaled(loss)
        gradients = tape.gradient(
            target,
            variables,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return loss, [tf.convert_to_tensor(g) for g in gradients]

    def replica_step(batch, number):
        loss, gradients = loss_and_gradients(batch, number)
        update(all_reduce(gradients))
        return loss

    @tf.function(reduce_retracing=True)
    def step(batch, number):
        losses = strategy.run(replica_step, args=(batch, number))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    return step


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
