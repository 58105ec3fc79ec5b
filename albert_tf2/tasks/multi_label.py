"""Several labels for each text or pair, or none: each decided by itself.

房间很干净，就是有点贵      卫生, 价格
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, columns
from albert_tf2.tasks.classification import label_order, shown_counts
from albert_tf2.tasks.outcomes import Outcome
from albert_tf2.tasks.reading import BadRow
from albert_tf2.tasks.text_task import TextTask

# A label stands where its probability reaches this.
THRESHOLD = 0.5


class MultiLabel(TextTask):
    """Any of some labels for each text or pair."""

    kind = base.MULTI_LABEL
    label_kind = columns.CLASSES

    def __init__(self, name: str, **settings: Any):
        """Describes the task (see `TextTask`)."""
        super().__init__(name, metric="micro_f1", **settings)

    def learn_labels(self, path, found):
        different = {label for row in found for label in row}
        if not different:
            raise UserError(f"{path}: no row has a label")
        self.labels = tuple(sorted(different, key=label_order))

    def check(self, row, *, test, report):
        if row.label is None:
            if not test:
                raise BadRow("the label is missing")
            return row
        unknown = set(row.label) - set(self.labels)
        if unknown and not test:
            raise BadRow(
                f"label {sorted(unknown)[0]!r} is not one of "
                f"{', '.join(self.labels[:20])}"
            )
        if unknown:
            report.note(
                "test rows have a label that training lacks: counted as missed"
            )
        return row

    def target(self, row):
        if row.label is None:
            return None
        return [float(label in row.label) for label in self.labels]

    def decode(self, rows, examples, logits, lengths):
        del lengths
        predictions: list[dict[str, Any]] = [{} for _ in rows]
        for example, values in zip(examples, logits, strict=True):
            # The logistic function, without overflow.
            probabilities = (1 + np.tanh(values.astype(np.float64) / 2)) / 2
            predictions[example.row] = {
                "id": rows[example.row].row_id,
                "labels": [
                    label
                    for label, probability in zip(
                        self.labels, probabilities, strict=True
                    )
                    if probability >= THRESHOLD
                ],
                "probabilities": base.by_label(self.labels, probabilities),
            }
        return predictions

    def score(self, rows, predictions):
        pairs = [
            (set(row.label), set(prediction["labels"]))
            for row, prediction in zip(rows, predictions, strict=True)
            if row.label is not None
        ]
        return multi_label_metrics(pairs, self.labels)

    def outcomes(self, rows, predictions):
        return [
            Outcome(
                number,
                frozenset((label, "") for label in row.label),
                frozenset((label, "") for label in prediction["labels"]),
                # Of the label that was least sure to stand or not to stand.
                min(
                    max(p, 1 - p) for p in prediction["probabilities"].values()
                ),
            )
            for number, (row, prediction) in enumerate(
                zip(rows, predictions, strict=True)
            )
            if row.label is not None
        ]

    def overview(self, train, dev, test):
        counts = Counter(label for row in train for label in row.label)
        several = sum(len(row.label) > 1 for row in train)
        without = sum(not row.label for row in train)
        lines = [
            f"{len(self.labels)} labels: {shown_counts(counts)}",
            f"{several} training rows have several labels, {without} none",
        ]
        best = counts.most_common(1)[0][0]
        always = base.constant_figures(
            self,
            {"labels": [best]},
            "micro_f1",
            train=train,
            dev=dev,
            test=test,
        )
        return [*lines, *(f"baseline: always {best!r}: {f}" for f in always)]


def multi_label_metrics(
    pairs: Sequence[tuple[set[str], set[str]]], labels: Sequence[str]
) -> dict[str, float]:
    """Returns the figures of (gold, predicted) sets of labels.

    `micro_f1` and `macro_f1` are scikit-learn's over all labels (0 where a
    label neither occurs nor is predicted), `exact_match` its accuracy.
    """
    if not pairs:
        return {}
    gold = Counter(label for row, _ in pairs for label in row)
    guessed = Counter(label for _, row in pairs for label in row)
    hits = Counter(label for a, b in pairs for label in a & b)
    every = sorted({*labels, *gold})
    scores = [
        2 * hits[label] / max(gold[label] + guessed[label], 1)
        for label in every
    ]
    total = sum(gold.values()) + sum(guessed.values())
    return {
        "micro_f1": 2 * sum(hits.values()) / max(total, 1),
        "macro_f1": sum(scores) / len(scores),
        "exact_match": sum(a == b for a, b in pairs) / len(pairs),
        "rows": len(pairs),
    }
