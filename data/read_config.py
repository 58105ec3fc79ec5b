"""What of a corpus is read, and how: the settings that all tools share."""

import argparse
import codecs
import dataclasses
from typing import Any

from albert_tf2 import command_line, settings
from albert_tf2.settings import ON_ERROR, setting

FORMATS = ("auto", "text", "jsonl", "csv", "tsv", "parquet")
# Names under which text in the larger encoding is often declared.
_LARGER = {"gb2312": "gb18030", "gbk": "gb18030", "utf-8-sig": "utf-8"}


@dataclasses.dataclass(frozen=True)
class ReadConfig:
    """How files become documents and sentences."""

    text_field: tuple[str, ...] = setting(
        (),
        "The fields (JSON Lines; `a.b` goes into objects) or columns (CSV, "
        "TSV, Parquet; names, or numbers from 1) that hold the text, in this "
        "order; each object or row is a document.",
    )
    input_format: str = setting(
        "auto",
        "What the files are, if their names and contents mislead.",
        choices=FORMATS,
    )
    encoding: str = setting(
        "utf-8", "Of the text files: utf-8, gb18030, big5, utf-16, ..."
    )
    split_sentences: bool = setting(
        False, "Cut lines into sentences, at 。！？；…… and the like."
    )
    strip_html: bool = setting(
        False, "Take HTML tags out, and write `&nbsp;` and the like as text."
    )
    drop_repeated_lines: bool = setting(
        False, "Leave out long lines that stand twice in one document."
    )
    normalize: bool = setting(
        False, "Fold curly quotes, dashes and full-width letters first."
    )
    on_error: str = setting(
        "fail",
        "What to do about a line that is not of its encoding or not JSON: "
        "stop, or count it and go on (a tenth of a file at most).",
        choices=ON_ERROR,
    )

    def __post_init__(self) -> None:
        settings.check(self)
        object.__setattr__(self, "encoding", self._known_encoding())

    def _known_encoding(self) -> str:
        """Returns the one name that an encoding has here."""
        try:
            codec: Any = codecs.lookup(self.encoding)
        except LookupError:
            codec = None
        if codec is None or not codec._is_text_encoding:
            raise settings.broken(
                self,
                "`encoding` must be one that Python knows, for instance "
                "utf-8, gb18030, big5 or utf-16",
                "encoding",
            )
        return _LARGER.get(codec.name, codec.name)


def add_flags(
    parser: argparse.ArgumentParser, settings_class: type, **defaults: Any
) -> None:
    """Adds the flags of `ReadConfig`, or of a class that extends it."""
    command_line.add_settings(parser, settings_class, defaults=defaults)
    parser.add_argument(
        "--json_field",
        dest="text_field",
        nargs="+",
        default=argparse.SUPPRESS,
        metavar="TEXT",
        help="another name of --text_field",
    )
