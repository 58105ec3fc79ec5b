"""BIO tags and entities: the arithmetic between them, and exact F1.

text    浙 商 银 行 叶 老 桂
tags    B-company I- I- I- B-name I- I-
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

OUTSIDE = "O"


class Entity(NamedTuple):
    """Characters [start, end) of a text are of a type."""

    start: int
    end: int
    type: str


def bio_labels(types: Iterable[str]) -> tuple[str, ...]:
    """Returns O, B-x, I-x for each type."""
    return (OUTSIDE, *(f"{p}-{kind}" for kind in types for p in "BI"))


def token_tags(
    offsets: Sequence[tuple[int, int]], entities: Iterable[Entity]
) -> list[str]:
    """Tags tokens: one that overlaps an entity belongs to it.

    Where entities overlap, the earlier one keeps its tokens.
    """
    tags = [OUTSIDE] * len(offsets)
    for entity in sorted(entities):
        first = True
        for i, (start, end) in enumerate(offsets):
            if start < entity.end and end > entity.start and tags[i] == OUTSIDE:
                tags[i] = f"{'B' if first else 'I'}-{entity.type}"
                first = False
    return tags


def spans_of(
    tags: Iterable[str], offsets: Sequence[tuple[int, int]]
) -> Iterator[Entity]:
    """Yields the entities of BIO tags; an I- without its B- begins one."""
    start = end = 0
    kind: str | None = None
    for tag, (first, last) in zip(tags, offsets, strict=True):
        if tag.startswith("I-") and tag[2:] == kind:
            end = last
            continue
        if kind is not None:
            yield Entity(start, end, kind)
            kind = None
        if tag != OUTSIDE:
            start, end, kind = first, last, tag[2:]
    if kind is not None:
        yield Entity(start, end, kind)


def best_tags(scores: np.ndarray, labels: Sequence[str]) -> list[int]:
    """Finds the best path whose every I-x follows B-x or I-x (Viterbi).

    Args:
        scores: [T, n], the logits.
        labels: The n tags.
    """
    if not len(scores):
        return []
    inside = np.array([label.startswith("I-") for label in labels])
    kinds = np.array([label[2:] for label in labels])
    # [from, to]: what may not follow what.
    penalty = np.where(
        inside[None, :] & (kinds[:, None] != kinds[None, :]), -1e9, 0.0
    )
    best = scores[0] + np.where(inside, -1e9, 0.0)
    back = []
    for row in scores[1:]:
        reached = best[:, None] + penalty
        back.append(reached.argmax(0))
        best = reached.max(0) + row
    path = [int(best.argmax())]
    for choices in reversed(back):
        path.append(int(choices[path[-1]]))
    return path[::-1]


def entity_metrics(pairs: Sequence[tuple[set, set]]) -> dict[str, float]:
    """Returns exact precision, recall, F1 of (gold, predicted) entity sets.

    An entity counts if start, end and type are all right. `f1`, `precision`
    and `recall` count all entities alike, `macro_f1` is the mean over the
    types that occur in the gold answers or in the predictions: seqeval's
    micro and macro averages.
    """
    if not pairs:
        return {}
    right: Counter[str] = Counter()
    gold: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    for wanted, found in pairs:
        gold.update(entity.type for entity in wanted)
        predicted.update(entity.type for entity in found)
        right.update(entity.type for entity in wanted & found)
    f1s = [
        2 * right[kind] / (gold[kind] + predicted[kind])
        for kind in gold | predicted
    ]
    total = right.total()
    return {
        "f1": 2 * total / max(gold.total() + predicted.total(), 1),
        "precision": total / max(predicted.total(), 1),
        "recall": total / max(gold.total(), 1),
        "macro_f1": sum(f1s) / max(len(f1s), 1),
        "rows": len(pairs),
    }


def surface_macro_f1(
    pairs: Sequence[tuple[set[tuple[str, str]], set[tuple[str, str]]]],
    types: Sequence[str],
) -> float:
    """Returns the macro F1 of CLUENER's own program.

    It compares (type, surface) sets per row, wherever a surface stands and
    however often, and takes the mean over all types, also absent ones.

    Args:
        pairs: The (gold, predicted) sets of each row.
        types: The types of the task.
    """
    f1s = []
    for kind in types:
        right = both = 0
        for gold, predicted in pairs:
            right += sum(entity[0] == kind for entity in gold & predicted)
            both += sum(entity[0] == kind for entity in gold)
            both += sum(entity[0] == kind for entity in predicted)
        f1s.append(2 * right / max(both, 1))
    return sum(f1s) / len(f1s)


def join_tokens(
    tokens: Sequence[str],
) -> tuple[str, list[tuple[int, int]]]:
    """Joins the tokens of a column file into a text, with their places.

    Chinese stands without spaces; two Latin words keep one between them.
    """
    text = ""
    places = []
    for before, token in zip(["", *tokens], tokens, strict=False):
        words = len(before) > 1 or len(token) > 1
        if words and (before[-1:] + token[:1]).isascii() and before:
            text += " "
        places.append((len(text), len(text) + len(token)))
        text += token
    return text, places
