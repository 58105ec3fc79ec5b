"""The rows of the classification tasks, as their files spell them."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from albert_tf2 import paths
from albert_tf2.tasks import column_names, tables
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.column_names import ID, LABEL, TEXT_A, TEXT_B
from albert_tf2.tasks.reading import BadRow, field


@dataclasses.dataclass(frozen=True, slots=True)
class TextRow:
    """A text or a pair.

    Attributes:
        row_id: As the file has it; None counts the rows.
        text_a: The text, or the first of a pair.
        text_b: The second of a pair.
        label: A class; several in a tuple; a score; None if it is unknown.
    """

    row_id: int | str | None
    text_a: str
    text_b: str | None = None
    label: Any = None


def label_of(record: dict[str, Any]) -> str | None:
    """Returns the label as text; some files hold it as a number."""
    label = record.get("label")
    return None if label is None else str(label)


def sentence_row(line: str) -> TextRow:
    record = reading.json_object(line)
    return TextRow(
        record.get("id"), field(record, "sentence"), label=label_of(record)
    )


def pair_row(line: str) -> TextRow:
    record = reading.json_object(line)
    return TextRow(
        record.get("id"),
        field(record, "sentence1"),
        field(record, "sentence2"),
        label_of(record),
    )


def csl_row(line: str) -> TextRow:
    record = reading.json_object(line)
    keywords = field(record, "keyword", list)
    if not all(isinstance(keyword, str) for keyword in keywords):
        raise BadRow("field `keyword` must be a list of strings")
    return TextRow(
        record.get("id"),
        " ".join(keywords),
        field(record, "abst"),
        label_of(record),
    )


def wsc_row(line: str) -> TextRow:
    """Marks the two spans in the text: _the name_ and [the pronoun]."""
    record = reading.json_object(line)
    text, target = field(record, "text"), field(record, "target", dict)
    marks = []
    for span, (left, right) in (("span1", "__"), ("span2", "[]")):
        surface = field(target, f"{span}_text")
        start = field(target, f"{span}_index", int)
        end = start + len(surface)
        if start < 0 or text[start:end] != surface:
            raise BadRow(
                f"`{span}_text` {surface!r} does not stand at "
                f"`{span}_index` {start}, where the text has "
                f"{text[max(start, 0) : end]!r}"
            )
        marks.append((start, end, left, right))
    # From the right, so that the earlier offsets stay true.
    for start, end, left, right in sorted(marks, reverse=True):
        text = f"{text[:start]}{left}{text[start:end]}{right}{text[end:]}"
    return TextRow(record.get("id"), text, label=label_of(record))


def pair_records(path: paths.PathLike) -> Iterator[tuple[str, Any]]:
    """Yields the rows of a table of pairs by their columns' roles.

    LCQMC, BQ, ATEC and PAWS-X are kept in many copies: with a header or
    without, between tabs or commas, with a number in front (ATEC) or not.
    """
    roles: Sequence[str] = ()
    for place, cells in tables.plain_rows(path):
        if not roles:
            roles = column_names.roles_of(cells)
            if TEXT_B in roles:
                continue
            roles = [""]
        named = roles if TEXT_B in roles else _PAIR_COLUMNS.get(len(cells), ())
        if len(cells) in (len(named), len(named) - 1) and named:
            yield place, dict(zip(named, cells, strict=False))
        else:
            wanted = ", ".join(named or _PAIR_COLUMNS[3])
            reason = f"expected {wanted}. Received: {len(cells)} columns"
            yield place, BadRow(reason)


_PAIR_COLUMNS = {
    2: (TEXT_A, TEXT_B),
    3: (TEXT_A, TEXT_B, LABEL),
    4: (ID, TEXT_A, TEXT_B, LABEL),
}


def review_records(path: paths.PathLike) -> Iterator[tuple[str, Any]]:
    """Yields the rows of a table of reviews, whose label is 0 or 1.

    ChnSentiCorp and the tables of ChineseNlpCorpus begin with the label and
    have a header; copies have neither.
    """
    roles: Sequence[str] = ()
    for place, cells in tables.plain_rows(path):
        if not roles:
            roles = column_names.roles_of(cells)
            if TEXT_A in roles:
                continue
            roles = [
                LABEL if cell.strip() in "01" else TEXT_A for cell in cells
            ]
        if len(cells) == len(roles):
            yield place, dict(zip(roles, cells, strict=True))
        else:
            yield (
                place,
                BadRow(
                    f"expected {len(roles)} columns. Received: {len(cells)}"
                ),
            )


def table_row(record: dict[str, str] | BadRow) -> TextRow:
    """Makes a row of cells by their roles."""
    if isinstance(record, BadRow):
        raise record
    label = record.get(LABEL)
    return TextRow(
        record.get(ID) or None,
        field(record, TEXT_A),
        record.get(TEXT_B),
        label.strip() if label else None,
    )


# Names of the columns in the machine translation and in XNLI itself.
_XNLI_COLUMNS = (("premise", "hypo"), ("sentence1", "sentence2"))


def xnli_records(path: paths.PathLike) -> Iterator[tuple[str, Any]]:
    """Yields JSON lines, or the rows of a TSV by the names in its header."""
    if paths.name(path).endswith((".json", ".jsonl")):
        yield from reading.json_lines(path)
        return
    header: list[str] | None = None
    for number, line in reading.numbered_lines(path):
        cells = line.split("\t")
        if header is None:
            header = cells
        elif line.strip():
            # A row too short for its header shows a missing field in `parse`.
            place = f"{path}, line {number}"
            yield place, dict(zip(header, cells, strict=False))


def xnli_row(record: Any) -> TextRow | None:
    """Reads a Chinese row; the files hold fifteen languages."""
    if isinstance(record, str):
        record = reading.json_object(record)
    if record.get("language", "zh") != "zh":
        return None
    label = record.get("gold_label", record.get("label"))
    # The translated training file spells it so.
    label = "contradiction" if label == "contradictory" else label
    for premise, hypothesis in _XNLI_COLUMNS:
        if premise in record:
            return TextRow(
                record.get("id"),
                join_chinese(field(record, premise)),
                join_chinese(field(record, hypothesis)),
                label,
            )
    raise BadRow("columns `premise` or `sentence1` are missing")


# A space with a Chinese character or sign on one side at least.
_CJK = r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]"
_CJK_SPACE = re.compile(rf"(?<={_CJK}) +| +(?={_CJK})")


def join_chinese(text: str) -> str:
    """Removes the spaces that a word segmenter left around Chinese.

    >>> join_chinese("我 爱 deep learning 。")
    '我爱deep learning。'
    """
    return _CJK_SPACE.sub("", text)
