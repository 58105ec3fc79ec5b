"""One unit of the corpus -> one part: records, sorted by their shard.

This is all that a worker does, here or on a cluster. A part depends on its
unit, the vocabulary and the `BuildConfig` alone.
"""

import collections
import contextlib
import hashlib
import json
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.text.bulk_tokenization import BulkTokenizer, BulkTokens
from albert_tf2.text.normalization import normalize
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

from . import corpus, records, segments
from .build_config import BuildConfig
from .words import Segmenter, Term

SUBSETS = ("train", "eval")
STAGES = ("read", "tokenize", "segment", "pair", "write")


class Part(NamedTuple):
    """What a unit became.

    Attributes:
        counts: How many documents, sentences, ... (`docs/data.md`).
        groups: The frames of the unit's records by (subset, shard).
    """

    counts: dict[str, int]
    groups: dict[tuple[str, int], list[bytes]]


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
            Tokenizer(self.vocabulary, config.do_lower_case)
        )
        self.segmenter = Segmenter(config.segmenter, terms)
        self.dtype = records.token_dtype(len(self.vocabulary))
        self._classic = None
        if config.masking == "static":
            from .classic import ClassicWriter

            self._classic = ClassicWriter(config, vocabulary)
        # CPU seconds of each stage since the beginning, for benchmarks.
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def build(self, unit: corpus.Unit) -> Part:
        """Reads and processes a unit."""
        counts: collections.Counter[str] = collections.Counter()
        with self._stage("read"):
            text = self._read(unit, counts)
        with self._stage("tokenize"):
            tokens = self.tokenizer.tokenize(text)
        with self._stage("segment"):
            word_starts = self.segmenter.word_starts(text, tokens)
        with self._stage("pair"):
            sentence_ends = sentence_ends_of_documents(text, tokens)
            pairs = self._pairs(unit, sentence_ends, word_starts, counts)
        with self._stage("write"):
            counts["tokens"] += len(tokens.ids)
            unknown = tokens.ids == self.vocabulary.unknown_id
            counts["unknown_tokens"] += int(unknown.sum())
            groups = self._groups(unit, pairs, tokens.ids, word_starts, counts)
        return Part(dict(counts), groups)

    def _read(self, unit: corpus.Unit, counts: collections.Counter) -> str:
        content = corpus.read_unit(unit)
        decoded = corpus.decode(
            content, unit.file, on_error=self.config.on_error
        )
        counts["bytes"] += len(content.data)
        counts["lines_not_utf8"] += decoded.bad_lines
        counts["nul_characters"] += decoded.nul_characters
        counts["documents_split"] += content.splits_document
        text = decoded.text
        return normalize(text) if self.config.normalize else text

    def _pairs(
        self,
        unit: corpus.Unit,
        sentence_ends: Sequence[np.ndarray],
        word_starts: np.ndarray,
        counts: collections.Counter,
    ) -> dict[str, list[segments.SegmentPair]]:
        """Returns the pairs of a unit by subset, in its token positions."""
        config = self.config
        found: dict[str, list] = {subset: [] for subset in SUBSETS}
        for number, ends in enumerate(sentence_ends):
            first, last = ends[0], ends[-1]
            rng = segments.rng_of(
                config.seed, unit.file.name, unit.index, number
            )
            subset = "eval" if rng.random() < config.eval_fraction else "train"
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
            counts["documents"] += 1
            counts["sentences"] += len(local_ends)
            counts["one_sentence_documents"] += len(local_ends) == 1
            counts["dropped_documents"] += not pairs
            counts["dropped_tokens"] += local_ends[-1] - used
            counts["pairs"] += len(pairs)
            counts["pairs_within_a_sentence"] += sum(
                pair.middle not in natural for pair in pairs
            )
            counts[f"{subset}_documents"] += 1
            found[subset].extend(
                segments.SegmentPair(*(int(first) + p for p in pair))
                for pair in pairs
            )
        return found

    def _groups(
        self,
        unit: corpus.Unit,
        pairs: Mapping[str, list[segments.SegmentPair]],
        ids: np.ndarray,
        word_starts: np.ndarray,
        counts: collections.Counter,
    ) -> dict[tuple[str, int], list[bytes]]:
        """Packs and serializes the pairs, and deals rows out to shards."""
        config = self.config
        groups: dict[tuple[str, int], list[bytes]] = {}
        packed = records.pack_tokens(ids, word_starts, self.dtype)
        for subset in SUBSETS:
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
            shards = num_shards(config, subset)
            rng = segments.rng_of(
                config.seed, "shard", unit.file.name, unit.index, subset
            )
            for one in frames:
                shard = int(rng.random() * shards)
                groups.setdefault((subset, shard), []).append(one)
            counts[f"{subset}_records"] += len(frames)
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


def _cost(pair: segments.SegmentPair) -> int:
    return pair.end - pair.start + segments.SPECIAL_TOKENS_PER_PAIR


def _serialize(
    row: Sequence[segments.SegmentPair], packed: np.ndarray
) -> bytes:
    tokens = b"".join(packed[p.start : p.end].tobytes() for p in row)
    lengths = [n for p in row for n in (p.middle - p.start, p.end - p.middle)]
    return records.compact_example(tokens, lengths)


def sentence_ends_of_documents(
    text: str, tokens: BulkTokens
) -> list[np.ndarray]:
    """Finds the sentences and documents of a tokenized unit.

    Returns:
        For each document int64 [S + 1]: the token where it begins, and the
        tokens where its S sentences end.
    """
    line_ends = np.append(tokens.line_ends, len(text))
    token_ends = np.searchsorted(tokens.starts, line_ends)  # [L]
    lengths = np.diff(token_ends, prepend=0)
    line_begins = np.concatenate([[0], line_ends[:-1] + 1])
    is_border = np.zeros(len(lengths), bool)
    for line in np.flatnonzero(lengths == 0).tolist():
        # A line of control characters has no tokens, but is not blank.
        is_border[line] = not text[line_begins[line] : line_ends[line]].strip()
    sentences = np.flatnonzero(lengths)
    if not len(sentences):
        return []
    document_of_line = np.cumsum(is_border)
    first = np.flatnonzero(np.diff(document_of_line[sentences])) + 1
    found = []
    begin = 0
    for ends in np.split(token_ends[sentences], first):
        found.append(np.concatenate([[begin], ends]))
        begin = ends[-1]
    return found


# A part on disk: the length of its header, the header as JSON, the frames.
_HEAD = struct.Struct("<Q")


def part_name(file_number: int, unit_index: int) -> str:
    """Names a part so that names sort in the order of the corpus."""
    return f"{file_number:06d}-{unit_index:08d}.part"


def file_number(name: str) -> int:
    """Returns which file of the corpus a part is of."""
    return int(name.partition("-")[0])


def write_part(path: str, part: Part) -> None:
    """Writes a part, whole or not at all."""
    keys = sorted(part.groups)
    blocks = [b"".join(part.groups[key]) for key in keys]
    payload = b"".join(blocks)
    header = {
        "counts": part.counts,
        "groups": [
            [*key, len(block)] for key, block in zip(keys, blocks, strict=True)
        ],
        "digest": hashlib.blake2b(payload, digest_size=16).hexdigest(),
    }
    text = json.dumps(header).encode()
    with paths.atomic_file(path, "wb", fsync=False) as stream:
        stream.write(_HEAD.pack(len(text)) + text + payload)


class PartReader:
    """A part on disk: its counts, and its frames for one shard."""

    def __init__(self, path: str):
        self.path = path
        with paths.open_binary(path) as stream:
            (length,) = _HEAD.unpack(stream.read(_HEAD.size))
            header = json.loads(stream.read(length))
        self.counts: dict[str, int] = header["counts"]
        self.digest: str = header["digest"]
        self._ranges = {}
        self._begin = offset = _HEAD.size + length
        for subset, shard, size in header["groups"]:
            self._ranges[subset, shard] = offset, size
            offset += size

    def read(self, subset: str, shard: int) -> bytes:
        """Returns the frames of a shard, one after the other."""
        offset, size = self._ranges.get((subset, shard), (0, 0))
        if not size:
            return b""
        with paths.open_binary(self.path) as stream:
            stream.seek(offset)
            return stream.read(size)

    def is_intact(self) -> bool:
        """Whether the frames are those that were written."""
        with paths.open_binary(self.path) as stream:
            stream.seek(self._begin)
            payload = stream.read()
        digest = hashlib.blake2b(payload, digest_size=16).hexdigest()
        return digest == self.digest


def load_part(path: str) -> PartReader | None:
    """Opens a part of an earlier run; None if it is not there or damaged."""
    try:
        part = PartReader(path)
        return part if part.is_intact() else None
    except (OSError, ValueError, KeyError, struct.error, UserError):
        return None
