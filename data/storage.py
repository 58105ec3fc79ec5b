"""Paths on this machine, and `hdfs://` or `gs://` paths through pyarrow.

The builder needs a handful of operations on a path. On this machine they are
the standard library's; a path with a scheme goes to `pyarrow.fs`, which
speaks to HDFS, Google Cloud Storage and S3, so a cluster needs no other
package.
"""

import contextlib
import fnmatch
import glob
import json
import os
import posixpath
import re
import shutil
from collections.abc import Iterator
from typing import IO, Any

from albert_tf2.errors import UserError


def is_remote(path: str) -> bool:
    """Whether the path has a scheme such as `gs://`."""
    return "://" in path


def join(folder: str, *names: str) -> str:
    """Joins names to a local or remote folder."""
    return posixpath.join(folder, *names)


def find(pattern: str) -> list[str]:
    """Returns the files that match a glob, sorted."""
    if not is_remote(pattern):
        if os.path.isdir(pattern):
            raise UserError(
                f"{pattern} is a folder: pass its files, for instance "
                f"'{os.path.join(pattern, '*.txt')}'"
            )
        if os.path.isfile(pattern):  # whatever brackets its name has
            return [pattern]
        found = glob.glob(pattern, recursive=True)
        return sorted(path for path in found if os.path.isfile(path))
    return _find_remote(pattern)


def _find_remote(pattern: str) -> list[str]:
    """Lists the folder before the first wildcard, and filters."""
    from pyarrow import fs

    folder = posixpath.dirname(re.split(r"[*?[]", pattern)[0])
    system, inner = _remote(folder)
    selector = fs.FileSelector(inner, recursive=True, allow_not_found=True)
    # pyarrow drops scheme and host: put the folder back as it was given.
    paths = [
        join(folder, posixpath.relpath(info.path, inner))
        for info in system.get_file_info(selector)
        if info.type == fs.FileType.File
    ]
    return sorted(
        path
        for path in paths
        if fnmatch.fnmatchcase(path, pattern)
        # A single * stays within a folder, as on local disks.
        and ("**" in pattern or path.count("/") == pattern.count("/"))
    )


def size(path: str) -> int:
    """Returns the bytes of a file, or raises FileNotFoundError."""
    if not is_remote(path):
        return os.path.getsize(path)
    system, inner = _remote(path)
    found = system.get_file_info(inner).size
    if found is None:
        raise FileNotFoundError(2, "No such file", path)
    return found


def exists(path: str) -> bool:
    """Whether there is a file or folder of that name."""
    if not is_remote(path):
        return os.path.exists(path)
    system, inner = _remote(path)
    return bool(system.get_file_info(inner).type)


def open_binary(path: str) -> IO[bytes]:
    """Opens a file for reading; the stream can seek."""
    if not is_remote(path):
        return open(path, "rb")
    system, inner = _remote(path)
    return system.open_input_file(inner)


@contextlib.contextmanager
def atomic_binary(path: str, *, fsync: bool = True) -> Iterator[IO[bytes]]:
    """Opens a file that appears under `path` only if the block succeeds.

    Args:
        path: Where it appears.
        fsync: Wait for the disk, so that it also survives a power failure.
    """
    if not is_remote(path):
        with _atomic_local(path, fsync) as stream:
            yield stream
        return
    system, inner = _remote(path)
    system.create_dir(posixpath.dirname(inner), recursive=True)
    # Two attempts of one Spark task may write at once: each has its name.
    temporary = f"{inner}.{os.urandom(8).hex()}.tmp"
    try:
        with system.open_output_stream(temporary) as stream:
            yield stream
        if system.get_file_info(inner).type:
            system.delete_file(inner)  # HDFS does not rename over a file
        system.move(temporary, inner)
    except BaseException:
        with contextlib.suppress(OSError):
            system.delete_file(temporary)
        raise


@contextlib.contextmanager
def _atomic_local(path: str, fsync: bool) -> Iterator[IO[bytes]]:
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            if fsync:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UserError(
                f"{path} could not be written ({error.strerror or error}): "
                "free some space or choose another --output_dir, then run "
                "the same command again"
            ) from error
        raise


def write_json(path: str, value: Any) -> None:
    """Writes readable JSON, whole or not at all."""
    with atomic_binary(path) as stream:
        text = json.dumps(value, ensure_ascii=False, indent=2)
        stream.write(f"{text}\n".encode())


def read_json(path: str) -> Any:
    """Reads a JSON file, or raises a `UserError` that names it."""
    try:
        with open_binary(path) as stream:
            return json.loads(stream.read())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def names(folder: str) -> list[str]:
    """Returns the names in a folder, sorted; none if there is no folder."""
    if not is_remote(folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    from pyarrow import fs

    system, inner = _remote(folder)
    selector = fs.FileSelector(inner, allow_not_found=True)
    return sorted(info.base_name for info in system.get_file_info(selector))


def make_folder(path: str) -> None:
    """Creates a folder and its parents, unless it is there."""
    try:
        if not is_remote(path):
            os.makedirs(path, exist_ok=True)
        else:
            system, inner = _remote(path)
            system.create_dir(inner, recursive=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be created ({error.strerror or error}): choose "
            "another --output_dir"
        ) from None


def remove_temporary_files(folder: str) -> None:
    """Removes what a killed process left under temporary names."""
    for name in names(folder):
        if name.endswith(".tmp"):
            path = join(folder, name)
            if is_remote(path):
                system, inner = _remote(path)
                system.delete_file(inner)
            else:
                os.unlink(path)


def remove_folder(path: str) -> None:
    """Removes a folder with all it holds, if it is there."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
    elif exists(path):
        system, inner = _remote(path)
        system.delete_dir(inner)


def _remote(path: str) -> tuple[Any, str]:
    """Returns the pyarrow file system of a URI, and the path within it."""
    try:
        from pyarrow import fs
    except ImportError as error:
        raise UserError(
            f"{path} needs the package pyarrow: pip install "
            f"'albert-tf2[remote]' ({error})"
        ) from None
    try:
        return fs.FileSystem.from_uri(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be reached ({error})") from None
