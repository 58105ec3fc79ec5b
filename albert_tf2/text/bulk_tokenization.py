"""`tokenization.Tokenizer` for whole books: the same tokens, in bulk.

Most characters of a Chinese text are tokens of their own, so one look-up per
character in a NumPy table does their work. Only the runs between them (Latin
words, digits, kana) pass through the exact tokenizer, once for each distinct
run. The result is that of `Tokenizer.tokenize` on every line, at some twenty
times its speed, and without TensorFlow.
"""

import unicodedata
from array import array
from typing import NamedTuple

import numpy as np

from albert_tf2.text.tokenization import (
    MAX_CHARACTERS_PER_WORD,
    PIECE_PREFIX,
    Tokenizer,
    is_chinese,
    is_punctuation,
    is_removed,
)

# What a character is to the tokenizer. A run is a longest sequence of RUN
# characters; LINE characters change with what stands around them, so their
# whole line is taken as one run.
UNSEEN, SPACE, SINGLE, RUN, LINE = range(5)

# Distinct runs are remembered until they hold so many tokens (100 MB).
MAX_REMEMBERED_TOKENS = 1_000_000


class BulkTokens(NamedTuple):
    """The N tokens of a text that may have many lines.

    Attributes:
        ids: int32 [N].
        starts: int32 [N], where each token begins, in characters.
        pieces: bool [N], True for a piece that continues a word (`##x`).
        chinese: bool [N], True for a single Chinese character.
        line_ends: int32 [L - 1], the characters that end a line ("\\n").
    """

    ids: np.ndarray
    starts: np.ndarray
    pieces: np.ndarray
    chinese: np.ndarray
    line_ends: np.ndarray


class BulkCut(NamedTuple):
    """A text cut into single characters and runs, not yet normalised.

    Attributes:
        codes: uint32, the code points of the text.
        singles: int32 [C], where the characters are that stand alone.
        run_starts, run_ends: int32 [R], the runs between them.
    """

    codes: np.ndarray
    singles: np.ndarray
    run_starts: np.ndarray
    run_ends: np.ndarray

    def runs(self, text: str) -> list[str]:
        """Returns the runs as they stand in the text."""
        bounds = zip(
            self.run_starts.tolist(), self.run_ends.tolist(), strict=True
        )
        return [text[start:end] for start, end in bounds]


class BulkTokenizer:
    """Tokenizes texts of many lines; a line feed always ends a word."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self._kinds = np.zeros(0x110000, np.uint8)  # filled as seen
        self._single_ids = np.zeros(0x110000, np.int32)
        self._chinese = np.zeros(0x110000, bool)
        self._runs = _RunTokens(tokenizer)

    def tokenize(self, text: str) -> BulkTokens:
        """Cuts a text into tokens (see `BulkTokens`)."""
        cut = self.cut(text)
        codes, singles = cut.codes, cut.singles
        if len(self._runs.ids) > MAX_REMEMBERED_TOKENS:
            self._runs = _RunTokens(self.tokenizer)
        numbers = [self._runs[run] for run in cut.runs(text)]
        run_ids, run_starts, run_pieces = self._runs.gather(
            np.array(numbers, np.int64), cut.run_starts
        )
        starts = np.concatenate([singles, run_starts])
        # Two sorted halves: a stable sort merges them in linear time.
        order = np.argsort(starts, kind="stable")
        starts = starts[order]
        no_pieces = np.zeros(len(singles), bool)
        return BulkTokens(
            np.concatenate([self._single_ids[codes[singles]], run_ids])[order],
            starts,
            np.concatenate([no_pieces, run_pieces])[order],
            self._chinese[codes[starts]],
            np.flatnonzero(codes == 0x0A).astype(np.int32),
        )

    def cut(self, text: str) -> BulkCut:
        """Finds the characters that stand alone, and the runs."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        kinds = self._kinds_of(codes)
        if (kinds == LINE).any():
            _widen_to_lines(kinds, codes)
        inside = np.zeros(len(kinds) + 2, np.int8)
        inside[1:-1] = kinds == RUN
        changes = np.flatnonzero(np.diff(inside)).astype(np.int32)
        singles = np.flatnonzero(kinds == SINGLE).astype(np.int32)
        return BulkCut(codes, singles, changes[::2], changes[1::2])

    def _kinds_of(self, codes: np.ndarray) -> np.ndarray:
        kinds = self._kinds[codes]
        unseen = kinds == UNSEEN
        if unseen.any():
            for code in np.unique(codes[unseen]).tolist():
                self._learn(code)
            kinds = self._kinds[codes]
        return kinds

    def _learn(self, code: int) -> None:
        character = chr(code)
        kind = RUN  # also for removed ones: "a\u200bb" is one word
        self._chinese[code] = is_chinese(character)
        if not is_removed(character):
            if self._chinese[code] or is_punctuation(character):
                ids = self.tokenizer.tokenize(character).ids
                if len(ids) == 1:
                    kind = SINGLE
                    self._single_ids[code] = ids[0]
            elif character.isspace():
                kind = SPACE
            elif _depends_on_neighbours(character):
                kind = LINE
        self._kinds[code] = kind


class _RunTokens(dict):
    """Numbers distinct runs and keeps their tokens in three flat pools."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        self.ids, self.offsets, self.pieces = array("i"), array("i"), array("b")
        self.ends = array("q")  # where each run's tokens end in the pools

    def __missing__(self, run: str) -> int:
        tokens, ids, offsets = self.tokenizer.tokenize(run)
        self.ids.extend(ids)
        self.offsets.extend(start for start, _ in offsets)
        self.pieces.extend(token.startswith(PIECE_PREFIX) for token in tokens)
        self.ends.append(len(self.ids))
        number = len(self.ends) - 1
        if len(run) <= MAX_CHARACTERS_PER_WORD:  # not a whole line
            self[run] = number
        return number

    def gather(
        self, numbers: np.ndarray, run_starts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lays out the tokens of the runs, one run after the other.

        Args:
            numbers: int64 [R], the runs.
            run_starts: int32 [R], where they begin in the text.
        """
        ends = np.array(self.ends)
        first = np.concatenate([[0], ends])[numbers]
        counts = ends[numbers] - first
        # The n-th token of run r lies at first[r] + n in the pools.
        begins = np.cumsum(counts) - counts
        where = np.arange(counts.sum()) + np.repeat(first - begins, counts)
        starts = np.array(self.offsets)[where] + np.repeat(run_starts, counts)
        return (
            np.array(self.ids)[where],
            starts.astype(np.int32),
            np.array(self.pieces, bool)[where],
        )


def _depends_on_neighbours(character: str) -> bool:
    """Whether lower case or NFD of a text is not that of its characters.

    So it is for the Greek sigma, whose form differs at the end of a word,
    and for the few marks that NFD reorders and accent stripping keeps.
    """
    return character == "\u03a3" or any(
        unicodedata.combining(mark) and unicodedata.category(mark) != "Mn"
        for mark in unicodedata.normalize("NFD", character)
    )


def _widen_to_lines(kinds: np.ndarray, codes: np.ndarray) -> None:
    """Turns every line that holds a LINE character into one run."""
    breaks = np.flatnonzero(codes == 0x0A)
    lines = np.unique(np.searchsorted(breaks, np.flatnonzero(kinds == LINE)))
    borders = np.concatenate([[-1], breaks, [len(codes)]])
    for line in lines.tolist():
        kinds[borders[line] + 1 : borders[line + 1]] = RUN
