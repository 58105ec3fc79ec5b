"""TensorFlow's checkpoint files, read with suspicion.

A checkpoint `model.ckpt` is an index (`model.ckpt.index`, a sorted table of
variable name -> type, shape, place) and data files beside it. TensorFlow's own
reader aborts the whole process when an index declares an impossible shape, so
the index is read and checked here first; TensorFlow then reads the values and
verifies their checksums.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_tf2 import paths
from albert_tf2.errors import UserError

# The last eight bytes of an index, and the two block handles before them.
TABLE_MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
BLOCK_TRAILER_BYTES = 5  # compression kind, checksum
# No index of a real model comes near; a file of gigabytes is no index.
MAX_INDEX_BYTES = 64 << 20
MAX_KEY_BYTES = 4096
# The key under which TensorFlow 2 keeps the graph of saved objects.
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

# What TensorFlow's readers raise at damage, beside its own `OpError`.
READ_ERRORS = (ValueError, IndexError, RuntimeError)


class Entry(NamedTuple):
    """What an index says about one variable."""

    shape: tuple[int, ...]
    dtype: str  # as NumPy spells it, or "string"


class Bundle:
    """One checkpoint: its variables' shapes at once, their values on demand."""

    def __init__(self, prefix: paths.PathLike):
        """Reads and checks the index.

        Args:
            prefix: The path without `.index` and `.data-00000-of-00001`.

        Raises:
            UserError: If a file is missing, truncated or contradicts itself.
        """
        self.prefix = Path(prefix)
        self.entries = _read_entries(self.prefix)
        self._reader: Any = None  # of TensorFlow, opened when needed

    @property
    def files(self) -> list[Path]:
        """The index and the data files, in order."""
        pattern = f"{self.prefix.name}.data-*"
        return [_index_file(self.prefix)] + sorted(
            self.prefix.parent.glob(pattern)
        )

    @property
    def is_object_based(self) -> bool:
        """Whether TensorFlow 2's `tf.train.Checkpoint` wrote it."""
        return OBJECT_GRAPH in self.entries

    def read(self, name: str) -> np.ndarray | bytes:
        """Returns a variable's value, its checksum verified."""
        import tensorflow as tf

        try:
            if self._reader is None:
                self._reader = tf.train.load_checkpoint(str(self.prefix))
            return self._reader.get_tensor(name)
        except (tf.errors.OpError, *READ_ERRORS) as e:
            raise damaged(self.prefix, f"`{name}`: {first_line(e)}") from e


def first_line(error: Exception) -> str:
    """Returns what a library says first of an error."""
    return str(error).strip().split("\n")[0]


def damaged(path: Path, detail: str) -> UserError:
    """Returns the error that names a damaged file or folder."""
    return UserError(
        f"{path} is truncated or damaged ({detail}): fetch or copy it again"
    )


def _index_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _read_entries(prefix: Path) -> dict[str, Entry]:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import tensor_bundle_pb2

    path = _index_file(prefix)
    header = tensor_bundle_pb2.BundleHeaderProto()
    entries = {}
    shard_bytes: dict[int, int] = {}
    for key, value in _read_table(path):
        try:
            if key == b"":
                header.ParseFromString(value)
                continue
            name = key.decode("utf-8")
            proto = tensor_bundle_pb2.BundleEntryProto.FromString(value)
        except (DecodeError, UnicodeDecodeError) as error:
            raise damaged(path, f"entry {key[:40]!r}") from error
        if proto.shard_id not in shard_bytes:
            shard_bytes[proto.shard_id] = _shard_bytes(
                prefix, proto.shard_id, header.num_shards
            )
        entries[name] = _check(path, name, proto, shard_bytes[proto.shard_id])
    if not entries:
        raise damaged(path, "it lists no variable")
    if header.endianness != tensor_bundle_pb2.BundleHeaderProto.LITTLE:
        raise UserError(
            f"{path} was written on a big-endian machine: save it again on an "
            "ordinary one"
        )
    return entries


def _shard_bytes(prefix: Path, shard: int, count: int) -> int:
    name = f"{prefix.name}.data-{shard:05d}-of-{count:05d}"
    try:
        return prefix.with_name(name).stat().st_size
    except OSError:
        raise UserError(
            f"{prefix.with_name(name)} is missing: a checkpoint is its .index "
            "and all its .data files, copy them together"
        ) from None


def _check(path: Path, name: str, proto, shard_bytes: int) -> Entry:
    """Returns an entry whose shape, type and place agree with the files."""
    import tensorflow as tf

    shape = tuple(dim.size for dim in proto.shape.dim)
    if proto.slices:
        raise UserError(
            f"{path}: `{name}` is stored in slices (a partitioned variable): "
            "save the model again without a partitioner"
        )
    if any(size < 0 for size in shape) or proto.shape.unknown_rank:
        raise damaged(path, f"`{name}` declares the shape {shape}")
    try:
        dtype = tf.dtypes.as_dtype(proto.dtype)
        item = 1 if dtype == tf.string else dtype.size
    except (TypeError, KeyError):
        raise damaged(path, f"`{name}` has type {proto.dtype}") from None
    declared = math.prod(shape) * item
    fits = (
        declared <= proto.size if dtype == tf.string else declared == proto.size
    )
    inside = proto.offset >= 0 and proto.size >= 0
    if not (fits and inside and proto.offset + proto.size <= shard_bytes):
        raise damaged(
            path,
            f"`{name}` declares the shape {shape}, {declared:,} bytes, but "
            f"{max(proto.size, 0):,} bytes are stored in a file of "
            f"{shard_bytes:,}",
        )
    return Entry(shape, dtype.name)


def _read_table(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of an index in order.

    The format is LevelDB's sorted table: data blocks, then a block that lists
    them, then a footer with the handle of that list and the magic number.
    """
    data = paths.read_bytes(path, MAX_INDEX_BYTES)
    magic = data[-8:]
    if len(data) < FOOTER_BYTES or magic != struct.pack("<Q", TABLE_MAGIC):
        raise damaged(path, "the magic number at its end is missing")
    try:
        footer = len(data) - FOOTER_BYTES
        _, at = _handle(data, footer)  # an index of metadata, always empty
        (offset, size), _ = _handle(data, at)
        for _, handle in _read_block(path, data, offset, size):
            (offset, size), _ = _handle(handle, 0)
            yield from _read_block(path, data, offset, size)
    except (IndexError, struct.error) as error:
        raise damaged(path, "its blocks point outside the file") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("varint")


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _read_block(
    path: Path, data: bytes, offset: int, size: int
) -> Iterator[tuple[bytes, bytes]]:
    """Yields the entries of one block; keys share prefixes with the last."""
    if offset + size + BLOCK_TRAILER_BYTES > len(data):
        raise IndexError("block")
    if data[offset + size]:
        raise UserError(f"{path} is compressed, which TensorFlow never does")
    block = data[offset : offset + size]
    (restarts,) = struct.unpack_from("<I", block, size - 4)
    end = size - 4 * (restarts + 1)
    if end < 0:
        raise IndexError("restarts")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + fresh + length > end:
            raise IndexError("entry")
        # Keys share their beginnings: one of megabytes could be repeated by
        # a few bytes each.
        if shared + fresh > MAX_KEY_BYTES:
            raise IndexError("key")
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length
