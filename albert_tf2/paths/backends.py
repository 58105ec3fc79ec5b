"""Who serves a path: this machine, TensorFlow, or fsspec.

Each file system is one class with the same few methods; `backend_of` chooses.
Paths stay strings from end to end, because `pathlib` makes `gs:/b` of
`gs://b`. Every failure leaves here as an `OSError`, whoever served the path.
"""

import contextlib
import io
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from albert_tf2.errors import UserError

PathLike = str | os.PathLike

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# One letter before a colon is a drive elsewhere, and a plain name here.
_MISSPELLED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/?)(?!/)")
_KNOWN = frozenset(
    "abfs abfss az file ftp gcs gs hdfs http https memory ram s3 s3a sftp "
    "viewfs webhdfs".split()
)
# These are in every TensorFlow; others come with a plugin that is imported.
_IN_TENSORFLOW = frozenset(("gs", "ram"))
# Large enough that a bucket is asked rarely, small beside any shard.
_BUFFER_BYTES = 1 << 20


class Stat(NamedTuple):
    """What a path is: the bytes of a file, or a folder.

    `changed` is when it was written last, in nanoseconds; 0 if nobody knows.
    """

    size: int
    is_folder: bool
    changed: int = 0


def text_of(path: PathLike) -> str:
    """Returns the path as text, or refuses a scheme that is misspelled."""
    path = os.fsdecode(path)
    found = _MISSPELLED.match(path)
    if found and (found[2] or found[1].lower() in _KNOWN):
        rest = path[found.end() :]
        raise UserError(
            f"{shown(path)} looks like an address without its two slashes: "
            f"write {shown(f'{found[1]}://{rest}')}, or {shown(f'./{path}')} "
            "for a local name"
        )
    return path


def shown(path: PathLike) -> str:
    """Returns the path for a message: at most 200 characters of it."""
    path = os.fsdecode(path)
    return path if len(path) <= 200 else f"{path[:100]}...{path[-97:]}"


def scheme_of(path: str) -> str:
    """Returns `gs` of `gs://bucket`, and nothing for a local path."""
    found = _SCHEME.match(path)
    return found[1] if found else ""


class Backend:
    """The operations that every file system has. Errors are `OSError`."""

    def stat(self, path: str) -> Stat | None:
        """Returns what the path is, or None if there is nothing."""
        raise NotImplementedError

    def entries(self, folder: str) -> list[tuple[str, bool]]:
        """Returns the names in a folder, each with whether it is a folder."""
        raise NotImplementedError

    def open(self, path: str, mode: str) -> IO[bytes]:
        """Opens for `rb` (the stream can seek), `wb` or `ab`."""
        raise NotImplementedError

    def make_folder(self, path: str) -> None:
        """Creates a folder and its parents, unless it is there."""
        raise NotImplementedError

    def remove_file(self, path: str) -> None:
        raise NotImplementedError

    def remove_folder(self, path: str) -> None:
        """Removes a folder with all it holds."""
        raise NotImplementedError

    def rename(self, source: str, target: str) -> None:
        """Renames a file over another one, or a folder to a free name."""
        raise NotImplementedError


class Local(Backend):
    """This machine's disks."""

    def stat(self, path):
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        is_folder = stat.S_ISDIR(found.st_mode)
        return Stat(found.st_size, is_folder, found.st_mtime_ns)

    def entries(self, folder):
        with os.scandir(folder) as found:
            return [(entry.name, _is_folder(entry)) for entry in found]

    def open(self, path, mode):
        if mode != "rb":
            return open(path, mode)
        # Opening a pipe waits for its writer, for ever if there is none.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISREG(kind):
            return open(descriptor, "rb")
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(21, "Is a directory", path)
        raise OSError(22, "a pipe, a socket or a device, not a file", path)

    def make_folder(self, path):
        os.makedirs(path, exist_ok=True)

    def remove_file(self, path):
        os.unlink(path)

    def remove_folder(self, path):
        shutil.rmtree(path)

    def rename(self, source, target):
        os.replace(source, target)


def _is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder; a link in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


class TensorFlow(Backend):
    """What TensorFlow serves, with the client that checkpoints use."""

    def stat(self, path):
        try:
            with _as_os_errors(path) as gfile:
                found = gfile.stat(path)
                if found.is_directory and path.startswith("ram://"):
                    # It takes the prefix of any name for a folder.
                    above, _, last = path.rstrip("/").rpartition("/")
                    if last not in gfile.listdir(f"{above}/"):
                        return None
        except FileNotFoundError:
            return None
        return Stat(found.length, found.is_directory, found.mtime_nsec)

    def entries(self, folder):
        # A bucket marks its folders with a slash; others are asked.
        marked = folder.startswith("gs://")
        with _as_os_errors(folder) as gfile:
            found = []
            for name in gfile.listdir(folder):
                bare = name.rstrip("/")
                inside = f"{folder.rstrip('/')}/{bare}"
                # ram:// finds `.extra` in `assets` if `assets.extra` is there.
                if folder.startswith("ram://") and not gfile.exists(inside):
                    continue
                is_folder = name.endswith("/") or (
                    not marked and gfile.isdir(inside)
                )
                if bare:
                    found.append((bare, is_folder))
            return found

    def open(self, path, mode):
        with _as_os_errors(path) as gfile:
            if mode != "rb":
                if path.startswith("ram://"):
                    # It does not list a folder that nobody made.
                    gfile.makedirs(path.rpartition("/")[0])
                raw = _TensorFlowStream(gfile.GFile(path, mode), path)
                raw.write(b"")  # else an empty file would not appear
                return io.BufferedWriter(raw, _BUFFER_BYTES)
            # GFile itself complains at the first read only.
            found = self.stat(path)
            if found is None:
                raise FileNotFoundError(2, "No such file or directory", path)
            if found.is_folder:
                raise IsADirectoryError(21, "Is a directory", path)
            raw = _TensorFlowStream(gfile.GFile(path, "rb"), path)
            return io.BufferedReader(raw, _BUFFER_BYTES)

    def make_folder(self, path):
        with _as_os_errors(path) as gfile:
            gfile.makedirs(path)

    def remove_file(self, path):
        with _as_os_errors(path) as gfile:
            gfile.remove(path)

    def remove_folder(self, path):
        with _as_os_errors(path) as gfile:
            gfile.rmtree(path)

    def rename(self, source, target):
        with _as_os_errors(target) as gfile:
            if not gfile.isdir(source):
                gfile.rename(source, target, overwrite=True)
                return
            # ram:// renames a folder without what it holds.
            gfile.makedirs(target)
            for name, _ in self.entries(source):
                self.rename(f"{source}/{name}", f"{target}/{name}")
        # In a bucket a folder is gone with the last object in it.
        with contextlib.suppress(FileNotFoundError):
            self.remove_folder(source)


class _TensorFlowStream(io.RawIOBase):
    """A GFile with the whole interface of Python's streams."""

    def __init__(self, file: Any, path: str):
        self._file, self._path = file, path

    def readable(self):
        return "r" in self._file.mode

    def writable(self):
        return not self.readable()

    def seekable(self):
        return self.readable()

    def readinto(self, buffer):
        with _as_os_errors(self._path):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset, whence=0):
        with _as_os_errors(self._path):
            self._file.seek(offset, whence)
            return self._file.tell()

    def tell(self):
        with _as_os_errors(self._path):
            return self._file.tell()

    def write(self, content):
        with _as_os_errors(self._path):
            self._file.write(bytes(content))
        return len(content)

    def close(self):
        if not self.closed:
            super().close()
            with _as_os_errors(self._path):
                self._file.close()


@contextlib.contextmanager
def _as_os_errors(path: str) -> Iterator[Any]:
    """Yields `tf.io.gfile`; its errors become the standard library's."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        kinds = {
            tf.errors.NotFoundError: (2, "No such file or directory"),
            tf.errors.PermissionDeniedError: (13, "Permission denied"),
            tf.errors.UnauthenticatedError: (13, "Not signed in"),
            tf.errors.AlreadyExistsError: (17, "File exists"),
        }
        reason = (error.message or "").partition("\n")[0][:200]
        code, told = kinds.get(type(error), (5, reason or "failed"))
        raise OSError(code, told, path) from error


class Fsspec(Backend):
    """Every other scheme, through fsspec and the client that it names."""

    def _system(self, path: str) -> tuple[Any, str]:
        try:
            import fsspec
        except ImportError:
            raise UserError(
                f"{shown(path)} needs the package fsspec: install the extra "
                "[remote], or copy the files to this machine"
            ) from None
        try:
            system, inner = fsspec.core.url_to_fs(path)
        except (ImportError, OSError, ValueError) as error:
            raise UserError(
                f"{shown(path)} cannot be reached ({error}): check the scheme, "
                "or install the client that it needs"
            ) from None
        system.invalidate_cache()  # others write there too
        return system, inner

    def stat(self, path):
        system, inner = self._system(path)
        try:
            found = system.info(inner)
        except FileNotFoundError:
            return None
        return Stat(found["size"] or 0, found["type"] == "directory")

    def entries(self, folder):
        system, inner = self._system(folder)
        found = [
            (info["name"].rstrip("/").rpartition("/")[2], info["type"])
            for info in system.ls(inner, detail=True)
            if info["name"].strip("/") != inner.strip("/")
        ]
        return [(name, kind == "directory") for name, kind in found]

    def open(self, path, mode):
        system, inner = self._system(path)
        if mode == "rb" and system.isdir(inner):
            raise IsADirectoryError(21, "Is a directory", path)
        return system.open(inner, mode)

    def make_folder(self, path):
        system, inner = self._system(path)
        system.makedirs(inner, exist_ok=True)

    def remove_file(self, path):
        system, inner = self._system(path)
        system.rm_file(inner)

    def remove_folder(self, path):
        system, inner = self._system(path)
        system.rm(inner, recursive=True)

    def rename(self, source, target):
        system, inner = self._system(source)
        goal = self._system(target)[1]
        folder = system.isdir(inner)
        # HDFS does not rename over a file; stores of objects do.
        if not folder and "hdfs" in scheme_of(target) and system.exists(goal):
            system.rm_file(goal)
        system.mv(inner, goal, recursive=folder)


LOCAL, TENSORFLOW, FSSPEC = Local(), TensorFlow(), Fsspec()


def backend_of(path: PathLike) -> tuple[Backend, str]:
    """Returns who serves a path, and the path as that one wants it.

    Args:
        path: A local path, or an address with a scheme.

    Returns:
        The backend, and the path as text, without `file://`.

    Raises:
        UserError: If the address is misspelled.
    """
    path = text_of(path)
    scheme = scheme_of(path)
    if not scheme:
        return LOCAL, path
    if scheme == "file":
        host, slash, rest = path[len("file://") :].partition("/")
        if host not in ("", "localhost") or not slash:
            raise UserError(
                f"{shown(path)} names the machine {host!r}: a local file has "
                "three slashes, file:///folder/name"
            )
        return LOCAL, f"/{rest}"
    return (TENSORFLOW if served_by_tensorflow(path) else FSSPEC), path


def served_by_tensorflow(path: str) -> bool:
    """Whether tf.data and checkpoints reach a path by themselves."""
    scheme = scheme_of(path)
    if scheme in _IN_TENSORFLOW or scheme in ("", "file"):
        return True
    if "tensorflow" not in sys.modules:
        return False  # a plugin would have imported it
    import tensorflow as tf

    return scheme in tf.io.gfile.get_registered_schemes()
