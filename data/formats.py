"""Corpora as they are published -> the text form that units are cut from.

    {"title": "春", "content": "春天来了。\n花开了。"}      a line of JSON
    春,"春天来了。\n花开了。"                                a row of a table

both become, with `--text_field title content`,

    春
    春天来了。
    花开了。
    (a blank line)

Lines of JSON stay lines until a worker turns them into text (`from_json`), so
that a large file can be read from any place. Tables, compressed files and
other encodings are read from the beginning (`open_stream`).
"""

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import itertools
import json
import lzma
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

from albert_tf2 import paths
from albert_tf2.errors import UserError

from .corpus import CorpusFile

# A line or field longer than this is not text; holding it would not be flat.
MAX_LINE_BYTES = 64 << 20
_READ_BYTES = 1 << 20
# Stands for what cannot be decoded: UTF-8 cannot hold it, so the line that
# it is in counts as a line of wrong bytes.
_WRONG = "\udc80"
_ERRORS = "albert_tf2.wrong"


_HALVES = re.compile("[\ud800-\udfff]")


class Stream(io.RawIOBase):
    """Bytes that come in pieces of any size, as a stream."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class Opened:
    """A file of the corpus, being read from its beginning.

    Attributes:
        stream: Its text form: UTF-8, and lines of JSON as they are.
        malformed: Rows of a table that were left out so far.
    """

    def __init__(self, file: CorpusFile, raw: IO[bytes], on_error: str):
        self.malformed = 0
        self._raw, self._file, self._on_error = raw, file, on_error
        stream = decompressed(raw, file)
        if file.encoding != "utf-8" and file.format != "parquet":
            stream = _buffered(_transcoded(stream, file.encoding))
        if file.format in ("csv", "tsv"):
            stream = _buffered(self._documents(_table_rows(stream, file)))
        elif file.format == "parquet":
            stream = _buffered(self._documents(_parquet_rows(raw, file)))
        self.stream = stream

    def tell(self) -> int:
        """Returns how many bytes of the file were read."""
        return self._raw.tell()

    def _documents(
        self, rows: Iterator[tuple[int, list[Any] | str]]
    ) -> Iterator[bytes]:
        """Yields the text form of rows: (line, fields) or (line, problem)."""
        for line, row in rows:
            text = row if isinstance(row, str) else None
            if text is None:
                try:
                    yield _as_document(row).encode("utf-8", "surrogatepass")
                    continue
                except TypeError as error:
                    text = str(error)
            if self._on_error == "fail":
                raise UserError(
                    f"{self._file.path}, line {line}: {text}; mend it, or "
                    "pass --on_error skip to leave such rows out"
                )
            self.malformed += 1


def _buffered(pieces: Iterator[bytes]) -> IO[bytes]:
    return io.BufferedReader(Stream(pieces), _READ_BYTES)


@contextlib.contextmanager
def open_file(file: CorpusFile, on_error: str = "fail") -> Iterator[Opened]:
    """Opens a file of the corpus at its beginning, in its text form."""
    with paths.open_binary(file.path) as raw:
        yield Opened(file, raw, on_error)


def read_some(stream: IO[bytes], file: CorpusFile, size: int) -> bytes:
    """Reads so many bytes, or what there is; damage is a `UserError`."""
    try:
        return stream.read(size)
    except (MemoryError, UserError):
        raise
    except Exception as error:  # each library has its own kinds
        how = "decompressed" if file.compression else "read"
        raise UserError(
            f"{file.path} cannot be {how} ({error}): the file is damaged or "
            "incomplete"
        ) from None


def decompressed(raw: IO[bytes], file: CorpusFile) -> IO[bytes]:
    """Returns a stream of the uncompressed bytes of a file."""
    if file.compression == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if file.compression == "xz":
        return lzma.LZMAFile(raw)
    if file.compression == "bzip2":
        return bz2.BZ2File(raw)
    if file.compression == "zstd":
        try:
            import zstandard
        except ImportError:
            raise UserError(
                f"{file.path} needs the package zstandard: pip install "
                "zstandard"
            ) from None
        reader = zstandard.ZstdDecompressor().stream_reader(
            raw, read_across_frames=True
        )
        return io.BufferedReader(reader)
    return raw


def _replace_wrong(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _WRONG, error.end


def _transcoded(stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    """Yields UTF-8; what is wrong becomes bytes that are wrong there too."""
    codecs.register_error(_ERRORS, _replace_wrong)
    decoder = codecs.getincrementaldecoder(encoding)(_ERRORS)
    while block := stream.read(_READ_BYTES):
        yield decoder.decode(block).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", True).encode("utf-8", "surrogatepass")


def _table_rows(
    stream: IO[bytes], file: CorpusFile
) -> Iterator[tuple[int, list[str] | str]]:
    """Yields the line of each row, and its fields or what is wrong."""
    lines = _lines(stream, file)
    first = next(lines, b"").removeprefix(codecs.BOM_UTF8)
    lines = itertools.chain([first], lines)
    text = (line.decode("utf-8", "surrogateescape") for line in lines)
    # The limit is one for the whole process, and 128 KB unless it is set.
    csv.field_size_limit(MAX_LINE_BYTES)
    if file.format == "tsv":  # a quote is a character there
        reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(text, strict=True)
    header = next(reader, []) if file.has_header else None
    columns = columns_of(file, header)
    width = len(header) if header else 0
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield line, f"this is no row of a table ({error})"
            continue
        if row is None:
            return
        if not row:
            continue
        if not width:
            width = len(row)
            _must_have(file, columns, width)
        if len(row) != width:
            yield line, f"{len(row)} columns, where others have {width}"
            continue
        found = [row[column] for column in columns]
        wrong = any("\udc80" <= c <= "\udcff" for c in "".join(found))
        yield line, f"not {file.encoding.upper()}" if wrong else found


def _lines(stream: IO[bytes], file: CorpusFile) -> Iterator[bytes]:
    while line := stream.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise UserError(
                f"{file.path}: a line of more than {MAX_LINE_BYTES:,} bytes: "
                "is it a table?"
            )
        yield line


def columns_of(file: CorpusFile, header: Sequence[str] | None) -> list[int]:
    """Returns the places of the wanted columns of a table.

    Args:
        file: Tells the names or numbers (from 1) of the columns.
        header: The names, if the first row holds them.
    """
    names = [name.strip() for name in header or ()]
    found = []
    for field in file.fields:
        if field in names:
            found.append(names.index(field))
        elif field.isdecimal() and int(field) >= 1:
            found.append(int(field) - 1)
        else:
            told = f"columns {', '.join(names)}" if names else "no header"
            raise UserError(
                f"{file.path} has no column {field!r}, but {told}: correct "
                "--text_field (a column's number works too, from 1)"
            )
    if names:
        _must_have(file, found, len(names))
    return found


def _must_have(file: CorpusFile, columns: Sequence[int], width: int) -> None:
    """Refuses the places of columns that a table does not have."""
    if max(columns) >= width:
        raise UserError(
            f"{file.path} has {width} columns: correct --text_field"
        )


def _parquet_rows(
    raw: IO[bytes], file: CorpusFile
) -> Iterator[tuple[int, list[Any] | str]]:
    """Yields the number of each row, and its fields or what is wrong."""
    fields = list(file.fields)
    line = 0
    with _as_user_errors(file) as parquet:
        table = parquet.ParquetFile(raw)
        for batch in table.iter_batches(batch_size=1024, columns=fields):
            for row in batch.to_pylist():
                line += 1
                yield line, [value_of(row, field) for field in fields]


def parquet_columns(file: CorpusFile) -> list[str]:
    """Returns the columns of a Parquet file."""
    with paths.open_binary(file.path) as raw, _as_user_errors(file) as parquet:
        return parquet.ParquetFile(raw).schema_arrow.names


@contextlib.contextmanager
def _as_user_errors(file: CorpusFile) -> Iterator[Any]:
    """Yields `pyarrow.parquet`; its errors become one sentence."""
    try:
        from pyarrow import lib, parquet
    except ImportError:
        raise UserError(
            f"{file.path} needs the package pyarrow: pip install pyarrow"
        ) from None
    try:
        yield parquet
    except (lib.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UserError(
            f"{file.path} cannot be read as Parquet ({reason}): copy it again"
        ) from None


def from_json(
    data: bytes, fields: Sequence[str]
) -> Iterator[tuple[int, str | None, str]]:
    """Turns lines of JSON into documents.

    Args:
        data: Whole lines.
        fields: Those that hold the text, in order.

    Yields:
        For each line that is not blank: where it begins in the data, its
        document (an empty text if there is none), and what is wrong (the
        document is None).
    """
    end = -1
    for line in data.split(b"\n"):
        begin, end = end + 1, end + 1 + len(line)
        if not line.strip():
            continue
        try:
            found = json.loads(line.decode("utf-8"))
            if not isinstance(found, dict):
                raise TypeError("not a JSON object")
            text = _as_document(_values_of(found, fields))
            # Halves of characters that `\\ud83d` alone stands for.
            yield begin, _HALVES.sub("\ufffd", text), ""
        except UnicodeDecodeError:
            yield begin, None, "not UTF-8"
        except KeyError as error:
            has = ", ".join(list(found)[:12])
            yield begin, None, f"no field {error.args[0]!r}, but {has}"
        except TypeError as error:
            yield begin, None, str(error)
        except (ValueError, RecursionError) as error:
            yield begin, None, f"not JSON ({str(error)[:80]})"


def _values_of(found: dict, fields: Sequence[str]) -> list[Any]:
    """Returns the fields of an object; some of them may be missing."""
    values, missing = [], []
    for field in fields:
        try:
            values.append(value_of(found, field))
        except KeyError:
            missing.append(field)
    if not values:
        raise KeyError(*missing[:1])
    return values


def value_of(found: Any, field: str) -> Any:
    """Returns a field of an object; `a.b` is b of the object, or list, a.

    Raises:
        KeyError: If it is not there.
    """
    if isinstance(found, dict) and field in found:
        return found[field]
    if isinstance(found, list):
        return [value_of(one, field) for one in found]
    first, dot, rest = field.partition(".")
    if not dot or not isinstance(found, dict) or first not in found:
        raise KeyError(field)
    return value_of(found[first], rest)


def _as_document(values: Sequence[Any]) -> str:
    """Returns the lines of some fields, and the border behind them."""
    lines = [line for value in values for line in _lines_of(value)]
    return "\n".join([*lines, "", ""]) if lines else ""


def _lines_of(value: Any) -> Iterator[str]:
    if value is None:
        return
    if isinstance(value, list | tuple):
        for one in value:
            yield from _lines_of(one)
        return
    if isinstance(value, bool | dict):
        kind = "an object" if isinstance(value, dict) else "true or false"
        raise TypeError(f"the field holds {kind}, not text")
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            raise TypeError("the field holds bytes, not text") from None
    for line in str(value).replace("\r", "\n").split("\n"):
        if line.strip():
            yield line
