"""Terms of user dictionaries, and where they stand in a text.

A segmenter such as jieba joins Chinese characters, ASCII letters and digits,
and few signs; a term with anything else (Ⅱ型糖尿病, 50℃水浴, Windows 10) it
never sees whole. So those are looked for in the text itself, by a pair of
neighbouring characters that is rare in most texts:

    维生素B₁₂  ->  B₁      卡介苗(BCG)  ->  苗(      奥迪 A4L  ->  A4
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from albert_tf2 import paths
from albert_tf2.text.tokenization import is_chinese

# A term of a user dictionary, with its frequency or None.
Term = tuple[str, int | None]

# A line of a dictionary, as jieba reads it: a term may hold blanks.
_LINE = re.compile(r"(.+?)(?: ([0-9]{1,18}))?(?: [a-z]+)?")
# What jieba and rjieba join into words.
_JOINED = re.compile(r"[\u4e00-\u9fd5a-zA-Z0-9+#&._%\-]+")
_BITS = 21  # of a code point
_SLOT_BITS = 22


class Match(NamedTuple):
    """A term in a text: characters [start, end)."""

    start: int
    end: int
    term: str


def read_terms(path: str) -> list[Term]:
    """Reads a user dictionary in jieba's form.

    A line is a term, then if wanted its frequency and its part of speech.
    """
    terms: list[Term] = []
    for line in paths.read_text(path).removeprefix("\ufeff").split("\n"):
        found = _LINE.fullmatch(line.strip())
        if found:
            term, frequency = found.groups()
            terms.append((term, int(frequency) if frequency else None))
    return terms


def is_joined(term: str) -> bool:
    """Whether a segmenter can find a term by itself."""
    return _JOINED.fullmatch(term) is not None


class TermFinder:
    """Finds terms in texts, at a cost that hardly depends on their number."""

    def __init__(self, terms: Sequence[str]):
        """Indexes the terms, each of at least two characters."""
        self._by_anchor: dict[int, list[tuple[int, str]]] = {}
        # Whether a character begins some pair (1), or ends one (2).
        self._role = np.zeros(0x110000, np.uint8)
        for term in dict.fromkeys(terms):
            place = min(
                range(len(term) - 1),
                key=lambda i: _commonness(*term[i : i + 2]),
            )
            first, second = map(ord, term[place : place + 2])
            self._role[first] |= 1
            self._role[second] |= 2
            anchor = first << _BITS | second
            self._by_anchor.setdefault(anchor, []).append((place, term))
        self._anchors = np.array(sorted(self._by_anchor), np.int64)
        # A look-up here is quicker than a search among thousands of anchors.
        self._slots = np.zeros(1 << _SLOT_BITS, bool)
        self._slots[_slots(self._anchors)] = True

    def find(self, text: str) -> list[Match]:
        """Returns where terms stand, in the order of the text.

        Matches may overlap; of those with one beginning the longest is first.
        """
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        roles = self._role[codes]
        places = np.flatnonzero(roles[:-1] & roles[1:] >> 1)
        pairs = codes[places].astype(np.int64) << _BITS | codes[places + 1]
        likely = self._slots[_slots(pairs)]
        places, pairs = places[likely], pairs[likely]
        known = np.searchsorted(self._anchors, pairs)
        known = np.minimum(known, len(self._anchors) - 1)
        places = places[self._anchors[known] == pairs]
        found = []
        for place in places.tolist():
            anchor = ord(text[place]) << _BITS | ord(text[place + 1])
            for offset, term in self._by_anchor[anchor]:
                start = place - offset
                if start >= 0 and text.startswith(term, start):
                    found.append(Match(start, start + len(term), term))
        return sorted(found, key=lambda match: (match.start, -match.end))


def _slots(pairs: np.ndarray) -> np.ndarray:
    """Spreads pairs of characters over so many slots."""
    return (pairs * 0x9E3779B1 >> 16) & ((1 << _SLOT_BITS) - 1)


def _commonness(first: str, second: str) -> int:
    """Ranks how common a pair of characters is in Chinese text, roughly."""
    if is_chinese(first) and is_chinese(second):
        return 10  # commoner than 用D and "用 ", in text that is Chinese
    return _rank(first) + _rank(second)


def _rank(character: str) -> int:
    if character.isspace():
        return 6
    if is_chinese(character):
        return 3
    if not character.isascii():
        return 0
    if character.isupper():
        return 4
    return 5 if character.isalnum() else 2
