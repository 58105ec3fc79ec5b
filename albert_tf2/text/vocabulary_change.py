"""What becomes of a vocabulary's ids in another one, token by token.

A model's tables are rows by id, so another vocabulary of the same size is
another language to it. Two differences are meant: a new word in a slot that
was kept free for one, and new tokens behind the last.

    id    before       now
    21    [unused21]   糖尿病      a new word
    4133  灸           灸
    9000               covid       added
"""

import re
from typing import NamedTuple

from albert_tf2.errors import UserError, shown
from albert_tf2.text.tokenization import (
    PIECE_PREFIX,
    Tokenizer,
    Vocabulary,
    split_words,
)

FREE_SLOT = re.compile(r"\[unused\d+\]")
WORDS_IN_MESSAGE = 8


class Change(NamedTuple):
    """How two vocabularies differ.

    Attributes:
        first_other: The first id that means something else now, or nothing;
            None if every old word is where it was.
        new_words: New words by their ids, in slots that were free.
        added: New words by their ids, behind the last one.
    """

    first_other: int | None
    new_words: dict[int, str]
    added: dict[int, str]

    @classmethod
    def between(cls, before: Vocabulary, now: Vocabulary) -> "Change":
        """Compares two vocabularies, id by id."""
        other, new_words = [], {}
        for token_id, old in enumerate(before.tokens):
            new = now.tokens[token_id] if token_id < len(now) else None
            is_free = bool(FREE_SLOT.fullmatch(old))
            if new == old or (is_free and new and FREE_SLOT.fullmatch(new)):
                continue
            if is_free and new is not None:
                new_words[token_id] = new
            else:
                other.append(token_id)
        count = len(before)
        return cls(
            first_other=other[0] if other else None,
            new_words=new_words,
            added=dict(enumerate(now.tokens[count:], count)),
        )


def first_difference(before: Vocabulary, now: Vocabulary) -> int | None:
    """Returns the first id that is not the same token; None without any."""
    change = Change.between(before, now)
    ids = [*change.new_words, *change.added]
    if change.first_other is not None:
        ids.append(change.first_other)
    return min(ids, default=None)


def sentence(
    token_id: int,
    before: Vocabulary,
    now: Vocabulary,
    *,
    where_before: str,
    where_now: str,
) -> str:
    """Returns "id 1234 is 'X' in the records and 'Y' in the checkpoint"."""
    tokens = [
        shown(vocabulary.tokens[token_id])
        if token_id < len(vocabulary)
        else "not there"
        for vocabulary in (now, before)
    ]
    return (
        f"id {token_id} is {tokens[0]} in {where_now} and {tokens[1]} in "
        f"{where_before}"
    )


def refuse_other(
    before: Vocabulary,
    now: Vocabulary,
    *,
    where_before: str,
    where_now: str,
) -> None:
    """Raises a `UserError` that names the first difference, if there is one."""
    token_id = first_difference(before, now)
    if token_id is not None:
        place = sentence(
            token_id,
            before,
            now,
            where_before=where_before,
            where_now=where_now,
        )
        raise UserError(
            f"{where_now} is not the vocabulary of {where_before}: {place}; "
            "leave it out, and the model's own is used"
        )


def listed(words: dict[int, str]) -> str:
    """Returns some words with their ids, and how many more there are."""
    shown = [f"{word} ({token_id})" for token_id, word in words.items()]
    rest = len(shown) - WORDS_IN_MESSAGE
    text = ", ".join(shown[:WORDS_IN_MESSAGE])
    return f"{text} and {rest} more" if rest > 0 else text


def pieces(
    words: dict[int, str], vocabulary: Vocabulary
) -> dict[int, list[int]]:
    """Returns the ids of the tokens that stood for new words until now.

    糖尿病 -> 糖 尿 病; covid -> co ##vid. Of a word that was [UNK] as a whole,
    those of its characters that are known; none, where none is.

    Args:
        words: Any keys, and words that are no tokens of the vocabulary.
        vocabulary: The one that they are new to.
    """
    tokenizer = Tokenizer(vocabulary)
    return {
        key: []
        if FREE_SLOT.fullmatch(word)  # kept free for a word to come
        else _pieces_of(word.removeprefix(PIECE_PREFIX), tokenizer)
        for key, word in words.items()
    }


def _pieces_of(text: str, tokenizer: Tokenizer) -> list[int]:
    vocabulary = tokenizer.vocabulary
    found = []
    for part, _ in split_words(text, do_lower_case=False):
        ids = [token_id for token_id, _, _ in tokenizer.cut_word(part)]
        if vocabulary.unknown_id in ids:
            known = [
                vocabulary.ids.get(c, vocabulary.ids.get(PIECE_PREFIX + c))
                for c in part
            ]
            ids = [token_id for token_id in known if token_id is not None]
        found += ids
    return found
