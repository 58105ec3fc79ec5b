"""Records to batches: in a fixed order, from any step on, fast.

    shards -> windows of whole shards, shuffled -> global batches of strings
           -> this worker's rows -> parsed -> order and masks -> the model

The order follows from (seed, epoch) alone: shards are permuted, neighbours
form windows of about `shuffle_buffer` records, and each window is permuted
whole. So a resumed run computes from the manifest's counts which window its
step lies in, and reads no other. Every record comes once per epoch; batches
run over the ends of epochs.

Compact records are masked here, for whole batches at once; classic records
come masked. `masking.row_keys` ties each row's mask to its number in the run.
"""

import dataclasses
import hashlib
import re
import struct
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import features, paths
from albert_tf2.errors import UserError
from albert_tf2.records.masking import Masker, row_keys
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

MANIFEST, VOCABULARY = "manifest.json", "vocab.txt"
# What a build that is not finished leaves: the builder's shards and folder.
_OURS = re.compile(r"(?:records|eval)-\d{5}-of-\d{5}\.tfrecord|\.parts")
BUILD = "run `python -m albert_tf2.data.build_pretraining_data` first"


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """One subset of a folder of records, as its manifest describes it."""

    folder: str
    subset: str
    # compact (masked in training) or classic (masked when written)
    kind: str
    paths: tuple[str, ...]
    counts: tuple[int, ...]
    max_seq_length: int
    max_pairs: int
    # None where a folder of another program says nothing about it.
    vocab_size: int | None
    text_settings: TextSettings = TextSettings()
    max_predictions_per_seq: int | None = None
    # The SHA-256 of each shard, or of its frames where no manifest tells.
    sums: tuple[str, ...] = ()

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
        return vocabulary and Tokenizer(vocabulary, self.text_settings)


def open_records(folder: paths.PathLike, subset: str = "train") -> RecordSet:
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
    manifest_file = f"{folder}/{MANIFEST}"
    there = set(paths.names(folder))
    if MANIFEST not in there:
        return _open_foreign(folder, subset)
    manifest = paths.read_json(manifest_file, dict)
    try:
        shards = [
            shard
            for shard in manifest["shards"]
            if shard["subset"] == subset and shard["records"]
        ]
        kind = "compact" if manifest["masking"] == "dynamic" else "classic"
        record_set = RecordSet(
            folder=folder,
            subset=subset,
            kind=kind,
            paths=tuple(f"{folder}/{shard['name']}" for shard in shards),
            counts=tuple(shard["records"] for shard in shards),
            max_seq_length=manifest["max_seq_length"],
            max_pairs=manifest["max_pairs_per_record"],
            vocab_size=manifest["vocab_size"],
            text_settings=_text_settings(manifest),
        )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{manifest_file} is damaged or of another version ({error!r}): "
            "build the records again"
        ) from error
    for path in record_set.paths:
        if paths.name(path) not in there:
            raise UserError(
                f"{path} is missing, though {MANIFEST} lists it: run the "
                "builder with --verify"
            )
    sums = tuple(
        shard.get("sha256") or _frames(path)[1]
        for shard, path in zip(shards, record_set.paths, strict=True)
    )
    return _with_classic_sizes(dataclasses.replace(record_set, sums=sums))


def _text_settings(manifest: dict[str, Any]) -> TextSettings:
    config = manifest["identity"]["config"]
    return TextSettings(
        do_lower_case=config["do_lower_case"],
        normalize=config["normalize"],
        vocab_sha256=manifest["vocab_sha256"],
    )


def _open_foreign(folder: str, subset: str) -> RecordSet:
    names = paths.names(folder)
    ours = [name for name in names if _OURS.fullmatch(name)]
    if ours:
        raise UserError(
            f"{folder} has no {MANIFEST}, but {ours[0]}: the build is not "
            "finished, or the set was copied in part. Run the builder's "
            "command again (it goes on where it stopped), or copy all files"
        )
    held_out = subset == "eval"
    found = [
        f"{folder}/{name}"
        for name in names
        if _is_shard(name) and name.startswith("eval") == held_out
    ]
    if not found and subset == "train":
        raise UserError(
            f"{folder} has neither {MANIFEST} nor *.tfrecord files: {BUILD}"
        )
    frames = [_frames(path) for path in found]
    return _with_classic_sizes(
        RecordSet(
            folder=folder,
            subset=subset,
            kind="classic",
            paths=tuple(found),
            counts=tuple(count for count, _ in frames),
            max_seq_length=0,
            max_pairs=1,
            vocab_size=None,
            text_settings=TextSettings.beside(f"{folder}/{VOCABULARY}")
            or TextSettings(),
            sums=tuple(digest for _, digest in frames),
        )
    )


def _is_shard(name: str) -> bool:
    """Whether a name is that of a shard, not of a file being written."""
    hidden = name.startswith((".", "_"))
    return ".tfrecord" in name and not hidden and not name.endswith("tmp")


def _frames(path: str) -> tuple[int, str]:
    """Reads the frames of a shard, without their payloads.

    Returns:
        How many records there are, and the SHA-256 of their lengths and
        checksums.
    """
    count, digest = 0, hashlib.sha256()
    with paths.open_binary(path) as stream:
        head = stream.read(12)  # the length and its checksum
        while head:
            if len(head) == 12:
                (length,) = struct.unpack("<Q", head[:8])
                stream.seek(length, 1)
            # The payload's checksum, and the next record's head.
            tail = stream.read(16)
            if len(head) < 12 or len(tail) < 4:
                raise UserError(f"{path} is cut off: copy it again")
            digest.update(head + tail[:4])
            head = tail[4:]
            count += 1
    return count, digest.hexdigest()


def _with_classic_sizes(record_set: RecordSet) -> RecordSet:
    """Reads T and P of classic records off the first one."""
    if record_set.kind != "classic" or not record_set.paths:
        return record_set
    raw = next(iter(tf.data.TFRecordDataset(record_set.paths[:1]))).numpy()
    fields = tf.train.Example.FromString(raw).features.feature

    def size(name: str) -> int:
        return len(fields[name].int64_list.value)

    if not size(features.CLASSIC_INPUT_IDS):
        raise UserError(
            f"{record_set.paths[0]}: the first record has no "
            f"`{features.CLASSIC_INPUT_IDS}`: is this a pre-training record?"
        )
    return dataclasses.replace(
        record_set,
        max_seq_length=size(features.CLASSIC_INPUT_IDS),
        max_predictions_per_seq=size(features.MASKED_LM_POSITIONS),
    )


def parse_compact(
    serialized: tf.Tensor, record_set: RecordSet
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Parses a batch of compact records; an empty string is an empty row.

    Returns:
        (tokens, word_starts, segment_lengths): int32 [B, S], bool [B, S] and
        int32 [B, 2K], with S = max_seq_length - 3.
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
    stored = record_set.max_seq_length - 3
    wide = record_set.vocab_size > 1 << 15
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
    missing = 2 * record_set.max_pairs - tf.shape(lengths)[1]
    lengths = tf.pad(lengths, [[0, 0], [0, missing]])
    lengths = tf.ensure_shape(lengths, [None, 2 * record_set.max_pairs])
    return tokens, word_starts, lengths


def parse_classic(
    serialized: tf.Tensor, record_set: RecordSet
) -> dict[str, tf.Tensor]:
    """Parses a batch of classic records; an empty string weighs nothing."""
    length = record_set.max_seq_length
    predictions = record_set.max_predictions_per_seq

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


def _to_batch(record_set: RecordSet, masker: Masker | None, seed: int):
    """Returns the function (strings [B], first row) -> batch."""

    def build(serialized, first_row):
        if record_set.kind == "classic":
            return parse_classic(serialized, record_set)
        rows = first_row + tf.range(
            tf.shape(serialized, tf.int64)[0], dtype=tf.int64
        )
        return masker(
            *parse_compact(serialized, record_set), row_keys(seed, rows)
        )

    return build


@dataclasses.dataclass(frozen=True)
class _Windows:
    """The order of records in every epoch: which shards are read together."""

    record_set: RecordSet
    seed: int
    shuffle_buffer: int

    @property
    def shards_per_window(self) -> int:
        return max(1, self.shuffle_buffer // max(self.record_set.counts))

    @property
    def per_epoch(self) -> int:
        return -(-len(self.record_set.paths) // self.shards_per_window)

    def shards(self, window) -> tf.Tensor:
        """Returns the numbers of the shards of a window of the run."""
        epoch = tf.cast(window // self.per_epoch, tf.int64)
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(self.record_set.paths)), [self.seed, epoch]
        )
        first = tf.cast(window % self.per_epoch, tf.int32)
        first *= self.shards_per_window
        return order[first : first + self.shards_per_window]

    def locate(self, row: int) -> tuple[int, int]:
        """Returns the window that a row lies in, and its place there."""
        epoch, row = divmod(row, self.record_set.records)
        counts = np.array(self.record_set.counts)
        for window in range(
            epoch * self.per_epoch, (epoch + 1) * self.per_epoch
        ):
            size = int(counts[self.shards(window).numpy()].sum())
            if row < size:
                return window, row
            row -= size
        raise AssertionError("a row lies in no window")

    def dataset(self, first_row: int) -> tf.data.Dataset:
        """Yields the shuffled strings [n] of one window after another."""
        first_window, skipped = self.locate(first_row)
        shard_paths = tf.constant(self.record_set.paths)
        counts = tf.constant(self.record_set.counts, tf.int64)

        def read(window):
            shards = self.shards(window)
            size = tf.reduce_sum(tf.gather(counts, shards))
            strings = tf.data.TFRecordDataset(tf.gather(shard_paths, shards))

            def shuffle(block):
                block = tf.random.experimental.stateless_shuffle(
                    block, [self.seed + 1, window]
                )
                start = tf.where(window == first_window, skipped, 0)
                return block[start:]

            return strings.batch(size).map(shuffle)

        windows = tf.data.Dataset.range(first_window, tf.int64.max)
        return windows.flat_map(read)


def training_dataset(
    record_set: RecordSet,
    masker: Masker | None,
    *,
    global_batch_size: int,
    seed: int,
    start_step: int = 0,
    shuffle_buffer: int = 20_000,
    worker: int = 0,
    workers: int = 1,
    replicas: int = 1,
) -> tf.data.Dataset:
    """Yields batches without end, from any step on.

    Args:
        record_set: Of `open_records`.
        masker: For compact records.
        global_batch_size: Rows per step, of all replicas of all workers.
        seed: Orders the records and draws the masks.
        start_step: The step whose batch comes first.
        shuffle_buffer: How many records are in memory to be mixed.
        worker: This worker's number.
        workers: How many there are; each reads everything and keeps its
            rows, so that their number does not change what is learned.
        replicas: On this worker; each takes one element per step.

    Returns:
        A dataset of batches with `global_batch_size / workers / replicas`
        rows; the elements of one step come one after another.
    """
    share, rest = divmod(global_batch_size, workers * replicas)
    if rest:
        raise UserError(
            "`global_batch_size` must be divisible by the number of "
            f"replicas. Received: `global_batch_size={global_batch_size}`, "
            f"{workers * replicas} replicas"
        )
    if not record_set.records:
        raise UserError(f"{record_set.folder} holds no records: {BUILD}")
    windows = _Windows(record_set, seed, shuffle_buffer)
    first_row = start_step * global_batch_size
    dataset = windows.dataset(first_row).rebatch(
        global_batch_size, drop_remainder=True
    )
    dataset = dataset.enumerate(start_step)

    def split(step, block):
        mine = tf.reshape(block, [workers, replicas, share])[worker]
        first = step * global_batch_size + worker * replicas * share
        firsts = first + share * tf.range(replicas, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((mine, firsts))

    dataset = dataset.flat_map(split)
    return dataset.map(
        _to_batch(record_set, masker, seed),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).prefetch(tf.data.AUTOTUNE)


def evaluation_dataset(
    record_set: RecordSet,
    masker: Masker | None,
    *,
    batch_size: int,
    seed: int,
    worker: int = 0,
    workers: int = 1,
    replicas: int = 1,
) -> tf.data.Dataset:
    """Yields every record once, with the same masks every time.

    The last batches are filled up with rows that weigh nothing, so shapes
    are static and all replicas take equally many steps.

    Args:
        record_set: Of `open_records`.
        masker: For compact records.
        batch_size: Rows per step, of all replicas of all workers.
        seed: Draws the masks.
        worker: This worker's number.
        workers: How many there are.
        replicas: On this worker.
    """
    share = max(1, batch_size // (workers * replicas))
    batch_size = share * workers * replicas
    strings = tf.data.TFRecordDataset(list(record_set.paths))
    filling = -record_set.records % batch_size
    if filling:
        strings = strings.concatenate(
            tf.data.Dataset.from_tensors(b"").repeat(filling)
        )
    dataset = strings.batch(share, drop_remainder=True).enumerate()
    per_worker = tf.constant(replicas, tf.int64)
    dataset = dataset.filter(
        lambda number, _: number // per_worker % workers == worker
    )
    build = _to_batch(record_set, masker, seed)
    return dataset.map(
        lambda number, block: build(block, number * share),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).prefetch(tf.data.AUTOTUNE)


def split_batch(
    batch: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a batch into the model's inputs and the labels."""
    labels = {name: batch[name] for name in features.LABELS}
    inputs = {k: v for k, v in batch.items() if k not in labels}
    return inputs, labels


def unigram_log_probs(
    record_set: RecordSet,
    masker: Masker | None,
    vocab_size: int,
    *,
    limit: int = 20_000,
) -> np.ndarray:
    """Returns log p(label) from the frequencies in some records, [V].

    It is what a model that looks at nothing can know. One is added to every
    count, so that an unseen label costs something finite.

    Args:
        record_set: Usually the training records.
        masker: For compact records: it spells the labels.
        vocab_size: V.
        limit: Read at most so many records.
    """
    counts = np.ones(vocab_size, np.float64)
    strings = tf.data.TFRecordDataset(list(record_set.paths))
    for block in strings.take(limit).batch(256):
        if record_set.kind == "classic":
            batch = parse_classic(block, record_set)
            ids = batch[features.MASKED_LM_IDS].numpy()
            ids = ids[batch[features.MASKED_LM_WEIGHTS].numpy() > 0]
        else:
            assert masker is not None
            ids = masker.all_labels(*parse_compact(block, record_set)).numpy()
        counts += np.bincount(ids, minlength=vocab_size)[:vocab_size]
    return np.log(counts / counts.sum())
