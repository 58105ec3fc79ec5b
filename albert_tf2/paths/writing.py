"""Files and folders that are either whole or not there.

Everything the project writes goes to a temporary name beside its goal and is
renamed at the end, so a killed process or a full disk never leaves half a
file under a name that somebody will read. On this machine's disks the rename
is atomic. Elsewhere a file is renamed by the store (a copy and a removal in a
bucket), so a reader sees the old file, the new one or, for a moment, none;
a folder is renamed file by file.

Temporary names end in `.albert-tmp`, so that clearing up touches nothing of
the user's. A living process holds a lock on its own; the kernel releases the
lock when the process ends, however it ends, and that tells what is left over.
"""

import atexit
import contextlib
import fcntl
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from albert_tf2.errors import UserError
from albert_tf2.paths.backends import (
    LOCAL,
    Backend,
    PathLike,
    backend_of,
    shown,
)
from albert_tf2.paths.reading import (
    entries,
    exists,
    is_dir,
    is_remote,
    join,
    local,
    name,
    open_binary,
    parent,
    told,
)

_TEMPORARY = ".albert-tmp"
# A folder on its way out: it holds the old version under its own name.
_RETIRED = ".albert-old"
_COPY_BYTES = 8 << 20


def temporary_name(beside: str, suffix: str = _TEMPORARY) -> str:
    """Returns a free hidden name in the folder that holds a path."""
    # The name helps who finds it; its length must not exceed a disk's limit.
    stem = name(beside)[:40]
    return join(parent(beside), f".{stem}.{os.urandom(6).hex()}{suffix}")


@contextlib.contextmanager
def atomic_file(
    path: PathLike, mode: str = "w", fsync: bool = True
) -> Iterator[IO]:
    """Opens a file that appears under `path` only if the block succeeds.

    Text modes write UTF-8 with LF line ends on every platform.

    Args:
        path: Where the file appears; its folder is created.
        mode: "w" for text, "wb" for bytes.
        fsync: Wait for the disk, so that it also survives a power failure.

    Raises:
        UserError: If the file could not be written.
    """
    backend, inner = backend_of(path)
    temporary = temporary_name(inner)
    try:
        with _opened(backend, temporary) as binary:
            stream = binary if "b" in mode else _text_writer(binary)
            yield stream
            stream.flush()
            if backend is LOCAL and fsync:
                os.fsync(binary.fileno())
        backend.rename(temporary, inner)
    except BaseException as error:
        with contextlib.suppress(OSError):
            backend.remove_file(temporary)
        # Another file that the block opened is not ours to explain.
        if not isinstance(error, OSError) or not (
            error.filename is None
            or error.filename == temporary
            or inner.startswith(os.fsdecode(error.filename))
        ):
            raise
        raise UserError(
            f"{shown(path)} could not be written ({error.strerror or error}): "
            "free some space or choose another place"
        ) from error


def _opened(backend: Backend, temporary: str) -> IO[bytes]:
    """Opens a temporary file, marked as in use where that is possible."""
    while True:
        try:
            stream = backend.open(temporary, "wb")
        except FileNotFoundError:
            # Asked for only now: in a bucket each question takes its time.
            backend.make_folder(parent(temporary))
            stream = backend.open(temporary, "wb")
        if backend is not LOCAL or _mark(stream.fileno()):
            return stream
        stream.close()


def _text_writer(binary: IO[bytes]) -> IO[str]:
    return io.TextIOWrapper(binary, encoding="utf-8", newline="\n")


def _mark(descriptor: int) -> bool:
    """Says that a living process uses a temporary file or folder.

    Returns:
        False if somebody cleared it up before it was marked.
    """
    with contextlib.suppress(OSError):  # not every network disk can
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.fstat(descriptor).st_nlink > 0


@contextlib.contextmanager
def _temporary_folder(beside: str) -> Iterator[str]:
    """Yields a new local folder next to a path; it is gone afterwards."""
    remove_leftovers(parent(beside))
    with contextlib.ExitStack() as stack:
        while True:
            temporary = temporary_name(beside)
            os.makedirs(temporary)
            descriptor = os.open(temporary, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            if _mark(descriptor):
                break
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        yield temporary


@contextlib.contextmanager
def atomic_directory(path: PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` if the block succeeds.

    The temporary folder is on this machine even where `path` is remote, for
    the libraries that write nowhere else; it is uploaded at the end.

    Args:
        path: The folder to create.
        overwrite: Replace an existing folder, which stays untouched until
            the new one is complete.

    Raises:
        UserError: If `path` exists and may not be replaced.
    """
    _, inner = backend_of(path)
    inner = inner.rstrip("/")
    remote = is_remote(inner)
    if remote and not inner.partition("://")[2].partition("/")[2]:
        # Replacing it would empty the bucket.
        raise UserError(
            f"{shown(path)} is a whole bucket: name a folder in it, as "
            f"{inner}/model"
        )
    if exists(inner) and not overwrite:
        raise UserError(
            f"{shown(path)} already exists: choose another folder or pass "
            "--overwrite"
        )
    beside = join(tempfile.gettempdir(), name(inner)) if remote else inner
    with contextlib.ExitStack() as stack:
        with told(parent(beside), "used"):
            temporary = stack.enter_context(_temporary_folder(beside))
        yield Path(temporary)
        with told(path, "written"):
            (_upload if remote else _replace_folder)(temporary, inner)


def _replace_folder(temporary: str, path: str) -> None:
    """Renames a local folder to its name, over an older one of that name."""
    if not os.path.lexists(path):
        os.replace(temporary, path)
        return
    retired = temporary_name(path, _RETIRED)
    os.mkdir(retired)
    descriptor = os.open(retired, os.O_RDONLY)
    try:
        _mark(descriptor)
        # Killed between these two, `remove_leftovers` puts the old one back.
        os.replace(path, join(retired, name(path)))
        os.replace(temporary, path)
        shutil.rmtree(retired, ignore_errors=True)
    finally:
        os.close(descriptor)


def _upload(here: str, path: str) -> None:
    """Copies a local folder to a remote name, over an older one of it."""
    arriving = temporary_name(path)
    try:
        copy_folder(here, arriving)
        remove_folder(path)
        backend_of(path)[0].rename(arriving, path)
    except BaseException:
        with contextlib.suppress(UserError):
            remove_folder(arriving)
        raise


@contextlib.contextmanager
def local_copy(path: PathLike) -> Iterator[str]:
    """Yields a local path that holds the same file or folder.

    A local path is yielded itself; a remote one is copied for the time of
    the block.
    """
    if not exists(path):
        raise UserError(f"{shown(path)} does not exist: check the path")
    if not is_remote(path):
        yield local(path)
        return
    with temporary_folder(name(path)) as folder:
        goal = join(folder, name(path))
        (copy_folder if is_dir(path) else copy_file)(path, goal)
        yield goal


def fetched(path: PathLike) -> str:
    """Returns a local path that holds the same file or folder.

    A local path is returned itself; the copy of a remote one stays until the
    process ends, for what is read piece by piece or kept by its name.
    """
    return _UNTIL_THE_END.enter_context(local_copy(path))


@contextlib.contextmanager
def named(path: PathLike, here: str) -> Iterator[None]:
    """Lets errors about a fetched copy name the path that the user gave."""
    try:
        yield
    except UserError as error:
        told = str(error).replace(here, os.fsdecode(path))
        raise UserError(told) from error


def kept_folder(label: str) -> str:
    """Returns a new local folder that is removed when the process ends."""
    return _UNTIL_THE_END.enter_context(temporary_folder(label))


def temporary_folder(label: str) -> contextlib.AbstractContextManager[str]:
    """Yields a new local folder, removed afterwards; a kill leaves it to
    whoever makes the next one.

    Args:
        label: What it is for, as its name says.
    """
    return _temporary_folder(join(tempfile.gettempdir(), label))


_UNTIL_THE_END = contextlib.ExitStack()
atexit.register(_UNTIL_THE_END.close)


def copy_file(source: PathLike, target: PathLike) -> None:
    """Copies a file, whole or not at all, between any two places."""
    with open_binary(source) as stream, atomic_file(target, "wb") as goal:
        shutil.copyfileobj(stream, goal, _COPY_BYTES)


def copy_folder(source: PathLike, target: PathLike) -> None:
    """Copies what a folder holds, at any depth."""
    make_folder(target)
    for entry, is_folder in entries(source):
        copy = copy_folder if is_folder else copy_file
        copy(join(source, entry), join(target, entry))


def write_json(path: PathLike, value: Any) -> None:
    """Writes readable JSON (UTF-8, two spaces, final newline), atomically."""
    with atomic_file(path) as stream:
        json.dump(value, stream, ensure_ascii=False, indent=2)
        stream.write("\n")


def append_line(path: PathLike, text: str) -> None:
    """Adds a line to a file in one write, so that a kill tears one at most.

    A bucket cannot append: its client writes the file anew.
    """
    backend, inner = backend_of(path)
    with told(path, "written"):
        try:
            stream = backend.open(inner, "ab")
        except FileNotFoundError:
            backend.make_folder(parent(inner))
            stream = backend.open(inner, "ab")
        with stream:
            stream.write(f"{text}\n".encode())


def make_folder(path: PathLike) -> None:
    """Creates a folder and its parents, unless it is there."""
    backend, inner = backend_of(path)
    try:
        backend.make_folder(inner)
    except OSError as error:
        raise UserError(
            f"{shown(path)} cannot be created ({error.strerror or error}): "
            "choose another folder"
        ) from error


def remove_file(path: PathLike) -> None:
    """Removes a file, if it is there."""
    backend, inner = backend_of(path)
    with told(path, "removed"), contextlib.suppress(FileNotFoundError):
        backend.remove_file(inner)


def remove_folder(path: PathLike) -> None:
    """Removes a folder with all it holds, if it is there."""
    backend, inner = backend_of(path)
    with told(path, "removed"), contextlib.suppress(FileNotFoundError):
        if backend.stat(inner) is not None:
            backend.remove_folder(inner)


def remove_leftovers(folder: PathLike, owned: bool = False) -> None:
    """Removes what killed processes left under our temporary names.

    Args:
        folder: Where to look; not below it.
        owned: Whether the caller holds the folder's lock, so that nobody
            else writes there: a bucket does not tell whether the process
            that made a name is alive.
    """
    backend, inner = backend_of(folder)
    for entry, is_folder in entries(inner):
        path = join(inner, entry)
        if not entry.startswith(".") or not entry.endswith(
            (_TEMPORARY, _RETIRED)
        ):
            continue
        if backend is LOCAL:
            _clear_up(path)
        elif owned:
            (remove_folder if is_folder else remove_file)(path)


def _clear_up(path: str) -> None:
    """Removes a local leftover, unless a living process uses it."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        stack.callback(os.close, descriptor)
        # Held while removing: whoever just made it waits, and makes another.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.endswith(_RETIRED):
            for old in os.listdir(path):
                goal = join(parent(path), old)
                if not os.path.lexists(goal):  # its successor never came
                    os.replace(join(path, old), goal)
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
