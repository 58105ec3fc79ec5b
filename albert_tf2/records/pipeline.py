"""Records to batches: in a fixed order, from any step on, fast.

    shards -> windows of parts of them, shuffled -> global batches of strings
           -> this worker's rows -> parsed -> order and masks -> the model

The order follows from (seed, epoch) alone: the parts of the set are permuted,
neighbours form windows of about `shuffle_buffer` records, and each window is
permuted whole. So a resumed run computes from the counts which window its
step lies in, and reads no other. Every record comes once per epoch; batches
run over the ends of epochs.

The builder deals compact rows out to many small shards, so the parts are whole
shards. Shards of classic records, ten copies of each row, are large, and other
programs write them in any order: their parts are blocks of 32 records, read
from where `frames` found them.

Compact records are masked here, for whole batches at once; classic records
come masked. `masking.row_keys` ties each row's mask to its number in the run.
"""

import os
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import features
from albert_tf2.errors import UserError
from albert_tf2.records import frames
from albert_tf2.records.masking import Masker, row_keys
from albert_tf2.records.record_set import (
    BUILD,
    ClassicRecords,
    CompactRecords,
)

Records = CompactRecords | ClassicRecords
# Blocks that are read at once: in a bucket each is a request.
_READ = 16
# Batches that are built at once, and ready ones that wait.
_BUILT, _WAITING = min(os.cpu_count() or 1, 16), 2


def _to_batch(record_set: Records, masker: Masker | None, seed: int):
    """Returns the function (strings [B], first row) -> batch."""

    @tf.autograph.experimental.do_not_convert
    def build(serialized, first_row):
        if isinstance(record_set, ClassicRecords):
            return record_set.parse(serialized)
        assert masker is not None, "compact records are masked here"
        rows = first_row + tf.range(
            tf.shape(serialized, tf.int64)[0], dtype=tf.int64
        )
        return masker(*record_set.parse(serialized), row_keys(seed, rows))

    return build


class _Windows:
    """The order of records in every epoch: which parts are read together.

    A part is a whole shard or, where the set knows how its shards divide, a
    block of `frames.BLOCK` records in one.
    """

    def __init__(self, record_set: Records, seed: int, shuffle_buffer: int):
        self.record_set, self.seed = record_set, seed
        counts = np.array(record_set.counts)
        shards = np.arange(len(counts))
        begins, ends = np.zeros_like(counts), np.zeros_like(counts)
        if record_set.starts is not None:
            blocks = [len(starts) - 1 for starts in record_set.starts]
            shards = np.repeat(shards, blocks)
            begins = np.concatenate([s[:-1] for s in record_set.starts])
            ends = np.concatenate([s[1:] for s in record_set.starts])
            counts = np.concatenate(
                [
                    np.diff(np.append(np.arange(0, count, frames.BLOCK), count))
                    for count in counts
                ]
            )
        # Of each part: its shard, its first and last byte, its records.
        self.shards, self.begins, self.ends = shards, begins, ends
        self.counts = counts.astype(np.int64)
        self.per_window = max(1, shuffle_buffer // max(self.counts))
        self.per_epoch = -(-len(self.counts) // self.per_window)

    def order(self, epoch) -> tf.Tensor:
        """Returns the numbers of all parts as an epoch reads them."""
        return tf.random.experimental.stateless_shuffle(
            tf.range(len(self.counts)), [self.seed, epoch]
        )

    def locate(self, row: int) -> tuple[int, int]:
        """Returns the window that a row lies in, and its place there."""
        epoch, row = divmod(row, self.record_set.records)
        ends = np.cumsum(self.counts[self.order(np.int64(epoch)).numpy()])
        last = np.append(ends[self.per_window - 1 :: self.per_window], ends[-1])
        window = int(np.searchsorted(last, row, side="right"))
        before = int(last[window - 1]) if window else 0
        return epoch * self.per_epoch + window, row - before

    def dataset(self, first_row: int) -> tf.data.Dataset:
        """Yields the shuffled strings [n] of one window after another."""
        first_window, skipped = self.locate(first_row)
        counts = tf.constant(self.counts)

        @tf.autograph.experimental.do_not_convert
        def read_epoch(epoch):
            order = self.order(epoch)
            first = epoch * self.per_epoch
            windows = tf.data.Dataset.range(
                tf.maximum(first, first_window), first + self.per_epoch
            )

            def read(window):
                place = tf.cast(window - first, tf.int32) * self.per_window
                parts = order[place : place + self.per_window]
                size = tf.reduce_sum(tf.gather(counts, parts))

                def shuffle(block):
                    # `seed` itself orders the parts of an epoch (`order`).
                    block = tf.random.experimental.stateless_shuffle(
                        block, [self.seed + 1, window]
                    )
                    start = tf.where(window == first_window, skipped, 0)
                    return block[start:]

                return self.strings(parts, size).map(shuffle)

            return windows.flat_map(read)

        epochs = tf.data.Dataset.range(
            first_window // self.per_epoch, tf.int64.max
        )
        windows = epochs.flat_map(read_epoch)
        # Blocks lie apart: the next ones are read while these are used.
        return (
            windows if self.record_set.starts is None else windows.prefetch(1)
        )

    def strings(self, parts: tf.Tensor, size: tf.Tensor) -> tf.data.Dataset:
        """Reads some parts, `size` records in all, as one element [size]."""
        shards = tf.gather(tf.constant(self.shards), parts)
        files = tf.gather(tf.constant(self.record_set.paths), shards)
        if self.record_set.starts is None:
            return tf.data.TFRecordDataset(files).batch(size)
        begins = tf.gather(tf.constant(self.begins), parts)
        lengths = tf.gather(tf.constant(self.ends), parts) - begins

        def read_block(file, begin, length):
            # `TFRecordDataset` has no public way to begin inside a file.
            variant = tf.raw_ops.TFRecordDatasetV2(
                filenames=file[None],
                compression_type="",
                buffer_size=length,  # one read each
                byte_offsets=begin[None],
            )
            rows = tf.data.experimental.from_variant(
                variant, tf.TensorSpec([], tf.string)
            )
            rows = rows.take(frames.BLOCK).batch(frames.BLOCK)
            return rows.get_single_element()

        blocks = tf.data.Dataset.from_tensor_slices((files, begins, lengths))
        blocks = blocks.map(
            read_block, num_parallel_calls=_READ, deterministic=True
        )
        return blocks.rebatch(size)


def training_dataset(
    record_set: Records,
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

    @tf.autograph.experimental.do_not_convert
    def split(step, block):
        mine = tf.reshape(block, [workers, replicas, share])[worker]
        first = step * global_batch_size + worker * replicas * share
        firsts = first + share * tf.range(replicas, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((mine, firsts))

    return _built(dataset.flat_map(split), _to_batch(record_set, masker, seed))


def evaluation_dataset(
    record_set: Records,
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
    dataset = dataset.filter(lambda number, _: number % workers == worker)
    build = _to_batch(record_set, masker, seed)
    return _built(dataset, lambda number, block: build(block, number * share))


def _built(dataset: tf.data.Dataset, build) -> tf.data.Dataset:
    """Builds batches ahead of those who take them.

    By fixed numbers: TensorFlow's autotuning has a thread that measures, and
    whoever lets go of the iterator waits for it, seen for up to a minute (it
    may look whether it is to end a moment before it is told).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return (
        dataset.map(build, num_parallel_calls=_BUILT, deterministic=True)
        .prefetch(_WAITING)
        .with_options(options)
    )


def split_batch(
    batch: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a batch into the model's inputs and the labels."""
    labels = {name: batch[name] for name in features.LABELS}
    inputs = {k: v for k, v in batch.items() if k not in labels}
    return inputs, labels


def unigram_log_probs(
    record_set: Records,
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
        if isinstance(record_set, ClassicRecords):
            batch = record_set.parse(block)
            ids = batch[features.MASKED_LM_IDS].numpy()
            ids = ids[batch[features.MASKED_LM_WEIGHTS].numpy() > 0]
        else:
            assert masker is not None
            ids = masker.all_labels(*record_set.parse(block)).numpy()
        counts += np.bincount(ids, minlength=vocab_size)[:vocab_size]
    return np.log(counts / counts.sum())
