"""Parts -> shards: every part is read once, every shard is written once.

Each part deals its rows out over all shards. Were every shard to open every
part, 300 GB of text would take hundreds of millions of reads. So a few
processes go through the parts once, each through a stretch of them, and
append the rows to one *spool* per shard; then each shard is read from its
spools, shuffled and written.

    parts:   0 1 2 3 | 4 5 6 7       one stretch per process
    spools:  shard 0 of stretch 0, shard 0 of stretch 1, shard 1 of ...
    shard 0: its spools in the order of the stretches, then shuffled

So the order of a shard's rows before the shuffle is that of the corpus,
however many stretches there are. Spark does the same with its own shuffle.
"""

import contextlib
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from albert_tf2 import paths
from albert_tf2.errors import UserError

from . import part_files, parts, records, shards, units

# Rows are held back until they take so many bytes, then written to all
# spools: few writes, and little memory.
SPOOL_BYTES = 32 << 20
# Stretches that are spooled at once; each has a spool for every shard.
MOST_STRETCHES = 4
# Files that a process needs besides its spools.
OTHER_FILES = 64

Key = tuple[str, int]


def deal_part(
    plan: shards.Plan, name: str, continued: str | None
) -> dict[Key, bytes]:
    """Returns the rows of a part for each (subset, shard) that has some.

    Args:
        plan: The build.
        name: The part's file.
        continued: The subset of the document that it does not begin.
    """
    path = paths.join(plan.parts_folder, name)
    try:
        _, blocks = part_files.read_part(path)
    except ValueError as error:
        raise UserError(
            f"{error}: run the same command again to make it anew"
        ) from None
    rows = {key: bytes(block) for key, block in blocks.items()}
    held_back = rows.pop((parts.CONTINUED, 0), None)
    if held_back is not None:
        assert continued is not None, "the census knows whose rows they are"
        file_number, unit_index = part_files.place_of(name)
        unit = units.Unit(plan.files[file_number], unit_index)
        frames = records.split_frames(held_back)
        dealt = parts.deal(
            plan.config, unit, continued, frames, draw="continued"
        )
        for key, some in dealt.items():
            rows[key] = rows.get(key, b"") + b"".join(some)
    return rows


def stretches(names: Sequence[str], count: int) -> list[Sequence[str]]:
    """Cuts the parts into consecutive stretches, at most `count`."""
    size = max(1, -(-len(names) // max(1, min(count, MOST_STRETCHES))))
    return [names[i : i + size] for i in range(0, len(names), size)]


@contextlib.contextmanager
def spools_folder(plan: shards.Plan) -> Iterator[str]:
    """Yields an empty folder on this machine, and removes it in the end."""
    if paths.is_remote(plan.output_dir):
        with paths.temporary_folder("spools") as folder:
            yield folder
        return
    folder = os.path.join(paths.local(plan.parts_folder), "spools")
    paths.remove_folder(folder)  # of a build that was killed
    paths.make_folder(folder)
    yield folder
    paths.remove_folder(folder)


def spool_name(key: Key, stretch: int) -> str:
    """Names the rows of one shard from one stretch of the parts."""
    return f"{key[0]}-{key[1]:05d}-{stretch}.spool"


def spool(
    plan: shards.Plan,
    stretch: int,
    names: Sequence[str],
    continued: Mapping[str, str],
    wanted: Sequence[Key],
    folder: str,
) -> None:
    """Deals the rows of a stretch of parts out to its spools.

    The parts are read once, or, where there are more shards than a process
    may open files, once for every so many shards.
    """
    most = open_files(len(wanted) + OTHER_FILES) - OTHER_FILES
    for begin in range(0, len(wanted), most):
        some = wanted[begin : begin + most]
        with _Spools(folder, stretch, some) as spools:
            for name in names:
                dealt = deal_part(plan, name, continued.get(name))
                for key, rows in dealt.items():
                    spools.add(key, rows)


class _Spools:
    """One open file for each shard, written in large pieces."""

    def __init__(self, folder: str, stretch: int, keys: Sequence[Key]):
        self._files: dict[Key, IO[bytes]] = {}
        self._waiting: dict[Key, list] = {key: [] for key in keys}
        self._bytes = 0
        self._folder, self._stretch = folder, stretch

    def __enter__(self) -> "_Spools":
        return self

    def add(self, key: Key, rows: bytes) -> None:
        if key in self._waiting:
            self._waiting[key].append(rows)
            self._bytes += len(rows)
            if self._bytes >= SPOOL_BYTES:
                self._write()

    def _write(self) -> None:
        for key, rows in self._waiting.items():
            if rows:
                self._file(key).write(b"".join(rows))
                rows.clear()
        self._bytes = 0

    def _file(self, key: Key) -> IO[bytes]:
        if key not in self._files:
            name = spool_name(key, self._stretch)
            self._files[key] = open(os.path.join(self._folder, name), "wb")
        return self._files[key]

    def __exit__(self, *_: object) -> None:
        try:
            self._write()  # may open some yet
        finally:
            with contextlib.ExitStack() as stack:
                for file in self._files.values():
                    stack.enter_context(file)


def read_spools(folder: str, key: Key) -> list[bytes]:
    """Returns the rows of a shard, one block per stretch."""
    blocks = []
    for path in _spools_of(folder, key):
        with open(path, "rb") as stream:
            blocks.append(stream.read())
    return blocks


def remove_spools(folder: str, key: Key) -> None:
    """Frees the disk of a shard that is written."""
    for path in _spools_of(folder, key):
        os.unlink(path)


def _spools_of(folder: str, key: Key) -> list[str]:
    paths = [
        os.path.join(folder, spool_name(key, stretch))
        for stretch in range(MOST_STRETCHES)
    ]
    return [path for path in paths if os.path.exists(path)]


def open_files(wanted: int) -> int:
    """Lets this process open so many files, or as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)
