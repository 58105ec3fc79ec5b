"""Checkpoint files that lie: a clear error, whatever is in them.

TensorFlow's own reader aborts the process on some of these, which is why
`bundle` reads the index first.
"""

import shutil
import struct

import numpy as np
import pytest
import sorted_table
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import tensor_bundle_pb2

from albert_tf2 import UserError
from albert_tf2.checkpoints import bundle
from albert_tf2.checkpoints.bundle import Bundle, Entry

DATA = np.arange(16, dtype=np.float32).tobytes()


def entry(shape, size=64, *, offset=0, dtype=1, shard=0):
    proto = tensor_bundle_pb2.BundleEntryProto(
        dtype=dtype,
        size=size,
        offset=offset,
        shard_id=shard,
        crc32c=sorted_table.masked(sorted_table.crc32c(DATA)),
    )
    for dimension in shape:
        proto.shape.dim.add(size=dimension)
    return proto.SerializeToString()


def write(folder, value, *, data=DATA, compression=0, endianness=0):
    header = tensor_bundle_pb2.BundleHeaderProto(
        num_shards=1, endianness=endianness
    )
    header.version.producer = 1
    entries = {b"": header.SerializeToString(), b"a": value}
    prefix = folder / "model"
    prefix.with_suffix(".index").write_bytes(
        sorted_table.table(entries, compression)
    )
    prefix.with_suffix(".data-00000-of-00001").write_bytes(data)
    return prefix


def test_an_honest_file(tmp_path):
    """What the tests below change: TensorFlow reads it, so do we."""
    prefix = write(tmp_path, entry([4, 4]))
    found = Bundle(prefix)
    assert found.entries == {"a": Entry((4, 4), "float32")}
    expected = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_array_equal(found.read("a"), expected)
    theirs = tf.train.load_checkpoint(str(prefix)).get_tensor("a")
    np.testing.assert_array_equal(theirs, expected)


def test_agrees_with_tensorflow(golden_folder):
    prefix = golden_folder / "optimizer/google_toy_lamb/model.ckpt-6"
    found = Bundle(prefix)
    reader = tf.train.load_checkpoint(str(prefix))
    shapes = reader.get_variable_to_shape_map()
    assert {n: list(e.shape) for n, e in found.entries.items()} == shapes
    assert not found.is_object_based


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (entry([50000, 50000], 10_000_000_000), r"10,000,000,000 bytes"),
        (entry([50000, 50000]), r"declares the shape \(50000, 50000\)"),
        (entry([-5, 4]), r"declares the shape \(-5, 4\)"),
        (entry([-4, -4]), r"declares the shape \(-4, -4\)"),
        (entry([2**40, 2**40]), "declares the shape"),
        (entry([4, 4], -64), "0 bytes are stored"),
        (entry([2, 2]), "16 bytes, but 64 bytes are stored"),
        (entry([4, 4], offset=-64), "declares the shape"),
        (entry([4, 4], offset=2**60), "declares the shape"),
        (entry([4, 4], dtype=99), "has type 99"),
        (entry([4, 4], shard=5), "data-00005-of-00001 is missing"),
        (entry([2**40], dtype=7), "declares the shape"),  # strings
        (b"\xff\xff\xff\xff", "truncated or damaged"),
    ],
    ids=[
        "10 GB",
        "10 GB, small size",
        "negative",
        "twice negative",
        "overflow",
        "negative size",
        "fewer than are stored",
        "negative offset",
        "far offset",
        "type",
        "shard",
        "strings",
        "garbage",
    ],
)
def test_entries_that_lie(value, message, tmp_path):
    with pytest.raises(UserError, match=message):
        Bundle(write(tmp_path, value))


@pytest.mark.parametrize(
    ("shared", "fresh", "length"),
    [(5, 1, 0), (0, 2**40, 0), (0, 1, 2**40), (0, 1, 2**62)],
)
def test_block_entries_that_point_outside(shared, fresh, length, tmp_path):
    numbers = map(sorted_table.varint, (shared, fresh, length))
    block = b"".join(numbers) + b"a" * 8 + struct.pack("<II", 0, 1)
    index = sorted_table.table({b"a": b""}, data_block=block)
    (tmp_path / "model.index").write_bytes(index)
    with pytest.raises(UserError, match="point outside the file"):
        Bundle(tmp_path / "model")


def test_endless_number():
    with pytest.raises(IndexError):
        bundle._varint(b"\xff" * 30 + b"\x01", 0)


def test_wrong_checksum(tmp_path):
    prefix = write(tmp_path, entry([4, 4]), data=DATA[:-1] + b"\x7f")
    found = Bundle(prefix)
    with pytest.raises(UserError, match="hecksum does not match"):
        found.read("a")


def test_compressed_and_big_endian(tmp_path):
    with pytest.raises(UserError, match="compressed"):
        Bundle(write(tmp_path, entry([4, 4]), compression=1))
    with pytest.raises(UserError, match="big-endian"):
        Bundle(write(tmp_path, entry([4, 4]), endianness=1))


def test_partitioned_variable(tmp_path):
    proto = tensor_bundle_pb2.BundleEntryProto.FromString(entry([4, 4]))
    proto.slices.add()
    with pytest.raises(UserError, match="stored in slices"):
        Bundle(write(tmp_path, proto.SerializeToString()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("saved") / "model"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=[f"bert/layer_{i}/kernel" for i in range(40)],
        shape_and_slices=[""] * 40,
        tensors=[tf.random.normal([3, i]) for i in range(40)],
    )
    return prefix


@pytest.mark.parametrize("length", [0, 1, 47, 48, 200, -1])
def test_truncated_index(length, saved, tmp_path):
    content = saved.with_suffix(".index").read_bytes()
    (tmp_path / "model.index").write_bytes(content[:length])
    with pytest.raises(UserError, match="truncated or damaged"):
        Bundle(tmp_path / "model")


def test_truncated_data(saved, tmp_path):
    shutil.copy(saved.with_suffix(".index"), tmp_path)
    name = "model.data-00000-of-00001"
    content = saved.with_name(name).read_bytes()
    (tmp_path / name).write_bytes(content[:-10])
    with pytest.raises(UserError, match="truncated or damaged"):
        Bundle(tmp_path / "model")


def test_an_error_page_for_a_checkpoint(tmp_path):
    (tmp_path / "model.index").write_text("<html>" + "x" * 100)
    with pytest.raises(UserError, match="magic number"):
        Bundle(tmp_path / "model")


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_damage_is_an_error_or_harmless(data, saved, tmp_path):
    """Bytes of a real index changed at random: never another exception."""
    content = bytearray(saved.with_suffix(".index").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    (tmp_path / "model.index").write_bytes(bytes(content))
    name = "model.data-00000-of-00001"
    shutil.copy(saved.with_name(name), tmp_path)
    try:
        found = Bundle(tmp_path / "model")
        for variable in found.entries:
            found.read(variable)
    except UserError:
        pass
