"""Fine-tuning one model: training, predicting, evaluating.

A workdir holds

    recipe.json          what was asked for
    checkpoints/         the state of training, to resume from
    metrics.jsonl        a row per logged step
    evaluation.jsonl     a row per evaluation on the dev rows
    tensorboard/         the same as curves
    model/               the best model so far (see `encoders.py`)
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.finetuning import (
    encoders,
    feeding,
    matching_heads,
    regularizers,
    teacher,
)
from albert_tf2.finetuning.run import Run
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.settings import SIMCSE
from albert_tf2.tasks import base
from albert_tf2.tasks.encoding import Example
from albert_tf2.training.snapshots import reason_of


def lengths_of(recipe: FinetuneRecipe) -> base.Lengths:
    """Returns the fields of a recipe that say how texts are cut."""
    return base.Lengths(
        **{
            field.name: getattr(recipe, field.name)
            for field in dataclasses.fields(base.Lengths)
        }
    )


class Tuner:
    """Fine-tunes one model with one seed."""

    def __init__(
        self,
        task: base.Task,
        *,
        load_encoder: Callable[[], encoders.LoadedEncoder],
        recipe: FinetuneRecipe,
        workdir: paths.PathLike,
        strategy: tf.distribute.Strategy,
        say: Callable[[str], None] = print,
    ):
        """Builds the model and its optimizer.

        Args:
            task: What to learn.
            load_encoder: Makes the encoder; called within the strategy.
            recipe: How.
            workdir: Where everything goes.
            strategy: The devices.
            say: Takes lines for the console.
        """
        self.task = task
        self.recipe = recipe
        self.workdir = workdir
        self.strategy = strategy
        self.say = say
        self.lengths = lengths_of(recipe)
        replicas = strategy.num_replicas_in_sync
        parts = recipe.gradient_accumulation_steps
        for name, shares in (
            ("global_batch_size", replicas * parts),
            ("eval_batch_size", replicas),
        ):
            if getattr(recipe, name) % shares:
                times = (
                    ""
                    if shares == replicas
                    else (f" times the {parts} `gradient_accumulation_steps`")
                )
                raise UserError(
                    f"recipe: `{name}` must be a multiple of the {replicas} "
                    f"replicas{times}. Received: "
                    f"`{name}={getattr(recipe, name)}`"
                )
        if task.kind == base.VECTORS and replicas > 1:
            raise UserError(
                f"task {task.name} compares all rows of a batch with each "
                f"other, on one device, and here are {replicas}: --strategy "
                "one_device"
            )
        with strategy.scope():
            self.loaded = load_encoder()
            self._check_length()
            self.model = encoders.build(
                task,
                self.loaded,
                dropout=recipe.classifier_dropout,
                seed=recipe.seed,
            )
        regularizers.check(task, recipe, self.loaded.config)
        if recipe.matching_heads:
            matching_heads.check(self.loaded.encoder, recipe.matching_heads)
        self.teacher: teacher.Teacher | None = None
        self.tokenizer = self.loaded.tokenizer
        is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
        # A TPU compiles one program for each shape.
        self.fixed_length = recipe.max_seq_length if is_tpu else None
        self._predict_step = feeding.make_predict_step(self.model, strategy)
        self._example: list[Any] = []  # of the training rows

    def _check_length(self) -> None:
        most = self.loaded.positions
        if self.recipe.max_seq_length > most:
            raise UserError(
                "recipe: `max_seq_length` must be at most the model's "
                f"{most} positions. Received: "
                f"`max_seq_length={self.recipe.max_seq_length}`"
            )

    def _check_dropout(self) -> None:
        """SimCSE's two views of a text differ by nothing but dropout."""
        config = self.loaded.config
        if getattr(self.model, "vector_loss", None) != SIMCSE or config is None:
            return
        if not (
            config.hidden_dropout_prob or config.attention_probs_dropout_prob
        ):
            raise UserError(
                "SimCSE needs dropout, and this model has none: --set "
                "hidden_dropout_prob=0.1 --set attention_probs_dropout_prob=0.1"
            )

    def open_teacher(self, train_rows: Sequence[Any]) -> None:
        """Opens what the recipe names as teacher, for these rows."""
        if self.recipe.teacher is not None:
            self.teacher = teacher.open_teacher(
                self.recipe.teacher,
                task=self.task,
                tokenizer=self.tokenizer,
                rows=len(train_rows),
                batch_size=self.recipe.eval_batch_size,
                strategy=self.strategy,
                say=self.say,
            )

    def predict(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Returns a prediction for each row."""
        examples = self.task.encode(rows, self.tokenizer, self.lengths)
        logits = feeding.predict_logits(
            self._predict_step,
            examples,
            task=self.task,
            batch_size=self.recipe.eval_batch_size,
            replicas=self.strategy.num_replicas_in_sync,
            length=self.fixed_length,
            positions=self.loaded.positions,
        )
        return self.task.decode(rows, examples, logits, self.lengths)

    def evaluate(self, rows: Sequence[Any]) -> dict[str, float]:
        """Returns the task's figures on labelled rows."""
        return self.task.score(rows, self.predict(rows))

    def train(
        self,
        train_rows: Sequence[Any],
        dev_rows: Sequence[Any] = (),
        *,
        terminated: Sequence[int] = (),
        owner: paths.Lock | None = None,
    ) -> dict[str, Any]:
        """Trains, and leaves the model with the best weights on `dev_rows`.

        Args:
            train_rows: What to learn.
            dev_rows: What says how well.
            terminated: Of `loop.sigterm_noted`.
            owner: Of `run_folder.owned`.

        Returns:
            `steps`, `best_step` and `seconds`.
        """
        examples = self.task.encode(
            train_rows, self.tokenizer, self.lengths, training=True
        )
        if not examples:
            raise UserError(f"task {self.task.name}: no row to train on")
        if self.recipe.matching_heads:
            matching_heads.check_pairs(examples)
        self._example = base.example_of(train_rows)
        self._check_dropout()
        run = Run(
            self,
            examples,
            train_rows,
            dev_rows,
            self._taught(train_rows, examples),
        )
        return run.execute(terminated, owner)

    def _taught(
        self, rows: Sequence[Any], examples: Sequence[Example]
    ) -> list[np.ndarray] | None:
        """Returns the teacher's logits of each example, if there is one."""
        if self.teacher is None:
            return None
        logits = self.teacher.logits(rows, examples)
        self.teacher = None  # its memory is free again
        line = teacher.agreement(self.task.kind, examples, logits)
        if line:
            self.say(line)
        return logits

    def save_model(self, facts: dict[str, Any]) -> None:
        """Writes `workdir/model`, whole or not at all."""
        folder = paths.join(self.workdir, "model")
        if self._example:
            facts = {**facts, "example": self._example}
        try:
            encoders.save(
                folder,
                model=self.model,
                task=self.task,
                loaded=self.loaded,
                lengths=self.lengths,
                facts=facts,
            )
        except tf.errors.OpError as error:
            raise UserError(
                f"{folder} could not be written ({reason_of(error)}): free "
                "some space and run the same command again"
            ) from error

    def load_best(self) -> None:
        """Puts the weights of `workdir/model` back into the model."""
        prefix = paths.join(self.workdir, "model", encoders.PREFIX)
        tf.train.Checkpoint(model=self.model).read(
            paths.for_tensorflow(prefix)
        ).assert_existing_objects_matched()
