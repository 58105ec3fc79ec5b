"""What a model learns from beside the labels (`teacher`).

    a folder   a fine-tuned model, or the workdir of its run: it answers the
               training rows before training begins
    .npy       its logits of the training rows in their order, float
               [rows, n]; n is the number of labels, or of choices
    .jsonl     the same as a line per row: [2.1, -0.3], or {"logits": [...]}

A teacher may be larger, read longer texts and have another vocabulary, but it
must know the same labels, by name. For tasks that are answered token by token
(entities, answers in a text) it must read the same tokens, and files are no
use: a row may have many windows. For scores a file holds the scores.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.errors import UserError, shown
from albert_tf2.finetuning import encoders, feeding
from albert_tf2.paths.arrays import read_array
from albert_tf2.tasks import base, reading
from albert_tf2.tasks.encoding import Example
from albert_tf2.tasks.regression import Regression
from albert_tf2.text.tokenization import Tokenizer

FILE_ENDINGS = (".npy", ".jsonl")
PER_TOKEN = (base.TAGGING, base.SPAN)


class Teacher(Protocol):
    """What answers training rows."""

    def logits(
        self, rows: Sequence[Any], examples: Sequence[Example]
    ) -> list[np.ndarray]:
        """Returns the logits of each of the student's examples.

        Args:
            rows: The training rows.
            examples: What the student makes of them.

        Returns:
            For each example float [n], or [t, n] token by token.
        """


def open_teacher(
    source: str,
    *,
    task: base.Task,
    tokenizer: Tokenizer,
    rows: int,
    batch_size: int,
    strategy: tf.distribute.Strategy,
    say: Callable[[str], None] = print,
) -> Teacher:
    """Opens a teacher, and refuses one that cannot teach these rows.

    Args:
        source: A folder or a file (see the module).
        task: What the student learns.
        tokenizer: The student's.
        rows: How many training rows there are.
        batch_size: Rows in a step of its own.
        strategy: The devices.
        say: Takes a line.
    """
    if source.endswith(FILE_ENDINGS):
        return LogitFile(source, task, rows, say)
    return TunedTeacher(source, task, tokenizer, batch_size, strategy, say)


def folder_of(source: str) -> str:
    """Returns where a fine-tuned model lies: there, or in a workdir."""
    for folder in (source, paths.join(source, "model")):
        if paths.is_file(paths.join(folder, base.TASK_FILE)):
            return folder
    raise UserError(
        f"teacher {source} is neither the folder of a fine-tuned model (with "
        f"{base.TASK_FILE}) nor a file of logits ({', '.join(FILE_ENDINGS)}): "
        "check the path"
    )


def fingerprint(source: str) -> tuple[str, str]:
    """Returns what a teacher is called, and the SHA-256 of its files."""
    if source.endswith(FILE_ENDINGS):
        return paths.name(source), paths.sha256(source)
    folder = folder_of(source)
    digest = hashlib.sha256()
    for name in paths.names(folder):
        path = paths.join(folder, name)
        if paths.is_file(path):
            digest.update(f"{name} {paths.sha256(path)}\n".encode())
    return source, digest.hexdigest()


class TunedTeacher:
    """A fine-tuned model."""

    def __init__(
        self,
        source: str,
        task: base.Task,
        tokenizer: Tokenizer,
        batch_size: int,
        strategy: tf.distribute.Strategy,
        say: Callable[[str], None],
    ):
        """Loads it; see `open_teacher`."""
        self.source, self.student = source, task
        self.batch_size, self.strategy, self.say = batch_size, strategy, say
        with strategy.scope():
            self.task, self.model, self.loaded, self.lengths = encoders.load(
                folder_of(source)
            )
        self._check(tokenizer)

    def _check(self, tokenizer: Tokenizer) -> None:
        teacher, student = self.task, self.student
        if teacher.kind != student.kind:
            raise UserError(
                f"teacher {self.source} is fine-tuned for {teacher.kind}, and "
                f"task {student.name} is {student.kind}"
            )
        differing = set(teacher.labels) ^ set(student.labels)
        if differing:
            name = sorted(differing)[0]
            has, lacks = (
                ("the teacher", "the task")
                if name in teacher.labels
                else ("the task", "the teacher")
            )
            raise UserError(
                f"teacher {self.source} knows other labels: {has} has "
                f"{shown(name)}, which {lacks} lacks; fine-tune it on the "
                "same labels"
            )
        if teacher.choices != student.choices:
            raise UserError(
                f"teacher {self.source} chooses among {teacher.choices}, and "
                f"task {student.name} among {student.choices}"
            )
        if student.kind in PER_TOKEN and (
            self.loaded.tokenizer.settings != tokenizer.settings
        ):
            raise UserError(
                f"teacher {self.source} reads other tokens (vocab.txt and "
                f"text_settings.json), and task {student.name} is answered "
                "token by token: take a teacher with the same vocabulary"
            )

    def logits(
        self, rows: Sequence[Any], examples: Sequence[Example]
    ) -> list[np.ndarray]:
        """See `Teacher`."""
        self.say(f"teacher {self.source} answers {len(rows):,} training rows")
        if self.student.kind in PER_TOKEN:
            return [self._named(v) for v in self._answers(examples)]
        own = self.task.encode(rows, self.loaded.tokenizer, self.lengths)
        by_row = {
            example.row: self._named(values)
            for example, values in zip(own, self._answers(own), strict=True)
        }
        return [by_row[example.row] for example in examples]

    def _answers(self, examples: Sequence[Example]) -> list[np.ndarray]:
        longest = max(example.length for example in examples)
        if longest > self.loaded.positions:
            raise UserError(
                f"teacher {self.source} reads at most {self.loaded.positions} "
                f"tokens, and a training row has {longest}: lower "
                "`max_seq_length`"
            )
        is_tpu = isinstance(self.strategy, tf.distribute.TPUStrategy)
        return feeding.predict_logits(
            feeding.make_predict_step(self.model, self.strategy),
            examples,
            task=self.task,
            batch_size=self.batch_size,
            replicas=self.strategy.num_replicas_in_sync,
            # A TPU compiles one program for each shape.
            length=longest if is_tpu else None,
            positions=self.loaded.positions,
        )

    def _named(self, values: np.ndarray) -> np.ndarray:
        """Puts the labels in the student's order, a score on its scale."""
        teacher, student = self.task, self.student
        if isinstance(teacher, Regression) and isinstance(student, Regression):
            return student.scaled(values * teacher.spread + teacher.mean)
        if teacher.labels == student.labels:
            return values
        places = [teacher.labels.index(label) for label in student.labels]
        return values[..., places]


class LogitFile:
    """Logits that were written before."""

    def __init__(
        self,
        source: str,
        task: base.Task,
        rows: int,
        say: Callable[[str], None],
    ):
        """Reads them; see `open_teacher`."""
        self.source, self.task, self.say = source, task, say
        if task.kind in PER_TOKEN:
            raise UserError(
                f"teacher {source}: task {task.name} is answered token by "
                "token, which a file of logits cannot tell: name the folder "
                "of a fine-tuned model"
            )
        read = _array if source.endswith(".npy") else _lines
        self.values = read(source)
        if len(self.values) != rows:
            raise UserError(
                f"teacher {source} has logits of {len(self.values):,} rows, "
                f"and {rows:,} rows are trained on: it needs one for each, in "
                "their order"
            )
        for number, values in enumerate(self.values, 1):
            if task.kind != base.CHOICE:
                self._need(number, values, task.num_outputs)

    def _need(self, number: int, values: np.ndarray, count: int) -> None:
        """Refuses a row, numbered from 1, with another number of logits."""
        of = {base.CHOICE: "choices", base.REGRESSION: "score"}
        if len(values) != count:
            raise UserError(
                f"teacher {self.source}, row {number}: needs {count} "
                f"number(s), for the {of.get(self.task.kind, 'labels')} in "
                f"their order. Received: {len(values)}"
            )

    def logits(
        self, rows: Sequence[Any], examples: Sequence[Example]
    ) -> list[np.ndarray]:
        """See `Teacher`."""
        del rows
        self.say(f"teacher: logits of {self.source}")
        found = [self.values[example.row] for example in examples]
        if self.task.kind == base.CHOICE:
            for example, values in zip(examples, found, strict=True):
                self._need(example.row + 1, values, len(example.sequences))
        if isinstance(self.task, Regression):
            return [self.task.scaled(values) for values in found]
        return found


def _array(source: str) -> list[np.ndarray]:
    try:
        array = np.asarray(read_array(source), np.float64)
    except (ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{source}: not an array of numbers ({str(error).split('.')[0]}): "
            "write it with numpy.save"
        ) from error
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not np.isfinite(array).all():
        raise UserError(
            f"{source}: must be finite numbers [rows, labels]. Received: "
            f"shape {list(array.shape)}"
        )
    return list(array)


def _lines(source: str) -> list[np.ndarray]:
    found = []
    for place, line in reading.json_lines(source):
        values = paths.parse_json(line, place)
        if isinstance(values, dict):
            values = values.get("logits")
        numbers = values if isinstance(values, list) else [values]
        if not all(map(_is_finite, numbers)):
            raise UserError(
                f"{place}: must be a list of numbers, or an object with such "
                f"a list as `logits`. Received: {shown(values)}"
            )
        found.append(np.array(numbers, np.float64))
    return found


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    with contextlib.suppress(OverflowError):
        return math.isfinite(float(value))
    return False


def agreement(
    kind: str, examples: Sequence[Example], logits: Sequence[np.ndarray]
) -> str | None:
    """Says how often a teacher answers as labelled, for kinds of one label.

    Logits in another order than the rows would agree by chance alone.
    """
    if kind not in (base.CLASSIFICATION, base.CHOICE):
        return None
    right = sum(
        int(np.argmax(values)) == example.label
        for example, values in zip(examples, logits, strict=True)
    )
    share = right / len(examples)
    return f"teacher: {share:.4f} of the training rows answered as labelled"
