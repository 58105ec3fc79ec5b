"""Exact and near duplicates among documents, for corpora of any size.

A document is described by the 5-grams of its tokens (words and numbers; signs
do not count). Of two documents that share a part J of their 5-grams, MinHash
(Broder 1997) makes each of 128 numbers equal with probability J. 16 bands of
8 numbers are compared as a whole, so a pair is found with probability
1 - (1 - J^8)^16: 0.95 at J = 0.8, 0.06 at J = 0.5. One hash per 5-gram gives
all 128 numbers (one permutation hashing with densification, 1406.4784), which
makes this 20 times as fast as datasketch.

Every band is a key. Keys are dealt out by their value, sorted, and all but
the first document of each key are duplicates: what is dropped depends on the
order of the corpus alone, not on how the work was shared.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from albert_tf2 import paths
from albert_tf2.text.bulk_tokenization import BulkTokenizer, BulkTokens
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import PIECE_PREFIX, Tokenizer, Vocabulary

from . import parts, reading, segments, shards, units
from .build_config import BuildConfig
from .documents import Documents, documents_of_tokens

KINDS = ("exact", "near")
SHINGLE = 5
BANDS, ROWS = 16, 8
BINS = BANDS * ROWS
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
# Neighbours that borrow from one bin must not make up one band.
_DRAWN = [segments.rng_of("bin", number).random() for number in range(BINS)]
_ORDER = np.argsort(_DRAWN)
_LOOKS_LEFT = np.array([round(1e6 * drawn) % 2 == 1 for drawn in _DRAWN])
# A document's number: file, unit and place in it.
_PLACE_BITS, _UNIT_BITS = 22, 20


class Keys(NamedTuple):
    """The keys of D documents: uint64 [D], and uint64 [D, BANDS].

    Attributes:
        exact: Of the whole text.
        near: Of the bands.
        least: uint64 [D], by which to draw a share of the documents: the same
            for documents that share a part J of their 5-grams with
            probability J.
    """

    exact: np.ndarray
    near: np.ndarray
    least: np.ndarray


def document_id(file_number: int, unit_index: int, place: int) -> int:
    """Returns a number that orders documents as the corpus does."""
    return ((file_number << _UNIT_BITS) + unit_index << _PLACE_BITS) + place


@dataclasses.dataclass(frozen=True)
class KeyPlan(shards.Plan):
    """Finds the duplicates of a build, with the means of a build."""

    stage: ClassVar[str] = "keys"

    @property
    def parts_folder(self) -> str:
        return paths.join(super().parts_folder, "keys")

    def part_builder(self) -> "KeyBuilder":
        """Loads what a worker needs."""
        return KeyBuilder(self.config, self.vocabulary)

    def wanted(self) -> list[tuple[str, int]]:
        """Returns the partitions of the keys."""
        near = self.config.drop_duplicates == "near"
        return [
            (kind, partition)
            for kind in (KINDS if near else KINDS[:1])
            for partition in range(self.config.num_shards)
        ]

    def finish(
        self, key: tuple[str, int], blocks: Iterable[bytes]
    ) -> tuple[str, np.ndarray]:
        """Returns the kind of the keys, and the documents that repeat one."""
        return key[0], repeated(blocks)


def without_duplicates(plan: shards.Plan, pool: Any) -> shards.Plan:
    """Returns a plan that knows which documents to leave out.

    Args:
        plan: Of a build; its settings say whether duplicates are wanted.
        pool: Runs the work (`build_pretraining_data.build`).
    """
    if plan.config.drop_duplicates == "none":
        return plan
    fields = {
        field.name: getattr(plan, field.name)
        for field in dataclasses.fields(plan)
    }
    key_plan = KeyPlan(**fields | {"only": frozenset(), "dropped": None})
    paths.make_folder(key_plan.parts_folder)
    pool.make_parts(key_plan)
    return dataclasses.replace(
        plan, dropped=Dropped.of(pool.gather(key_plan, {}))
    )


class KeyBuilder:
    """Turns units into parts that hold the keys of their documents."""

    def __init__(self, config: BuildConfig, vocabulary: Vocabulary):
        """Loads what all units need.

        Args:
            config: Resolved settings; `drop_duplicates` says which keys.
            vocabulary: The tokens.
        """
        self.config = config
        self.tokenizer = BulkTokenizer(
            Tokenizer(
                vocabulary, TextSettings(do_lower_case=config.do_lower_case)
            )
        )
        self.is_word = words_of(vocabulary)

    def build(self, unit: units.Unit) -> parts.Part:
        """Reads a unit and finds the keys of its documents."""
        text, _ = reading.read(unit, self.config, Counter())
        tokens = self.tokenizer.tokenize(text)
        found = documents_of_tokens(text, tokens)
        keys = keys_of(text, tokens, found, self.is_word)
        groups = groups_of(
            keys,
            document_id(unit.file_number, unit.index, 0),
            self.config.num_shards,
            near=self.config.drop_duplicates == "near",
        )
        head = parts.Head({}, parts.Joint(False, False))
        return parts.Part(head, groups)


def words_of(vocabulary: Vocabulary) -> np.ndarray:
    """Returns bool [V]: whether a token is of a word or number."""
    return np.array(
        [
            any(map(str.isalnum, token.removeprefix(PIECE_PREFIX)))
            for token in vocabulary.tokens
        ]
    )


def keys_of(
    text: str,
    tokens: BulkTokens,
    found: Documents,
    is_word: np.ndarray,
) -> Keys:
    """Returns the keys of the documents of a unit."""
    count = len(found.sentence_ends)
    bounds = [int(ends[0]) for ends in found.sentence_ends]
    bounds.append(len(tokens.ids))
    begins = np.append(tokens.starts, len(text))[bounds]
    exact = np.array(
        [
            _digest(text[begin:end])
            for begin, end in zip(begins, begins[1:], strict=False)
        ],
        np.uint64,
    )
    kept = is_word[tokens.ids]
    document = np.repeat(np.arange(count), np.diff(bounds))[kept]
    numbers = _minima(tokens.ids[kept].astype(np.uint64), document, exact)
    bands = numbers[:, _ORDER].reshape(count, BANDS, ROWS)
    keys = np.zeros((count, BANDS), np.uint64)
    for row in range(ROWS):
        keys = _mixed(keys * _FACTOR + bands[:, :, row])
    near = _mixed(keys + np.arange(BANDS, dtype=np.uint64))
    return Keys(exact, near, _mixed(numbers.min(axis=1)))


def _digest(text: str) -> int:
    """Hashes a document, whatever white space it has."""
    content = "\n".join(text.split()).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Scrambles uint64 one to one (MurmurHash3's finalizer)."""
    numbers = numbers ^ (numbers >> np.uint64(33))
    numbers *= np.uint64(0xFF51AFD7ED558CCD)
    numbers ^= numbers >> np.uint64(33)
    numbers *= np.uint64(0xC4CEB9FE1A85EC53)
    return numbers ^ (numbers >> np.uint64(33))


def _minima(
    ids: np.ndarray, document: np.ndarray, exact: np.ndarray
) -> np.ndarray:
    """Returns BINS numbers for each document, uint64 [D, BINS].

    Args:
        ids: uint64 [N], the tokens of words.
        document: int [N], the document of each.
        exact: uint64 [D], stands for documents without a 5-gram.
    """
    count = len(exact)
    last = max(0, len(ids) - SHINGLE + 1)
    hashes = np.zeros(last, np.uint64)
    for place in range(SHINGLE):
        hashes = hashes * _FACTOR + ids[place : place + last] + np.uint64(1)
    inside = document[:last] == document[SHINGLE - 1 :][:last]
    hashes, owner = _mixed(hashes[inside]), document[:last][inside]
    without = np.setdiff1d(np.arange(count), owner)
    hashes = np.concatenate([hashes, _mixed(exact[without])])
    owner = np.concatenate([owner, without])
    bins = (hashes >> np.uint64(64 - 7)).astype(np.int64)
    minima = np.full(count * BINS, _EMPTY)
    np.minimum.at(minima, owner * BINS + bins, hashes << np.uint64(7))
    return _densified(minima.reshape(count, BINS))


def _densified(minima: np.ndarray) -> np.ndarray:
    """Lets each empty bin take the number of the nearest that is not empty.

    Bins look to the left or to the right, always the same way (1406.4784).
    """
    rows = np.flatnonzero((minima == _EMPTY).any(1))
    some = minima[rows]
    places = np.where(some == _EMPTY, -1, np.arange(BINS))
    left = np.maximum.accumulate(places, axis=1)
    left = np.where(left < 0, left[:, -1:], left)  # around the end
    places = np.where(places < 0, BINS, places)
    right = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
    right = np.where(right == BINS, right[:, :1], right)
    chosen = np.where(_LOOKS_LEFT, left, right)
    minima[rows] = np.take_along_axis(some, chosen, axis=1)
    return minima


def groups_of(
    keys: Keys, first_id: int, partitions: int, *, near: bool = True
) -> dict[tuple[str, int], list[bytes]]:
    """Deals keys out by their value, with the documents they are of."""
    ids = first_id + np.arange(len(keys.exact), dtype=np.uint64)
    groups: dict[tuple[str, int], list[bytes]] = {}
    for kind in KINDS if near else KINDS[:1]:
        values = np.atleast_2d(getattr(keys, kind).T)  # [1 or BANDS, D]
        pairs = np.empty((*values.shape, 2), "<u8")
        pairs[..., 0], pairs[..., 1] = values, ids
        pairs = pairs.reshape(-1, 2)
        goal = (pairs[:, 0] % np.uint64(partitions)).astype(np.int64)
        order = np.argsort(goal, kind="stable")
        ends = np.searchsorted(goal[order], np.arange(partitions + 1))
        for partition in np.unique(goal).tolist():
            some = order[ends[partition] : ends[partition + 1]]
            groups[kind, partition] = [pairs[some].tobytes()]
    return groups


def repeated(blocks: Iterable[bytes]) -> np.ndarray:
    """Returns the documents that share a key with an earlier one.

    Args:
        blocks: Pairs (key, document), of one partition.

    Returns:
        uint64, sorted, without repetition.
    """
    pairs = np.frombuffer(b"".join(blocks), "<u8").reshape(-1, 2)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    keys, documents = pairs[order].T
    # A document may have one key twice; the first holder is no duplicate.
    begins = np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]
    first = documents[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    return np.unique(documents[documents != first])


class Dropped:
    """The documents to leave out, for every unit."""

    def __init__(self, exact: np.ndarray, near: np.ndarray):
        """Takes the numbers of documents, sorted; `near` holds no exact."""
        self._numbers = {"exact": exact, "near": near}

    @classmethod
    def of(cls, found: Sequence[tuple[str, np.ndarray]]) -> "Dropped":
        """Puts together what was found in all partitions."""
        numbers = {
            kind: np.unique(
                np.concatenate(
                    [
                        np.empty(0, np.uint64),
                        *(some for k, some in found if k == kind),
                    ]
                )
            )
            for kind in KINDS
        }
        near = np.setdiff1d(
            numbers["near"], numbers["exact"], assume_unique=True
        )
        return cls(numbers["exact"], near)

    def counts(self) -> dict[str, int]:
        """Returns how many documents of each kind there are."""
        return {kind: len(some) for kind, some in self._numbers.items()}

    def in_unit(
        self, file_number: int, unit_index: int
    ) -> tuple[tuple[int, str], ...]:
        """Returns the places of duplicates in a unit, with their kinds."""
        first = document_id(file_number, unit_index, 0)
        limits = np.array([first, first + (1 << _PLACE_BITS)], np.uint64)
        found: list[tuple[int, str]] = []
        for kind, numbers in self._numbers.items():
            begin, end = np.searchsorted(numbers, limits)
            places = (numbers[begin:end] - np.uint64(first)).tolist()
            found += ((place, kind) for place in places)
        return tuple(found)
