"""Classification of a text or of a pair of texts.

The tasks and their files are in `text_rows.py`; the user's own files in
`own_files.py`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_tf2.tasks import base
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.encoding import Example, pack, tokenize_all
from albert_tf2.tasks.reading import BadRow
from albert_tf2.tasks.text_rows import TextRow, label_of, sentence_row

# Annotators disagreed: no label. The originals leave such rows out.
NO_GOLD_LABEL = "-"


class Classification(base.Task):
    """One label for each text or pair."""

    kind = base.CLASSIFICATION

    def __init__(
        self,
        name: str,
        *,
        parse: Callable[[Any], TextRow | None] = sentence_row,
        records: Callable[
            [Path], Iterator[tuple[str, Any]]
        ] = reading.json_lines,
        **settings: Any,
    ):
        """Describes a classification task.

        Args:
            name: As `--task` spells it.
            parse: Makes a row of a record; None for a row that is not
                this task's, such as another language's.
            records: Yields the (place, record) pairs of a file.
            **settings: See `base.Task`.
        """
        super().__init__(name, **settings)
        self._parse = parse
        self._records = records
        # Whether rows are pairs; None before any was seen.
        self.pairs: bool | None = None

    def prepare(self, data_dir, *, on_error):
        # Some tasks travel with their label set; DataCLUE's TNEWS has its own.
        path = Path(data_dir) / "labels.json"
        if self.name in ("tnews", "iflytek") and path.is_file():
            report = reading.ReadingReport()
            labels = reading.parse_rows(
                reading.json_lines(path),
                lambda line: label_of(reading.json_object(line)),
                on_error="fail",
                report=report,
            )
            self.labels = tuple(sorted(labels, key=label_order))

    def read_file(self, path, *, test, on_error, report):
        def parse(record):
            row = self._parse(record)
            if row is None:
                return None
            if test and row.label not in self.labels:
                # A hidden label is often a dummy: the row stays, unlabelled.
                return dataclasses.replace(row, label=None)
            if row.label == NO_GOLD_LABEL:
                report.drop("rows without a gold label ('-') left out")
                return None
            if row.label is None:
                raise BadRow("field `label` is missing")
            if row.label not in self.labels:
                raise BadRow(
                    f"label {row.label!r} is not one of "
                    f"{_abridged(self.labels)}"
                )
            return row

        rows = reading.parse_rows(
            self._records(path),
            parse,
            on_error=on_error,
            report=report,
            placeholder=_unreadable if test else None,
        )
        if rows:
            self.pairs = any(row.text_b is not None for row in rows)
        return [
            row
            if row.row_id is not None
            else dataclasses.replace(row, row_id=index)
            for index, row in enumerate(rows)
        ]

    def describe(self):
        return {**super().describe(), "pairs": self.pairs}

    def encode(self, rows, tokenizer, lengths, *, training=False):
        texts = [row.text_a for row in rows]
        texts += [row.text_b for row in rows if row.text_b is not None]
        ids = tokenize_all(tokenizer, texts)
        seconds = iter(ids[len(rows) :])
        return [
            Example(
                row=index,
                sequences=(
                    pack(
                        [ids[index]]
                        if row.text_b is None
                        else [ids[index], next(seconds)],
                        tokenizer.vocabulary,
                        lengths.max_seq_length,
                    ),
                ),
                label=None
                if row.label is None
                else self.labels.index(row.label),
            )
            for index, row in enumerate(rows)
        ]

    def decode(self, rows, examples, logits, lengths):
        del lengths
        predictions: list[dict[str, Any]] = [{} for _ in rows]
        for example, values in zip(examples, logits, strict=True):
            row = rows[example.row]
            probabilities = base.softmax(values)
            best = int(np.argmax(probabilities))
            predictions[example.row] = {
                "id": row.row_id,
                "label": self.labels[best],
                "probability": round(float(probabilities[best]), 6),
                "probabilities": {
                    label: round(float(probability), 6)
                    for label, probability in zip(
                        self.labels, probabilities, strict=True
                    )
                },
            }
        return predictions

    def score(self, rows, predictions):
        pairs = [
            (row.label, prediction["label"])
            for row, prediction in zip(rows, predictions, strict=True)
            if row.label is not None
        ]
        return classification_metrics(pairs)


def _unreadable(record: Any) -> TextRow:
    return TextRow(reading.id_of(record), "")


def classification_metrics(pairs: Sequence[tuple[str, str]]) -> dict:
    """Returns accuracy and macro F1 of (gold, predicted) pairs.

    Macro F1 is the mean over the labels that occur in the gold answers.
    """
    if not pairs:
        return {}
    correct = sum(gold == predicted for gold, predicted in pairs)
    scores = []
    for label in {gold for gold, _ in pairs}:
        hits = sum(gold == predicted == label for gold, predicted in pairs)
        named = sum((gold == label) + (guess == label) for gold, guess in pairs)
        scores.append(2 * hits / named)
    return {
        "accuracy": correct / len(pairs),
        "macro_f1": sum(scores) / len(scores),
        "rows": len(pairs),
    }


def label_order(label: str) -> tuple:
    """Sorts numeric labels by value ("2" before "10"), others as text."""
    return (0, int(label), "") if label.isdecimal() else (1, 0, label)


def _abridged(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:20])
    return shown + (" ..." if len(labels) > 20 else "")
