"""Segment pairs for ALBERT's sentence-order prediction, and their packing.

A pair is two stretches of one document, B right after A (arXiv:1909.11942,
section 3.1); which of them comes first is drawn anew at training time.

    tokens of a document:   t0 ............................... t40
    sentences end at:       9        17           30           41
    a pair (0, 9, 30):      [CLS] t0..t8 [SEP] t9..t29 [SEP]

Pairs follow each other without a gap: a document is cut, never truncated.
Cuts fall between sentences. Only where two sentences do not fit together is
the second cut between words, and its rest begins the next pair.

# Differs from albert_zh: it truncates (5.7 % of the tokens are lost), drops
# the last sentence of a document, and cuts short pairs to the maximum instead
# of to their target length.
"""

import hashlib
import random
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# [CLS] A [SEP] B [SEP]
SPECIAL_TOKENS_PER_PAIR = 3


class SegmentPair(NamedTuple):
    """Tokens [start, middle) are A, tokens [middle, end) are B."""

    start: int
    middle: int
    end: int


def rng_of(*key: object) -> random.Random:
    """Returns a generator that depends on the key and on nothing else."""
    text = "\0".join(map(str, key)).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "little"))


def pairs_of_document(
    sentence_ends: Sequence[int],
    word_starts: np.ndarray,
    *,
    max_tokens: int,
    short_seq_prob: float,
    rng: random.Random,
) -> list[SegmentPair]:
    """Cuts the N tokens of a document into segment pairs.

    Args:
        sentence_ends: Increasing token positions; the last one is N.
        word_starts: bool [N], where a sentence may be cut if it must.
        max_tokens: The most tokens of a pair, without [CLS] and [SEP].
        short_seq_prob: How often a pair aims at a shorter length, drawn
            evenly from 2 to `max_tokens`; fine-tuning sees such lengths.
        rng: Of this document alone (`rng_of`).

    Returns:
        Pairs that cover tokens 0 to N; the last token is left out if it
        would stand alone.
    """
    pairs = []
    total = sentence_ends[-1]
    start = 0
    while total - start >= 2:
        target = max_tokens
        if rng.random() < short_seq_prob:
            target = 2 + int(rng.random() * (max_tokens - 1))
        end = _end_of_pair(start, start + target, sentence_ends, word_starts)
        # Sentences that end inside the pair are where B may begin.
        first = bisect_right(sentence_ends, start)
        count = bisect_right(sentence_ends, end - 1) - first
        if count > 0:
            middle = sentence_ends[first + int(rng.random() * count)]
        else:
            middle = _cut_before((start + end + 1) // 2, start, word_starts)
        pairs.append(SegmentPair(start, middle, end))
        start = end
    return pairs


def _end_of_pair(
    start: int,
    limit: int,
    sentence_ends: Sequence[int],
    word_starts: np.ndarray,
) -> int:
    """Returns where the pair that begins at `start` ends, at most `limit`."""
    total = sentence_ends[-1]
    if total <= limit:
        return total
    first = bisect_right(sentence_ends, start)
    last = bisect_right(sentence_ends, limit) - 1  # ends within the limit
    if last <= first:  # no two sentences fit
        end = _cut_before(limit, start + 1, word_starts)
        return end - 1 if total - end == 1 and end - start > 2 else end
    # A single sentence at the end of a document would have to be cut in
    # two: rather leave it a companion.
    if last == len(sentence_ends) - 2 and last - 1 > first:
        last -= 1
    return sentence_ends[last]


def _cut_before(limit: int, start: int, word_starts: np.ndarray) -> int:
    """Returns the last word border in (start, limit], else `limit`."""
    position = limit
    while position > start and not word_starts[position]:
        position -= 1
    return position if position > start else limit


def pack(
    costs: Sequence[int], *, row_size: int, max_pairs: int
) -> list[list[int]]:
    """Packs pairs into rows: best fit, the longest first.

    Args:
        costs: Tokens of each pair, with its [CLS] and [SEP]; each at most
            `row_size`.
        row_size: Tokens of a row.
        max_pairs: The most pairs in a row.

    Returns:
        Rows of pair numbers, each row in the order of the text.
    """
    rows: list[list[int]] = []
    by_space: list[list[int]] = [[] for _ in range(row_size + 1)]
    spaces = 0  # bit s is set if some row has exactly s tokens of space
    for pair in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        cost = costs[pair]
        fitting = spaces >> cost
        if fitting:
            space = cost + (fitting & -fitting).bit_length() - 1
            row = by_space[space].pop()
            if not by_space[space]:
                spaces ^= 1 << space
            rows[row].append(pair)
        else:
            space, row = row_size, len(rows)
            rows.append([pair])
        space -= cost
        if len(rows[row]) < max_pairs:
            by_space[space].append(row)
            spaces |= 1 << space
    return [sorted(row) for row in rows]
