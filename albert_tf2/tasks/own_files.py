"""The user's own classification files: `--task csv`.

    train.csv, dev.csv and perhaps test.csv (also .tsv, .txt) hold one text,
    or a pair, and a label per row:

        text_a,text_b,label            a header, in any order
        花呗怎么还款,花呗如何还钱,1

The delimiter and the header are found by looking; `--set columns=[...]` names
the columns of a file without a header where looking is not enough.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from albert_tf2.errors import UserError
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.classification import Classification, label_order
from albert_tf2.tasks.reading import BadRow
from albert_tf2.tasks.text_rows import TextRow

DELIMITERS = ("\t", ",", ";", "|")
ID, TEXT_A, TEXT_B, LABEL = COLUMNS = ("id", "text_a", "text_b", "label")
# What other people call them.
SYNONYMS = {
    "id": ID,
    "idx": ID,
    "index": ID,
    "text": TEXT_A,
    "text_a": TEXT_A,
    "sentence": TEXT_A,
    "sentence1": TEXT_A,
    "question1": TEXT_A,
    "title": TEXT_A,
    "premise": TEXT_A,
    "query": TEXT_A,
    "text_b": TEXT_B,
    "sentence2": TEXT_B,
    "question2": TEXT_B,
    "hypothesis": TEXT_B,
    "label": LABEL,
    "class": LABEL,
    "target": LABEL,
}
WITHOUT_HEADER = {
    1: (TEXT_A,),
    2: (TEXT_A, LABEL),
    3: (TEXT_A, TEXT_B, LABEL),
}
_ENDINGS = (".csv", ".tsv", ".txt")
FILES = {
    split: tuple(f"{name}{end}" for name in names for end in _ENDINGS)
    for split, names in (
        ("train", ("train",)),
        ("dev", ("dev", "valid", "val")),
        ("test", ("test",)),
    )
}


class OwnFiles(Classification):
    """Classification of rows in delimited files."""

    def __init__(
        self,
        name: str = "csv",
        *,
        labels: Sequence[str] = (),
        columns: Sequence[str] = (),
    ):
        """Describes the files.

        Args:
            name: As `--task` spells it.
            labels: The classes; empty takes them from the training file.
            columns: Names from `COLUMNS` in the order of the file, "" for a
                column to pass over; empty finds them.
        """
        super().__init__(name, labels=labels, files=FILES)
        unknown = [c for c in columns if c and c not in COLUMNS]
        if unknown or (columns and TEXT_A not in columns):
            raise UserError(
                f"`columns` must be names of {', '.join(COLUMNS)}, text_a "
                f"among them. Received: `columns={list(columns)}`"
            )
        self.columns = tuple(columns)
        # How the training file is laid out: others follow it.
        self._delimiter: str | None = None
        self._train_columns: Sequence[str] = ()
        self._parse = _row
        self._records = self._named_cells

    def prepare(self, data_dir, *, on_error):
        paths = self.find(data_dir, reading.TRAIN)
        if not paths:
            return
        path = paths[0]
        counts: Counter[str] = Counter()
        for _, cells in self._named_cells(path):
            if isinstance(cells, dict) and cells.get(LABEL, "").strip():
                counts[cells[LABEL].strip()] += 1
        if self.labels:
            return
        if len(counts) < 2:
            raise UserError(
                f"{path}: found {len(counts)} different labels, and "
                "classification needs two; is `columns` right?"
            )
        once = [label for label, count in counts.items() if count == 1]
        if len(counts) > 1000 and len(once) > len(counts) / 2:
            raise UserError(
                f"{path}: found {len(counts)} different labels, most of them "
                f"once (such as {once[0]!r}): is `columns` right?"
            )
        self.labels = tuple(sorted(counts, key=label_order))

    def _named_cells(self, path: Path) -> Iterator[tuple[str, Any]]:
        """Yields (place, {column: cell}), or (place, what is wrong)."""
        delimiter = find_delimiter(path, known=self._delimiter)
        self._delimiter = self._delimiter or delimiter
        columns: Sequence[str] = ()
        for place, cells in reading.delimited(path, delimiter):
            if not columns:
                columns, is_header = self._find_columns(place, cells)
                self._train_columns = self._train_columns or columns
                if is_header:
                    continue
            if len(cells) != len(columns) and not (
                # A test file may lack the label column at the end.
                columns[-1] == LABEL and len(cells) == len(columns) - 1
            ):
                yield (
                    place,
                    f"expected {len(columns)} columns between "
                    f"{delimiter!r}. Received: {len(cells)}",
                )
            else:
                yield place, dict(zip(columns, cells, strict=False))

    def _find_columns(
        self, place: str, cells: list[str]
    ) -> tuple[Sequence[str], bool]:
        """Returns the columns' names, and whether `cells` is a header."""
        named = [SYNONYMS.get(cell.strip().lower(), "") for cell in cells]
        is_header = TEXT_A in named
        if self.columns:
            return self.columns, is_header
        if is_header:
            repeated = [
                name
                for name, n in Counter(filter(None, named)).items()
                if n > 1
            ]
            if repeated:
                raise UserError(
                    f"{place}: two columns of the header mean {repeated[0]}; "
                    "name the columns, e.g. --set columns=[text_a,text_b,label]"
                )
            return named, True
        known = list(self._train_columns)
        if LABEL in known and len(cells) == len(known) - 1:
            known.remove(LABEL)  # a test file without labels
        if len(known) == len(cells):
            return known, False
        if len(cells) not in WITHOUT_HEADER:
            raise UserError(
                f"{place}: no header, and {len(cells)} columns do not tell "
                "what they are; name them, e.g. "
                "--set columns=[id,text_a,text_b,label]"
            )
        return WITHOUT_HEADER[len(cells)], False

    def describe(self):
        return {**super().describe(), "columns": list(self.columns)}


def _row(cells: dict[str, str] | str) -> TextRow:
    if isinstance(cells, str):
        raise BadRow(cells)
    text_b = cells.get(TEXT_B)
    if not cells[TEXT_A].strip() or (text_b is not None and not text_b.strip()):
        raise BadRow("an empty text")
    label = cells.get(LABEL, "").strip() or None
    return TextRow(cells.get(ID), cells[TEXT_A], text_b, label)


def find_delimiter(path: Path, *, known: str | None = None) -> str:
    """Finds the delimiter: the one that cuts most rows into equal counts.

    The file's ending does not tell: ATEC is tab-separated under `.csv`.

    Args:
        path: The file.
        known: The training file's: looked for first, and where no other
            stands either, the rows are single texts.
    """
    lines = []
    for _, line in reading.numbered_lines(path):
        if line.strip():
            lines.append(line)
        if len(lines) == 200:
            break
    if known and sum(known in line for line in lines) > len(lines) / 2:
        return known
    best, best_share = None, 0.5
    for delimiter in DELIMITERS:
        counts = Counter(_cut_count(line, delimiter) for line in lines)
        counts.pop(0, None)
        if counts:
            # Commas occur in texts too, at random counts.
            share = counts.most_common(1)[0][1] / len(lines)
            if share > best_share:
                best, best_share = delimiter, share
    if best is None and lines and known is None:
        raise UserError(
            f"{path}: no delimiter (tab, comma, semicolon, bar) stands in "
            "most rows the same number of times; is this a table?"
        )
    return best or "\t"


def _cut_count(line: str, delimiter: str) -> int:
    if delimiter == "\t":
        return line.count(delimiter)
    # A quoted cell may hold the delimiter.
    return len(next(csv.reader([line], delimiter=delimiter))) - 1
