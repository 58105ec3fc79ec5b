"""Words: spans beside untouched tokens, for whole-word masking.

    text:    使用ALBERT模型
    tokens:  使 用 al ##bert 模 型
    words:   [0,2)  [2,4)    [4,6)     starts: 1 0 1 0 1 0

A segmenter cuts the text itself, not the joined tokens (albert_zh feeds it
literal `##` and `[UNK]`), and words may have any length. It decides between
two Chinese characters; everywhere else a word is what WordPiece made of it:
a piece `##x` continues a word and any other token begins one. A term of a
user dictionary is one word whatever it holds (卡拉OK, 50℃水浴, Windows 10).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from albert_tf2.errors import UserError, check_choice
from albert_tf2.text.bulk_tokenization import BulkTokenizer, BulkTokens
from albert_tf2.text.normalization import normalize
from albert_tf2.text.tokenization import is_chinese

from .terms import Match, Term, TermFinder, is_joined

SEGMENTERS = ("rjieba", "jieba", "none")

# A segmenter cuts a text into words that together spell the text.
Cut = Callable[[str], list[str]]

# A segmenter gets so many characters at a time. The words of a megabyte are
# strings for 40 MB, which the system has to find and to clear each time.
STRETCH = 1 << 14


class Segmenter:
    """Says where words begin in a text.

    Attributes:
        name: "rjieba" (jieba's algorithm and dictionary in Rust, some
            fifteen times as fast), "jieba" (the reference), or "none" (words
            are what WordPiece makes: for English and the like).
    """

    def __init__(
        self, name: str, terms: Sequence[Term] = (), *, fold: bool = False
    ):
        """Loads the segmenter.

        Args:
            name: One of `SEGMENTERS`.
            terms: Words it must know besides (`terms.read_terms`).
            fold: Whether signs are folded in the texts (`normalize`), so that
                they must be in the terms.
        """
        check_choice("segmenter", name, SEGMENTERS)
        if name == "none" and terms:
            raise UserError("--user_dictionary needs a segmenter, not 'none'")
        self.name = name
        self.fold = fold
        if fold:
            terms = [(normalize(term), freq) for term, freq in terms]
        # Between Chinese characters the segmenter's word is all there is to
        # know; of other terms it knows some and never sees the rest.
        mixed = [t for t, _ in terms if len(t) > 1 and not _is_all_chinese(t)]
        self._finder = TermFinder(mixed) if mixed else None
        self._joined = frozenset(filter(is_joined, mixed))
        known = [term for term in terms if is_joined(term[0])]
        self._cut = _CUTS[name](known) if name != "none" else None

    def word_starts(self, text: str, tokens: BulkTokens) -> np.ndarray:
        """Returns bool [N]: whether a word begins at each token of `text`."""
        starts = ~tokens.pieces
        if self._cut is None or not len(starts):
            return starts
        lengths = [
            np.fromiter(map(len, words), np.int32, len(words))
            for words in map(self._cut, _stretches(text))
        ]
        ends = np.cumsum(np.concatenate(lengths))
        assert ends[-1] == len(text), "the segmenter lost characters"
        borders = np.zeros(len(text) + 1, bool)
        borders[ends] = True
        between_chinese = tokens.chinese[1:] & tokens.chinese[:-1]
        starts[1:] &= ~(between_chinese & ~borders[tokens.starts[1:]])
        if self._finder is not None:
            borders[0] = True
            found = self._finder.find(text)
            # One search for all: it turns both sides into one type first.
            bounds = np.array([match[:2] for match in found], np.int32)
            places = np.searchsorted(tokens.starts, bounds.reshape(-1, 2))
            done = 0
            for match, (first, last) in zip(found, places, strict=True):
                if match.start >= done and self._join(
                    match, first, last, borders, tokens, starts
                ):
                    done = match.end
        return starts

    def _join(
        self,
        match: Match,
        first: int,
        last: int,
        borders: np.ndarray,
        tokens: BulkTokens,
        starts: np.ndarray,
    ) -> bool:
        """Makes a term one word, unless it is only a part of words.

        Args:
            match: Where the term stands.
            first, last: Its tokens are `first` to `last - 1`.
            borders: bool [characters + 1], where the segmenter's words begin.
            tokens: Those of the text.
            starts: bool [N], where words begin; changed in place.

        Returns:
            Whether it is one word now.
        """
        start, end, term = match
        if first == last or tokens.pieces[first]:
            return False
        if last < len(starts) and tokens.pieces[last]:
            return False  # it ends within a word such as 100
        if tokens.starts[first] != start:
            return False
        if term in self._joined:
            inside = borders[start + 1 : end].any()
            if inside or not (borders[start] and borders[end]):
                return False  # the segmenter preferred other words
        else:
            starts[first] = True
            starts[last : last + 1] = True
        starts[first + 1 : last] = False
        return True


def _stretches(text: str) -> Iterator[str]:
    """Cuts a text behind line feeds, which are never inside a word."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + STRETCH) + 1 or len(text)
        yield text[start:end]
        start = end


def _is_all_chinese(term: str) -> bool:
    return is_joined(term) and all(map(is_chinese, term))


def _is_latin(term: str) -> bool:
    return term.isascii() and term.isalnum()


def default_segmenter() -> str:
    """The fast segmenter where it is installed, else the reference."""
    try:
        import rjieba  # noqa: F401
    except ImportError:
        return "jieba"
    return "rjieba"


def without_effect(
    segmenter: Segmenter,
    tokenizer: BulkTokenizer,
    terms: Sequence[Term],
    *,
    max_tokens: int,
) -> dict[str, str]:
    """Finds the terms that no text can hold as one word.

    Args:
        segmenter: It knows the terms.
        tokenizer: Cuts them into tokens.
        terms: Those of the user dictionaries.
        max_tokens: The most tokens of a pair of segments.

    Returns:
        For each of them the reason.
    """
    names = [normalize(t) if segmenter.fold else t for t, _ in terms]
    text = "\n".join(names)
    tokens = tokenizer.tokenize(text)
    starts = segmenter.word_starts(text, tokens)
    ends = np.searchsorted(
        tokens.starts, np.cumsum([len(name) + 1 for name in names])
    )
    found = {}
    begin = 0
    for (term, frequency), end in zip(terms, ends.tolist(), strict=True):
        words = int(starts[begin:end].sum())
        if "\t" in term:
            found[term] = "it holds a tab: blanks divide the columns"
        elif end == begin:
            found[term] = "it has no token"
        elif end - begin > max_tokens:
            found[term] = f"it has {end - begin} tokens, more than a pair"
        elif words > 1 and frequency is not None:
            found[term] = f"its frequency {frequency} is too low"
        elif words > 1:
            found[term] = "it stays several words"
        elif frequency is not None and (len(term) == 1 or _is_latin(term)):
            found[term] = (
                f"it is one word anyway; if the {frequency} is part of it, "
                f"write '{term} {frequency} 1'"
            )
        begin = end
    return found


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
