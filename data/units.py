"""Units: files -> stretches of about a megabyte, cut between documents.

A *unit* is what one worker takes at a time: a stretch of about a megabyte of
one file, cut where a document ends. Where the cuts fall depends on the
bytes of the file alone, so every number of workers, on one machine or many,
sees the same units, and none of them holds more than a few units in memory.
"""

import math
import re
from collections.abc import Iterator
from typing import IO, NamedTuple

from albert_tf2 import paths
from albert_tf2.errors import UserError

from . import formats
from .corpus import CorpusFile

UNIT_BYTES = 1 << 20  # by default

# White space as the tokenizer sees it: a line of ideographic spaces is blank.
_BLANK_LINE = re.compile(rb"\n(?:[ \t\r]|\xc2\xa0|\xe3\x80\x80)*\n")


class Unit(NamedTuple):
    """The `index`-th stretch of a file.

    Attributes:
        size: About how many bytes units of this file have.
        progress: Bytes on disk that it stands for.
        content: What it holds, if that is read already.
        file_number: The place of the file in the corpus.
        duplicates: The places of documents to leave out, with their kinds
            (`duplicates.KINDS`).
    """

    file: CorpusFile
    # `tuple.index`, which this hides, is of no use here.
    index: int  # type: ignore[assignment]
    size: int = UNIT_BYTES
    progress: int = 0
    content: "UnitContent | None" = None
    file_number: int = 0
    duplicates: tuple[tuple[int, str], ...] = ()


class UnitContent(NamedTuple):
    """The bytes of a unit.

    Attributes:
        data: Whole lines of the file; empty if an earlier unit, in which a
            line longer than a unit begins, holds them.
        offset: Where they begin in the (uncompressed) file.
        splits_document: Whether it begins in the middle of a document, which
            only happens to those longer than a unit.
        malformed: Rows of a table that were left out here.
    """

    data: bytes
    offset: int
    splits_document: bool
    malformed: int = 0


def of_file(
    file: CorpusFile, size: int = UNIT_BYTES, *, on_error: str = "fail"
) -> Iterator[Unit]:
    """Yields the units of a file, of about `size` bytes each.

    A plain file is read by whoever processes the unit; one that can only be
    read from its beginning (`CorpusFile.is_sequential`) comes with contents.

    Args:
        file: The file.
        size: Of a unit.
        on_error: What to do about a row that is none: "fail" or "skip".
    """
    if not file.is_sequential:
        for index in range(math.ceil(file.size / size)):
            yield Unit(file, index, size, min(size, file.size - index * size))
        return
    with formats.open_file(file, on_error) as opened:
        done = malformed = next_index = 0
        for unit in _cut(Unit(file, 0, size), opened.stream):
            assert unit.content is not None, "cut from a stream"
            content = unit.content._replace(
                malformed=opened.malformed - malformed
            )
            for index in range(next_index, unit.index):
                yield Unit(file, index, size, 0, _inside_a_line(index, size))
            next_index = unit.index + 1
            yield unit._replace(progress=opened.tell() - done, content=content)
            done, malformed = opened.tell(), opened.malformed


def read_unit(unit: Unit) -> UnitContent:
    """Returns the bytes of a unit (see `UnitContent`)."""
    if unit.content is not None:
        return unit.content
    with paths.open_binary(unit.file.path) as stream:
        stream.seek(unit.index * unit.size)
        found = next(_cut(unit, stream), None)
    if found is not None and found.index == unit.index:
        assert found.content is not None, "cut from a stream"
        return found.content
    return _inside_a_line(unit.index, unit.size)


def _inside_a_line(index: int, size: int) -> UnitContent:
    """Returns a unit that lies within a line of an earlier one.

    It is a unit all the same: it hands on which document goes on (`census`).
    """
    return UnitContent(b"", index * size, False)


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
        begin, inside = (
            (0, False) if index == 0 else _first_border(block, unit.file)
        )
        if inside and len(block) < unit.size:
            begin = None  # the rest of the file is no unit of its own
        if begin is None:
            pieces.append(block)
            if len(pieces) * unit.size > formats.MAX_LINE_BYTES:
                raise UserError(
                    f"{unit.file.path}: the line at byte {offset} is longer "
                    f"than {formats.MAX_LINE_BYTES} bytes: put its sentences "
                    "on lines of their own, for instance with "
                    "`sed 's/。/。\\n/g'`"
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


def _first_border(block: bytes, file: CorpusFile) -> tuple[int | None, bool]:
    """Returns where a unit may begin, and whether that splits a document."""
    documents_are_lines = file.format == "jsonl"
    blank = None if documents_are_lines else _BLANK_LINE.search(block)
    if blank:
        return blank.end(), False
    line_end = block.find(b"\n")
    if line_end < 0:
        return None, False
    return line_end + 1, not documents_are_lines


def _blocks(
    stream: IO[bytes], file: CorpusFile, size: int = UNIT_BYTES
) -> Iterator[bytes]:
    """Yields `size` bytes at a time; only the last block is shorter."""
    while block := formats.read_some(stream, file, size):
        yield block


def line_number(file: CorpusFile, offset: int) -> int:
    """Counts the lines up to a byte of a file, the first being line 1."""
    lines = 1
    with formats.open_file(file) as opened:
        for block in _blocks(opened.stream, file):
            lines += block.count(b"\n", 0, max(offset, 0))
            offset -= len(block)
            if offset <= 0:
                break
    return lines
