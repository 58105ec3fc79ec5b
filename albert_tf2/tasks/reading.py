"""Reading task files strictly: every bad row is named by file and line.

A reader walks over (place, record) pairs, where the place is "file, line n",
and parses each record into a row. A record that breaks a rule raises `BadRow`;
what happens then is the caller's choice: `fail` stops with one sentence,
`skip` counts the row and goes on. Rows of a test file are never dropped, since
a submission answers them by position: there `skip` keeps an empty row.
"""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from albert_tf2.errors import UserError

ON_ERROR = ("fail", "skip")
TRAIN, DEV, TEST = SPLITS = ("train", "dev", "test")

Row = TypeVar("Row")


class BadRow(ValueError):
    """What is wrong with a row; the reader adds where."""


@dataclasses.dataclass
class ReadingReport:
    """What one reading left out, for the log.

    Attributes:
        bad: "file, line n: reason" of each bad row under `--on_error skip`.
        dropped: How many rows a rule of the task leaves out, by reason.
        notes: Repairs, such as an answer that was found elsewhere.
    """

    bad: list[str] = dataclasses.field(default_factory=list)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: dict[str, int] = dataclasses.field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def note(self, what: str) -> None:
        self.notes[what] = self.notes.get(what, 0) + 1

    def lines(self) -> list[str]:
        """Returns the report as sentences; the first bad rows by name."""
        told = [f"skipped {line}" for line in self.bad[:5]]
        if len(self.bad) > 5:
            told.append(f"skipped {len(self.bad) - 5} more bad rows")
        counts = {**self.dropped, **self.notes}
        return told + [f"{count} x {what}" for what, count in counts.items()]


def parse_rows(
    records: Iterator[tuple[str, Any]],
    parse: Callable[[Any], Row | None],
    *,
    on_error: str,
    report: ReadingReport,
    placeholder: Callable[[Any], Row] | None = None,
) -> list[Row]:
    """Parses records into rows.

    Args:
        records: (place, record) pairs.
        parse: Returns a row, or None where a rule leaves the record out;
            raises `BadRow`.
        on_error: "fail" or "skip".
        report: Takes what was skipped.
        placeholder: Makes the row that stands in for a bad one, for files
            whose rows are answered by position.

    Raises:
        UserError: For a bad row under "fail".
    """
    rows = []
    for place, record in records:
        try:
            row = parse(record)
        except BadRow as error:
            if on_error == "fail":
                raise UserError(
                    f"{place}: {error}; mend the row, or pass --on_error skip"
                ) from None
            report.bad.append(f"{place}: {error}")
            row = placeholder(record) if placeholder else None
        if row is not None:
            rows.append(row)
    return rows


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, line) without its end; a BOM is taken off.

    Only LF ends a line: U+2028 occurs inside sentences.
    """
    number = 0
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise UserError(
            f"{path}, near line {number + 1}: not UTF-8; convert the file first"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): check the path"
        ) from None


def json_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (place, line) of a JSON Lines file; empty lines do not count."""
    for number, line in numbered_lines(path):
        if line.strip():
            yield f"{path}, line {number}", line


def json_object(line: str) -> dict[str, Any]:
    """Parses one line of a JSON Lines file."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadRow(f"not valid JSON ({error.msg})") from None
    if not isinstance(record, dict):
        raise BadRow("not a JSON object")
    return record


def id_of(line: Any) -> Any:
    """Returns the id of a row that is bad otherwise, if it can be read."""
    try:
        return json_object(line).get("id")
    except (BadRow, TypeError):
        return None


def field(record: dict[str, Any], key: str, kind: type = str) -> Any:
    """Returns a field that must be there and of a type."""
    if key not in record:
        raise BadRow(f"field `{key}` is missing")
    value = record[key]
    mistaken_bool = isinstance(value, bool) and kind is not bool
    if not isinstance(value, kind) or mistaken_bool:
        raise BadRow(
            f"field `{key}` must be of type {kind.__name__}. "
            f"Received: {value!r}"
        )
    return value


def delimited(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yields (place, cells) of a delimited file; empty lines do not count.

    A tab-separated file is raw: a quotation mark in it is a character, as in
    LCQMC. Other delimiters follow CSV, where a quoted cell may hold anything.
    """
    lines = numbered_lines(path)
    if delimiter == "\t":
        for number, line in lines:
            if line.strip():
                yield f"{path}, line {number}", line.split("\t")
        return
    reader = csv.reader((line + "\n" for _, line in lines), delimiter=delimiter)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield f"{path}, line {reader.line_num}", cells
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: not readable as CSV ({error})"
        ) from None


def find_files(
    data_dir: str | Path, alternatives: Sequence[str | tuple[str, ...]]
) -> list[Path]:
    """Returns the first alternative that a folder holds, or nothing.

    An alternative is a file name, or several files that are one split.
    """
    for names in alternatives:
        names = (names,) if isinstance(names, str) else names
        paths = [Path(data_dir) / name for name in names]
        found = [path for path in paths if path.is_file()]
        if found:
            return found
    return []
