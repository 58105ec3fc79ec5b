"""What a task is: rows -> examples -> logits -> predictions -> metrics."""

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from albert_tf2.errors import UserError
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.encoding import Example
from albert_tf2.text.tokenization import Tokenizer

# Where the head reads, and how many numbers it gives:
CLASSIFICATION = "classification"  # pooled -> [B, n]
TAGGING = "tagging"  # sequence -> [B, T, n]
SPAN = "span"  # sequence -> [B, T, 2]
CHOICE = "choice"  # pooled of each choice -> [B, C]

DEFAULT_FILES = {
    split: tuple(f"{split}{end}" for end in (".json", ".jsonl", ".txt", ".tsv"))
    for split in reading.SPLITS
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """How texts are cut; read from the recipe."""

    max_seq_length: int = 128
    max_query_length: int = 64
    doc_stride: int = 128
    max_answer_length: int = 50
    n_best: int = 20


class Task(abc.ABC):
    """One task, with its files, labels, features, decoding and metrics.

    A prediction is a dict that goes to `predictions/*.jsonl` as it is; it
    always has the row's `id`.
    """

    # One of CLASSIFICATION, TAGGING, SPAN, CHOICE.
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

    def prepare(self, data_dir: str | Path, *, on_error: str) -> None:  # noqa: B027
        """Takes from the data what the task leaves open, such as labels."""

    def find(self, data_dir: str | Path, split: str) -> list[Path]:
        """Returns the files of a split; none if the folder lacks it."""
        return reading.find_files(data_dir, self.files[split])

    def use_file(self, split: str, path: str | Path) -> None:
        """Reads a split from this file instead of looking for it."""
        if not Path(path).is_file():
            raise UserError(f"{path} does not exist: check the path")
        self.files[split] = (str(Path(path).resolve()),)

    def read(
        self,
        data_dir: str | Path,
        split: str,
        *,
        on_error: str = "fail",
        report: reading.ReadingReport | None = None,
    ) -> list[Any]:
        """Reads a split of the task's files.

        Raises:
            UserError: If there is no such file, or for a bad row.
        """
        paths = self.find(data_dir, split)
        if not paths:
            raise UserError(
                f"{data_dir} has no {split} file of task {self.name}: looked "
                f"for {', '.join(map(str, self.files[split]))}"
            )
        report = report or reading.ReadingReport()
        rows = []
        for path in paths:
            rows += self.read_file(
                path,
                test=split == reading.TEST,
                on_error=on_error,
                report=report,
            )
        if not rows:
            raise UserError(f"{paths[0]} holds no rows: check the file")
        return rows

    @abc.abstractmethod
    def read_file(
        self,
        path: Path,
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

    def describe(self) -> dict[str, Any]:
        """Returns what `registry.from_description` needs to make it again."""
        return {
            "task": self.name,
            "kind": self.kind,
            "labels": list(self.labels),
        }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    shifted = np.exp(
        logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    )
    return shifted / shifted.sum(axis=-1, keepdims=True)
