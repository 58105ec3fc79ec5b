"""One unit of the corpus -> one part: records, sorted by their shard.

This is all that a worker does, here or on a cluster. A part depends on its
unit, the vocabulary and the `BuildConfig` alone. Only where a document is
longer than a unit does a part leave something open: whether its first rows
are held out is decided where the document begins (`census`).
"""

import collections
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from albert_tf2.text.bulk_tokenization import BulkTokenizer, BulkTokens
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

from . import reading, records, segments, units
from .build_config import BuildConfig
from .documents import Documents, documents_of_tokens
from .terms import Term
from .words import Segmenter

SUBSETS = ("train", "eval")
# The rows of a document that an earlier unit began: its subset is not known
# before the parts are put together.
CONTINUED = "continued"
# Documents with fewer Chinese characters among their tokens are counted.
FEW_HAN = 0.3
STAGES = ("read", "tokenize", "segment", "pair", "write")


class Joint(NamedTuple):
    """How the documents of a unit meet those of its neighbours.

    Attributes:
        begins_inside: Whether the first document may have begun in an
            earlier unit.
        ends_inside: Whether the last document may go on in the next unit.
        first: The subset of the first document, if it begins here after all.
        last: The subset of the last document; None if an earlier unit may
            have begun that one.
    """

    begins_inside: bool
    ends_inside: bool
    first: str | None = None
    last: str | None = None


class Head(NamedTuple):
    """What a part tells about itself.

    Attributes:
        counts: How many documents, sentences, ... (`docs/data.md`), without
            what depends on the subset of a continued document.
        joint: How it meets its neighbours.
        continued: The records of a document that an earlier unit began.
    """

    counts: dict[str, int]
    joint: Joint
    continued: int = 0


class Part(NamedTuple):
    """What a unit became.

    Attributes:
        head: What it tells about itself.
        groups: The frames of the unit's records by (subset, shard). Those of
            a continued document are not dealt out yet: (CONTINUED, 0).
    """

    head: Head
    groups: dict[tuple[str, int], list[bytes]]

    @property
    def counts(self) -> dict[str, int]:
        return self.head.counts


class Content(NamedTuple):
    """What was in a unit."""

    text: str
    tokens: BulkTokens
    documents: Documents


class PartBuilder:
    """Turns units into parts; loads vocabulary and segmenter once."""

    def __init__(
        self,
        config: BuildConfig,
        vocabulary: Vocabulary,
        terms: Sequence[Term] = (),
    ):
        """Loads the segmenter.

        Args:
            config: Resolved settings (`BuildConfig.resolved`).
            vocabulary: The tokens.
            terms: Those of the user dictionaries.
        """
        self.config = config
        self.vocabulary = vocabulary
        self.tokenizer = BulkTokenizer(
            # Not folding: the text is folded before it is cut into words.
            Tokenizer(
                vocabulary, TextSettings(do_lower_case=config.do_lower_case)
            )
        )
        self.segmenter = Segmenter(
            config.segmenter, terms, fold=config.normalize
        )
        self.dtype = records.token_dtype(len(self.vocabulary))
        self._classic = None
        if config.masking == "static":
            from .classic import ClassicWriter

            self._classic = ClassicWriter(config, vocabulary)
        # CPU seconds of each stage since the beginning, for benchmarks.
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def build(self, unit: units.Unit) -> Part:
        """Reads and processes a unit."""
        return self.build_and_show(unit)[0]

    def build_and_show(self, unit: units.Unit) -> tuple[Part, Content]:
        """Reads and processes a unit; returns what was in it, too."""
        counts: collections.Counter[str] = collections.Counter()
        with self._stage("read"):
            text, begins_inside = reading.read(unit, self.config, counts)
        with self._stage("tokenize"):
            tokens = self.tokenizer.tokenize(text)
        with self._stage("segment"):
            word_starts = self.segmenter.word_starts(text, tokens)
        with self._stage("pair"):
            found = documents_of_tokens(text, tokens)
            pairs, joint = self._pairs(
                unit, found, begins_inside, word_starts, tokens.chinese, counts
            )
        with self._stage("write"):
            counts["tokens"] += len(tokens.ids)
            unknown = tokens.ids == self.vocabulary.unknown_id
            counts["unknown_tokens"] += int(unknown.sum())
            groups = self._groups(unit, pairs, tokens.ids, word_starts, counts)
        continued = len(groups.get((CONTINUED, 0), ()))
        part = Part(Head(dict(counts), joint, continued), groups)
        return part, Content(text, tokens, found)

    def _pairs(
        self,
        unit: units.Unit,
        found: Documents,
        begins_inside: bool,
        word_starts: np.ndarray,
        chinese: np.ndarray,
        counts: collections.Counter,
    ) -> tuple[dict[str, list[segments.SegmentPair]], Joint]:
        """Returns the pairs of a unit by subset, in its token positions."""
        config = self.config
        pairs_of: dict[str, list] = {s: [] for s in (*SUBSETS, CONTINUED)}
        begins_inside = begins_inside and found.first_is_open
        drawn: list[str] = []
        left_out = self._left_out(unit, found, chinese, counts)
        for number, ends in enumerate(found.sentence_ends):
            first, last = ends[0], ends[-1]
            rng = segments.rng_of(
                config.seed, unit.file.name, unit.index, number
            )
            drawn.append(
                "eval" if rng.random() < config.eval_fraction else "train"
            )
            if number in left_out:
                counts[f"dropped_{left_out[number]}"] += 1
                continue
            local_ends = (ends[1:] - first).tolist()
            pairs = segments.pairs_of_document(
                local_ends,
                word_starts[first:last],
                max_tokens=config.max_seq_length
                - segments.SPECIAL_TOKENS_PER_PAIR,
                short_seq_prob=config.short_seq_prob,
                rng=rng,
            )
            used = pairs[-1].end if pairs else 0
            natural = set(local_ends)
            continued = begins_inside and number == 0
            counts["sentences"] += len(local_ends)
            counts["dropped_tokens"] += local_ends[-1] - used
            counts["pairs"] += len(pairs)
            counts["pairs_within_a_sentence"] += sum(
                pair.middle not in natural for pair in pairs
            )
            if not continued:
                counts["documents"] += 1
                counts["one_sentence_documents"] += len(local_ends) == 1
                counts["dropped_documents"] += not pairs
                counts[f"{drawn[-1]}_documents"] += 1
            pairs_of[CONTINUED if continued else drawn[-1]].extend(
                segments.SegmentPair(*(int(first) + p for p in pair))
                for pair in pairs
            )
        joint = Joint(
            begins_inside,
            found.last_is_open,
            first=drawn[0] if drawn and 0 not in left_out else None,
            last=drawn[-1] if len(drawn) > begins_inside else None,
        )
        return pairs_of, joint

    def _left_out(
        self,
        unit: units.Unit,
        found: Documents,
        chinese: np.ndarray,
        counts: collections.Counter,
    ) -> dict[int, str]:
        """Returns the documents that the settings drop, with the reason."""
        bounds = [(int(e[0]), int(e[-1])) for e in found.sentence_ends]
        begins, ends = np.array(bounds, int).reshape(-1, 2).T
        total = np.concatenate([[0], np.cumsum(chinese)])
        shares = (total[ends] - total[begins]) / np.maximum(1, ends - begins)
        counts["few_han_documents"] += int((shares < FEW_HAN).sum())
        few = np.flatnonzero(shares < self.config.min_han_share)
        return dict.fromkeys(few.tolist(), "few_han") | {
            place: f"{kind}_duplicates" for place, kind in unit.duplicates
        }

    def _groups(
        self,
        unit: units.Unit,
        pairs: Mapping[str, list[segments.SegmentPair]],
        ids: np.ndarray,
        word_starts: np.ndarray,
        counts: collections.Counter,
    ) -> dict[tuple[str, int], list[bytes]]:
        """Packs and serializes the pairs, and deals rows out to shards."""
        config = self.config
        groups: dict[tuple[str, int], list[bytes]] = {}
        packed = records.pack_tokens(ids, word_starts, self.dtype)
        for subset in (*SUBSETS, CONTINUED):
            rows = self._rows(pairs[subset])
            if self._classic is None:
                payloads = [_serialize(row, packed) for row in rows]
            else:
                seed = segments.rng_of(
                    config.seed, "mask", unit.file.name, unit.index, subset
                ).getrandbits(63)
                ordered = [pair for row in rows for pair in row]
                payloads = self._classic.serialize(
                    ordered, ids, word_starts, seed
                )
            frames = records.frame(payloads)
            if subset != CONTINUED:
                counts[f"{subset}_records"] += len(frames)
                groups |= deal(config, unit, subset, frames)
            elif frames:
                groups[CONTINUED, 0] = frames
            copies = len(frames) // max(1, len(rows))  # static masking's
            counts["padding_tokens"] += copies * sum(
                config.max_seq_length - sum(map(_cost, row)) for row in rows
            )
        return groups

    def _rows(
        self, pairs: Sequence[segments.SegmentPair]
    ) -> list[list[segments.SegmentPair]]:
        rows = segments.pack(
            [_cost(pair) for pair in pairs],
            row_size=self.config.max_seq_length,
            max_pairs=self.config.max_pairs_per_record,
        )
        return [[pairs[i] for i in row] for row in rows]

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.seconds[name] += time.process_time() - begin


def num_shards(config: BuildConfig, subset: str) -> int:
    """Returns how many shards a subset is dealt out to."""
    if subset == "train":
        return config.num_shards
    return max(1, round(config.num_shards * config.eval_fraction))


def deal(
    config: BuildConfig,
    unit: units.Unit,
    subset: str,
    frames: Sequence[bytes | memoryview],
    draw: str = "shard",
) -> dict[tuple[str, int], list]:
    """Deals the frames of a unit out to the shards of a subset.

    Args:
        config: The settings.
        unit: Where the frames come from; its content is not needed.
        subset: Theirs.
        frames: In the order of the text.
        draw: Tells the draws of one unit apart.

    Returns:
        The frames of each (subset, shard), in the order given.
    """
    shards = num_shards(config, subset)
    rng = segments.rng_of(config.seed, draw, unit.file.name, unit.index, subset)
    groups: dict[tuple[str, int], list] = {}
    for one in frames:
        shard = int(rng.random() * shards)
        groups.setdefault((subset, shard), []).append(one)
    return groups


def _cost(pair: segments.SegmentPair) -> int:
    return pair.end - pair.start + segments.SPECIAL_TOKENS_PER_PAIR


def _serialize(
    row: Sequence[segments.SegmentPair], packed: np.ndarray
) -> bytes:
    tokens = b"".join(packed[p.start : p.end].tobytes() for p in row)
    lengths = [n for p in row for n in (p.middle - p.start, p.end - p.middle)]
    return records.compact_example(tokens, lengths)
