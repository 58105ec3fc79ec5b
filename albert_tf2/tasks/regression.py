"""Scores: a number for each text or pair, such as stars or similarity.

    一架飞机正在起飞    一架飞机在起飞    4.8

The head learns (score - mean) / spread of the training rows, so that scores
from 0 to 1 and from 0 to 100 are learned alike; answers are scores again.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, columns
from albert_tf2.tasks.reading import BadRow
from albert_tf2.tasks.text_task import TextTask

# Up to so many whole scores are steps of a scale, such as one to five stars.
MOST_STEPS = 20
Scores = TypeVar("Scores", float, np.ndarray)


class Regression(TextTask):
    """A score for each text or pair."""

    kind = base.REGRESSION
    num_outputs = 1
    label_kind = columns.SCORE

    def __init__(self, name: str, **settings: Any):
        """Describes the task (see `TextTask`)."""
        super().__init__(name, metric="pearson", **settings)
        if self.labels:
            raise UserError(
                f"task {name} takes scores: `labels` has no meaning there"
            )
        self.mean, self.spread = 0.0, 1.0
        # The whole numbers of an ordinal scale; empty for any scores.
        self.steps: tuple[int, ...] = ()

    def learn_labels(self, path, found):
        self.mean = float(np.mean(found))
        self.spread = float(np.std(found))
        if not self.spread:
            raise UserError(f"{path}: all scores are {self.mean:g}")
        different = set(found)
        if len(different) <= MOST_STEPS and all(
            score.is_integer() for score in different
        ):
            self.steps = tuple(sorted(map(int, different)))

    def check(self, row, *, test, report):
        if row.label is None and not test:
            raise BadRow("the score is missing")
        return row

    def target(self, row):
        return None if row.label is None else self.scaled(row.label)

    def scaled(self, score: Scores) -> Scores:
        """Returns a score, or an array of them, as the head learns it."""
        return (score - self.mean) / self.spread

    def describe(self):
        return {
            **super().describe(),
            "mean": self.mean,
            "spread": self.spread,
            "steps": list(self.steps),
        }

    def restore(self, description):
        super().restore(description)
        number = (int, float)
        self.mean = base.taken(description, "mean", number)
        self.spread = base.taken(description, "spread", number)
        self.steps = base.taken(description, "steps", list, each=number)

    def decode(self, rows, examples, logits, lengths):
        del lengths
        predictions: list[dict[str, Any]] = [{} for _ in rows]
        for example, values in zip(examples, logits, strict=True):
            score = float(values[0]) * self.spread + self.mean
            prediction = {
                "id": rows[example.row].row_id,
                "score": round(score, 6),
            }
            if self.steps:
                prediction["nearest"] = min(
                    self.steps, key=lambda step: abs(step - score)
                )
            predictions[example.row] = prediction
        return predictions

    def score(self, rows, predictions):
        pairs = [
            (row.label, prediction["score"])
            for row, prediction in zip(rows, predictions, strict=True)
            if row.label is not None
        ]
        return regression_metrics(pairs)

    def overview(self, train, dev, test):
        scores = [row.label for row in train]
        lines = [
            f"scores: {len(set(scores))} different ones from {min(scores):g} "
            f"to {max(scores):g}, mean {self.mean:.4g}, spread "
            f"{self.spread:.4g}"
        ]
        if self.steps:
            lines[0] += "; all whole: answers also name the nearest"
        always = base.constant_figures(
            self, {"score": self.mean}, "mse", train=train, dev=dev, test=test
        )
        return [
            *lines,
            *(f"baseline: always {self.mean:.4g}: {f}" for f in always),
        ]


def regression_metrics(
    pairs: Sequence[tuple[float, float]],
) -> dict[str, float]:
    """Returns Pearson, Spearman and the mean squared error of (gold, answer).

    A correlation with answers (or scores) that are all alike is undefined,
    and given as 0.
    """
    if not pairs:
        return {}
    gold, answers = np.array(pairs, np.float64).T
    return {
        "pearson": correlation(gold, answers),
        "spearman": correlation(ranks(gold), ranks(answers)),
        "mse": float(np.mean((gold - answers) ** 2)),
        "rows": len(pairs),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Pearson's r of two series [N]; 0 where it is undefined."""
    if not np.ptp(a) or not np.ptp(b):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    length = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(np.clip(a @ b / length, -1.0, 1.0))


def area_under_curve(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Returns the chance that a positive row scores above another one.

    Equal scores count half; 0.5 is useless.

    Args:
        scores: [N].
        is_positive: bool [N], some of each.
    """
    positive = int(is_positive.sum())
    negative = len(scores) - positive
    # The Mann-Whitney form.
    above = ranks(scores)[is_positive].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def ranks(values: np.ndarray) -> np.ndarray:
    """Returns the ranks [N] from 1; equal values share their mean rank."""
    _, places, counts = np.unique(
        values, return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2)[places]
