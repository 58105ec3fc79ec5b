"""Right or wrong, row by row: what the mean of a figure hides.

A row's answer is a set of items, each of a class: one label, several, or the
entities of a text. So one count serves all of them:

    expected {体育}          found {财经}             one label
    expected {卫生, 价格}     found {卫生}             several
    expected {人名 0-2}      found {人名 0-2, 地名 5-7}  entities
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 1_000
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What was asked of a labelled row, and what was answered.

    Attributes:
        row: The row's number in its file, from 0.
        expected: (class, place) of each right item; the place is "" where a
            class stands once.
        found: Likewise of the answer.
        probability: How sure the answer was, where one number says so.
    """

    row: int
    expected: frozenset[tuple[str, str]]
    found: frozenset[tuple[str, str]]
    probability: float | None = None

    @property
    def is_right(self) -> bool:
        return self.expected == self.found


def micro_f1(outcomes: Sequence[Outcome]) -> float:
    """Returns 2 * hits / (expected + found); the accuracy of single labels."""
    return _f1(_counts(outcomes).sum(0))


def _counts(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Returns hits, expected and found items of each row: int64 [n, 3]."""
    return np.array(
        [
            (len(o.expected & o.found), len(o.expected), len(o.found))
            for o in outcomes
        ],
        np.int64,
    ).reshape(-1, 3)


def _f1(counts: Any) -> float:
    hits, expected, found = (int(count) for count in counts)
    return 2 * hits / max(expected + found, 1)


def interval(
    outcomes: Sequence[Outcome],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the bootstrap's percentile interval of `micro_f1`.

    Rows are drawn with replacement (Efron 1979). It tells how far another
    sample of rows would move the figure, not how far another seed of training
    would.
    """
    counts = _counts(outcomes)
    rng = np.random.default_rng(seed)
    figures = [
        _f1(counts[rng.integers(0, len(counts), len(counts))].sum(0))
        for _ in range(resamples)
    ]
    low, high = np.quantile(
        figures, [(1 - confidence) / 2, (1 + confidence) / 2]
    )
    return float(low), float(high)


def by_class(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Returns precision, recall and F1 of each class, the worst F1 first.

    As scikit-learn's `classification_report` and seqeval's, 0 where nothing
    was found or expected. `rows` counts the expected items.
    """
    expected = Counter(c for o in outcomes for c, _ in o.expected)
    found = Counter(c for o in outcomes for c, _ in o.found)
    hits = Counter(c for o in outcomes for c, _ in o.expected & o.found)
    table = [
        {
            "class": name,
            "precision": hits[name] / max(found[name], 1),
            "recall": hits[name] / max(expected[name], 1),
            "f1": _f1((hits[name], expected[name], found[name])),
            "rows": expected[name],
        }
        for name in sorted(expected | found)
    ]
    return sorted(table, key=lambda row: row["f1"])


def confusion(
    outcomes: Sequence[Outcome], labels: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """Returns how often each single label was answered by each other.

    Args:
        outcomes: Each with one expected and one found item.
        labels: The task's, in its order; others that occur follow.

    Returns:
        The labels, and counts int64 [expected, found].
    """
    pairs = [
        (next(iter(o.expected))[0], next(iter(o.found))[0]) for o in outcomes
    ]
    others = sorted({label for pair in pairs for label in pair})
    every = list(dict.fromkeys([*labels, *others]))
    place = {label: number for number, label in enumerate(every)}
    counts = np.zeros([len(every), len(every)], np.int64)
    for expected, found in pairs:
        counts[place[expected], place[found]] += 1
    return every, counts


def errors(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Returns the wrong rows, those first that the model was surest of."""
    wrong = [outcome for outcome in outcomes if not outcome.is_right]
    return sorted(wrong, key=lambda o: -(o.probability or 0.0))


def mcnemar(wrong: set[int], others: set[int]) -> tuple[int, int, float]:
    """Compares two models on the same rows (McNemar 1947, exact form).

    Args:
        wrong: The rows that the first model got wrong.
        others: Those of the second.

    Returns:
        The rows that only the first got wrong, those that only the second
        did, and the probability of so uneven a split, or a more uneven one,
        if both models were equally good.
    """
    first, second = len(wrong - others), len(others - wrong)
    total = first + second
    tail = sum(math.comb(total, k) for k in range(min(first, second) + 1))
    return first, second, min(1.0, 2 * tail / 2**total)
