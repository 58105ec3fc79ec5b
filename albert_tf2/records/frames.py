"""Where records begin in shards of classic records: found once, kept.

A shard is a chain of frames, each with its length in front, so one pass over
the file finds them all. The start of one record in 32 is kept, which is what
`pipeline` needs to read such a block wherever it lies:

    record   0  1  2  ...  31  32  33  ...  63  64
    starts   0                 78,336           156,620     ... , the file's end

The index of a folder is `.records-index.npz` in it or, where that cannot be
written, a file in the cache folder (`paths.cache_folder`). A shard whose size
or time of change is not the index's is read again, and no other.
"""

import concurrent.futures
import hashlib
import io
import os
import struct
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.paths.arrays import read_arrays

BLOCK = 32  # records
INDEX = ".records-index.npz"
# A frame: the payload's length, the length's checksum, the payload, its own.
_LENGTH = struct.Struct("<Q")
_HEAD, _TAIL = 12, 4
# Read at a time. A longer record is none: a row of 512 tokens has 2 KB.
_CHUNK = 4 << 20
# Shards that are asked for at once (in a bucket each takes a request), and
# that are read at once.
_ASKED, _READ = 16, 4
# What reading a damaged index raises.
_NO_INDEX = (UserError, ValueError, KeyError, OSError, TypeError)
_SLOW = 5.0  # seconds after which a bar says how far the pass is


class Frames(NamedTuple):
    """The records of one shard.

    Attributes:
        records: How many there are.
        sha256: Of their lengths and checksums: what the shard holds.
        starts: int64 [blocks + 1], the byte at which each block of `BLOCK`
            records begins, and the file's size.
    """

    records: int
    sha256: str
    starts: np.ndarray


def frames_of(folder: str, names: Sequence[str]) -> list[Frames]:
    """Returns the frames of some files of a folder, from its index if it can.

    Args:
        folder: Local, or what TensorFlow serves.
        names: The shards in it.

    Raises:
        UserError: If a file is cut off, or no TFRecord file.
    """
    known = _read_index(folder)
    begun = time.monotonic()
    files = [paths.join(folder, name) for name in names]
    with concurrent.futures.ThreadPoolExecutor(_ASKED) as threads:
        versions = list(threads.map(paths.version, files))
    with concurrent.futures.ThreadPoolExecutor(_READ) as threads:
        missing = [
            place
            for place, (name, version) in enumerate(
                zip(names, versions, strict=True)
            )
            if known.get(name, (None,))[0] != version
        ]
        total = sum(versions[place].size for place in missing)
        with tqdm(
            total=total,
            unit="B",
            unit_scale=True,
            desc="counting records",
            delay=_SLOW,
        ) as bar:
            found = threads.map(lambda place: scan(files[place], bar), missing)
            for place, frames in zip(missing, found, strict=True):
                known[names[place]] = versions[place], frames
    if missing:
        kept = _write_index(folder, {name: known[name] for name in names})
        records = sum(known[names[place]][1].records for place in missing)
        print(
            f"counted {records:,} records in {len(missing):,} files "
            f"({time.monotonic() - begun:.1f} s); {kept}",
            file=sys.stderr,
        )
    return [known[name][1] for name in names]


def scan(path: str, bar: tqdm | None = None) -> Frames:
    """Reads a shard once, from its beginning to its end, without parsing."""
    count, digest, starts = 0, hashlib.sha256(), []
    begin, at, buffer = 0, 0, b""  # of the buffer in the file; in the buffer
    with paths.open_binary(path) as stream, paths.told(path, "read"):
        while True:
            more = stream.read(_CHUNK)
            begin, buffer, at = begin + at, buffer[at:] + more, 0
            if bar is not None:
                bar.update(len(more))
            seen = bytearray()
            while at + _HEAD <= len(buffer):
                length = _LENGTH.unpack_from(buffer, at)[0]
                # Zeros, as a full or a killed disk leaves them, would be
                # a record of no bytes every 16 bytes: minutes for gigabytes.
                if not 0 < length <= _CHUNK:
                    raise _damaged(path, begin + at, buffer)
                end = at + _HEAD + length + _TAIL
                if end > len(buffer):
                    break
                if count % BLOCK == 0:
                    starts.append(begin + at)
                seen += buffer[at : at + _HEAD]
                seen += buffer[end - _TAIL : end]
                count += 1
                at = end
            digest.update(seen)
            if not more:
                break
    if at < len(buffer):
        raise _damaged(path, begin + at, buffer)
    starts.append(begin + at)
    return Frames(count, digest.hexdigest(), np.array(starts, np.int64))


def _damaged(path: str, byte: int, buffer: bytes) -> UserError:
    if byte == 0 and buffer[:2] == b"\x1f\x8b":
        return UserError(f"{path} is compressed: unpack it with `gunzip`")
    return UserError(
        f"{path} is cut off or damaged (no whole record at byte {byte:,}): "
        "copy it again"
    )


def _places(folder: str) -> tuple[str, str]:
    """Returns where a folder's index may lie, the better place first."""
    if not paths.is_remote(folder):
        folder = os.path.realpath(paths.local(folder))
    digest = hashlib.sha256(folder.encode()).hexdigest()
    return (
        paths.join(folder, INDEX),
        paths.join(paths.cache_folder(), "records", f"{digest[:24]}.npz"),
    )


def _read_index(folder: str) -> dict[str, tuple[paths.Version, Frames]]:
    """Returns what is known of a folder's files; nothing if it is damaged."""
    known: dict[str, tuple[paths.Version, Frames]] = {}
    for place in reversed(_places(folder)):
        try:
            if paths.is_file(place):
                known |= _parse(read_arrays(place))
        except _NO_INDEX:
            continue  # it is made again
    return known


def _parse(
    index: dict[str, np.ndarray],
) -> dict[str, tuple[paths.Version, Frames]]:
    if int(index["block"]) != BLOCK:
        return {}
    ends = np.cumsum(index["blocks"] + 1)
    parts = np.split(index["starts"], ends[:-1])
    rows = zip(
        index["names"].tolist(),
        index["sizes"].tolist(),
        index["times"].tolist(),
        index["counts"].tolist(),
        index["sums"].tolist(),
        parts,
        strict=True,
    )
    return {
        name: (paths.Version(size, time), Frames(count, digest, starts))
        for name, size, time, count, digest, starts in rows
    }


def _write_index(
    folder: str, known: dict[str, tuple[paths.Version, Frames]]
) -> str:
    """Keeps an index where that is possible; returns where, as a sentence."""
    stream = io.BytesIO()
    frames = [frames for _, frames in known.values()]
    np.savez(
        stream,
        block=BLOCK,
        names=np.array(list(known)),
        sizes=np.array([version.size for version, _ in known.values()]),
        times=np.array([version.changed for version, _ in known.values()]),
        counts=np.array([f.records for f in frames]),
        sums=np.array([f.sha256 for f in frames]),
        blocks=np.array([len(f.starts) - 1 for f in frames]),
        starts=np.concatenate([f.starts for f in frames]),
    )
    for place in _places(folder):
        try:
            with paths.atomic_file(place, "wb", fsync=False) as goal:
                goal.write(stream.getvalue())
        except (UserError, OSError):
            continue
        return f"kept in {place}"
    return "nothing can be kept, so the next start counts again"
