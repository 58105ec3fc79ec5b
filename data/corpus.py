"""The corpus: which files there are, each of them once, and what they are.

A corpus is any number of files: text with one sentence per line and a blank
line between documents, lines of JSON, tables; plain or compressed. A document
never spans two files.
"""

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from albert_tf2 import paths
from albert_tf2.errors import UserError

_COMPRESSION = {
    ".gz": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".xz": "xz",
    ".bz2": "bzip2",
}


class CorpusFile(NamedTuple):
    """A file of the corpus.

    Attributes:
        path: How to open it.
        name: What it is called in seeds: the path below the folder that all
            files share, without `.gz` or the like. So neither moving a corpus
            nor compressing it changes the records.
        size: Bytes on disk.
        format: "text", "jsonl", "csv", "tsv" or "parquet".
        fields: Those of an object or row that hold the text, in order.
        has_header: Whether the first row of a table names its columns.
        encoding: Of the text.
    """

    path: str
    name: str
    size: int
    format: str = "text"
    fields: tuple[str, ...] = ()
    has_header: bool = False
    encoding: str = "utf-8"

    @property
    def compression(self) -> str | None:
        return _COMPRESSION.get(os.path.splitext(self.path)[1].lower())

    @property
    def is_sequential(self) -> bool:
        """Whether it can only be read from its beginning."""
        return (
            self.compression is not None
            or self.format not in ("text", "jsonl")
            or self.encoding != "utf-8"
        )


def find_files(patterns: Sequence[str] | str) -> list[CorpusFile]:
    """Expands paths and globs, comma-separated or in a list.

    `recognition.recognise` looks into them.

    Raises:
        UserError: If a pattern matches no file, or names a folder.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    found: list[str] = []
    for text in patterns:
        # A file whose name holds a comma is a file all the same.
        whole = paths.find(text)
        for pattern in [] if whole else filter(None, text.split(",")):
            matching = paths.find(pattern.strip())
            if not matching:
                raise UserError(
                    f"no file matches {pattern!r}: check --input_file"
                )
            found.extend(matching)
        found.extend(whole)
    if not found:
        raise UserError("no corpus was given: pass --input_file")
    found = _without_links(sorted(set(found)))
    files = []
    for path, name in zip(found, _names_below(found), strict=True):
        root, extension = os.path.splitext(name)
        name = root if extension.lower() in _COMPRESSION else name
        files.append(CorpusFile(path, name, paths.size(path)))
    # By name, so that the order too is the same for a corpus that was moved
    # or compressed.
    files.sort(key=lambda file: file.name)
    names = [file.name for file in files]
    for first, second in zip(names, names[1:], strict=False):
        if first == second:
            raise UserError(
                f"{first!r} is given plain and compressed: keep one of them"
            )
    return files


def _without_links(found: Sequence[str]) -> list[str]:
    """Leaves out second names of one file, and says so.

    A file goes by its own name rather than by that of a link to it.
    """
    by_file: dict[tuple[int, int] | str, list[str]] = {}
    for path in found:
        key: tuple[int, int] | str = path
        if not paths.is_remote(path):
            try:
                status = os.stat(paths.local(path))
            except FileNotFoundError:
                raise UserError(
                    f"{path} is a link to what is not there: mend it, or "
                    "leave it out of --input_file"
                ) from None
            key = status.st_dev, status.st_ino
        by_file.setdefault(key, []).append(path)
    kept, others = [], []
    for names in by_file.values():
        names.sort(key=_is_link)
        kept.append(names[0])
        others += [(name, names[0]) for name in names[1:]]
    if others:
        second, first = others[0]
        more = f" (and {len(others) - 1} more such)" if others[1:] else ""
        print(
            f"note: {second} is {first} under another name: read once{more}",
            file=sys.stderr,
        )
    return sorted(kept)


def _is_link(path: str) -> bool:
    """Whether a path leads through a link; those of buckets do not."""
    return not paths.is_remote(path) and os.path.realpath(
        paths.local(path)
    ) != os.path.abspath(paths.local(path))


def _names_below(found: Sequence[str]) -> list[str]:
    """Returns the paths below the folder that all of them share."""
    whole = [
        path if paths.is_remote(path) else os.path.abspath(paths.local(path))
        for path in found
    ]
    parts = [path.split("/") for path in whole]
    shared = len(os.path.commonprefix([names[:-1] for names in parts]))
    return ["/".join(names[shared:]) for names in parts]
