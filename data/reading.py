"""Units -> text: one sentence per line, a blank line between documents.

Whatever a corpus is (`formats`), what comes out here is one form, in which
the builder, the vocabulary tool and the report find the same documents.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from albert_tf2.errors import UserError
from albert_tf2.text.normalization import normalize

from . import cleaning, formats, probing, units
from .corpus import CorpusFile
from .read_config import ReadConfig
from .sentences import OTHER_LINE_ENDS, split_sentences

# How `surrogateescape` marks bytes that are not UTF-8.
_ESCAPED = re.compile("[\udc80-\udcff]")
_BLANK_LINES = re.compile("\n{3,}")
DEFAULT = ReadConfig()
COUNTED = (
    "lines_not_utf8",
    "lines_malformed",
    "documents_empty",
    "sentences_cut",
)


def read(
    unit: units.Unit, config: ReadConfig, counts: Counter[str]
) -> tuple[str, bool]:
    """Reads a unit.

    Args:
        unit: What to read.
        config: How.
        counts: Receives what was found, and what was left out.

    Returns:
        The text, and whether it may begin inside a document.
    """
    content = units.read_unit(unit)
    file = unit.file
    for name in COUNTED:
        counts[name] += 0  # so that a manifest tells the same of every set
    counts["bytes"] += len(content.data)
    counts["lines_malformed"] += content.malformed
    if file.format == "jsonl":
        text = _from_json(content, file, config, counts)
    else:
        text = _decode(content, file, config, counts)
        # A row of a table became a document with a blank line behind it.
        blank = text.count("\n\n")
        is_text = file.format == "text"
        counts["lines_read"] += text.count("\n") - blank if is_text else blank
    if "\n\n\n" in text:  # a border is a border; 300 MB of them are soon read
        text = _BLANK_LINES.sub("\n\n", text)
    counts["nul_characters"] += text.count("\0")
    counts["other_line_ends"] += _other_line_ends(text)
    counts["html_left_overs"] += cleaning.count_html(text)
    if config.strip_html:
        text = cleaning.strip_html(text)
    if config.split_sentences:
        lines = text.count("\n")
        text = split_sentences(text)
        counts["sentences_cut"] += text.count("\n") - lines
    counts["repeated_lines"] += cleaning.count_repeated_lines(text)
    if config.drop_repeated_lines:
        text = cleaning.drop_repeated_lines(text)
    if config.normalize:
        text = normalize(text)
    # A unit without content lies within a line of its predecessor.
    return text, content.splits_document or not content.data


def _other_line_ends(text: str) -> int:
    """Counts the line ends that are not LF or CR LF."""
    alone = text.count("\r") - text.count("\r\n")
    return alone + sum(map(text.count, OTHER_LINE_ENDS))


def _decode(
    content: units.UnitContent,
    file: CorpusFile,
    config: ReadConfig,
    counts: Counter[str],
) -> str:
    """Decodes a unit; wrong lines are an error, or left out and counted."""
    data = content.data
    if content.offset == 0:
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if config.on_error == "fail":
            offset = content.offset + error.start
            offset += len(content.data) - len(data)
            raise UserError(
                _wrong_byte(file, offset, data[error.start], data)
            ) from None
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    good = [line for line in lines if not _ESCAPED.search(line)]
    counts["lines_not_utf8"] += len(lines) - len(good)
    return "\n".join(good)


def _wrong_byte(file: CorpusFile, offset: int, byte: int, data: bytes) -> str:
    line = units.line_number(file, offset)
    if file.encoding != "utf-8":
        return (
            f"{file.path}, line {line}: this is not {file.encoding}; correct "
            "--encoding, or pass --on_error skip to leave such lines out"
        )
    return (
        f"{file.path}, line {line}, byte {offset}: 0x{byte:02x} is not UTF-8; "
        f"{encoding_remedy(file.path, data)}, or pass --on_error skip to "
        "leave such lines out"
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def encoding_remedy(path: str, sample: bytes) -> str:
    """Says what to do about a file that is not UTF-8."""
    lines = [line for line in sample.split(b"\n") if line.strip()]
    wrong = [line for line in lines if not _is_utf8(line)]
    marked = sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if len(wrong) < len(lines) / 2 and not marked:
        likely = probing.likely_encoding(b"\n".join(wrong))
        told = f" (they are probably {likely})" if likely else ""
        return f"most of its lines are UTF-8: mend those that are not{told}"
    likely = probing.likely_encoding(sample)
    if likely is None:
        return "convert the file, or pass its --encoding"
    return (
        f"it is probably {likely}: pass --encoding {likely} (or convert it: "
        f"iconv -f {likely.upper()} -t UTF-8 {path} > new.txt)"
    )


def _from_json(
    content: units.UnitContent,
    file: CorpusFile,
    config: ReadConfig,
    counts: Counter[str],
) -> str:
    """Turns lines of JSON into text; wrong ones are errors, or counted."""
    data = content.data
    if content.offset == 0:
        data = data.removeprefix(codecs.BOM_UTF8)
    documents = []
    for begin, document, problem in formats.from_json(data, file.fields):
        if document is not None:
            documents.append(document)
            counts["lines_read"] += 1
            counts["documents_empty"] += not document
        elif config.on_error == "skip":
            counts["lines_malformed"] += 1
        else:
            offset = content.offset + len(content.data) - len(data) + begin
            raise UserError(
                f"{file.path}, line {units.line_number(file, offset)}: "
                f"{problem}; mend it, or pass --on_error skip to leave such "
                "lines out"
            )
    return "".join(documents)


def documents(text: str) -> Iterator[list[str]]:
    """Yields the sentences of each document of a text.

    "a\\nb\\n\\nc\\n" gives ["a", "b"] and ["c"].
    """
    sentences: list[str] = []
    for line in text.split("\n"):
        line = line.strip()
        if line:
            sentences.append(line)
        elif sentences:
            yield sentences
            sentences = []
    if sentences:
        yield sentences


def read_documents(
    files: Sequence[CorpusFile], config: ReadConfig = DEFAULT
) -> Iterator[list[str]]:
    """Yields the documents of a corpus, one unit in memory at a time."""
    counts: Counter[str] = Counter()
    for file in files:
        for unit in units.of_file(file, on_error=config.on_error):
            yield from documents(read(unit, config, counts)[0])
