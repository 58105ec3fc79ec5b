"""Unpacks .zip and .tar.gz files that come from anywhere.

An archive is a list of instructions to write files. Those that would write
outside the chosen folder, through a link, or without end are refused before
the first byte is written.
"""

import functools
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from albert_tf2 import paths
from albert_tf2.errors import UserError

# The largest released archive (xxlarge with its slots) unpacks to 3 GB.
MAX_UNPACKED_BYTES = 16 << 30
MAX_MEMBERS = 1000
SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")


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
        with paths.atomic_directory(folder, overwrite=True) as temporary:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    _extract(archive, _zip_members(opened), temporary)
            elif tarfile.is_tarfile(archive):
                with tarfile.open(archive) as opened:
                    _extract(archive, _tar_members(opened), temporary)
            else:
                raise UserError(
                    f"{archive} is neither a zip nor a tar archive, whatever "
                    "its name says: is it a cut download or an error page?"
                )
    except (
        EOFError,
        NotImplementedError,  # a compression that Python does not know
        RuntimeError,  # an encrypted zip
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(
            f"{archive} is truncated or damaged ({error}): fetch it again"
        ) from error


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
    for info in opened.getmembers():
        yield _Member(
            info.name,
            info.size,
            info.isdir(),
            info.isreg() and not info.issparse(),
            functools.partial(opened.extractfile, info),
        )


def _extract(archive: Path, found: Iterator[_Member], folder: Path) -> None:
    members = list(found)
    total = sum(member.size for member in members)
    if len(members) > MAX_MEMBERS or total > MAX_UNPACKED_BYTES:
        raise UserError(
            f"{archive} declares {len(members)} files of {total:,} bytes, "
            f"more than any model ({MAX_MEMBERS} files, "
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
        if member.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        assert source is not None, "only plain files are left"
        with source, open(target, "xb") as sink:
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
