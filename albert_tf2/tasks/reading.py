"""Reading task files strictly: every bad row is named by file and line.

A reader walks over (place, record) pairs, where the place is "file, line n",
and parses each record into a row. A record that breaks a rule raises `BadRow`;
what happens then is the caller's choice: `fail` stops with one sentence,
`skip` counts the row and goes on. Rows of a test file are never dropped, since
a submission answers them by position: there `skip` keeps an empty row.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.text import encodings

TRAIN, DEV, TEST = SPLITS = ("train", "dev", "test")

# A file of questions is read whole, and there are large ones.
MOST_JSON_BYTES = 1 << 30

# Characters of a line. Zeros without an end, as a disk's repair leaves them,
# would be read as one line until the memory is full.
MOST_LINE = 64 << 20

# Characters of a fault that are told: a bad value may be megabytes long.
MOST_REASON = 300

Row = TypeVar("Row")


class BadRow(ValueError):
    """What is wrong with a row; the reader adds where.

    Attributes:
        place: The file and line, where the fault stands in one line of a
            record of several.
    """

    def __init__(self, reason: str, place: str | None = None):
        if len(reason) > MOST_REASON:
            reason = f"{reason[:MOST_REASON]}..."
        super().__init__(reason)
        self.place = place


@dataclasses.dataclass
class ReadingReport:
    """What one reading found and left out, for the log.

    Attributes:
        told: What the reader took the file for, in sentences.
        bad: "file, line n: reason" of each bad row under `--on_error skip`.
        dropped: How many rows a rule of the task leaves out, by reason.
        notes: Repairs, such as an answer that was found elsewhere.
    """

    told: list[str] = dataclasses.field(default_factory=list)
    bad: list[str] = dataclasses.field(default_factory=list)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: dict[str, int] = dataclasses.field(default_factory=dict)

    def tell(self, sentence: str) -> None:
        if sentence not in self.told:
            self.told.append(sentence)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def note(self, what: str) -> None:
        self.notes[what] = self.notes.get(what, 0) + 1

    def lines(self) -> list[str]:
        """Returns the report as sentences; the first bad rows by name."""
        told = [*self.told, *(f"skipped {line}" for line in self.bad[:5])]
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
            place = error.place or place
            if on_error == "fail":
                raise UserError(
                    f"{place}: {error}; mend the row, or pass --on_error skip"
                ) from None
            report.bad.append(f"{place}: {error}")
            row = placeholder(record) if placeholder else None
        if row is not None:
            rows.append(row)
    return rows


def numbered_lines(
    path: paths.PathLike, most: int = MOST_LINE
) -> Iterator[tuple[int, str]]:
    """Yields (line number, line) without its end; a BOM is taken off.

    Only LF ends a line: U+2028 occurs inside sentences.

    Args:
        path: The file.
        most: The characters above which a line is refused.

    Raises:
        UserError: For a file that is not UTF-8, with its likely encoding, and
            for a line without an end.
    """
    number = 0
    with paths.open_text(path) as stream, paths.told(path, "read"):
        try:
            lines = iter(lambda: stream.readline(most + 1), "")
            for number, line in enumerate(lines, 1):
                if len(line) > most and not line.endswith("\n"):
                    raise UserError(
                        f"{path}, line {number}: has more than {most:,} "
                        "characters: is it the right file?"
                    )
                if number == 1:
                    line = line.removeprefix("\ufeff")
                yield number, line.rstrip("\r\n")
        except UnicodeDecodeError:
            with paths.open_binary(path) as binary:
                likely = encodings.likely(binary.read(encodings.SAMPLE_BYTES))
            raise UserError(
                f"{path}, near line {number + 1}: {_not_utf8(path, likely)}"
            ) from None


def first_line(path: paths.PathLike) -> str:
    """Returns the first line that is not blank, by which a form is known.

    A whole document may be one line: as long a one is taken as `json_file`
    reads.
    """
    whole = paths.size(path) <= MOST_JSON_BYTES
    lines = numbered_lines(path, MOST_JSON_BYTES if whole else MOST_LINE)
    return next((line for _, line in lines if line.strip()), "")


def _not_utf8(path: paths.PathLike, likely: str | None) -> str:
    if likely == encodings.DAMAGED:
        return (
            "some bytes are not UTF-8, though the rest of the file is: mend "
            "the line, or take it out"
        )
    if likely is None:
        return (
            "not UTF-8, nor an encoding of Chinese text; is it the right file?"
        )
    return (
        f"not UTF-8 but {likely}; convert it first: iconv -f {likely} -t "
        f"UTF-8 {path} > new"
    )


def first_bytes(path: paths.PathLike, count: int) -> bytes:
    """Returns what a file begins with."""
    with paths.open_binary(path) as stream, paths.told(path, "read"):
        return stream.read(count)


def json_lines(path: paths.PathLike) -> Iterator[tuple[str, str]]:
    """Yields (place, line) of a JSON Lines file; empty lines do not count."""
    for number, line in numbered_lines(path):
        if line.strip():
            yield f"{path}, line {number}", line


def json_file(path: paths.PathLike, kind: type | None = None) -> Any:
    """Reads a file that is one JSON value, guarded as `json_object` is."""
    return paths.read_json(path, kind, most=MOST_JSON_BYTES)


def json_object(line: str) -> dict[str, Any]:
    """Parses one line of a JSON Lines file.

    Guarded as whole files are: depth, length of numbers, not an object.
    """
    try:
        return paths.parse_json(line, "the line", dict)
    except UserError as error:
        raise BadRow(str(error)) from None


def id_of(line: Any) -> Any:
    """Returns the id of a row that is bad otherwise, if it can be read."""
    if not isinstance(line, str):  # a table's row, or why there is none
        return None
    try:
        return json_object(line).get("id")
    except BadRow:
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


def find_files(
    data_dir: paths.PathLike, alternatives: Sequence[str | tuple[str, ...]]
) -> list[str]:
    """Returns the first alternative that a folder holds, or nothing.

    An alternative is a file name, or several files that are one split.
    """
    for names in alternatives:
        names = (names,) if isinstance(names, str) else names
        candidates = [paths.join(data_dir, name) for name in names]
        found = [path for path in candidates if paths.is_file(path)]
        if found:
            return found
    return []


def other_files(
    data_dir: paths.PathLike,
    alternatives: Sequence[str | tuple[str, ...]],
    found: Sequence[str],
) -> list[str]:
    """Returns the names of further alternatives that a folder holds."""
    names = {
        name
        for each in alternatives
        for name in ((each,) if isinstance(each, str) else each)
        if paths.join(data_dir, name) not in found
    }
    return sorted(
        name for name in names if paths.is_file(paths.join(data_dir, name))
    )
