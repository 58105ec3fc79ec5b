"""The originals' text normalization as one table that tf.text can run.

tf.text's `FastBertNormalizer` rewrites text character by character from a
table, fast, with offsets, in TensorFlow and in TFLite. Its own table is not
the originals': it case-folds by NFKC, which turns `，` into `,` and so changes
the ids of a third of all Chinese sentences. Here the table is made from
`albert_tf2.text.tokenization`, so both tokenizers agree by construction:

    original step            in the table
    drop control characters  U+200D -> nothing
    white space              U+2028 -> " "
    lower case, strip marks  `É` -> "e", `한` -> its three jamo
    split off punctuation    only what tf.text would not split: `‱` -> " ‱ "

Only the final sigma depends on its neighbours; `preprocessor` mends it.
"""

import functools
import sys
import unicodedata

import flatbuffers
import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from albert_tf2.text import normalization, tokenization

# The format of tf.text's fast_bert_normalizer_model.fbs and of its trie
# (darts-clone): bits of an entry's value ...
_IS_CHANGED = 1 << 30
_LENGTH_BITS = 6
# ... and of a unit of the trie: label 0-7, has a value 8, offset 10-30.
_HAS_VALUE = 1 << 8
_IS_VALUE = 1 << 31
_OFFSET_SHIFT = 10
_BLOCK = 256

# Unicode's categories of code points without a meaning: none yet, private use.
_UNASSIGNED = ("Cn", "Co")

# Stands for a character that tf.text would split but the originals keep in
# its word. No vocabulary has it, so the word becomes [UNK], as theirs does.
_UNKNOWN_CHARACTER = "\U0010fffd"


def normalize_character(
    character: str, do_lower_case: bool, normalize: bool, splits_alone: bool
) -> str:
    """Returns what the originals make of one character.

    Args:
        character: One code point.
        do_lower_case: Lower-case and strip accents.
        normalize: Fold typographic signs first (`text.normalization`).
        splits_alone: Whether tf.text makes the character a word of its own
            or a white space without our help.
    """
    if tokenization.is_removed(character):
        return ""
    if character.isspace():
        return " "
    letters = character
    if normalize:
        letters = normalization.normalize(character)
    if do_lower_case:
        letters = "".join(
            mark
            for mark in unicodedata.normalize("NFD", letters.lower())
            if unicodedata.category(mark) != "Mn"
        )
    if tokenization.is_chinese(character):
        return letters if splits_alone else f" {letters} "
    if letters == character and splits_alone:
        is_word = tokenization.is_punctuation(character)
        return character if is_word else _UNKNOWN_CHARACTER
    return "".join(
        f" {letter} " if tokenization.is_punctuation(letter) else letter
        for letter in letters
    )


@functools.cache
def _characters_that_split() -> set[str]:
    """Asks tf.text which characters it splits off, whatever its version."""
    characters = [
        chr(code)
        for code in range(1, sys.maxunicode + 1)
        if not 0xD800 <= code <= 0xDFFF and chr(code) != _UNKNOWN_CHARACTER
    ]
    edge = _UNKNOWN_CHARACTER
    tokenizer = tf_text.FastWordpieceTokenizer(
        [edge, f"##{edge}", "[UNK]"], token_out_type=tf.int32
    )
    split = tokenizer.tokenize([f"{edge}{char}{edge}" for char in characters])
    # An unsplit character makes the whole word unknown: one token.
    counts = split.row_lengths().numpy()
    return {characters[i] for i in np.flatnonzero(counts > 1)}


@functools.lru_cache(maxsize=4)
def character_table(do_lower_case: bool, normalize: bool) -> dict[str, str]:
    """Returns every character that changes, with what it becomes."""
    split = _characters_that_split()
    table = {}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if 0xD800 <= code <= 0xDFFF or character == _UNKNOWN_CHARACTER:
            continue
        # Three of four are nobody's: nothing changes them, so save the time.
        if (
            unicodedata.category(character) in _UNASSIGNED
            and character not in split
            and not tokenization.is_chinese(character)
        ):
            continue
        normalized = normalize_character(
            character, do_lower_case, normalize, character in split
        )
        if normalized != character:
            table[character] = normalized
    return table


def build_trie(values: dict[bytes, int]) -> np.ndarray:
    """Builds a darts-clone double array.

    The child of unit `i` under byte `c` is unit `i ^ offset(i) ^ c` if its
    label is `c`; the value of a key is the child under 0. No two units share
    a base (`i ^ offset(i)`), so a label can only belong to its own parent.

    Args:
        values: Value per key; no key is empty or holds a zero byte.

    Returns:
        uint32 array, a multiple of 256 long: any byte stays within it.
    """
    children: dict[bytes, set[int]] = {b"": set()}
    for key in values:
        for end in range(len(key)):
            children.setdefault(key[:end], set()).add(key[end])
        children.setdefault(key, set()).add(0)

    size = (2 * len(values) + 64 * len(children)) // _BLOCK * _BLOCK + _BLOCK
    units = np.zeros(size, np.uint32)
    taken = bytearray(size)
    taken[0] = 1
    used_bases: set[int] = {0}
    positions = {b"": 0}
    # What did not fit a family once never will: the next one of its kind
    # searches on from there.
    searched: dict[tuple[int, ...], int] = {}
    # Largest families first within a depth, so single slots fill the gaps.
    for prefix in sorted(children, key=lambda k: (len(k), -len(children[k]))):
        labels = tuple(sorted(children[prefix]))
        slot = _find_slot(labels, taken, used_bases, searched.get(labels, 1))
        searched[labels] = slot
        base = slot ^ labels[0]
        used_bases.add(base)
        position = positions[prefix]
        offset = position ^ base
        assert offset < 1 << 21, offset
        units[position] |= np.uint32(offset << _OFFSET_SHIFT)
        for label in labels:
            child = base ^ label
            taken[child] = 1
            if label:
                units[child] = label
                positions[prefix + bytes([label])] = child
            else:
                units[position] |= np.uint32(_HAS_VALUE)
                units[child] = values[prefix] | _IS_VALUE
    length = max(used_bases) // _BLOCK * _BLOCK + _BLOCK
    return units[:length]


def _find_slot(
    labels: tuple[int, ...],
    taken: bytearray,
    used_bases: set[int],
    start: int,
) -> int:
    """Returns the first place of the first child where all children fit."""
    for slot in range(start, len(taken)):
        base = slot ^ labels[0]
        if base not in used_bases and not any(
            taken[base ^ label] for label in labels
        ):
            return slot
    raise AssertionError("the trie outgrew its array")


@functools.lru_cache(maxsize=4)
def build_model(do_lower_case: bool = True, normalize: bool = False) -> bytes:
    """Returns the table as a model buffer for `FastBertNormalizer`."""
    pool = bytearray()
    places: dict[bytes, int] = {}
    values: dict[bytes, int] = {}
    for character, normalized in character_table(
        do_lower_case, normalize
    ).items():
        encoded = normalized.encode("utf-8")
        assert len(encoded) < 1 << _LENGTH_BITS, character
        if encoded not in places:
            places[encoded] = len(pool)
            pool += encoded
        values[character.encode("utf-8")] = (
            _IS_CHANGED | places[encoded] << _LENGTH_BITS | len(encoded)
        )
    value_of_nul = values.pop(b"\0")
    trie = build_trie(values)

    builder = flatbuffers.Builder(len(pool) + 4 * len(trie) + 256)
    pool_at = builder.CreateByteVector(bytes(pool))
    trie_at = builder.CreateNumpyVector(trie)
    builder.StartObject(4)  # the fields in the order of the schema
    builder.PrependBoolSlot(0, do_lower_case, False)
    builder.PrependUOffsetTRelativeSlot(1, trie_at, 0)
    builder.PrependInt32Slot(2, value_of_nul, 0)
    builder.PrependUOffsetTRelativeSlot(3, pool_at, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


@functools.lru_cache(maxsize=1)
def final_sigma_pattern() -> str:
    """Returns an RE2 pattern for a capital sigma that ends its word.

    Python lower-cases it to `ς` if a letter with case precedes and none
    follows, marks between them ignored. The groups are what stands before
    and after the sigma. Which characters count is asked of Python itself.
    """
    cased, ignored = [], []
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code <= 0xDFFF:
            continue
        character = chr(code)
        if f"{character}Σ".lower().endswith("ς"):
            cased.append(code)
        elif f"AΣ{character}A".lower()[1] == "σ" or (
            tokenization.is_removed(character)
        ):
            ignored.append(code)
    letter, between = _character_class(cased), _character_class(ignored)
    return f"([{letter}][{between}]*)Σ([{between}]*(?:[^{letter}{between}]|$))"


def _character_class(codes: list[int]) -> str:
    """Writes sorted code points as the inside of an RE2 character class."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in ranges)
