"""What a folder of records holds: compact rows of pairs, or classic ones.

    compact   written by the builder, masked when training reads them
    classic   masked when they were written: albert_zh's and Google's form

Compact folders have a manifest. Folders of other programs have none: their
records are counted by the lengths in the frames.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from google.protobuf import message

from albert_tf2 import features, paths
from albert_tf2.errors import UserError, shown
from albert_tf2.records import frames
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

MANIFEST, VOCABULARY = "manifest.json", "vocab.txt"
# What a build that is not finished leaves: the builder's shards and folder.
_OURS = re.compile(r"(?:records|eval)-\d{5}-of-\d{5}\.tfrecord|\.parts")
# Of TensorFlow's gs:// client: what it asks for at a time.
_GCS_BLOCK = "GCS_READ_CACHE_BLOCK_SIZE_MB"
BUILD = "run `python -m albert_tf2.data.build_pretraining_data` first"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSet:
    """One subset of a folder of records.

    Attributes:
        folder: Where it lies.
        subset: "train" or "eval" (the held-out documents).
        paths: The shards that hold records.
        counts: The records of each.
        sums: The SHA-256 of each, or of its frames where no manifest tells.
        max_seq_length: T.
        max_pairs: K, the most pairs in a row.
        text_settings: How the text was cut into tokens.
        starts: Where the blocks of each shard begin (`frames.Frames`); None
            where shards are small enough to be read whole.
    """

    kind: ClassVar[str]

    folder: str
    subset: str
    paths: tuple[str, ...]
    counts: tuple[int, ...]
    max_seq_length: int
    max_pairs: int
    # None where a folder of another program says nothing about it.
    vocab_size: int | None
    sums: tuple[str, ...]
    text_settings: TextSettings
    starts: tuple[np.ndarray, ...] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    @property
    def sha256(self) -> str:
        """What the rows and their order follow from, wherever they lie."""
        parts = [
            self.kind,
            self.max_seq_length,
            self.max_pairs,
            self.vocab_size,
        ]
        parts += zip(self.counts, self.sums, strict=True)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @property
    def records(self) -> int:
        return sum(self.counts)

    @property
    def vocab_file(self) -> str:
        return f"{self.folder}/{VOCABULARY}"

    def vocabulary(self) -> Vocabulary | None:
        """Reads the vocabulary; records of other programs may have none."""
        if not paths.exists(self.vocab_file):
            return None
        return Vocabulary.load(self.vocab_file, size=self.vocab_size)

    def tokenizer(self) -> Tokenizer | None:
        """Returns what cut these records; None where no vocabulary is."""
        vocabulary = self.vocabulary()
        if vocabulary is None:
            return None
        return Tokenizer(vocabulary, self.text_settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompactRecords(RecordSet):
    """Rows of pairs that are not masked yet."""

    kind = "compact"
    vocab_size: int

    def parse(
        self, serialized: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Parses a batch of compact records; an empty string is an empty row.

        Returns:
            (tokens, word_starts, segment_lengths): int32 [B, S], bool [B, S]
            and int32 [B, 2K], with S = max_seq_length - 3.
        """
        parsed = tf.io.parse_example(
            serialized,
            {
                features.TOKENS: tf.io.FixedLenFeature([], tf.string, b""),
                features.SEGMENT_LENGTHS: tf.io.FixedLenSequenceFeature(
                    [], tf.int64, allow_missing=True, default_value=0
                ),
            },
        )
        stored = self.max_seq_length - 3
        wide = self.vocab_size > 1 << 15
        raw = tf.io.decode_raw(
            parsed[features.TOKENS],
            tf.int32 if wide else tf.uint16,
            fixed_length=stored * (4 if wide else 2),
        )
        raw = tf.ensure_shape(tf.cast(raw, tf.int32), [None, stored])
        # The top bit says that a word begins here.
        word_starts = raw < 0 if wide else raw >= 1 << 15
        tokens = tf.bitwise.bitwise_and(raw, 0x7FFFFFFF if wide else 0x7FFF)
        lengths = tf.cast(parsed[features.SEGMENT_LENGTHS], tf.int32)
        missing = 2 * self.max_pairs - tf.shape(lengths)[1]
        lengths = tf.pad(lengths, [[0, 0], [0, missing]])
        lengths = tf.ensure_shape(lengths, [None, 2 * self.max_pairs])
        return tokens, word_starts, lengths


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassicRecords(RecordSet):
    """Rows that come masked.

    Attributes:
        max_predictions_per_seq: P.
    """

    kind = "classic"
    max_predictions_per_seq: int

    def parse(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Parses a batch of classic records; an empty string weighs nothing."""
        length, predictions = self.max_seq_length, self.max_predictions_per_seq

        def integers(size: int) -> tf.io.FixedLenFeature:
            return tf.io.FixedLenFeature([size], tf.int64, [0] * size)

        parsed = tf.io.parse_example(
            serialized,
            {
                features.CLASSIC_INPUT_IDS: integers(length),
                features.INPUT_MASK: integers(length),
                features.CLASSIC_SEGMENT_IDS: integers(length),
                features.MASKED_LM_POSITIONS: integers(predictions),
                features.MASKED_LM_IDS: integers(predictions),
                features.MASKED_LM_WEIGHTS: tf.io.FixedLenFeature(
                    [predictions], tf.float32, [0.0] * predictions
                ),
                features.CLASSIC_SENTENCE_ORDER: integers(1),
            },
        )
        batch = {
            name: parsed[key]
            if key == features.MASKED_LM_WEIGHTS
            else tf.cast(parsed[key], tf.int32)
            for key, name in features.CLASSIC_TO_BATCH.items()
        }
        batch[features.SENTENCE_ORDER_WEIGHTS] = tf.cast(
            batch[features.INPUT_MASK][:, :1], tf.float32
        )
        return batch


def open_records(
    folder: paths.PathLike, subset: str = "train"
) -> CompactRecords | ClassicRecords:
    """Reads what a folder holds, without reading its records.

    Args:
        folder: What the builder wrote, or any folder of classic
            `*.tfrecord` files, which are then counted.
        subset: "train" or "eval" (the held-out documents).

    Raises:
        UserError: If there is nothing to read.
    """
    folder = paths.for_tensorflow(folder).rstrip("/")
    if not paths.is_dir(folder):
        raise UserError(f"{folder} is not a folder of records: {BUILD}")
    there = set(paths.names(folder))
    if MANIFEST not in there:
        return _open_foreign(folder, subset)
    manifest_file = f"{folder}/{MANIFEST}"
    manifest = paths.read_json(manifest_file, dict)
    try:
        shards = [
            shard
            for shard in manifest["shards"]
            if shard["subset"] == subset and _typed(shard, "records", int)
        ]
        names = [_typed(shard, "name", str) for shard in shards]
        found = {
            "folder": folder,
            "subset": subset,
            "paths": tuple(f"{folder}/{name}" for name in names),
            "counts": tuple(shard["records"] for shard in shards),
            "vocab_size": _typed(manifest, "vocab_size", int),
            "text_settings": _text_settings(manifest),
        }
        sizes = [
            _typed(manifest, name, int)
            for name in ("max_seq_length", "max_pairs_per_record")
        ]
        is_compact = manifest["masking"] == "dynamic"
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{manifest_file} is damaged or of another version ({error!r}): "
            "build the records again"
        ) from error
    for path in found["paths"]:
        if paths.name(path) not in there:
            raise UserError(
                f"{path} is missing, though {MANIFEST} lists it: run the "
                "builder with --verify"
            )
        if not paths.is_remote(path):
            paths.open_binary(path).close()  # a pipe would be waited for
    found["sums"] = tuple(
        shard.get("sha256") or frames.scan(path).sha256
        for shard, path in zip(shards, found["paths"], strict=True)
    )
    if is_compact:
        return CompactRecords(
            **found, max_seq_length=sizes[0], max_pairs=sizes[1]
        )
    # Copies with their masks make large shards, also the builder's.
    names = [shard["name"] for shard in manifest["shards"]]
    names = [name for name in names if name in there]
    parts = dict(zip(names, frames.frames_of(folder, names), strict=True))
    found["starts"] = tuple(parts[shard["name"]].starts for shard in shards)
    for shard in shards:
        counted = parts[shard["name"]].records
        if counted != shard["records"]:
            raise UserError(
                f"{folder}/{shard['name']} holds {counted:,} records, and "
                f"{MANIFEST} says {shard['records']:,}: run the builder with "
                "--verify"
            )
    return _classic(found)


@contextlib.contextmanager
def damage_told(records: RecordSet) -> Iterator[None]:
    """Names the records of which TensorFlow could not read one."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        found = re.search(r"(corrupted|truncated) record at \d+", str(error))
        raise UserError(
            f"{records.folder}: a record of its {records.subset} files cannot "
            f"be read ({found[0] if found else type(error).__name__}): run "
            "the builder with --verify, which finds and rebuilds damaged "
            "files, or copy the folder again"
        ) from error


def _typed(owner: dict[str, Any], key: str, kind: type) -> Any:
    """Returns a value of a manifest, or raises what a missing one raises."""
    value = owner[key]
    if type(value) is not kind:  # `isinstance` takes True for a number
        raise TypeError(f"`{key}` is {shown(value)}")
    return value


def _text_settings(manifest: dict[str, Any]) -> TextSettings:
    config = manifest["identity"]["config"]
    return TextSettings(
        do_lower_case=_typed(config, "do_lower_case", bool),
        normalize=_typed(config, "normalize", bool),
        vocab_sha256=_typed(manifest, "vocab_sha256", str),
    )


def _open_foreign(folder: str, subset: str) -> ClassicRecords:
    names = paths.names(folder)
    ours = [name for name in names if _OURS.fullmatch(name)]
    if ours:
        raise UserError(
            f"{folder} has no {MANIFEST}, but {ours[0]}: the build is not "
            "finished, or the set was copied in part. Run the builder's "
            "command again (it goes on where it stopped), or copy all files"
        )
    shards = [name for name in names if _is_shard(name)]
    held_out = subset == "eval"
    found = dict(zip(shards, frames.frames_of(folder, shards), strict=True))
    mine = {
        f"{folder}/{name}": one
        for name, one in found.items()
        if name.startswith("eval") == held_out and one.records
    }
    if not mine and not held_out:
        raise UserError(
            f"{folder} has neither {MANIFEST} nor *.tfrecord files with "
            f"records: {BUILD}"
        )
    return _classic(
        {
            "folder": folder,
            "subset": subset,
            "paths": tuple(mine),
            "counts": tuple(one.records for one in mine.values()),
            "sums": tuple(one.sha256 for one in mine.values()),
            "starts": tuple(one.starts for one in mine.values()),
            "vocab_size": None,
            "text_settings": TextSettings.beside(f"{folder}/{VOCABULARY}")
            or TextSettings(),
        }
    )


def _say_what_a_bucket_reads(folder: str) -> None:
    """TensorFlow's client takes its setting when it is loaded: too late now."""
    megabytes = os.environ.get(_GCS_BLOCK, "64")
    if not megabytes.isdecimal() or int(megabytes) > 2:
        print(
            f"note: blocks of {frames.BLOCK} records are read from {folder}, "
            f"each with a request for {megabytes} MB: set {_GCS_BLOCK}=1 in "
            "the environment, or copy the records to this machine",
            file=sys.stderr,
        )


def _is_shard(name: str) -> bool:
    """Whether a name is that of a shard, not of a file being written."""
    hidden = name.startswith((".", "_"))
    return ".tfrecord" in name and not hidden and not name.endswith("tmp")


def _classic(found: dict[str, Any]) -> ClassicRecords:
    """Reads T and P of classic records off the first one; 0 without any."""
    length = predictions = 0
    if found["folder"].startswith("gs://"):
        _say_what_a_bucket_reads(found["folder"])
    if found["paths"]:
        first = found["paths"][0]
        try:
            raw = next(iter(tf.data.TFRecordDataset([first]))).numpy()
            fields = tf.train.Example.FromString(raw).features.feature
        except (tf.errors.DataLossError, message.DecodeError):
            raise UserError(
                f"{first}: the first record is damaged: run the builder with "
                "--verify, or copy the file again"
            ) from None
        length = len(fields[features.CLASSIC_INPUT_IDS].int64_list.value)
        predictions = len(fields[features.MASKED_LM_POSITIONS].int64_list.value)
        if not length:
            raise UserError(
                f"{first}: the first record has no "
                f"`{features.CLASSIC_INPUT_IDS}`: is this a pre-training "
                "record?"
            )
    return ClassicRecords(
        **found,
        max_seq_length=length,
        max_pairs=1,
        max_predictions_per_seq=predictions,
    )
