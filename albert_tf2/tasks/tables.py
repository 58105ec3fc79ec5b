"""The user's own tables: delimited text, JSON Lines, JSON, Parquet.

    甲,0                              cells between delimiters
    "甲
    乙",1                             a quoted cell may hold line breaks
    {"text": "甲", "label": 0}        an object per line, or a list of them

What a file is follows from its first characters, not from the ending of its
name: ATEC is tab-separated under `.csv`.
"""

import dataclasses
import itertools
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any

from albert_tf2 import paths
from albert_tf2.errors import UserError, install_line
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.reading import BadRow

DELIMITERS = {
    "\t": "tabs",
    ",": "commas",
    ";": "semicolons",
    "||": "double bars",
    "|": "bars",
    "_!_": "_!_",
}
# Lines of a file that are looked at to tell how it is laid out.
SAMPLE_LINES = 500
# A quoted cell that is still open after so many lines is not one.
MOST_LINES_IN_A_CELL = 1000
# Rows that share no keys would make a table of rows times rows.
MOST_COLUMNS = 1000
# Of a Parquet file, where a few bytes may stand for any number of cells.
MOST_CELLS, MOST_PARQUET_BYTES = 20_000_000, 1 << 30
_PARQUET, _ZIP, _GZIP = b"PAR1", b"PK\x03\x04", b"\x1f\x8b"
_JSON_ENDINGS = (".json", ".jsonl")
_QUOTED = re.compile(r'"((?:[^"]++|"")*+)"')


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a file is laid out.

    Attributes:
        form: "delimited", "json lines", "json" or "parquet".
        delimiter: Between the cells of a delimited file; None where each
            line is one cell.
        quoted: Whether a cell in quotation marks may hold anything. In
            tab-separated files a mark is usually just a character.
    """

    form: str
    delimiter: str | None = None
    quoted: bool = False

    def __str__(self) -> str:
        if self.form != "delimited":
            return {"json lines": "JSON Lines", "json": "a JSON list"}.get(
                self.form, "Parquet"
            )
        if self.delimiter is None:
            return "one column"
        between = DELIMITERS.get(self.delimiter, repr(self.delimiter))
        # Between tabs this is a guess (see `_with_quotes`).
        quoted = (
            ", cells in quotes" if self.quoted and between == "tabs" else ""
        )
        return f"columns between {between}{quoted}"


@dataclasses.dataclass
class Table:
    """A file in memory.

    Attributes:
        path: Where it lies.
        dialect: How it is laid out.
        names: The columns' names where the form has them (JSON, Parquet);
            empty for delimited text, whose first row may be a header.
        rows: (place, cells) pairs; the cells are a `BadRow` where the row
            cannot be read.
        broken_cells: How many cells hold a line break.
    """

    path: str
    dialect: Dialect
    names: tuple[str, ...]
    rows: list[tuple[str, list[Any] | BadRow]]
    broken_cells: int = 0


def read(
    path: str,
    *,
    delimiter: str = "",
    known: Dialect | None = None,
) -> Table:
    """Reads a table whole.

    Args:
        path: The file.
        delimiter: What stands between the cells; "" finds it.
        known: The training file's dialect: followed where it suits, and
            where nothing else does, the rows are single texts.
    """
    dialect = look(path, delimiter=delimiter, known=known)
    if dialect.form == "parquet":
        return _parquet(path, dialect)
    if dialect.form != "delimited":
        return _json(path, dialect)
    rows: list[tuple[str, list[Any] | BadRow]] = []
    broken = 0
    for number, cells in split_lines(reading.numbered_lines(path), dialect):
        if any(cell.strip() for cell in cells):
            rows.append((f"{path}, line {number}", cells))
            broken += sum("\n" in cell for cell in cells)
    return Table(path, dialect, (), rows, broken)


def plain_rows(path: paths.PathLike) -> Iterator[tuple[str, list[str]]]:
    """Yields (place, cells) of a delimited file, whatever it is cut by.

    Between tabs a quotation mark is a character: published sets are so.
    """
    dialect = look(path)
    if dialect.form != "delimited":
        raise UserError(f"{path} is no table of text, but {dialect}")
    if dialect.delimiter == "\t":
        dialect = dataclasses.replace(dialect, quoted=False)
    for number, cells in split_lines(reading.numbered_lines(path), dialect):
        if any(cell.strip() for cell in cells):
            yield f"{path}, line {number}", cells


def look(
    path: paths.PathLike,
    *,
    delimiter: str = "",
    known: Dialect | None = None,
) -> Dialect:
    """Finds out how a file is laid out.

    Raises:
        UserError: For a file that is no table, or whose cells nothing cuts.
    """
    head = reading.first_bytes(path, 4)
    if head == _PARQUET:
        return Dialect("parquet")
    for magic, what in ((_ZIP, "an Excel or zip file"), (_GZIP, "gzipped")):
        if head.startswith(magic):
            raise UserError(
                f"{path} is {what}: save it as CSV (UTF-8), JSON Lines or "
                "Parquet"
            )
    filled = (e for e in reading.numbered_lines(path) if e[1].strip())
    lines = list(itertools.islice(filled, SAMPLE_LINES))
    first = lines[0][1].lstrip() if lines else ""
    if first.startswith("{"):
        return Dialect("json lines")
    if first.startswith("[") and paths.name(path).endswith(_JSON_ENDINGS):
        return Dialect("json")
    if delimiter:
        return _with_quotes(lines, delimiter)
    return _find_delimiter(path, lines, known)


def _find_delimiter(path, lines, known: Dialect | None) -> Dialect:
    """Takes the delimiter that cuts most lines into equally many cells."""
    best, best_share = None, 0.5
    # Of equals the training file's comes first.
    first = [known.delimiter] if known and known.delimiter else []
    for delimiter in (*first, *DELIMITERS):
        dialect = _with_quotes(lines, delimiter)
        counts = Counter(len(cells) for _, cells in split_lines(lines, dialect))
        total = sum(counts.values())
        counts.pop(1, None)
        if counts:
            # Commas occur in texts too, at random counts.
            share = counts.most_common(1)[0][1] / total
            if share > best_share:
                best, best_share = dialect, share
    if best is None and lines and known is None:
        raise UserError(
            f"{path}: no delimiter (tab, comma, semicolon, bar) stands in "
            "most rows the same number of times; is this a table? Name it "
            "with --set delimiter=..."
        )
    return best or Dialect("delimited")


def _with_quotes(lines, delimiter: str) -> Dialect:
    """Tells whether quotation marks in a file are marks or characters.

    Commas without quotes around them would cut texts, so there a quoted cell
    is one. Between tabs a mark is a character (as in LCQMC), unless every cell
    with a mark is quoted by CSV's rules and some of them had to be.
    """
    quoted = Dialect("delimited", delimiter, quoted=True)
    if delimiter != "\t":
        return quoted
    marked = [line for _, line in lines if '"' in line]
    had_to = False
    for _, cells in _quoted_records(lines, delimiter, keep=True):
        for cell in cells:
            if '"' not in cell:
                continue
            inner = _QUOTED.fullmatch(cell)
            if not inner:
                return dataclasses.replace(quoted, quoted=False)
            had_to |= any(s in inner[1] for s in ('""', "\t", "\n"))
    return dataclasses.replace(quoted, quoted=bool(marked) and had_to)


def split_lines(
    lines: Iterable[tuple[int, str]], dialect: Dialect
) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of the first line, cells) of a delimited file."""
    if dialect.delimiter is None:
        for number, line in lines:
            yield number, [line]
    elif dialect.quoted:
        yield from _quoted_records(lines, dialect.delimiter)
    else:
        for number, line in lines:
            yield number, line.split(dialect.delimiter)


def _quoted_records(lines, delimiter: str, *, keep: bool = False):
    """Cuts lines by CSV's rules; `keep` leaves the marks around the cells.

    A mark that opens a cell and never closes it is a character: then the
    line stands for itself, and so do those that were read on for its end.
    """
    lines = iter(lines)
    waiting: deque[tuple[int, str]] = deque()
    taken: list[tuple[int, str]]

    def following():
        return waiting.popleft() if waiting else next(lines, None)

    while (entry := following()) is not None:
        number, line = entry
        if '"' not in line:
            yield number, line.split(delimiter)
            continue
        text, taken = line, []
        cells = _cut(text, delimiter, keep=keep)
        while cells is None and len(taken) < MOST_LINES_IN_A_CELL:
            entry = following()
            if entry is None:
                break
            taken.append(entry)
            text += "\n" + entry[1]
            if '"' in entry[1]:
                cells = _cut(text, delimiter, keep=keep)
        if not cells:
            waiting.extendleft(reversed(taken))
            cells = line.split(delimiter)
        yield number, cells


def _cut(text: str, delimiter: str, *, keep: bool) -> list[str] | None:
    """Cuts a record; None if a quoted cell is open at its end.

    Empty if a cell that goes over lines closes in the middle of a cell: then
    the mark that opened it was a character.
    """
    cells: list[str] = []
    at = 0
    while True:
        end = None
        if text.startswith('"', at):
            match = _QUOTED.match(text, at)
            if match is None:
                return None
            end = match.end()
            if end == len(text) or text.startswith(delimiter, end):
                inner = match[1].replace('""', '"')
                cells.append(match[0] if keep else inner)
            elif "\n" in match[0]:
                return []
            else:
                end = None
        if end is None:
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            cells.append(text[at:end])
        if end == len(text):
            return cells
        at = end + len(delimiter)


def _json(path: str, dialect: Dialect) -> Table:
    """Reads objects, from lines or from a list, into cells by their keys."""
    records: list[tuple[str, dict[str, Any] | BadRow]] = []
    if dialect.form == "json lines":
        for place, line in reading.json_lines(path):
            try:
                records.append((place, reading.json_object(line)))
            except BadRow as error:
                records.append((place, error))
    else:
        for number, record in enumerate(reading.json_file(path, list), 1):
            if not isinstance(record, dict):
                record = BadRow("not a JSON object")
            records.append((f"{path}, record {number}", record))
    names: dict[str, None] = {}
    for _, record in records:
        if isinstance(record, dict):
            names |= dict.fromkeys(record)
        if len(names) > MOST_COLUMNS:
            raise UserError(
                f"{path}: the rows have over {MOST_COLUMNS} different keys; "
                "give all of them the same few"
            )
    rows: list[tuple[str, list[Any] | BadRow]] = [
        (
            place,
            record
            if isinstance(record, BadRow)
            else [record.get(name) for name in names],
        )
        for place, record in records
    ]
    return Table(path, dialect, tuple(names), rows)


def _parquet(path: str, dialect: Dialect) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"{path}: reading Parquet needs pyarrow: {install_line('remote')}"
        ) from None
    rows: list[tuple[str, list[Any] | BadRow]] = []
    taken = 0
    try:
        with paths.open_binary(path) as stream:
            table = pyarrow.parquet.ParquetFile(stream)
            names = tuple(table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=1024):
                taken += batch.nbytes
                if (
                    taken > MOST_PARQUET_BYTES
                    or (len(rows) + len(batch)) * len(names) > MOST_CELLS
                ):
                    raise UserError(
                        f"{path}: more than {MOST_PARQUET_BYTES:,} bytes or "
                        f"{MOST_CELLS:,} cells unpacked, too much for rows "
                        "to fine-tune on: take some of them"
                    )
                columns = [column.to_pylist() for column in batch.columns]
                for cells in zip(*columns, strict=True):
                    rows.append((f"{path}, row {len(rows) + 1}", list(cells)))
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Arrow's, or a text that is not UTF-8
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"{path}: not readable as Parquet ({reason})") from None
    return Table(path, dialect, names, rows)
