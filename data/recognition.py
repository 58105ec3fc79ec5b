"""Decides how each file of a corpus is read, before anything is built.

By its name, by its first kilobytes (`probing`) and by the settings. What does
not fit together is refused in one sentence with the flag to use.
"""

import concurrent.futures
import os
import sys
from collections.abc import Sequence

from albert_tf2 import paths
from albert_tf2.errors import UserError, cut

from . import borders, corpus, formats, probing, reading
from .corpus import CorpusFile
from .read_config import ReadConfig

_BY_NAME = {
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
# Files that are looked into at once where each look is a request.
REQUESTS = 16
# What columns of text are called; Parquet files are not looked into.
USUAL = ("content", "text", "正文", "内容", "文本", "review", "sentence")


def find(patterns: Sequence[str] | str, config: ReadConfig) -> list[CorpusFile]:
    """Returns the files of a corpus, each with how it is read.

    Args:
        patterns: Paths and globs.
        config: How the user wants them read.

    Raises:
        UserError: If there is none, or one that cannot be what it seems.
    """
    files = corpus.find_files(patterns)
    if any(paths.is_remote(file.path) for file in files):
        with concurrent.futures.ThreadPoolExecutor(REQUESTS) as threads:
            return list(threads.map(lambda f: recognise(f, config), files))
    return [recognise(file, config) for file in files]


def recognise(file: CorpusFile, config: ReadConfig) -> CorpusFile:
    """Returns a file with its format, fields and encoding."""
    kind = config.input_format
    if kind == "auto":
        kind = _BY_NAME.get(os.path.splitext(file.name)[1].lower(), "auto")
    if kind == "parquet":
        return _with_fields(file, "parquet", config)
    file = file._replace(encoding=config.encoding)
    sample = _sample(file, config)
    looks = probing.look(sample)
    if config.input_format == "text":
        return _without_fields(file, config)
    if looks.format == "json" and kind in ("auto", "jsonl"):
        raise UserError(
            f"{file.path} is one JSON value over many lines (keys "
            f"{_listed(looks.fields)}): make a line of each object, for "
            f"instance with `jq -c '.[]' {file.path} > new.jsonl`"
        )
    if looks.format == "json lines" and kind in ("auto", "jsonl"):
        raise UserError(
            f"{file.path} is lines of JSON that are no objects: make some of "
            f"them, for instance with `jq -c '{{text: .}}' {file.path} > "
            "new.jsonl` and --text_field text"
        )
    if looks.divider in probing.OTHER_DIVIDERS and kind in ("auto", "csv"):
        raise UserError(
            f"{file.path} is {_table(looks.fields)}, divided by "
            f"{looks.divider!r}: save it with commas or tabs between them (or "
            "pass --input_format text if this is plain text)"
        )
    if kind == "auto":
        kind = looks.format
    if kind == "text":
        return _without_fields(file, config)
    return _with_fields(file, kind, config, sample, looks)


def _without_fields(file: CorpusFile, config: ReadConfig) -> CorpusFile:
    if config.text_field and file.size:
        raise UserError(
            f"{file.path} is plain text and has no field "
            f"{config.text_field[0]!r}: leave it out, or drop --text_field"
        )
    return file


def _with_fields(
    file: CorpusFile,
    kind: str,
    config: ReadConfig,
    sample: str = "",
    looks: probing.Looks | None = None,
) -> CorpusFile:
    """Returns a file of objects or rows; asks for fields if none is named."""
    wanted = config.text_field
    by_number = kind in ("csv", "tsv") and all(f.isdecimal() for f in wanted)
    has_header = bool(looks and looks.has_header) or not by_number
    if kind == "parquet":
        fields = tuple(formats.parquet_columns(file))
    elif kind == "jsonl" or not has_header:
        fields = looks.fields if looks else ()
    else:
        fields = probing.first_row(sample, kind)
    if not wanted:
        # The name alone says that it is a table.
        by_name = kind in ("csv", "tsv") and looks and looks.format == "text"
        first = probing.first_row(sample, kind) if by_name else ()
        raise _ask_for_fields(file, kind, fields, looks, first)
    for field in () if by_number else wanted:
        known = field in fields or field.partition(".")[0] in fields
        if fields and not known:
            raise UserError(
                f"{file.path} has no field {field!r}, but {_listed(fields)}: "
                "correct --text_field"
            )
    if kind in ("csv", "tsv") and not has_header:
        print(
            f"note: {file.path} has no header: its first row is text too",
            file=sys.stderr,
        )
    return file._replace(
        format=kind,
        fields=wanted,
        has_header=kind in ("csv", "tsv") and has_header,
    )


def _ask_for_fields(
    file: CorpusFile,
    kind: str,
    fields: Sequence[str],
    looks: probing.Looks | None,
    first: Sequence[str] = (),
) -> UserError:
    """Returns the refusal of objects or rows that were to be read as text."""
    what = _table(fields)
    named = looks.longest if looks else ""
    if kind == "jsonl":
        what = f"lines of JSON with the keys {_listed(fields)}"
    elif first:
        what = f"a table that begins {_listed([c[:40] for c in first])}"
        named = first[0] if probing.is_name(first[0]) else "1"
    if not named:
        usual = [name for name in USUAL if name in fields]
        named = (*usual, *fields, "NAME")[0]
    return UserError(
        f"{file.path} is {what}: choose the text with --text_field {named} "
        "(or pass --input_format text if this is plain text)"
    )


def _table(columns: Sequence[str]) -> str:
    if columns:
        return f"a table with the columns {_listed(columns)}"
    return "a table without a header"


def _listed(fields: Sequence[str]) -> str:
    more = f" and {len(fields) - 12} more" if len(fields) > 12 else ""
    return ", ".join(cut(field[:40]) for field in fields[:12]) + more


def _sample(file: CorpusFile, config: ReadConfig) -> str:
    """Returns the first whole lines; refuses what is not text."""
    with formats.open_file(file, config.on_error) as opened:
        sample = formats.read_some(opened.stream, file, probing.SAMPLE_BYTES)
    if file.encoding == "utf-8" and (what := probing.not_text(sample)):
        raise UserError(f"{file.path} is {what}")
    whole = len(sample) < probing.SAMPLE_BYTES
    lines = sample.split(b"\n")
    if not whole and len(lines) > 1:
        lines.pop()  # cut off
    good, bad = [], []
    for number, line in enumerate(lines, start=1):
        try:
            good.append(line.decode("utf-8").removesuffix("\r"))
        except UnicodeDecodeError as error:
            # The last character of the sample may be cut off.
            cut = not whole and len(lines) == 1 and error.end == len(line)
            if cut:
                good.append(line[: error.start].decode("utf-8"))
            else:
                bad.append(number)
    if len(bad) > borders.MOST_BAD * sum(map(bool, lines)):
        more = f", nor are {len(bad) - 1:,} more" if bad[1:] else ""
        told = f"{file.path}, line {bad[0]:,} is not {file.encoding}{more}"
        told += f" of the first {len(lines):,}: "
        if file.encoding == "utf-8":
            raise UserError(told + reading.encoding_remedy(file.path, sample))
        raise UserError(told + "correct --encoding")
    return "\n".join(good).removeprefix("\ufeff")
