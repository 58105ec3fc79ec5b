"""Asking, listing and reading: what a path is and what it holds."""

import contextlib
import fnmatch
import glob
import hashlib
import io
import json
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from albert_tf2.errors import UserError
from albert_tf2.paths.backends import (
    LOCAL,
    PathLike,
    Stat,
    backend_of,
    scheme_of,
    served_by_tensorflow,
    shown,
    text_of,
)

# Far above any settings, list of files or tokenizer, far below the memory.
MOST_JSON_BYTES = 64 << 20
# What is read whole is a list or a table, never a corpus.
MOST_BYTES = 1 << 30
# A value of JSON takes some twenty times its bytes in memory: `[[],[],...`.
MOST_JSON_VALUES = 16_000_000
_KINDS = {dict: "an object", list: "a list", str: "a text", int: "a number"}


class Version(NamedTuple):
    """The bytes of a file, and when it was written last (nanoseconds)."""

    size: int
    changed: int


@contextlib.contextmanager
def told(path: PathLike, verb: str) -> Iterator[None]:
    """Turns a failure of the file system into one sentence with a remedy.

    Args:
        path: What the sentence names.
        verb: What could not be done, for instance "read".
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(
            f"{shown(path)} does not exist: check the path"
        ) from error
    except IsADirectoryError as error:
        raise UserError(
            f"{shown(path)} is a folder: name a file in it"
        ) from error
    except (OSError, ValueError) as error:
        # A path with a null byte is a ValueError.
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{shown(path)} cannot be {verb} ({reason}): check the path, and "
            "that you may use it"
        ) from error


def is_remote(path: PathLike) -> bool:
    """Whether the path lies elsewhere than on this machine's disks.

    >>> is_remote("gs://bucket/run"), is_remote("file:///data/run")
    (True, False)
    """
    return backend_of(path)[0] is not LOCAL


def local(path: PathLike) -> str:
    """Returns the plain path of a local one, or of `file:///...`."""
    backend, inner = backend_of(path)
    if backend is not LOCAL:
        raise UserError(
            f"{shown(path)} must be on this machine: copy it here first"
        )
    return inner


def for_tensorflow(path: PathLike) -> str:
    """Returns a path that tf.data and checkpoints can use, or refuses it."""
    backend, inner = backend_of(path)
    if not served_by_tensorflow(inner):
        raise UserError(
            f"{shown(path)} is not served by TensorFlow, which reads records "
            "and writes checkpoints itself: use a local folder or gs://"
        )
    return inner


def join(folder: PathLike, *names: str) -> str:
    """Joins names to a local or remote folder.

    >>> join("gs://bucket/runs", "tiny", "vocab.txt")
    'gs://bucket/runs/tiny/vocab.txt'
    """
    return posixpath.join(text_of(folder), *names)


def name(path: PathLike) -> str:
    """Returns the last part of a path.

    >>> name("gs://bucket/runs/tiny/")
    'tiny'
    """
    return text_of(path).rstrip("/").rpartition("/")[2]


def parent(path: PathLike) -> str:
    """Returns the folder that holds a path; a bucket holds itself.

    >>> parent("gs://bucket/runs"), parent("gs://bucket"), parent("vocab.txt")
    ('gs://bucket', 'gs://bucket', '.')
    """
    path = text_of(path)
    scheme = scheme_of(path)
    start = len(scheme) + 3 if scheme else 0
    rest = path[start:]
    shorter = posixpath.dirname(rest.rstrip("/") or rest)
    if scheme and not shorter:
        return path
    return path[:start] + (shorter or ".")


def _stat(path: PathLike) -> Stat | None:
    backend, inner = backend_of(path)
    with told(path, "read"):
        return backend.stat(inner)


def exists(path: PathLike) -> bool:
    """Whether there is a file or folder of that name."""
    return _stat(path) is not None


def is_dir(path: PathLike) -> bool:
    """Whether there is a folder of that name."""
    found = _stat(path)
    return found is not None and found.is_folder


def is_file(path: PathLike) -> bool:
    """Whether there is a file of that name."""
    found = _stat(path)
    return found is not None and not found.is_folder


def size(path: PathLike) -> int:
    """Returns the bytes of a file.

    Raises:
        UserError: If there is no file of that name.
    """
    return version(path).size


def version(path: PathLike) -> Version:
    """Returns what tells whether a file is still the same.

    Raises:
        UserError: If there is no file of that name.
    """
    found = _stat(path)
    with told(path, "read"):
        if found is None:
            raise FileNotFoundError
        if found.is_folder:
            raise IsADirectoryError
    return Version(found.size, found.changed)


def entries(folder: PathLike) -> list[tuple[str, bool]]:
    """Returns the sorted names in a folder, each with whether it is one.

    A folder that does not exist holds nothing.
    """
    backend, inner = backend_of(folder)
    with told(folder, "read"):
        try:
            return sorted(backend.entries(inner))
        except (FileNotFoundError, NotADirectoryError):
            return []


def names(folder: PathLike) -> list[str]:
    """Returns the sorted names in a folder; none if there is no folder."""
    return [name for name, _ in entries(folder)]


def find(pattern: PathLike) -> list[str]:
    """Returns the files that match a glob, sorted, each of them once.

    `*` stays within a folder and `**` goes to any depth. A link to a folder
    is followed unless its target is searched under its own name too.

    Raises:
        UserError: If the pattern is a folder.
    """
    pattern = text_of(pattern)
    found = _stat(pattern)
    if found is not None and not found.is_folder:
        return [pattern]  # whatever brackets its name has
    if found is not None:
        example = join(pattern, "*.txt")
        raise UserError(
            f"{shown(pattern)} is a folder: pass its files, for instance "
            f"'{shown(example)}'"
        )
    fixed = re.split(r"[*?[]", pattern)[0]
    folder = fixed[: fixed.rfind("/") + 1]
    parts = [part for part in pattern[len(folder) :].split("/") if part]
    return sorted(set(_matches(folder, parts)))


def _matches(folder: str, parts: list[str]) -> Iterator[str]:
    """Yields the files below a folder that match one pattern per level."""
    first, rest = parts[0], parts[1:]
    if first == "**":
        for below in _folders(folder):
            yield from _matches(below, rest or ["*"])
    elif not glob.has_magic(first):
        path = f"{folder}{first}"
        if rest:
            yield from _matches(f"{path}/", rest)
        elif is_file(path):
            yield path
    else:
        for found, is_folder in entries(folder or "."):
            # As in a shell, a star does not match hidden names.
            if found.startswith(".") > first.startswith("."):
                continue
            if fnmatch.fnmatchcase(found, first):
                if rest and is_folder:
                    yield from _matches(f"{folder}{found}/", rest)
                elif not rest and not is_folder:
                    yield f"{folder}{found}"


def _folders(root: str) -> Iterator[str]:
    """Yields a folder and those below it, each of them once.

    Links wait until the real folders are done, so that a file is found under
    its own name, and a link to a parent leads nowhere.
    """
    waiting = [root]
    links: list[str] = []
    seen: set[str] = set()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        if not is_remote(folder or "."):
            real = os.path.realpath(local(folder or "."))
            if real in seen:
                continue
            seen.add(real)
        yield folder
        for found, is_folder in entries(folder or "."):
            if is_folder and not found.startswith("."):
                below = f"{folder}{found}/"
                linked = not is_remote(below) and os.path.islink(
                    local(below).rstrip("/")
                )
                (links if linked else waiting).append(below)


def open_binary(path: PathLike) -> IO[bytes]:
    """Opens a file for reading; the stream can seek.

    Raises:
        UserError: If it is not there, not a file, or may not be read.
    """
    backend, inner = backend_of(path)
    with told(path, "read"):
        return backend.open(inner, "rb")


def open_text(path: PathLike) -> IO[str]:
    """Opens a UTF-8 file for reading; only LF ends a line, and is kept."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8", newline="\n")


def read_bytes(path: PathLike, most: int = MOST_BYTES) -> bytes:
    """Returns what a file holds.

    Args:
        path: The file.
        most: The bytes above which it is refused.
    """
    with open_binary(path) as stream, told(path, "read"):
        too_large = stream.seek(0, io.SEEK_END) > most
        stream.seek(0)
        content = b"" if too_large else stream.read(most + 1)
    if too_large or len(content) > most:
        raise UserError(
            f"{shown(path)} is larger than {most:,} bytes: check that it is "
            "the right file"
        )
    return content


def read_text(path: PathLike, most: int = MOST_BYTES) -> str:
    """Returns a UTF-8 file's text; see `read_bytes`."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{shown(path)} is not UTF-8 (byte {error.start}): convert it first"
        ) from error


def read_json(
    path: PathLike, kind: type | None = dict, most: int = MOST_JSON_BYTES
) -> Any:
    """Reads a JSON file, or raises a `UserError` that names it.

    Args:
        path: The file.
        kind: `dict` or `list`, what alone belongs there; None takes any.
        most: The bytes above which the file is refused.
    """
    # Editors on Windows put a mark in front that JSON does not allow.
    text = read_text(path, most).removeprefix("\ufeff")
    return parse_json(text, shown(path), kind)


def parse_json(text: str, where: str, kind: type | None = None) -> Any:
    """Parses one JSON text from a place that is not to be trusted.

    Args:
        text: The JSON.
        where: The file, or the file and line, as the message names it.
        kind: `dict` or `list`, if nothing else belongs there.
    """
    if sum(map(text.count, "[{,")) > MOST_JSON_VALUES:
        raise UserError(
            f"{where}: more than {MOST_JSON_VALUES:,} values of JSON: check "
            "that it is the right file, or write a record per line (.jsonl)"
        )
    try:
        value = json.loads(text, object_pairs_hook=_unambiguous)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in text.strip() else ""
        raise UserError(
            f"{where}{line}: not valid JSON ({error.msg})"
        ) from error
    except RecursionError:
        raise UserError(
            f"{where}: not valid JSON (brackets within brackets, thousands "
            "deep): check that it is the right file"
        ) from None
    except ValueError as error:  # two values, a number of 5,000 digits
        raise UserError(f"{where}: not valid JSON ({error})") from error
    if kind is not None and type(value) is not kind:
        got = _KINDS.get(type(value), f"{value}")
        raise UserError(
            f"{where} must hold {_KINDS[kind]} of JSON. Received: {got}"
        )
    return value


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object, unless a key has two values in it.

    `json` takes the last one without a word: whoever edits a file by hand
    may look at the other.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if value != found[key]:
                raise ValueError(
                    f"the key {key!r} has two values, {value!r:.40} and "
                    f"{found[key]!r:.40}: leave one"
                )
    return found


def sha256(path: PathLike) -> str:
    """Returns the hexadecimal SHA-256 of a file, read in pieces."""
    with open_binary(path) as stream, told(path, "read"):
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe_files(
    found: Sequence[Path], folder: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Returns size and checksum by file name; no path of this machine.

    Args:
        found: Files on this machine.
        folder: What the names are told from; None for the last part alone.
    """
    return {
        path.relative_to(folder).as_posix() if folder else path.name: {
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in found
    }
