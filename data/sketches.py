"""Counts that stay small however large the corpus is.

Each is exact for small corpora and says how far off it may be for large ones.
What they hold depends on what they were given and on its order alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .duplicates import BANDS, Keys, repeated


class Lengths:
    """Counts lengths: each of them up to 4,096, in steps of 1.1 % beyond."""

    EXACT, STEPS = 4096, 64  # steps for each doubling

    def __init__(self) -> None:
        self._cells: np.ndarray = np.zeros(
            self.EXACT + 1 + 36 * self.STEPS, np.int64
        )
        self.count = self.sum = self.longest = 0

    def add(self, lengths: np.ndarray) -> None:
        """Counts int64 [N] lengths."""
        if not len(lengths):
            return
        doublings = np.log2(np.maximum(lengths, self.EXACT) / self.EXACT)
        beyond = np.ceil(doublings * self.STEPS).astype(np.int64)
        cells = np.minimum(lengths, self.EXACT) + beyond
        self._cells += np.bincount(cells, minlength=len(self._cells))
        self.count += len(lengths)
        self.sum += int(lengths.sum())
        self.longest = max(self.longest, int(lengths.max()))

    def up_to(self, limit: int) -> int:
        """Counts those of at most `limit`: 4,096, less, or 4,096 * 2^n."""
        if limit <= self.EXACT:
            return int(self._cells[: limit + 1].sum())
        doublings = (limit // self.EXACT).bit_length() - 1
        return int(self._cells[: self.EXACT + doublings * self.STEPS + 1].sum())

    def median(self) -> int:
        """Returns the middle length, at most 1.1 % too long beyond 4,096."""
        cell = int(
            np.searchsorted(self._cells.cumsum(), self.count // 2, "right")
        )
        beyond = max(0, cell - self.EXACT) / self.STEPS
        length = round(min(cell, self.EXACT) * 2**beyond)
        return min(length, self.longest)


class Commonest:
    """The commonest of any number of things (Misra and Gries 1982).

    Attributes:
        error: By how much a count may be too low: 0 while there are fewer
            than twice `most` things, never more than their sum / `most`.
    """

    def __init__(self, most: int = 1 << 14):
        self.error = 0
        self._most = most
        # The count of each, and what was said about it first.
        self._found: dict[Any, tuple[int, Any]] = {}

    def add(self, found: Mapping[Any, tuple[int, Any]]) -> None:
        """Takes counts in, each with a remark, of which the first stays."""
        mine = self._found
        for thing, (count, remark) in found.items():
            before = mine.get(thing)
            if before is not None:
                count, remark = count + before[0], before[1]
            mine[thing] = count, remark
        if len(mine) > 2 * self._most:
            counts = sorted((n for n, _ in mine.values()), reverse=True)
            less = counts[self._most]
            self.error += less
            self._found = {
                thing: (count - less, remark)
                for thing, (count, remark) in mine.items()
                if count > less
            }

    def ranked(self, number: int) -> list[tuple[Any, int, Any]]:
        """Returns the first few: (thing, count, remark)."""
        order = sorted(self._found.items(), key=lambda i: (-i[1][0], i[0]))
        return [(thing, *told) for thing, told in order[:number]]


class DocumentSample:
    """Finds duplicates among a share of the documents.

    Documents are drawn by a hash of what they hold (`Keys.least`), so that
    copies are drawn together. All are drawn at first; when too many are held,
    half of them go. Copies take no place, but are counted.
    """

    def __init__(self, most: int = 1 << 17):
        self.documents = 0
        self.share = 1.0
        self._most = most
        # Columns: hash, exact key, number, copies, near keys.
        self._rows = np.empty((0, 4 + BANDS), np.uint64)
        self._new: list[np.ndarray] = []

    def add(self, keys: Keys, first_id: int) -> None:
        """Takes in the documents of a unit, numbered from `first_id`."""
        count = len(keys.exact)
        self.documents += count
        rows = np.empty((count, 4 + BANDS), np.uint64)
        rows[:, 0], rows[:, 1] = keys.least, keys.exact
        rows[:, 2] = first_id + np.arange(count, dtype=np.uint64)
        rows[:, 3], rows[:, 4:] = 1, keys.near
        self._new.append(self._drawn(rows))
        if sum(map(len, self._new)) > self._most:
            self._settle()

    def _drawn(self, rows: np.ndarray) -> np.ndarray:
        limit = 2.0**64 * self.share
        return rows if self.share == 1 else rows[rows[:, 0] < np.uint64(limit)]

    def _settle(self) -> None:
        rows = np.concatenate([self._rows, *self._new])
        self._new.clear()
        rows = rows[np.lexsort((rows[:, 2], rows[:, 1]))]
        begins = np.flatnonzero(np.diff(rows[:, 1], prepend=~rows[:1, 1]))
        if len(begins):
            copies = np.add.reduceat(rows[:, 3], begins)
            rows = rows[begins]
            rows[:, 3] = copies
        while len(rows) > self._most:
            self.share /= 2
            rows = self._drawn(rows)
        self._rows = rows

    def duplicates(self) -> tuple[int, int]:
        """Returns how many documents stand earlier: exactly, and nearly."""
        self._settle()
        rows = self._rows
        exact = int(rows[:, 3].sum()) - len(rows)
        if self.share < 1:  # not by a share of them: some have very many copies
            exact = max(0, self.documents - round(len(rows) / self.share))
        pairs = np.empty((len(rows), BANDS, 2), "<u8")
        pairs[..., 0], pairs[..., 1] = rows[:, 4:], rows[:, 2:3]
        return exact, round(len(repeated([pairs.tobytes()])) / self.share)

    def error(self) -> float:
        """Returns two standard deviations of the exact ones, as a share."""
        return 0.0 if self.share == 1 else 2 * max(1, len(self._rows)) ** -0.5
