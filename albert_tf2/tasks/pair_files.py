"""The user's files of pairs with labels, of pairs without, or of texts alone.

    花呗怎么还款<TAB>花呗如何还钱<TAB>1      as any table
    花呗怎么还款<TAB>花呗如何还钱           two texts
    今天天气很好,我喜欢                     a text per line, commas and all

Training on texts alone is measured on pairs, so other files follow the
training file only where that holds pairs with labels.
"""

from collections import Counter
from typing import Any

from albert_tf2.tasks import column_names, columns, reading, tables
from albert_tf2.tasks.column_names import LABEL, TEXT_A, TEXT_B
from albert_tf2.tasks.own_files import OwnTable
from albert_tf2.tasks.reading import BadRow


class PairsOrTexts(OwnTable):
    """Reads pairs with labels, pairs without, or texts alone."""

    def _asked(self) -> tuple[str, ...]:
        """Returns the recipe's `columns`, where they mean this file."""
        # Texts alone say nothing of what pairs in other files are like.
        of_texts = self._columns and not self._columns.places(LABEL)
        return () if of_texts else self.asked

    def _read(self, path: str) -> tables.Table:
        table = super()._read(path)
        asked = self._asked()
        if table.dialect.delimiter in (None, "\t") or self.delimiter:
            return table
        if asked != (TEXT_A,) and (asked or _has_roles(table)):
            return table
        # Commas inside of sentences, not between columns.
        rows: list[tuple[str, list[Any] | BadRow]] = [
            (f"{path}, line {number}", [line])
            for number, line in reading.numbered_lines(path)
            if line.strip()
        ]
        return tables.Table(path, tables.Dialect("delimited"), (), rows)

    def _find(self, table: tables.Table) -> tuple[columns.Columns, int]:
        known, asked = self._columns, self._asked()
        if known is not None and not known.places(LABEL):
            known = None
        if not (asked or known or _has_roles(table)) and _width(table) == 2:
            asked = (TEXT_A, TEXT_B)
        return columns.find(table, asked=asked, known=known, label=self.label)


def _cells(table: tables.Table) -> list[list[Any]]:
    rows = [cells for _, cells in table.rows if not isinstance(cells, BadRow)]
    width = _width(table)
    return [cells for cells in rows if len(cells) == width]


def _width(table: tables.Table) -> int:
    widths = Counter(
        len(cells) for _, cells in table.rows if not isinstance(cells, BadRow)
    )
    return widths.most_common(1)[0][0] if widths else 1


def _has_roles(table: tables.Table) -> bool:
    """Whether a table's columns are named, or one at its ends is a number."""
    rows = _cells(table)
    if table.names or not rows:
        return True
    if any(column_names.is_name(cell) for cell in rows[0]):
        return True
    ends = ([cells[place] for cells in rows] for place in (0, -1))
    # The first row may be a header that nobody knows.
    return any(columns.look_at(end[1:]).is_number for end in ends)
