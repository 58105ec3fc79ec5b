"""BIO tags and entities: the arithmetic between them, and exact F1.

text    浙 商 银 行 叶 老 桂
tags    B-company I- I- I- B-name I- I-
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_tf2.tasks import reading as reading

OUTSIDE = "O"
# BMES and BIOES are read too.
PREFIXES = ("B-", "I-", "M-", "E-", "S-")


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
    tags: Sequence[str], offsets: Sequence[tuple[int, int]]
) -> Iterator[Entity]:
    """Yields the entities of BIO tags; an I- without its B- begins one."""
    start = kind = end = None
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

    An entity counts if start, end and type are all right. `f1` counts all
    entities alike; `macro_f1` is the mean over the types in the gold answers,
    as CLUENER's own evaluation reports it.
    """
    if not pairs:
        return {}
    kinds = sorted({e.type for gold, _ in pairs for e in gold})

    def count(kind=None):
        right = gold_count = predicted_count = 0
        for gold, predicted in pairs:
            if kind is not None:
                gold = {e for e in gold if e.type == kind}
                predicted = {e for e in predicted if e.type == kind}
            right += len(gold & predicted)
            gold_count += len(gold)
            predicted_count += len(predicted)
        return right, gold_count, predicted_count

    right, gold, predicted = count()
    f1s = [2 * r / (g + p) for r, g, p in map(count, kinds)]
    return {
        "f1": 2 * right / max(gold + predicted, 1),
        "precision": right / max(predicted, 1),
        "recall": right / max(gold, 1),
        "macro_f1": sum(f1s) / max(len(f1s), 1),
        "rows": len(pairs),
    }


def bio_sentences(path: Path) -> Iterator[tuple[str, list[list[str]]]]:
    """Yields (place, [[character, ..., tag], ...]); an empty line ends one."""
    sentence: list[list[str]] = []
    first = 1
    for number, line in reading.numbered_lines(path):
        if line.strip() and not line.startswith("-DOCSTART-"):
            if not sentence:
                first = number
            # "\t" where there is one: the token itself may be a space.
            sentence.append(line.split("\t") if "\t" in line else line.split())
        elif sentence:
            yield f"{path}, line {first}", sentence
            sentence = []
    if sentence:
        yield f"{path}, line {first}", sentence


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


def as_bio(tags: Sequence[str]) -> list[str]:
    """Turns the BMES and BIOES spellings into BIO."""
    return [
        {"S": "B", "M": "I", "E": "I"}.get(tag[0], tag[0]) + tag[1:]
        for tag in tags
    ]
