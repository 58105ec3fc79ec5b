"""Tasks whose head reads one vector of each text or pair.

What they share: rows from a reader, packing, ids. What a label is, and what
an answer, is theirs: one class (`classification.py`), several
(`multi_label.py`), a score (`regression.py`).
"""

import abc
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, columns
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.encoding import Example, pack, tokenize_all
from albert_tf2.tasks.own_files import FILES, OwnTable
from albert_tf2.tasks.text_rows import TextRow


class RowReader(Protocol):
    """Makes rows of a file; `OwnTable` is one."""

    def records(
        self, path: str, report: reading.ReadingReport
    ) -> Iterator[tuple[str, Any]]:
        """Yields the (place, record) pairs of a file."""

    def parse(self, record: Any) -> TextRow | None:
        """Makes a row; None for one that is not this task's.

        Raises:
            BadRow: Saying what is wrong with it.
        """


@dataclasses.dataclass(frozen=True)
class KnownLayout:
    """A `RowReader` of two functions, for a layout that is known."""

    parse_record: Callable[[Any], TextRow | None]
    walk: Callable[[str], Iterator[tuple[str, Any]]] = reading.json_lines

    def records(self, path: str, report: reading.ReadingReport):
        del report
        return self.walk(path)

    def parse(self, record: Any) -> TextRow | None:
        return self.parse_record(record)


class TextTask(base.Task):
    """An answer for each text or pair."""

    # What a label is: `columns.CLASS`, `CLASSES` or `SCORE`.
    label_kind: ClassVar[str] = columns.CLASS

    def __init__(
        self, name: str, *, reader: RowReader | None = None, **settings: Any
    ):
        """Describes the task.

        Args:
            name: As `--task` spells it.
            reader: Makes rows of files; None reads the user's own tables,
                whose labels the training file tells.
            **settings: See `base.Task`.
        """
        settings.setdefault("files", FILES)
        super().__init__(name, **settings)
        self.reader = reader or OwnTable(label=self.label_kind)
        # Whether rows are pairs; None before any was seen.
        self.pairs: bool | None = None

    @property
    def is_own(self) -> bool:
        """Whether the files are the user's, and tell the labels."""
        return isinstance(self.reader, OwnTable)

    @classmethod
    def of_own_files(cls, name: str, given: base.Given) -> "TextTask":
        """Makes the task for the user's own tables."""
        reader = OwnTable(
            label=cls.label_kind,
            columns=given.columns,
            delimiter=given.delimiter,
            label_separator=given.label_separator,
        )
        return cls(name, reader=reader, labels=given.labels)

    def prepare(self, data_dir, *, on_error):
        del on_error
        files = self.find(data_dir, reading.TRAIN)
        if isinstance(self.reader, OwnTable) and files:
            found = self.reader.prepare(files[0], names_given=bool(self.labels))
            if not self.labels:
                self.learn_labels(files[0], found)

    def learn_labels(self, path: str, found: list[Any]) -> None:
        """Takes what the labels of the training file tell."""

    @abc.abstractmethod
    def check(
        self, row: TextRow, *, test: bool, report: reading.ReadingReport
    ) -> TextRow | None:
        """Returns the row with a label that the task takes; None drops it.

        Raises:
            BadRow: For a label that is missing or unknown.
        """

    @abc.abstractmethod
    def target(self, row: TextRow) -> Any:
        """Returns the label as the head learns it; None without one."""

    def read_file(self, path, *, test, on_error, report):
        def parse(record):
            row = self.reader.parse(record)
            if row is None:
                return None
            return self.check(row, test=test, report=report)

        rows = reading.parse_rows(
            self.reader.records(path, report),
            parse,
            on_error=on_error,
            report=report,
            placeholder=_unreadable if test else None,
        )
        if rows:
            self.check_file(path, rows)
        return [
            row
            if row.row_id is not None
            else dataclasses.replace(row, row_id=index)
            for index, row in enumerate(rows)
        ]

    def check_file(self, path: str, rows: list[TextRow]) -> None:
        """Takes what the rows of a file are together: texts, or pairs.

        Raises:
            UserError: If the files before it were of the other kind.
        """
        pairs = any(row.text_b is not None for row in rows)
        if self.pairs not in (None, pairs):
            kinds = ("single texts", "pairs of texts")
            raise UserError(
                f"{path} holds {kinds[pairs]}, and the files before it "
                f"{kinds[not pairs]}"
            )
        self.pairs = pairs

    def describe(self):
        return {**super().describe(), "pairs": self.pairs}

    def restore(self, description):
        super().restore(description)
        self.pairs = base.taken(description, "pairs", (bool, type(None)))

    def encode(self, rows, tokenizer, lengths, *, training=False):
        texts = [row.text_a for row in rows]
        texts += [row.text_b for row in rows if row.text_b is not None]
        ids = tokenize_all(tokenizer, texts)
        seconds = iter(ids[len(rows) :])
        return [
            Example(
                row=index,
                sequences=(
                    pack(
                        [ids[index]]
                        if row.text_b is None
                        else [ids[index], next(seconds)],
                        tokenizer.vocabulary,
                        lengths.max_seq_length,
                    ),
                ),
                label=self.target(row),
            )
            for index, row in enumerate(rows)
        ]


def _unreadable(record: Any) -> TextRow:
    return TextRow(reading.id_of(record), "")
