"""What a file seems to be: by its first kilobytes, before anything is built.

A corpus of JSON objects or table rows that is read as text trains a model on
quotes and braces; a file in another encoding is noise. Both are told before
a build begins, with the flag that reads them.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

SAMPLE_BYTES = 1 << 16
MANY = 0.9  # of the lines must agree
FEW_LINES = 3  # fewer rows tell nothing
# What else divides columns, besides tabs and commas; the tools do not read it.
OTHER_DIVIDERS = ";|"
# The most different values of a column of labels.
FEW_VALUES = 20

# What begins files that hold no text.
_SIGNATURES = {
    b"\x1f\x8b": "a gzip file: give it the ending .gz",
    b"\x28\xb5\x2f\xfd": "a zstd file: give it the ending .zst",
    b"\xfd7zXZ\x00": "an xz file: give it the ending .xz",
    b"BZh": "a bzip2 file: give it the ending .bz2",
    b"PAR1": "a Parquet file: give it the ending .parquet",
    b"PK\x03\x04": "a zip archive (or a document in one): unpack it, or save "
    "it as text",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a rar archive: unpack it first",
    b"%PDF": "a PDF: extract its text first",
    b"\xd0\xcf\x11\xe0": "an old Word or Excel document: save it as text",
}
# Names that columns of text and labels have.
_COLUMN_NAMES = re.compile(
    r"[A-Za-z_][A-Za-z0-9_ .-]{0,30}|.{0,6}(?:标签|内容|文本|标题|正文|评论|"
    r"类别|分类|摘要|关键词|句子|时间|日期|作者|编号|序号|来源|链接)"
)
# The commonest characters, simplified and traditional alike.
_COMMON = frozenset(
    "的一是不了在有人我他这個这个们中来上大为和国地到以说时要就出会可也你对"
    "生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都"
    "同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者"
    "意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很"
    "這們來為國說時會對過發後裡種經麼學現當沒動還進樣開從實軍無與長機關點業"
)


class Looks(NamedTuple):
    """What a file seems to be.

    Attributes:
        format: "text", "jsonl", "json" (one JSON value), "json lines" (of
            strings or lists), "csv" or "tsv".
        fields: The keys of its objects, or the columns of its header.
        has_header: Whether the first row of a table names the columns.
        longest: The field with the longest texts; a column's number (from 1)
            if it has no name.
        divider: What divides the columns of a table.
    """

    format: str
    fields: tuple[str, ...] = ()
    has_header: bool = False
    longest: str = ""
    divider: str = ","


def look(text: str) -> Looks:
    """Says what the beginning of a file seems to be.

    Args:
        text: Whole lines, some dozen kilobytes.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return Looks("text")
    return _as_json(lines) or _as_table(lines) or Looks("text")


def _as_json(lines: Sequence[str]) -> Looks | None:
    """Recognises a value on every line, or one value over many lines."""
    first = lines[0].lstrip("\ufeff \t")[0]
    if first not in '[{"':
        return None
    values = [*map(_json, lines)]
    objects = [value for value in values if isinstance(value, dict)]
    # Each that is not one will be named or counted. None of the lines of a
    # value over many lines is an object: a comma stands behind it.
    if len(objects) > len(lines) / 2:
        sizes: Counter[str] = Counter()
        for one in objects:
            for key, value in one.items():
                is_text = isinstance(value, str | list)
                sizes[key] += len(str(value)) if is_text else 0
        return Looks("jsonl", tuple(sizes), longest=_largest(sizes))
    others = [
        line
        for line, v in zip(lines, values, strict=True)
        if _is_other(line, v)
    ]
    if len(lines) >= FEW_LINES and len(others) >= MANY * len(lines):
        return Looks("json lines")
    if first == '"':
        return None
    # Its end may lie behind the sample, so keys are looked for.
    found = re.findall(r'[{,]\s*"([^"\\]{1,40})"\s*:', "\n".join(lines))
    return Looks("json", tuple(dict.fromkeys(found))) if found else None


def _is_other(line: str, value: object) -> bool:
    """Whether a line is a list of JSON, or a text that JSON had to escape.

    Texts between quotes that hold nothing of the kind may be just that.
    """
    if isinstance(value, list):
        return any(isinstance(one, str | list | dict) for one in value)
    return isinstance(value, str) and ("\\" in line)


def _largest(sizes: Counter[str]) -> str:
    return max(sizes, key=lambda name: sizes[name], default="")


def _json(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _as_table(lines: Sequence[str]) -> Looks | None:
    """Recognises rows with equally many tabs, or a real CSV."""
    if len(lines) < FEW_LINES:
        return None
    tabs = [line.strip("\t\r ").count("\t") for line in lines]
    (common, times), *_ = Counter(tabs).most_common(1)
    if common and times >= MANY * len(lines):
        rows = [line.rstrip("\r").split("\t") for line in lines]
        return _table("tsv", rows, common + 1)
    for divider in "," + OTHER_DIVIDERS:
        rows = _csv_rows(lines, divider)
        if len(rows) < FEW_LINES:
            continue
        (common, times), *_ = Counter(map(len, rows)).most_common(1)
        if common < 2 or times < MANY * len(rows):
            continue
        # Verses have one comma in every line too: a table shows a header, or
        # a column of numbers or labels.
        found = _table("csv", rows, common)._replace(divider=divider)
        if found.has_header or _has_labels(rows, common):
            return found
    return None


def _csv_rows(lines: Sequence[str], divider: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(lines, delimiter=divider) if row]
    except csv.Error:
        return []


def _table(kind: str, rows: Sequence[Sequence[str]], width: int) -> Looks:
    header = [name.strip("\ufeff \r") for name in rows[0]]
    is_header = (
        len(header) == width
        and len(set(header)) == width
        and all(map(_COLUMN_NAMES.fullmatch, header))
        # A row of names differs from those below it.
        and not any(list(row) == list(rows[0]) for row in rows[1:50])
    )
    names = header if is_header else [str(n + 1) for n in range(width)]
    sizes: Counter[str] = Counter()
    for row in rows[1:]:
        for name, cell in zip(names, row, strict=False):
            sizes[name] += len(cell)
    fields = tuple(header) if is_header else ()
    return Looks(kind, fields, is_header, _largest(sizes))


def is_name(cell: str) -> bool:
    """Whether a cell may be the name of a column."""
    return _COLUMN_NAMES.fullmatch(cell) is not None


def first_row(text: str, kind: str) -> tuple[str, ...]:
    """Returns the first row of a table."""
    lines = text.split("\n")
    if kind == "tsv":
        row = lines[0].split("\t")
    else:
        row = next(csv.reader(lines), [])
    return tuple(name.strip() for name in row)


def _has_labels(rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether a column holds numbers alone, or few values many times."""
    rows = [row for row in rows[1:] if len(row) == width]
    if len(rows) < 2 * FEW_LINES:
        return False
    for column in range(width):
        cells = [row[column].strip() for row in rows]
        if all(re.fullmatch(r"-?\d+(\.\d+)?", cell) for cell in cells):
            return True
        few = len(set(cells)) <= min(FEW_VALUES, len(cells) // 4)
        if few and all(0 < len(cell) <= 12 for cell in cells):
            return True
    return False


def not_text(sample: bytes) -> str | None:
    """Says what a file is that holds no text; None if it may."""
    for signature, told in _SIGNATURES.items():
        if sample.startswith(signature):
            return told
    return None


def likely_encoding(sample: bytes) -> str | None:
    """Guesses the encoding of bytes that are not UTF-8.

    Args:
        sample: The first kilobytes; the last character may be cut off.

    Returns:
        The name for `--encoding`; None if nothing fits.
    """
    for mark, name in (
        (b"\xff\xfe\x00\x00", "utf-32"),
        (b"\x00\x00\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if sample.startswith(mark):
            return name
    scores = {
        name: _plausible(sample, name)
        for name in ("gb18030", "big5", "utf-16-le", "utf-16-be", "shift_jis")
    }
    best = max(scores, key=scores.__getitem__)
    return best if scores[best] > 0.03 else None


def _plausible(sample: bytes, encoding: str) -> float:
    """Returns the share of common Chinese characters; 0 for what is no text.

    Wrong encodings of Chinese give rare characters, and many errors.
    """
    sample = sample[: len(sample) & ~1]
    text = sample.decode(encoding, "replace")
    errors = text.count("\ufffd") + text.count("\0")
    if not text or errors > 0.02 * len(text):
        return 0.0
    kana = sum("\u3041" <= c <= "\u30ff" for c in text)
    if encoding == "shift_jis":
        return kana / len(text)
    return sum(c in _COMMON for c in text) / len(text)
