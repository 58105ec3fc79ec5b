"""Units: files -> stretches of about a megabyte -> documents -> sentences.

A *unit* is what one worker takes at a time: a stretch of about a megabyte of
one file, cut where a document ends. Where the cuts fall depends on the
bytes of the file alone, so every number of workers, on one machine or many,
sees the same units, and none of them holds more than a few units in memory.
"""

import codecs
import gzip
import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from albert_tf2 import paths
from albert_tf2.errors import UserError

from .corpus import CorpusFile

UNIT_BYTES = 1 << 20  # by default
# A line longer than this is not text; holding it would not be flat.
MAX_LINE_BYTES = 64 << 20

# White space as the tokenizer sees it: a line of ideographic spaces is blank.
_BLANK_LINE = re.compile(rb"\n(?:[ \t\r]|\xc2\xa0|\xe3\x80\x80)*\n")
# How `surrogateescape` marks bytes that are not UTF-8.
_ESCAPED = re.compile("[\udc80-\udcff]")


class Unit(NamedTuple):
    """The `index`-th stretch of a file.

    Attributes:
        size: About how many bytes units of this file have.
        progress: Bytes on disk that it stands for.
        content: What it holds, if that is read already.
    """

    file: CorpusFile
    index: int
    size: int = UNIT_BYTES
    progress: int = 0
    content: "UnitContent | None" = None


class UnitContent(NamedTuple):
    """The bytes of a unit.

    Attributes:
        data: Whole lines of the file; empty if an earlier unit, in which a
            line longer than a unit begins, holds them.
        offset: Where they begin in the (uncompressed) file.
        splits_document: Whether it begins in the middle of a document, which
            only happens to those longer than a unit.
    """

    data: bytes
    offset: int
    splits_document: bool


class Text(NamedTuple):
    """A decoded unit, and what was found wrong in it."""

    text: str
    bad_lines: int
    nul_characters: int


def of_file(file: CorpusFile, size: int = UNIT_BYTES) -> Iterator[Unit]:
    """Yields the units of a file, of about `size` bytes each.

    A plain file is read by whoever processes the unit; a compressed one can
    only be read from its beginning, so its units come with their content.
    """
    if file.compression is None:
        for index in range(math.ceil(file.size / size)):
            yield Unit(file, index, size, min(size, file.size - index * size))
        return
    with (
        paths.open_binary(file.path) as raw,
        _decompressed(raw, file) as stream,
    ):
        done = 0
        for unit in _cut(Unit(file, 0, size), stream):
            yield unit._replace(progress=raw.tell() - done)
            done = raw.tell()


def read_unit(unit: Unit) -> UnitContent:
    """Returns the bytes of a unit (see `UnitContent`)."""
    if unit.content is not None:
        return unit.content
    with paths.open_binary(unit.file.path) as stream:
        stream.seek(unit.index * unit.size)
        found = next(_cut(unit, stream), None)
    if found is not None and found.index == unit.index:
        return found.content
    return UnitContent(b"", unit.index * unit.size, False)


def _cut(unit: Unit, stream: IO[bytes]) -> Iterator[Unit]:
    """Yields the units that begin in block `unit.index` or later.

    Args:
        unit: Tells the file, the first block and the size of the blocks.
        stream: The file, at the beginning of that block.

    Unit k begins at the first document border inside the k-th block and ends
    where the next unit begins. That looks at one block at a time, so a
    reader may begin at any block.
    """
    pieces: list[bytes] = []
    first, offset, splits = None, 0, False
    for index, block in enumerate(
        _blocks(stream, unit.file, unit.size), start=unit.index
    ):
        begin, inside = (0, False) if index == 0 else _first_border(block)
        if begin is None:
            pieces.append(block)
            if len(pieces) * unit.size > MAX_LINE_BYTES:
                raise UserError(
                    f"{unit.file.path}: the line at byte {offset} is longer "
                    f"than {MAX_LINE_BYTES} bytes; is this a text with one "
                    "sentence per line?"
                )
            continue
        if first is not None:
            pieces.append(block[:begin])
            content = UnitContent(b"".join(pieces), offset, splits)
            yield unit._replace(index=first, content=content)
        pieces = [block[begin:]]
        first, offset, splits = index, index * unit.size + begin, inside
    if first is not None:
        content = UnitContent(b"".join(pieces), offset, splits)
        yield unit._replace(index=first, content=content)


def _first_border(block: bytes) -> tuple[int | None, bool]:
    """Returns where a unit may begin, and whether that splits a document."""
    blank = _BLANK_LINE.search(block)
    if blank:
        return blank.end(), False
    line_end = block.find(b"\n")
    return (None, False) if line_end < 0 else (line_end + 1, True)


def _decompressed(raw: IO[bytes], file: CorpusFile) -> IO[bytes]:
    """Returns a stream of the uncompressed bytes of a file."""
    if file.compression == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if file.compression == "zstd":
        try:
            import zstandard
        except ImportError:
            raise UserError(
                f"{file.path} needs the package zstandard: pip install "
                "zstandard"
            ) from None
        reader = zstandard.ZstdDecompressor().stream_reader(
            raw, read_across_frames=True
        )
        return io.BufferedReader(reader)
    return raw


def _blocks(
    stream: IO[bytes], file: CorpusFile, size: int = UNIT_BYTES
) -> Iterator[bytes]:
    """Yields `size` bytes at a time; only the last block is shorter."""
    while True:
        try:
            block = stream.read(size)
        except Exception as error:  # each library has its own kinds
            if isinstance(error, MemoryError):
                raise
            raise UserError(
                f"{file.path} cannot be decompressed ({error}): the file is "
                "damaged or incomplete"
            ) from None
        if not block:
            return
        yield block


def decode(content: UnitContent, file: CorpusFile, *, on_error: str) -> Text:
    """Decodes a unit.

    Args:
        content: The unit.
        file: Its file, for messages.
        on_error: What to do about a line that is not UTF-8: "fail" or
            "skip" (the line is left out and counted).
    """
    data = content.data
    if content.offset == 0:
        data = data.removeprefix(codecs.BOM_UTF8)
    bad_lines = 0
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if on_error == "fail":
            offset = content.offset + error.start
            offset += len(content.data) - len(data)
            raise UserError(
                f"{file.path}, line {_line_number(file, offset)}, byte "
                f"{offset}: 0x{data[error.start]:02x} is not UTF-8; convert "
                "the file, or pass --on_error skip to leave such lines out"
            ) from None
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        good = [line for line in lines if not _ESCAPED.search(line)]
        bad_lines = len(lines) - len(good)
        text = "\n".join(good)
    return Text(text, bad_lines, text.count("\0"))


def _line_number(file: CorpusFile, offset: int) -> int:
    """Counts the lines up to a byte of a file, the first being line 1."""
    lines = 1
    with (
        paths.open_binary(file.path) as raw,
        _decompressed(raw, file) as stream,
    ):
        for block in _blocks(stream, file):
            lines += block.count(b"\n", 0, max(offset, 0))
            offset -= len(block)
            if offset <= 0:
                break
    return lines


def documents(text: str) -> Iterator[list[str]]:
    """Yields the sentences of each document of a decoded unit.

    "a\\nb\\n\\nc\\n" gives ["a", "b"] and ["c"].
    """
    sentences: list[str] = []
    for line in text.split("\n"):
        line = line.strip()
        if line:
            sentences.append(line)
        elif sentences:
            yield sentences
            sentences = []
    if sentences:
        yield sentences


def read_documents(
    files: Sequence[CorpusFile], *, on_error: str = "fail"
) -> Iterator[list[str]]:
    """Yields the documents of a corpus, one unit in memory at a time."""
    for file in files:
        for unit in of_file(file):
            yield from documents(
                decode(read_unit(unit), file, on_error=on_error).text
            )
