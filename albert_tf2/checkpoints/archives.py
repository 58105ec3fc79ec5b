"""Unpacks .zip and .tar.gz files that come from anywhere.

An archive is a list of instructions to write files. Those that would write
outside the chosen folder, through a link, or without end are refused before
the first byte is written.
"""

import bz2
import contextlib
import functools
import gzip
import lzma
import posixpath
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from albert_tf2 import paths
from albert_tf2.errors import UserError, shown

# The largest released archive (xxlarge with its slots) unpacks to 3 GB.
MAX_UNPACKED_BYTES = 16 << 30
MAX_MEMBERS = 1000
SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")
# The longest list of names, or header, that is read: some hundred bytes for
# each member. A header may ask for gigabytes.
MAX_HEADER_BYTES = 4 << 20
_COMPRESSED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZ": bz2.BZ2File,
    b"\xfd7": lzma.LZMAFile,
}


class _Member(NamedTuple):
    name: str
    size: int
    is_folder: bool
    is_file: bool
    # None for what is no plain file, which is never opened.
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def stem(name: str) -> str:
    """Returns an archive's name without its suffix."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive into a new folder, whole or not at all.

    Raises:
        UserError: If the archive is damaged or tries to leave the folder.
    """
    try:
        with (
            paths.open_binary(archive) as raw,
            paths.atomic_directory(folder, overwrite=True) as temporary,
            _members(archive, raw) as members,
        ):
            _extract(archive, members, temporary)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # each kind of compression raises its own
        if isinstance(error, OSError) and error.errno:  # of the disk
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{archive} is truncated or damaged ({reason}): fetch it again"
        ) from error


@contextlib.contextmanager
def _members(archive: Path, raw: IO[bytes]) -> Iterator[Iterator[_Member]]:
    """Opens an archive of whatever kind its first bytes say."""
    with contextlib.ExitStack() as stack:
        if zipfile.is_zipfile(raw):
            names: Any = _Careful(raw)
            with zipfile.ZipFile(names) as opened:
                yield _zip_members(opened)
            return
        raw.seek(0)
        magic = raw.read(2)
        raw.seek(0)
        stream: Any = raw
        if magic in _COMPRESSED:
            stream = stack.enter_context(_COMPRESSED[magic](raw))
        try:
            headers: Any = _Careful(stream)
            found = stack.enter_context(
                tarfile.open(fileobj=headers, mode="r:")
            )
        except tarfile.ReadError as error:
            raise UserError(
                f"{archive} is neither a zip nor a tar archive, whatever "
                f"its name says ({error}): is it a cut download or an error "
                "page?"
            ) from None
        yield _tar_members(found)


class _Careful:
    """A stream of which nobody reads more at a time than a header may have.

    The libraries read a header, or a zip's list of names, in one go, however
    long it says that it is; contents they read in small pieces.
    """

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell
        self.seekable = stream.seekable

    def read(self, size: int = -1) -> bytes:
        most = MAX_HEADER_BYTES
        content = self._stream.read(most + 1 if size < 0 else min(size, most))
        if size > most or len(content) > most:
            raise tarfile.HeaderError(
                f"a header or list of names of more than {most:,} bytes"
            )
        return content


def _zip_members(opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        yield _Member(
            info.filename,
            info.file_size,
            info.is_dir(),
            not info.is_dir() and kind in (0, stat.S_IFREG),
            functools.partial(opened.open, info),
        )


def _tar_members(opened: tarfile.TarFile) -> Iterator[_Member]:
    for info in opened:  # one by one: the next may lie terabytes behind it
        yield _Member(
            info.name,
            info.size,
            info.isdir(),
            info.isreg() and not info.issparse(),
            functools.partial(opened.extractfile, info),
        )


def _extract(archive: Path, found: Iterator[_Member], folder: Path) -> None:
    members: list[_Member] = []
    total = 0
    for member in found:
        members.append(member)
        total += max(0, member.size)
        if len(members) > MAX_MEMBERS or total > MAX_UNPACKED_BYTES:
            raise UserError(
                f"{archive} declares {len(members)} files of {total:,} bytes "
                f"at least, more than any model ({MAX_MEMBERS} files, "
                f"{MAX_UNPACKED_BYTES:,} bytes): it is not unpacked"
            )
    if total > shutil.disk_usage(folder).free:
        raise UserError(
            f"{archive} needs {total:,} bytes unpacked, which {folder.parent} "
            "has not free: free some space or set ALBERT_TF2_CACHE"
        )
    for member in members:
        _check_name(archive, member)
    for member in members:
        target = folder / member.name
        try:
            if member.is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            sink = open(target, "xb")
        except OSError as error:
            # A name twice, a file as a folder, a name of 300 characters.
            raise UserError(
                f"{archive} holds {shown(member.name)}, which cannot be "
                f"written ({error.strerror}): it is not unpacked"
            ) from error
        with sink:
            source = member.open()
            assert source is not None, "only plain files are left"
            with source:
                # Both kinds of member end at their declared size.
                shutil.copyfileobj(source, sink)


def _check_name(archive: Path, member: _Member) -> None:
    name = member.name
    parts = name.replace("\\", "/").split("/")
    if (
        name.startswith("/")
        or "\\" in name
        or "\0" in name
        or ".." in parts
        or ":" in parts[0]
        or posixpath.normpath(name) == "."
        and not member.is_folder
    ):
        raise UserError(
            f"{archive} holds {name!r}, a path that leaves its folder: it is "
            "not unpacked; do not trust where it came from"
        )
    if not (member.is_folder or member.is_file):
        raise UserError(
            f"{archive} holds {name!r}, a link or a device: it is not "
            "unpacked; do not trust where it came from"
        )
