"""What a task is: rows -> examples -> logits -> predictions -> metrics."""

import abc
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from albert_tf2 import paths
from albert_tf2.errors import UserError, shown
from albert_tf2.recipes import Lengths
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.encoding import Example
from albert_tf2.tasks.outcomes import Outcome
from albert_tf2.text.tokenization import Tokenizer

# Where the head reads, and how many numbers it gives:
CLASSIFICATION = "classification"  # pooled -> [B, n]
TAGGING = "tagging"  # sequence -> [B, T, n]
SPAN = "span"  # sequence -> [B, T, 2]
CHOICE = "choice"  # pooled of each choice -> [B, C]
MULTI_LABEL = "multi_label"  # pooled -> [B, n], each label by itself
REGRESSION = "regression"  # pooled -> [B, 1]
VECTORS = "sentence_vectors"  # no head: the vector of a text -> [B, H]
# Kinds that answer a text or a pair from the one vector of it, or by it.
ONE_VECTOR = (CLASSIFICATION, MULTI_LABEL, REGRESSION, VECTORS)

# Beside the weights of a fine-tuned model: `Task.describe`, and more.
TASK_FILE = "task.json"

# What a row asks, by the names of its fields, and how much of it is shown.
_ASKED = {"text_a", "text_b", "text", "context", "question", "choices"}
MOST_EXAMPLE = 300  # characters
MOST_EXAMPLES = 1000  # rows that are looked at

DEFAULT_FILES = {
    split: tuple(f"{split}{end}" for end in (".json", ".jsonl", ".txt", ".tsv"))
    for split in reading.SPLITS
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """What a recipe says about a task; nothing: as the files tell.

    Attributes:
        columns: What the columns are (see `columns.py`).
        labels: The classes, or the types of entities.
        delimiter: Between the cells of a table.
        label_separator: Between several labels in a cell.
        pooling: What a text's vector is.
        vector_loss: How vectors are learned.
    """

    columns: Sequence[str] = ()
    labels: Sequence[str] = ()
    delimiter: str | None = None
    label_separator: str | None = None
    pooling: str = "mean"
    vector_loss: str | None = None


class Task(abc.ABC):
    """One task, with its files, labels, features, decoding and metrics.

    A prediction is a dict that goes to `predictions/*.jsonl` as it is; it
    always has the row's `id`.
    """

    # Where the head reads: one of the kinds above.
    kind: ClassVar[str]
    # Sequences per example.
    choices: int = 1

    def __init__(
        self,
        name: str,
        *,
        labels: Sequence[str] = (),
        metric: str = "accuracy",
        files: dict[str, tuple] | None = None,
    ):
        """Describes a task.

        Args:
            name: As `--task` spells it.
            labels: The classes in the order of the head's outputs; empty
                where the data tell (see `prepare`).
            metric: The figure that early stopping and reports look at.
            files: File names to look for, per split (see
                `rows.find_files`).
        """
        self.name = name
        self.labels = tuple(labels)
        self.metric = metric
        self.files = {**DEFAULT_FILES, **(files or {})}

    @property
    def num_outputs(self) -> int:
        """Numbers that the head gives per position, pooled or not."""
        return len(self.labels)

    def prepare(self, data_dir: paths.PathLike, *, on_error: str) -> None:  # noqa: B027
        """Takes from the data what the task leaves open, such as labels."""

    def find(self, data_dir: paths.PathLike, split: str) -> list[str]:
        """Returns the files of a split; none if the folder lacks it."""
        return reading.find_files(data_dir, self.files[split])

    def sources(self, data_dir: paths.PathLike, split: str) -> list[str]:
        """Returns every file that the rows of a split come from."""
        return self.find(data_dir, split)

    def use_file(self, split: str, path: paths.PathLike) -> None:
        """Reads a split from this file instead of looking for it."""
        if not paths.is_file(path):
            raise UserError(f"{path} does not exist: check the path")
        if not paths.is_remote(path):
            path = os.path.abspath(paths.local(path))
        self.files[split] = (str(path),)

    def read(
        self,
        data_dir: paths.PathLike,
        split: str,
        *,
        on_error: str = "fail",
        report: reading.ReadingReport | None = None,
    ) -> list[Any]:
        """Reads a split of the task's files.

        Raises:
            UserError: If there is no such file, or for a bad row.
        """
        found = self.find(data_dir, split)
        if not found:
            raise UserError(
                f"{data_dir} has no {split} file of task {self.name}: looked "
                f"for {', '.join(map(str, self.files[split]))}"
            )
        report = report or reading.ReadingReport()
        others = reading.other_files(data_dir, self.files[split], found)
        if others:
            report.tell(f"not read, though they lie there: {', '.join(others)}")
        rows = []
        for path in found:
            rows += self.read_file(
                path,
                test=split == reading.TEST,
                on_error=on_error,
                report=report,
            )
        if not rows:
            raise UserError(
                f"{paths.shown(found[0])} holds no rows: check the file"
            )
        return rows

    @abc.abstractmethod
    def read_file(
        self,
        path: str,
        *,
        test: bool,
        on_error: str,
        report: reading.ReadingReport,
    ) -> list[Any]:
        """Reads one file; with `test`, labels may be absent."""

    @abc.abstractmethod
    def encode(
        self,
        rows: Sequence[Any],
        tokenizer: Tokenizer,
        lengths: Lengths,
        *,
        training: bool = False,
    ) -> list[Example]:
        """Turns rows into what the model sees."""

    @abc.abstractmethod
    def decode(
        self,
        rows: Sequence[Any],
        examples: Sequence[Example],
        logits: Sequence[np.ndarray],
        lengths: Lengths,
    ) -> list[dict[str, Any]]:
        """Turns the logits of each example into one prediction per row."""

    @abc.abstractmethod
    def score(
        self, rows: Sequence[Any], predictions: Sequence[dict[str, Any]]
    ) -> dict[str, float]:
        """Compares predictions with the rows' answers; empty without any."""

    def outcomes(
        self, rows: Sequence[Any], predictions: Sequence[dict[str, Any]]
    ) -> list[Outcome]:
        """Returns right and answered classes of each labelled row.

        Empty for tasks whose answers are no classes.
        """
        del rows, predictions
        return []

    def overview(
        self, train: Sequence[Any], dev: Sequence[Any], test: Sequence[Any]
    ) -> list[str]:
        """Says what the rows are like, and what no model at all would reach.

        Printed before anything is trained.
        """
        del train, dev, test
        return []

    def describe(self) -> dict[str, Any]:
        """Returns what `restore` needs to make it again."""
        return {
            "task": self.name,
            "kind": self.kind,
            "labels": list(self.labels),
        }

    def restore(self, description: dict[str, Any]) -> None:
        """Takes what the training data told from `describe`'s answer.

        Raises:
            UserError: If it is not what `describe` gave.
        """
        self.labels = taken(description, "labels", list, each=str)


def taken(
    description: dict[str, Any],
    key: str,
    kind: Any,
    *,
    each: Any = None,
) -> Any:
    """Returns a value of `Task.describe`'s answer that came from a file.

    Args:
        description: The answer.
        key: Which value.
        kind: Its type, or several.
        each: The type of a list's entries, no two of which are equal.

    Raises:
        UserError: If it is missing, or of another kind.
    """
    value: Any = description.get(key)
    fits = isinstance(value, kind)
    if fits and each is not None:
        fits = all(isinstance(entry, each) for entry in value)
        fits = fits and len(set(value)) == len(value)
    # JSON has no infinity, but Python reads one.
    if fits and isinstance(value, float):
        fits = math.isfinite(value)
    if not fits:
        raise UserError(
            f"`{key}` is damaged, it is {shown(value)}: fine-tune again, or "
            "put the file back that was written with the model"
        )
    return tuple(value) if each is not None else value


def example_of(rows: Sequence[Any]) -> list[Any]:
    """Returns what a row asks, as `Predictor` takes it, for a page to show.

    The first row that is short enough to be read at a glance:

        a text [text]   a pair [text_a, text_b]   a question [question, text]
        a choice [text, question, [choice, ...]]

    Longer rows are cut where all of them are too long.
    """
    asked = [
        [
            list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(row)
            if field.name in _ASKED
            and (value := getattr(row, field.name)) is not None
        ]
        for row in rows[:MOST_EXAMPLES]
    ]
    if not asked:
        return []
    fits = (texts for texts in asked if len(str(texts)) <= MOST_EXAMPLE)
    return next(fits, None) or [
        text[:MOST_EXAMPLE] if isinstance(text, str) else text
        for text in asked[0]
    ]


def by_label(
    labels: Sequence[str], probabilities: np.ndarray
) -> dict[str, float]:
    """Returns probabilities [n] by label, as predictions hold them."""
    return {
        label: round(float(probability), 6)
        for label, probability in zip(labels, probabilities, strict=True)
    }


def constant_figures(
    task: Task, answer: dict[str, Any], figure: str, **splits: Sequence[Any]
) -> list[str]:
    """Says what one answer for all rows reaches, on each labelled split."""
    found = {
        split: task.score(rows, [answer] * len(rows))
        for split, rows in splits.items()
    }
    shown = [
        f"{split} {figure} {figures[figure]:.4f}"
        for split, figures in found.items()
        if figures
    ]
    return [", ".join(shown)] if shown else []


def figures_text(figures: dict[str, float]) -> str:
    """Returns figures as the console shows them; counts stay whole."""
    return "  ".join(
        f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}"
        for name, value in figures.items()
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    shifted = np.exp(
        logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    )
    return shifted / shifted.sum(axis=-1, keepdims=True)
