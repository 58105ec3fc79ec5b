"""New words for a vocabulary whose other ids stay: checked, placed, found.

    [unused1] [unused2] ... 灸 ... ##o          --assign tidb 😃 --grow
    tidb      😃        ... 灸 ... ##o ##😃     with two free slots

Only what the tokenizer can produce becomes a token. It puts every Chinese
character on its own, so a Chinese word cannot be one; --user_dictionary of
the builder is what keeps such words whole under the mask.
"""

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from albert_tf2.errors import UserError
from albert_tf2.text.tokenization import (
    PIECE_PREFIX,
    SPECIAL_TOKENS,
    Tokenizer,
    Vocabulary,
    is_chinese,
    is_punctuation,
    is_removed,
    split_words,
)
from albert_tf2.text.vocabulary_change import FREE_SLOT

# Problems and words that a message lists.
MOST_LISTED = 20
# Longer words of a corpus are addresses and keys.
LONGEST_WORD = 24


@dataclasses.dataclass(frozen=True)
class Growth:
    """What became of new words.

    Attributes:
        tokens: The vocabulary now.
        assigned: The words that are in slots.
        added: The words behind the last token.
        known: The words that were tokens already.
    """

    tokens: list[str]
    assigned: list[str]
    added: list[str]
    known: list[str]

    def told(self) -> list[str]:
        """Returns a clause for each thing that happened."""
        told = [f"{len(self.assigned):,} assigned{_listed(self.assigned)}"]
        if self.added:
            told.append(
                f"{len(self.added):,} behind the last token"
                f"{_listed(self.added)} (train with --init_checkpoint and "
                "--set grow_vocabulary=true)"
            )
        if self.known:
            told.append(
                f"{len(self.known):,} known already{_listed(self.known)}"
            )
        return told


def _listed(words: Sequence[str]) -> str:
    if not words:
        return ""
    rest = len(words) - MOST_LISTED
    more = f" and {rest:,} more" if rest > 0 else ""
    return f": {' '.join(words[:MOST_LISTED])}{more}"


def add_words(
    tokens: Sequence[str],
    new: Sequence[str],
    *,
    behind: Sequence[str] = (),
    grow: bool = False,
    do_lower_case: bool = True,
) -> Growth:
    """Adds new words; all other ids stay.

    A sign such as an emoji is written without spaces (hi😃😃), so it gets
    its `##` form too. Known tokens keep their ids.

    Args:
        tokens: The vocabulary.
        new: What goes into the first free [unusedN] slots, in this order.
        behind: What goes behind the last token.
        grow: Whether what finds no slot goes there, too.
        do_lower_case: As for `Tokenizer`.

    Raises:
        UserError: It names every token that could never be produced, and
            how many slots are missing.
    """
    refused, problems = _refused([*new, *behind], do_lower_case)
    new = [token for token in new if token not in refused]
    known = frozenset(tokens)
    for_slots = _wanted(new, known, do_lower_case)
    added = [
        word
        for word in _wanted(behind, known, do_lower_case)
        if word not in for_slots
    ]
    slots = [i for i, token in enumerate(tokens) if FREE_SLOT.fullmatch(token)]
    left = for_slots[len(slots) :]
    if left and not grow:
        problems.append(
            f"{len(for_slots)} tokens need a slot, but {len(slots)} [unusedN] "
            f"are free: pass --grow, or leave out{_listed(left)[1:]}"
        )
    if problems:
        raise UserError("; ".join(problems))
    grown = list(tokens)
    for slot, word in zip(slots, for_slots, strict=False):
        grown[slot] = word
    asked = dict.fromkeys([*new, *behind])
    return Growth(
        tokens=[*grown, *left, *added],
        assigned=for_slots[: len(slots)],
        added=[*left, *added],
        known=[token for token in asked if token in known],
    )


def _refused(
    new: Sequence[str], do_lower_case: bool
) -> tuple[Collection[str], list[str]]:
    """Returns the tokens that would never be produced, and what is told."""
    found = {
        token: problem
        for token in dict.fromkeys(new)
        if (problem := _problem(token, do_lower_case))
    }
    if not found:
        return found, []
    rest = len(found) - MOST_LISTED
    told = [
        f"{len(found)} of {len(new)} tokens would never be produced: "
        + "; ".join(list(found.values())[:MOST_LISTED])
        + (f"; and {rest:,} more" if rest > 0 else "")
    ]
    if any(any(map(is_chinese, token)) for token in found):
        told.append(
            "leave Chinese words out: their characters are the tokens, and "
            "--user_dictionary of the builder keeps them whole"
        )
    return found, told


def _wanted(
    new: Sequence[str], known: Collection[str], do_lower_case: bool
) -> list[str]:
    """Returns the tokens that some words need and that are not there yet."""
    wanted = dict.fromkeys(
        word for token in new for word in as_produced(token, do_lower_case)
    )
    wanted |= dict.fromkeys(
        PIECE_PREFIX + word for word in list(wanted) if _is_sign(word)
    )
    return [word for word in wanted if word not in known]


def as_produced(token: str, do_lower_case: bool) -> list[str]:
    """Returns what the tokenizer makes of a token, words or pieces."""
    prefix = PIECE_PREFIX * token.startswith(PIECE_PREFIX)
    word = token.removeprefix(PIECE_PREFIX)
    return [prefix + found for found, _ in split_words(word, do_lower_case)]


def _problem(token: str, do_lower_case: bool) -> str | None:
    """Says why a token would never be produced; None if it would be."""
    words = as_produced(token, do_lower_case)
    if len(words) != 1:
        # Only words are cut into pieces, and these are several.
        parts = f"is cut into {' '.join(words)}" if words else "is removed"
        return f"{token!r} {parts}"
    # What else differs is invisible, as in ❤️ (a heart and a sign of style).
    visible = "".join(c for c in token if not _is_invisible(c))
    if visible != words[0]:
        return f"{token!r} is spelled {words[0]!r}"
    word = words[0].removeprefix(PIECE_PREFIX)
    if word != words[0] and stands_alone(word):
        return f"{token!r} is never a piece: {word} stands alone"
    return None


def _is_invisible(character: str) -> bool:
    """Whether the tokenizer drops a sign that nobody sees."""
    return is_removed(character) or unicodedata.name(character, "").startswith(
        "VARIATION SELECTOR"
    )


def _is_sign(word: str) -> bool:
    """Whether a word is neither letters nor digits, yet part of runs."""
    alone = word.startswith(PIECE_PREFIX) or stands_alone(word)
    return not alone and not any(map(str.isalnum, word))


def stands_alone(word: str) -> bool:
    """Whether a word is one Chinese character or punctuation mark."""
    return len(word) == 1 and (is_chinese(word) or is_punctuation(word))


def worthwhile(
    words: Counter[str], tokens: Sequence[str], most: int, *, min_count: int
) -> list[str]:
    """Returns the words of a corpus that a vocabulary lacks most.

    A word is worth the tokens that it saves: its count times the pieces that
    it is cut into now, less one. An [UNK] says nothing at all of its word, so
    that counts as its characters, and one more. Numbers are left out.

    Args:
        words: Normalised words with their counts.
        tokens: The vocabulary.
        most: How many.
        min_count: Rarer words are left out.
    """
    known = dict.fromkeys(tokens)
    tokenizer = Tokenizer(
        Vocabulary([*dict.fromkeys([*SPECIAL_TOKENS, *known])])
    )
    worth = dict(_worth(words, tokenizer, min_count))
    ranked = sorted(worth, key=lambda word: (-worth[word], word))
    return ranked[:most]


def _worth(
    words: Counter[str], tokenizer: Tokenizer, min_count: int
) -> Iterator[tuple[str, int]]:
    unknown_id = tokenizer.vocabulary.unknown_id
    for word, count in words.items():
        number = all(c.isdecimal() or c in ".," for c in word)
        if count < min_count or number or len(word) > LONGEST_WORD:
            continue
        pieces = tokenizer.cut_word(word)
        saved = len(pieces) - 1
        if pieces[0][0] == unknown_id:
            saved = len(word) + 1
        if saved and as_produced(word, do_lower_case=False) == [word]:
            yield word, count * saved
