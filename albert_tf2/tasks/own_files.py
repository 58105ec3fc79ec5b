"""The user's own tables of texts and labels, as rows.

    train.csv, dev.csv and perhaps test.csv (.tsv, .txt, .json, .jsonl,
    .parquet) hold one text, or a pair, and a label per row:

        text_a,text_b,label            a header, in any order
        花呗怎么还款,花呗如何还钱,1

`tables.py` cuts the file into cells, `columns.py` says what they are; here
they become rows, and labels that cannot be meant so are refused with the line
to use.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from albert_tf2.errors import UserError
from albert_tf2.tasks import columns as columns_
from albert_tf2.tasks import labels as labels_
from albert_tf2.tasks import tables
from albert_tf2.tasks.column_names import ID, LABEL, TEXT_A, TEXT_B
from albert_tf2.tasks.columns import CLASS, CLASSES, SCORE
from albert_tf2.tasks.reading import BadRow, ReadingReport
from albert_tf2.tasks.text_rows import TextRow

_ENDINGS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")
FILES = {
    split: tuple(f"{name}{end}" for name in names for end in _ENDINGS)
    for split, names in (
        ("train", ("train",)),
        ("dev", ("dev", "valid", "validation", "val", "eval")),
        ("test", ("test",)),
    )
}


# A recipe's values are clean lines of text: these stand for what is none.
_SPELLED = {"tab": "\t", "\\t": "\t", "space": " "}


def _as_meant(written: str | None) -> str:
    """Returns a separator as it stands in the file; none is empty."""
    return _SPELLED.get(written, written) if written else ""


class _Found(NamedTuple):
    """A table that was looked at."""

    path: str
    table: tables.Table
    columns: columns_.Columns
    begins: int


class OwnTable:
    """Reads the rows of the user's tables; the training file leads."""

    def __init__(
        self,
        *,
        label: str = CLASS,
        columns: Sequence[str] = (),
        delimiter: str | None = None,
        label_separator: str | None = None,
        may_lack_labels: bool = False,
    ):
        """Describes the files.

        Args:
            label: What a label is: one class, several, or a score.
            columns: The recipe's; empty finds them.
            delimiter: Between cells; None finds it.
            label_separator: Between the labels of a cell; None finds it.
            may_lack_labels: Whether a training file without labels, such as
                lines of text, is one, too.
        """
        columns_.check_asked(columns)
        self.label = label
        self.asked = tuple(columns)
        self.delimiter = _as_meant(delimiter)
        self.separator = _as_meant(label_separator)
        self.may_lack_labels = may_lack_labels
        # What nothing cuts is a text per line, if anything was known before.
        self._dialect = tables.Dialect("delimited") if may_lack_labels else None
        self._columns: columns_.Columns | None = None
        self._labels: tuple[str, ...] = ()
        self._training: _Found | None = None

    def prepare(self, path: str, *, names_given: bool) -> list[Any]:
        """Looks at the training file; returns the labels of its rows.

        Args:
            path: The training file.
            names_given: Whether the recipe names the classes, so that any
                label is meant as it stands.

        Raises:
            UserError: If a file of this kind has no such labels.
        """
        table = self._read(path)
        self._dialect = table.dialect
        found, begins = self._find(table)
        self._columns = found
        # The rows are looked at again, with their faults, by `records`.
        self._training = _Found(path, table, found, begins)
        places = found.places(LABEL)
        if not places and self.may_lack_labels:
            return []
        if not places:
            raise UserError(
                f"{path}: has no column of labels ({found.told()}); name the "
                f"columns, e.g. --set 'columns=[text_a,label]'"
            )
        cells = [
            cells[place]
            for _, cells in table.rows[begins:]
            if not isinstance(cells, BadRow) and not found.is_header(cells)
            for place in places
            if place < len(cells) and columns_.plain(cells[place])
        ]
        if self.label == CLASSES and not self.separator:
            self.separator = labels_.find_separator(cells)
        if not names_given:
            labels_.refuse_strange(
                path, found, cells, label=self.label, separator=self.separator
            )
        labels = []
        for cell in cells:
            try:
                labels.append(self._label([cell]))
            except BadRow:
                continue  # told with its line when the rows are read
        self._labels = tuple(map(str, labels)) if self.label == CLASS else ()
        return labels

    def records(
        self, path: str, report: ReadingReport
    ) -> Iterator[tuple[str, Any]]:
        """Yields (place, cells), or (place, what is wrong with the row)."""
        if self._training and self._training.path == path:
            _, table, found, begins = self._training
            self._training = None
        else:
            table = self._read(path)
            found, begins = self._find(table)
        report.tell(f"{table.dialect}, {found.told()}")
        for sentence in found.why:
            report.tell(sentence)
        if table.broken_cells:
            report.tell(f"{table.broken_cells} quoted cells hold line breaks")
        if self.label == CLASSES and self.separator:
            report.tell(f"labels are cut at {self.separator!r}")
        for place, cells in table.rows[begins:]:
            if isinstance(cells, BadRow):
                yield place, cells
            elif found.is_header(cells) and not table.names:
                report.drop("rows that repeat the header left out")
            elif len(cells) != len(found.roles) and not (
                # A row of a test file may lack the label at its end.
                found.roles[-1] == LABEL and len(cells) == len(found.roles) - 1
            ):
                yield (
                    place,
                    BadRow(
                        f"expected {len(found.roles)} columns. Received: "
                        f"{len(cells)}"
                    ),
                )
            else:
                yield place, (found, cells)

    def parse(self, record: Any) -> TextRow:
        """Makes a row of what `records` yields."""
        if isinstance(record, BadRow):
            raise record
        found, cells = record
        by_role = {
            role: [cells[i] for i in places if i < len(cells)]
            for role, places in found.used
        }
        row_id = by_role[ID][0] if by_role.get(ID) else None
        return TextRow(
            row_id if row_id != "" else None,
            _text(by_role.get(TEXT_A, ())),
            _text(by_role[TEXT_B]) if TEXT_B in by_role else None,
            self._label(by_role.get(LABEL, ())),
        )

    def _read(self, path: str) -> tables.Table:
        return tables.read(path, delimiter=self.delimiter, known=self._dialect)

    def _find(self, table: tables.Table) -> tuple[columns_.Columns, int]:
        return columns_.find(
            table,
            asked=self.asked,
            known=self._columns,
            known_labels=self._labels,
            label=self.label,
        )

    def _label(self, cells: Sequence[Any]) -> Any:
        """Reads the label: str, tuple of str, float; None if there is none."""
        if self.label == CLASSES:
            if not cells or all(cell is None for cell in cells):
                return None
            return labels_.several_labels(cells, self.separator)
        text = columns_.plain(cells[0]) if cells else ""
        if not text:
            return None
        if self.label == SCORE:
            return labels_.score_of(text)
        return labels_.class_of(cells[0])


def _text(cells: Sequence[Any]) -> str:
    for cell in cells:
        if cell is not None and not isinstance(cell, str):
            raise BadRow(f"a text must be a string. Received: {cell!r}")
    filled = [cell for cell in cells if cell and cell.strip()]
    if not filled:
        raise BadRow("an empty text")
    return " ".join(filled)
