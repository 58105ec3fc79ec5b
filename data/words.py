"""Words: spans beside untouched tokens, for whole-word masking.

    text:    使用ALBERT模型
    tokens:  使 用 al ##bert 模 型
    words:   [0,2)  [2,4)    [4,6)     starts: 1 0 1 0 1 0

A segmenter cuts the text itself, not the joined tokens (albert_zh feeds it
literal `##` and `[UNK]`), and words may have any length. It decides between
two Chinese characters; everywhere else a word is what WordPiece made of it:
a piece `##x` continues a word and any other token begins one. A term of a
user dictionary is one word even where it mixes scripts (卡拉OK).
"""

from collections.abc import Callable, Sequence

import numpy as np

from albert_tf2 import paths
from albert_tf2.errors import UserError, check_choice
from albert_tf2.text.bulk_tokenization import BulkTokens
from albert_tf2.text.tokenization import is_chinese

SEGMENTERS = ("rjieba", "jieba", "none")

# A segmenter cuts a text into words that together spell the text.
Cut = Callable[[str], list[str]]
# A term of a user dictionary, with its frequency or None.
Term = tuple[str, int | None]


class Segmenter:
    """Says where words begin in a text.

    Attributes:
        name: "rjieba" (jieba's algorithm and dictionary in Rust, some
            fifteen times as fast), "jieba" (the reference), or "none" (words
            are what WordPiece makes: for English and the like).
    """

    def __init__(self, name: str, terms: Sequence[Term] = ()):
        """Loads the segmenter.

        Args:
            name: One of `SEGMENTERS`.
            terms: Words it must know besides (`read_terms`).
        """
        check_choice("segmenter", name, SEGMENTERS)
        if name == "none" and terms:
            raise UserError("--user_dictionary needs a segmenter, not 'none'")
        self.name = name
        self._mixed_terms = {
            term for term, _ in terms if not all(map(is_chinese, term))
        }
        self._cut = _CUTS[name](terms) if name != "none" else None

    def word_starts(self, text: str, tokens: BulkTokens) -> np.ndarray:
        """Returns bool [N]: whether a word begins at each token of `text`."""
        starts = ~tokens.pieces
        if self._cut is None or not len(starts):
            return starts
        words = self._cut(text)
        lengths = np.fromiter(map(len, words), np.int32, len(words))
        ends = np.cumsum(lengths)
        assert ends[-1] == len(text), "the segmenter lost characters"
        borders = np.zeros(len(text) + 1, bool)
        borders[ends] = True
        between_chinese = tokens.chinese[1:] & tokens.chinese[:-1]
        starts[1:] &= ~(between_chinese & ~borders[tokens.starts[1:]])
        for number, word in enumerate(words) if self._mixed_terms else ():
            if word in self._mixed_terms:
                inside = np.searchsorted(
                    tokens.starts, [ends[number] - len(word) + 1, ends[number]]
                )
                starts[slice(*inside)] = False
        return starts


def default_segmenter() -> str:
    """The fast segmenter where it is installed, else the reference."""
    try:
        import rjieba  # noqa: F401
    except ImportError:
        return "jieba"
    return "rjieba"


def read_terms(path: str) -> list[Term]:
    """Reads a user dictionary in jieba's form.

    A line is a term, then if wanted its frequency and its part of speech.
    """
    terms = []
    lines = paths.read_text(path).removeprefix("\ufeff").split("\n")
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        frequency = None
        if len(fields) > 1 and fields[1].isdecimal():
            frequency = int(fields[1])
        elif len(fields) > 2:
            raise UserError(
                f"{path}, line {number}: {line.strip()!r} is not "
                "`term [frequency [part of speech]]`"
            )
        terms.append((fields[0], frequency))
    return terms


def _jieba(terms: Sequence[Term]) -> Cut:
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    # Its own dictionary, so that terms do not leak into other users of jieba
    # in this process.
    tokenizer = jieba.Tokenizer()
    tokenizer.initialize()
    for term, frequency in terms:
        tokenizer.add_word(term, frequency)
    return tokenizer.lcut


def _rjieba(terms: Sequence[Term]) -> Cut:
    try:
        import rjieba
    except ImportError:
        raise UserError(
            "--segmenter rjieba needs the package rjieba: pip install "
            "rjieba, or choose --segmenter jieba"
        ) from None
    if not terms:
        return rjieba.cut
    segmenter = rjieba.Jieba()
    for term, frequency in terms:
        segmenter.add_word(term, frequency, None)
    return segmenter.cut


_CUTS = {"jieba": _jieba, "rjieba": _rjieba}
