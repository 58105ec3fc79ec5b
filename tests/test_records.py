"""The bytes on disk, against TensorFlow's own reader and parser."""

import random

import numpy as np
import pytest
from small_records import unpack_tokens

from albert_tf2 import UserError
from albert_tf2.data import records


def test_frames_are_what_tensorflow_writes(tmp_path):
    import tensorflow as tf

    rng = random.Random(3)
    sizes = [0, 1, 2, 3, 255, 256, 1079, *rng.choices(range(2000), k=50)]
    payloads = [rng.randbytes(size) for size in sizes]
    theirs = tmp_path / "theirs"
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for payload in payloads:
            writer.write(payload)
    frames = records.frame(payloads)
    assert b"".join(frames) == theirs.read_bytes()
    assert list(records.read_records(str(theirs))) == payloads
    assert [bytes(f) for f in records.split_frames(theirs.read_bytes())] == (
        frames
    )
    assert records.frame([]) == []


def test_compact_example_is_what_protobuf_parses():
    import tensorflow as tf

    lengths = [1, 127, 128, 300, 70_000]
    example = tf.train.Example.FromString(
        records.compact_example(b"\x01\x80" * 100, lengths)
    )
    feature = example.features.feature
    assert set(feature) == {"tokens", "segment_lengths"}
    assert feature["tokens"].bytes_list.value == [b"\x01\x80" * 100]
    assert feature["segment_lengths"].int64_list.value == lengths


@pytest.mark.parametrize(
    "vocab_size, dtype",
    [(21128, "uint16"), (32768, "uint16"), (32769, "uint32")],
)
def test_tokens_keep_ids_and_word_starts(vocab_size, dtype):
    assert records.token_dtype(vocab_size) == dtype
    ids = np.array([0, 1, vocab_size - 1, 100], np.int32)
    starts = np.array([True, False, True, False])
    packed = records.pack_tokens(ids, starts, dtype).tobytes()
    assert len(packed) == 4 * np.dtype(dtype).itemsize
    assert packed[:4] == (
        b"\x00\x80\x01\x00" if dtype == "uint16" else b"\x00\x00\x00\x80"
    )
    again, again_starts = unpack_tokens(packed, dtype)
    np.testing.assert_array_equal(again, ids)
    np.testing.assert_array_equal(again_starts, starts)


@pytest.mark.parametrize("position", [3, 9, 14, -2, None])
def test_damage_is_named(tmp_path, position):
    data = bytearray(b"".join(records.frame([b"first", b"second"])))
    if position is None:
        data = data[:-3]
    else:
        data[position] ^= 1
    path = tmp_path / "records"
    path.write_bytes(data)
    with pytest.raises(UserError, match="record [01]: the record is damaged"):
        list(records.read_records(str(path)))
