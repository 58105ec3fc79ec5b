"""Classification: one of some labels for each text or pair.

The tasks and their files are in `text_rows.py`; the user's own files in
`own_files.py`.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.tasks import base
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.columns import is_whole
from albert_tf2.tasks.outcomes import Outcome
from albert_tf2.tasks.reading import BadRow
from albert_tf2.tasks.text_rows import label_of
from albert_tf2.tasks.text_task import TextTask

# Annotators disagreed: no label. The originals leave such rows out.
NO_GOLD_LABEL = "-"
# How many labels are counted one by one on the console.
SHOWN_LABELS = 12


class Classification(TextTask):
    """One label for each text or pair."""

    kind = base.CLASSIFICATION

    def prepare(self, data_dir, *, on_error):
        super().prepare(data_dir, on_error=on_error)
        # Some tasks travel with their label set; DataCLUE's TNEWS has its own.
        path = paths.join(data_dir, "labels.json")
        if self.name in ("tnews", "iflytek") and paths.is_file(path):
            report = reading.ReadingReport()
            labels = reading.parse_rows(
                reading.json_lines(path),
                lambda line: label_of(reading.json_object(line)),
                on_error="fail",
                report=report,
            )
            self.labels = tuple(sorted(labels, key=label_order))

    def learn_labels(self, path, found):
        different = set(found)
        if len(different) < 2:
            raise UserError(
                f"{path}: found {len(different)} different labels, and "
                "classification needs two; is `columns` right?"
            )
        self.labels = tuple(sorted(different, key=label_order))

    def check(self, row, *, test, report):
        if row.label in self.labels:
            return row
        if test:
            if row.label is None or self.is_own:
                return row
            # A hidden label is often a dummy: the row stays, unlabelled.
            report.note(
                "test rows whose label is none of the task's: answered, not "
                "scored"
            )
            return dataclasses.replace(row, label=None)
        if row.label == NO_GOLD_LABEL:
            report.drop("rows without a gold label ('-') left out")
            return None
        if row.label is None:
            raise BadRow("field `label` is missing")
        raise BadRow(
            f"label {row.label!r} is not one of {_abridged(self.labels)}"
        )

    def read_file(self, path, *, test, on_error, report):
        rows = super().read_file(
            path, test=test, on_error=on_error, report=report
        )
        unknown = [
            row.label
            for row in rows
            if row.label is not None and row.label not in self.labels
        ]
        if not unknown:
            return rows
        some = ", ".join(map(repr, sorted(set(unknown))[:5]))
        if any(row.label in self.labels for row in rows):
            report.tell(
                f"{len(unknown)} rows have a label that training lacks "
                f"({some}): no answer can be right, they count as wrong"
            )
            return rows
        report.tell(
            f"no row has a label that training knows (but {some}): taken for "
            "unlabelled, nothing is scored"
        )
        return [dataclasses.replace(row, label=None) for row in rows]

    def target(self, row):
        # An unknown label of a test row has no output to stand for it.
        known = row.label in self.labels
        return self.labels.index(row.label) if known else None

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
                "probabilities": base.by_label(self.labels, probabilities),
            }
        return predictions

    def score(self, rows, predictions):
        pairs = [
            (row.label, prediction["label"])
            for row, prediction in zip(rows, predictions, strict=True)
            if row.label is not None
        ]
        return classification_metrics(pairs)

    def outcomes(self, rows, predictions):
        return [
            Outcome(
                number,
                frozenset([(row.label, "")]),
                frozenset([(prediction["label"], "")]),
                prediction["probability"],
            )
            for number, (row, prediction) in enumerate(
                zip(rows, predictions, strict=True)
            )
            if row.label is not None
        ]

    def overview(self, train, dev, test):
        counts = Counter(row.label for row in train)
        lines = [f"{len(self.labels)} labels: {shown_counts(counts)}"]
        missing = [label for label in self.labels if not counts[label]]
        if missing:
            lines.append(f"no training row has {_abridged(missing)}")
        majority = counts.most_common(1)[0][0]
        always = base.constant_figures(
            self,
            {"label": majority},
            "accuracy",
            train=train,
            dev=dev,
            test=test,
        )
        return [
            *lines,
            *(f"baseline: always {majority!r}: {f}" for f in always),
        ]


def classification_metrics(pairs: Sequence[tuple[str, str]]) -> dict:
    """Returns accuracy and macro F1 of (gold, predicted) pairs.

    Macro F1 is scikit-learn's: the mean over the labels that occur in the
    gold answers or in the predictions.
    """
    if not pairs:
        return {}
    gold = Counter(label for label, _ in pairs)
    guessed = Counter(label for _, label in pairs)
    hits = Counter(label for label, guess in pairs if label == guess)
    scores = [
        2 * hits[label] / (gold[label] + guessed[label])
        for label in gold | guessed
    ]
    return {
        "accuracy": sum(hits.values()) / len(pairs),
        "macro_f1": sum(scores) / len(scores),
        "rows": len(pairs),
    }


def label_order(label: str) -> tuple:
    """Sorts numeric labels by value ("2" before "10"), others as text."""
    return (0, int(label), "") if is_whole(label) else (1, 0, label)


def shown_counts(counts: Counter) -> str:
    """Returns the labels with their rows, the most frequent first."""
    ranked = counts.most_common()
    shown = [f"{label} ({count})" for label, count in ranked[:SHOWN_LABELS]]
    if len(ranked) > SHOWN_LABELS:
        label, count = ranked[-1]
        rest = len(ranked) - SHOWN_LABELS
        shown.append(f"{rest} more, down to {label} ({count})")
    return ", ".join(shown)


def _abridged(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:20])
    return shown + (" ..." if len(labels) > 20 else "")
