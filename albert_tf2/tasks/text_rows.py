"""The rows of the classification tasks, as their files spell them."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.reading import BadRow, field


@dataclasses.dataclass(frozen=True, slots=True)
class TextRow:
    """A text or a pair; `label` is None where it is unknown."""

    row_id: int | str | None
    text_a: str
    text_b: str | None = None
    label: str | None = None


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


def lcqmc_records(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the rows of a three-column TSV, whether it has a header or not."""
    for index, (place, cells) in enumerate(reading.delimited(path, "\t")):
        if index == 0 and [c.strip() for c in cells[2:]] == ["label"]:
            continue
        yield place, cells


def lcqmc_row(cells: list[str]) -> TextRow:
    if len(cells) not in (2, 3):
        raise BadRow(
            "expected text_a, text_b and label between tabs. Received: "
            f"{len(cells)} columns"
        )
    label = cells[2].strip() if len(cells) == 3 else None
    return TextRow(None, cells[0], cells[1], label)


# Names of the columns in the machine translation and in XNLI itself.
_XNLI_COLUMNS = (("premise", "hypo"), ("sentence1", "sentence2"))


def xnli_records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields JSON lines, or the rows of a TSV by the names in its header."""
    if path.suffix in (".json", ".jsonl"):
        yield from reading.json_lines(path)
        return
    header: list[str] | None = None
    for place, cells in reading.delimited(path, "\t"):
        if header is None:
            header = cells
        else:
            # A row too short for its header shows a missing field in `parse`.
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
