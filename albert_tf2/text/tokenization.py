"""Text to WordPiece tokens, exactly as the original BERT and ALBERT do it.

    >>> special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    >>> vocabulary = Vocabulary([*special, "使", "用", "al", "##bert"])
    >>> encoding = Tokenizer(vocabulary).tokenize("使用ALBERT")
    >>> encoding.tokens
    ['使', '用', 'al', '##bert']
    >>> encoding.ids
    [5, 6, 7, 8]
    >>> encoding.offsets
    [(0, 1), (1, 2), (2, 4), (4, 8)]

The steps are those of the originals: drop control characters, put every
Chinese character on its own, split at white space, lower-case, strip accents
(NFD without its non-spacing marks), split off punctuation, then cut each word
greedily into the longest known pieces. Offsets count characters of the text
as it was given, through all of that.
"""

import dataclasses
import functools
import hashlib
import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from albert_tf2 import paths
from albert_tf2.errors import UserError, shown
from albert_tf2.text import normalization
from albert_tf2.text.text_settings import (
    CLS,
    MASK,
    PADDING,
    SEP,
    SETTINGS_FILE,
    SPECIAL_TOKENS,
    UNKNOWN,
    TextSettings,
)

VOCAB_FILE = "vocab.txt"
PIECE_PREFIX = "##"
# A longer word (without a space) becomes one [UNK], as in the originals.
MAX_CHARACTERS_PER_WORD = 200
# A hundred times the Chinese vocabulary; anything larger is another file.
MOST_VOCABULARY_BYTES = 16 << 20

# The blocks of the originals. Kana and Hangul are not among them: those
# scripts are written in words.
CHINESE_BLOCKS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class Encoding(NamedTuple):
    """The tokens of one text; the three lists have one length.

    `offsets` are half-open (start, end) in characters of the original text.
    """

    tokens: list[str]
    ids: list[int]
    offsets: list[tuple[int, int]]


class Vocabulary:
    """The tokens of a model, in the order of their ids.

    Attributes:
        tokens: All tokens; the position is the id.
        ids: The id of each token.
        source: How error messages call this vocabulary.

    Example:
        >>> special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        >>> vocabulary = Vocabulary([*special, "糖"])
        >>> vocabulary.ids["糖"], vocabulary.mask_id, len(vocabulary)
        (5, 4, 6)
    """

    def __init__(self, tokens: Sequence[str], *, source: str = "vocabulary"):
        """Checks and keeps a list of tokens.

        Args:
            tokens: All tokens; the position is the id.
            source: How error messages call this vocabulary.

        Raises:
            UserError: If a token is empty or occurs twice, or if one of
                `SPECIAL_TOKENS` is missing.
        """
        self.source = source
        self.tokens = tuple(tokens)
        self.ids: dict[str, int] = {}
        for token_id, token in enumerate(self.tokens):
            if not token:
                remedy = "remove it"
                if any(self.tokens[token_id:]):
                    remedy = (
                        "write a token there that no text holds, such as "
                        "[empty], so that the ids of the others stay"
                    )
                raise UserError(
                    f"{source}, line {token_id + 1}: the line is empty; "
                    f"{remedy}{self._more(token_id)}"
                )
            if token in self.ids:
                raise UserError(
                    f"{source}, line {token_id + 1}: token {shown(token)} is "
                    f"already on line {self.ids[token] + 1}; rename this one "
                    f"to what no text holds, such as [again{token_id}], so "
                    f"that the ids of the others stay{self._more(token_id)}"
                )
            self.ids[token] = token_id
        missing = [t for t in SPECIAL_TOKENS if t not in self.ids]
        if missing:
            raise UserError(
                f"{source}: the special tokens {' '.join(missing)} are "
                "missing; is this a WordPiece vocabulary?"
            )
        self.padding_id = self.ids[PADDING]
        self.unknown_id = self.ids[UNKNOWN]
        self.cls_id = self.ids[CLS]
        self.sep_id = self.ids[SEP]
        self.mask_id = self.ids[MASK]

    def _more(self, token_id: int) -> str:
        """Says how many lines behind a bad one are empty or known, too."""
        known = {*self.tokens[: token_id + 1], ""}
        bad = []
        for number, token in enumerate(
            self.tokens[token_id + 1 :], token_id + 2
        ):
            if token in known:
                bad.append(f"{number:,}")
            known.add(token)
        if not bad:
            return ""
        rest = f" and {len(bad) - 5:,} more" if len(bad) > 5 else ""
        return f" (likewise line {', '.join(bad[:5])}{rest})"

    @classmethod
    def load(
        cls, vocab_file: str | os.PathLike, *, size: int | None = None
    ) -> "Vocabulary":
        """Reads `vocab.txt`: UTF-8, one token per line.

        Args:
            vocab_file: The file, local or remote.
            size: The `vocab_size` of the model, if one must be met.

        Raises:
            UserError: If the file is missing or no such vocabulary, or of
                another size.
        """
        source = os.fspath(vocab_file)
        text = paths.read_text(vocab_file, MOST_VOCABULARY_BYTES)
        # Only "\n" ends a line: token 343 of the Chinese vocabulary is the
        # line separator U+2028, where `splitlines` would cut too.
        lines = text.removeprefix("\ufeff").split("\n")
        if lines[-1] == "":
            lines.pop()
        vocabulary = cls(
            [line.removesuffix("\r") for line in lines], source=source
        )
        if size is not None:
            vocabulary.check_size(size)
        return vocabulary

    def check_size(self, size: int) -> None:
        """Raises a `UserError` unless a model's `vocab_size` is met.

        Args:
            size: The model's `vocab_size`.
        """
        if len(self) != size:
            raise UserError(
                f"{self.source} has {len(self)} tokens, but the model's "
                f"`vocab_size` is {size}: use the vocabulary that came with "
                "the model"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def to_bytes(self) -> bytes:
        """Returns `vocab.txt`: UTF-8, one token per line."""
        return "".join(f"{token}\n" for token in self.tokens).encode()

    @functools.cached_property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of `to_bytes`.

        Of the tokens, so a byte order mark or Windows line ends in the file
        do not make it another vocabulary.
        """
        return hashlib.sha256(self.to_bytes()).hexdigest()


class Tokenizer:
    """The originals' tokenizer over one vocabulary, with offsets.

    Plain Python, and the reference that the preprocessor's graph is compared
    with.

    Attributes:
        vocabulary: The tokens and their ids.
        settings: Whether letters are lowered and signs folded.
    """

    def __init__(
        self,
        vocabulary: paths.PathLike | Vocabulary,
        settings: TextSettings | None = None,
    ):
        """Joins a vocabulary and its settings.

        Args:
            vocabulary: A loaded one; `vocab.txt`; or a folder that has it.
            settings: None takes what lies beside the file, else the
                originals' defaults.

        Raises:
            UserError: If there is no vocabulary, or if the settings are
                those of another one.
        """
        if not isinstance(vocabulary, Vocabulary):
            path = vocabulary
            if paths.is_dir(path):
                path = paths.join(path, VOCAB_FILE)
            vocabulary = Vocabulary.load(path)
            settings = settings or TextSettings.beside(path)
        settings = settings or TextSettings()  # nobody wrote any down
        if settings.vocab_sha256 not in (None, vocabulary.sha256):
            raise UserError(
                f"{vocabulary.source} is not the vocabulary that the model's "
                f"{SETTINGS_FILE} was written for (SHA-256 "
                f"{vocabulary.sha256[:12]}..., not "
                f"{settings.vocab_sha256[:12]}...): put the model's own back"
            )
        self.vocabulary = vocabulary
        self.settings = dataclasses.replace(
            settings, vocab_sha256=vocabulary.sha256
        )
        # How many characters pieces have that begin alike, the most first:
        # by `x` and `##x` for one character, by `xy` and `##xy` for more.
        lengths: dict[str, set[int]] = {}
        for token in vocabulary.tokens:
            prefix = PIECE_PREFIX * token.startswith(PIECE_PREFIX)
            text = token.removeprefix(PIECE_PREFIX)
            lengths.setdefault(prefix + text[:2], set()).add(len(text))
        self._lengths = {
            begin: sorted(found, reverse=True)
            for begin, found in lengths.items()
        }

    def save(self, folder: paths.PathLike) -> None:
        """Writes `vocab.txt` and `text_settings.json` into a folder.

        Args:
            folder: Local or remote; it is created.
        """
        path = paths.join(folder, VOCAB_FILE)
        with paths.atomic_file(path, "wb") as stream:
            stream.write(self.vocabulary.to_bytes())
        self.settings.save(folder)

    def tokenize(self, text: str) -> Encoding:
        """Cuts `text` into tokens, without [CLS] and [SEP].

        Args:
            text: Any string. A `[MASK]` in it is text like any other.

        Returns:
            Tokens, ids, and offsets in characters of `text`.
        """
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        lowers = self.settings.do_lower_case
        if self.settings.normalize:  # one character may become several
            sources = [
                i
                for i, c in enumerate(text)
                for _ in normalization.normalize(c)
            ]
            text = normalization.normalize(text)
        for characters, origins in split_words(text, lowers):
            if self.settings.normalize:
                origins = [sources[origin] for origin in origins]
            for token_id, start, end in self.cut_word(characters):
                ids.append(token_id)
                offsets.append((origins[start], origins[end - 1] + 1))
        return Encoding(self.ids_to_tokens(ids), ids, offsets)

    def cut_word(self, word: str) -> list[tuple[int, int, int]]:
        """Cuts one word greedily into the longest known pieces.

        Args:
            word: Lowered already, if the model's letters are.

        Returns:
            (id, start, end) per piece, or a single [UNK] over the whole
            word if any part of it is unknown or it is too long.
        """
        ids, length = self.vocabulary.ids, len(word)
        unknown = [(self.vocabulary.unknown_id, 0, length)]
        if length > MAX_CHARACTERS_PER_WORD:
            return unknown
        pieces = []
        start = 0
        while start < length:
            prefix = PIECE_PREFIX if start else ""
            begin = prefix + word[start : start + 2]
            for size in (*self._lengths.get(begin, ()), 1):
                token_id = ids.get(prefix + word[start : start + size])
                if token_id is not None and start + size <= length:
                    pieces.append((token_id, start, start + size))
                    start += size
                    break
            else:
                return unknown
        return pieces

    def ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Returns the token of each id.

        Args:
            ids: Ids of this vocabulary, from 0.
        """
        tokens = self.vocabulary.tokens
        return [tokens[token_id] for token_id in ids]


def split_words(
    text: str, do_lower_case: bool = True
) -> Iterator[tuple[str, list[int]]]:
    """Yields normalised words, the input of WordPiece.

    A word is a Chinese character, a punctuation mark, or a longest run of
    anything else between those and white space.

    Yields:
        The word, and for each of its characters the position in `text` of
        the character it came from.
    """
    if text.isascii() and text.isalnum():  # the same, but quicker
        yield text.lower() if do_lower_case else text, list(range(len(text)))
        return
    for run, origins in _split_at_spaces(text):
        if do_lower_case:
            run, origins = _lower_and_strip(run, origins)
        start = 0
        for i, character in enumerate(run):
            if is_punctuation(character):
                if start < i:
                    yield run[start:i], origins[start:i]
                yield character, origins[i : i + 1]
                start = i + 1
        if start < len(run):
            yield run[start:], origins[start:]


def _split_at_spaces(text: str) -> Iterator[tuple[str, list[int]]]:
    """Yields runs without white space; a Chinese character is a run."""
    run: list[str] = []
    origins: list[int] = []
    for i, character in enumerate(text):
        if is_removed(character):
            continue
        chinese = is_chinese(character)
        # `isspace` and not only category Zs: the originals end with
        # `str.split`, which also cuts at U+2028 and U+2029.
        if (chinese or character.isspace()) and run:
            yield "".join(run), origins
            run, origins = [], []
        if chinese:
            yield character, [i]
        elif not character.isspace():
            run.append(character)
            origins.append(i)
    if run:
        yield "".join(run), origins


def _lower_and_strip(run: str, origins: list[int]) -> tuple[str, list[int]]:
    """Lower-cases and removes accents; one character may become several."""
    if run.isascii():
        return run.lower(), origins
    lowered = run.lower()  # of the whole run: a final sigma has its own form
    letters = [(c, o) for c, o in zip(run, origins, strict=True)]
    sources = [
        origin
        for character, origin in letters
        for lower in character.lower()
        for mark in unicodedata.normalize("NFD", lower)
        if unicodedata.category(mark) != "Mn"
    ]
    stripped = "".join(
        mark
        for mark in unicodedata.normalize("NFD", lowered)
        if unicodedata.category(mark) != "Mn"
    )
    assert len(stripped) == len(sources), (run, stripped)
    return stripped, sources


def is_removed(character: str) -> bool:
    """Control and format characters, NUL and U+FFFD leave no trace."""
    if character in "\t\n\r":  # control characters that count as spaces
        return False
    return character == "\ufffd" or unicodedata.category(character) in (
        "Cc",
        "Cf",
    )


def is_chinese(character: str) -> bool:
    """Whether the character stands alone (see `CHINESE_BLOCKS`)."""
    code = ord(character)
    if code < 0x3400:
        return False
    return any(first <= code <= last for first, last in CHINESE_BLOCKS)


def is_punctuation(character: str) -> bool:
    """Unicode punctuation, and every ASCII sign such as `$` or `^`."""
    if character.isascii():
        return character.isprintable() and not (
            character.isalnum() or character == " "
        )
    return unicodedata.category(character).startswith("P")
