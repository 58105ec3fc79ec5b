"""Shards of other programs: found once, kept, read from any block on."""

import hashlib
import os
import re
import subprocess
import sys
import types

import fake_bucket
import numpy as np
import pytest
import tensorflow as tf
from small_records import LENGTH, example

from albert_tf2 import UserError, paths
from albert_tf2.records import frames, pipeline
from albert_tf2.records.record_set import open_records


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(folder))
    return folder


def numbered(number, length=LENGTH):
    """A classic record that holds its number in its first two ids."""
    ids = np.full(length, 7)
    ids[:2] = divmod(number, 1000)
    return example(
        {
            "input_ids": ids,
            "input_mask": np.ones(length, int),
            "segment_ids": np.zeros(length, int),
            "masked_lm_positions": [3, 7],
            "masked_lm_ids": [11, 12],
            "masked_lm_weights": [1.0, 1.0],
            "next_sentence_labels": [1],
        }
    )


def write(folder, sizes):
    """Writes shards of so many numbered records, numbered through."""
    folder.mkdir(exist_ok=True)
    number = 0
    for shard, size in enumerate(sizes):
        path = str(folder / f"tf_examples.tfrecord{shard}")
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(size):
                writer.write(numbered(number))
                number += 1
    return folder


def order(dataset, batches=-1):
    """Returns the records' numbers, in the order of a dataset of batches."""
    return np.concatenate(
        [
            batch["input_word_ids"][:, :2] @ [1000, 1]
            for batch in dataset.take(batches).as_numpy_iterator()
        ]
    )


def training(folder, **changes):
    settings = {"global_batch_size": 20, "seed": 3, "shuffle_buffer": 256}
    return pipeline.training_dataset(
        open_records(folder), None, **settings | changes
    )


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 100])
@pytest.mark.parametrize("chunk", [60, 4 << 20])
def test_blocks_begin_where_their_records_do(
    tmp_path, monkeypatch, size, chunk
):
    record = numbered(0)
    # Of chunks that are hardly larger than a record, most cut one in two.
    monkeypatch.setattr(frames, "_CHUNK", max(chunk, len(record) + 1))
    path = write(tmp_path, [size]) / "tf_examples.tfrecord0"
    found = frames.scan(str(path))
    content = path.read_bytes()
    assert found.records == size
    assert found.starts[-1] == len(content)
    assert len(found.starts) == 1 + -(-size // 32)
    for block, start in enumerate(found.starts[:-1]):
        payload = content[start + 12 : start + 12 + len(record)]
        assert payload == numbered(32 * block)


def test_the_sum_is_of_lengths_and_checksums(tmp_path):
    """Runs of earlier versions know their records by it."""
    write(tmp_path, [5])
    path = tmp_path / "tf_examples.tfrecord0"
    content, expected = path.read_bytes(), b""
    while content:
        end = 16 + int.from_bytes(content[:8], "little")
        expected += content[:12] + content[end - 4 : end]
        content = content[end:]
    assert frames.scan(str(path)).sha256 == hashlib.sha256(expected).hexdigest()


def test_zeros_are_no_records(tmp_path):
    """Gigabytes of them were counted, for minutes."""
    write(tmp_path, [5])
    path = tmp_path / "tf_examples.tfrecord0"
    whole = path.stat().st_size
    os.truncate(path, 64 << 20)
    with pytest.raises(UserError, match=f"no whole record at byte {whole:,}"):
        frames.scan(str(path))


@pytest.fixture
def scanned(monkeypatch):
    """Collects the names of the shards that are read through."""
    names, scan = [], frames.scan

    def noted(path, bar=None):
        names.append(paths.name(path))
        return scan(path, bar)

    monkeypatch.setattr(frames, "scan", noted)
    return names


def test_a_folder_is_read_through_once(tmp_path, scanned, capsys):
    folder = write(tmp_path / "set", [40, 33])
    first = open_records(folder)
    assert first.counts == (40, 33) and len(scanned) == 2
    index = folder / ".records-index.npz"
    told = r"counted 73 records in 2 files \(\d+\.\d s\); kept in "
    told += re.escape(f"{index}\n") + "$"
    assert re.search(told, capsys.readouterr().err) and index.exists()
    again = open_records(folder)
    assert open_records(folder, "eval").records == 0
    assert len(scanned) == 2 and "counted" not in capsys.readouterr().err
    assert again == first
    for one, other in zip(first.starts, again.starts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_shard_that_changed_is_read_again_alone(tmp_path, scanned):
    folder = write(tmp_path / "set", [40, 33])
    assert open_records(folder).records == 73
    changed = folder / "tf_examples.tfrecord1"
    os.utime(changed, ns=(1, 1))  # as many bytes as before, but written later
    open_records(folder)
    assert scanned[2:] == ["tf_examples.tfrecord1"]
    write(tmp_path / "new", [1, 1, 5])
    os.replace(
        tmp_path / "new" / "tf_examples.tfrecord2",
        folder / "tf_examples.tfrecord2",
    )
    assert open_records(folder).counts == (40, 33, 5)
    assert scanned[3:] == ["tf_examples.tfrecord2"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not", b"x" * 1000])
def test_a_damaged_index_is_made_again(tmp_path, scanned, content):
    folder = write(tmp_path / "set", [40])
    open_records(folder)
    (folder / frames.INDEX).write_bytes(content)
    assert open_records(folder).records == 40 and len(scanned) == 2
    assert open_records(folder).records == 40 and len(scanned) == 2


def test_where_nothing_can_be_written_the_cache_keeps_it(
    tmp_path, scanned, cache, capsys
):
    folder = write(tmp_path / "set", [40])
    (folder / frames.INDEX).mkdir()  # no file can take its place, even root's
    assert open_records(folder).records == 40
    assert f"kept in {cache}/records/" in capsys.readouterr().err
    assert open_records(folder).records == 40 and len(scanned) == 1
    other = write(tmp_path / "other", [33])  # has an index of its own there
    (other / frames.INDEX).mkdir()
    assert open_records(other).records == 33
    assert open_records(folder).records == 40 and len(scanned) == 2


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder_works(tmp_path, scanned):
    folder = write(tmp_path / "set", [40])
    folder.chmod(0o555)
    try:
        assert open_records(folder).records == 40
        assert open_records(folder).records == 40 and len(scanned) == 1
    finally:
        folder.chmod(0o755)


def test_with_no_place_at_all_it_still_works(tmp_path, scanned, cache, capsys):
    folder = write(tmp_path / "set", [40])
    (folder / frames.INDEX).mkdir()
    (cache / "records").write_text("a file")
    for _ in range(2):
        assert open_records(folder).records == 40
        assert "the next start counts again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda content: content[:-1], "cut off or damaged .no whole record"),
        (lambda content: content[:-20], "cut off or damaged"),
        (lambda content: content + b"123", "cut off or damaged"),
        (lambda content: b"\x1f\x8b" + content, "unpack it with `gunzip`"),
        (lambda content: b"plain text, and more", "at byte 0.: copy it again"),
    ],
)
def test_what_is_no_whole_shard_is_refused(tmp_path, damage, message):
    folder = write(tmp_path / "set", [40])
    path = folder / "tf_examples.tfrecord0"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        open_records(folder)
    assert not (folder / frames.INDEX).exists()


def test_a_length_that_cannot_be_stops_the_reading(tmp_path, monkeypatch):
    """Else a damaged shard would come into memory whole."""
    path = write(tmp_path / "set", [400]) / "tf_examples.tfrecord0"
    content = path.read_bytes()
    path.write_bytes(b"\0\0\0\0\1" + content[5:])  # 4 GB
    monkeypatch.setattr(frames, "_CHUNK", 4096)
    read = []
    bar = types.SimpleNamespace(update=read.append)
    with pytest.raises(UserError, match="no whole record at byte 0"):
        frames.scan(str(path), bar)
    assert read == [4096] and len(content) > 20 * 4096


def test_shards_without_records_are_left_out(tmp_path):
    folder = write(tmp_path / "set", [0, 40, 0])
    assert open_records(folder).counts == (40,)
    (folder / "tf_examples.tfrecord1").unlink()
    with pytest.raises(UserError, match="files with records"):
        open_records(folder)


def test_every_epoch_has_every_record_once_in_another_order(tmp_path):
    folder = write(tmp_path / "set", [450, 3, 100, 47])  # 600: 30 batches
    rows = order(training(folder), 90).reshape(3, 600)
    for epoch in rows:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(600))
    assert (rows[0] != rows[1]).mean() > 0.9 < (rows[1] != rows[2]).mean()


def test_the_order_is_of_the_whole_set(tmp_path):
    """20,000 rows in one sorted shard and a small one; 1,024 in memory."""
    folder = write(tmp_path / "set", [19_000, 1_000])
    rows = order(
        training(folder, global_batch_size=1000, shuffle_buffer=1024), 20
    )
    places = np.empty(20_000)
    places[rows] = np.arange(20_000)
    # A row's number says nothing about its place: no correlation.
    assert abs(np.corrcoef(np.arange(20_000), places)[0, 1]) < 0.06
    # Each tenth of the epoch has 62 or 63 blocks, of any tenth of the set:
    # chi-square with 81 degrees of freedom, and its deviation is 13.
    table = np.histogram2d(np.arange(20_000), places, bins=10)[0] / 32
    assert 42 < ((table - 6.25) ** 2 / 6.25).sum() < 120
    # What stood together is apart: of 20 rows that train together, few are
    # neighbours, though all came in blocks of neighbours.
    near = [
        (np.diff(np.sort(batch)) == 1).sum() for batch in rows.reshape(-1, 20)
    ]
    assert np.mean(near) < 1.0


@pytest.mark.parametrize("start_step", [1, 7, 12, 13, 29, 30, 31, 64, 1000])
def test_a_resumed_order_equals_an_uninterrupted_one(tmp_path, start_step):
    folder = write(tmp_path / "set", [450, 3, 100, 40])
    through = order(training(folder), start_step + 5)[20 * start_step :]
    resumed = order(training(folder, start_step=start_step), 5)
    np.testing.assert_array_equal(through, resumed)


def test_workers_read_disjoint_rows_of_one_order(tmp_path):
    folder = write(tmp_path / "set", [450, 150])
    whole = order(training(folder, start_step=2), 30)
    mine = [
        order(training(folder, start_step=2, workers=2, worker=i), 30)
        for i in (0, 1)
    ]
    joined = np.stack([part.reshape(30, 10) for part in mine], 1)
    np.testing.assert_array_equal(joined.reshape(-1), whole)


def test_the_seed_alone_orders(tmp_path):
    folder = write(tmp_path / "set", [450, 150])
    first = order(training(folder), 30)
    copy = write(tmp_path / "copy", [450, 150])
    np.testing.assert_array_equal(first, order(training(copy), 30))
    assert (first != order(training(folder, seed=4), 30)).mean() > 0.9


MEMORY = """
import sys
from resource import RUSAGE_SELF, getrusage
from albert_tf2.records import pipeline
from albert_tf2.records.record_set import open_records

def peak(folder):
    dataset = pipeline.training_dataset(
        open_records(folder), None, global_batch_size=32, seed=1,
        shuffle_buffer=500,
    )
    for _ in dataset.take(60):
        pass
    return getrusage(RUSAGE_SELF).ru_maxrss

print(peak(sys.argv[1]), peak(sys.argv[2]))
"""


def test_memory_does_not_grow_with_a_shard(tmp_path):
    """The large set, in one shard, is 125 MB."""
    for name, size in (("small", 500), ("large", 60_000)):
        (tmp_path / name).mkdir()
        record = numbered(1, length=512)
        path = str(tmp_path / name / "all.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(size):
                writer.write(record)
    assert os.path.getsize(path) > 90e6
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "small", tmp_path / "large"],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    small, large = map(int, result.stdout.split())
    unit = 1 if sys.platform == "darwin" else 1024
    assert (large - small) * unit < 40e6


def test_training_goes_through_a_bucket(tmp_path):
    """TensorFlow's own client reads blocks by their offsets."""
    folder = write(tmp_path / "set", [100, 40])
    program = (
        "from albert_tf2.records import pipeline\n"
        "from albert_tf2.records.record_set import open_records\n"
        "for _ in range(2): found = open_records('gs://albert/set')\n"
        "data = pipeline.training_dataset(found, None, global_batch_size=20,"
        " seed=3, shuffle_buffer=256)\n"
        "for batch in data.take(7).as_numpy_iterator():\n"
        "    print(*(batch['input_word_ids'][:, :2] @ [1000, 1]))\n"
    )
    with fake_bucket.serve(tmp_path) as bucket:
        for path in folder.iterdir():
            bucket.objects[f"albert/set/{path.name}"] = path.read_bytes()
        result = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | bucket.environment | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        assert f"albert/set/{frames.INDEX}" in bucket.objects
    assert result.stderr.count("counted 140 records") == 1
    assert "64 MB: set GCS_READ_CACHE_BLOCK_SIZE_MB=1" in result.stderr
    rows = np.array(result.stdout.split(), int)
    np.testing.assert_array_equal(rows, order(training(folder), 7))
