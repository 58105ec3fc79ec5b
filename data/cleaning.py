"""What web pages leave behind in a text: HTML, and lines that repeat.

Both are counted in every build and taken out when asked for. Nothing here
may make a blank line, which would divide a document.
"""

import html
import re

# Shorter lines repeat in every dialogue.
LONG_LINE = 10

_NAMES = (
    "a abbr article aside b blockquote body br center code dd div dl doc dt em "
    "font footer form h[1-6] head header hr html i iframe img input label li "
    "link main meta nav ol option p pre s script section select small span "
    "strong style sub sup table tbody td textarea tfoot th thead title tr u "
    "ul video"
)
_HTML = re.compile(
    r"&(?:\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8}[0-9]{0,2});"
    rf"|<(?:/?(?:{'|'.join(_NAMES.split())})"
    r"(?:\s*/?|\s+[a-zA-Z:_-]+\s*=[^<>\n]{0,500})"
    r"|!--[^\n]{0,500}?--)>",
    re.IGNORECASE,
)
_LINE_WITH_HTML = re.compile(r"[^\n]*[&<][^\n]*\n?")


def count_html(text: str) -> int:
    """Counts tags and character references such as `&nbsp;`."""
    if "<" not in text and "&" not in text:
        return 0
    return len(_HTML.findall(text))


def strip_html(text: str) -> str:
    """Takes tags out and writes characters for their references.

    A line of tags alone vanishes.
    """
    return _LINE_WITH_HTML.sub(_without_html, text)


def _without_html(found: re.Match) -> str:
    line = found[0]
    plain = line
    for _ in range(2):  # &amp;nbsp; was escaped twice
        plain = _HTML.sub(_plain, plain)
    if plain == line or plain.strip():
        return plain
    return ""


def _plain(found: re.Match) -> str:
    if found[0][0] == "<":
        return " "
    # A line feed would end a sentence, two of them a document.
    return re.sub(r"\s", " ", html.unescape(found[0]))


def count_repeated_lines(text: str) -> int:
    """Counts the long lines that stand earlier in the same document."""
    lines = _stripped_lines(text)
    long = [line for line in lines if len(line) >= LONG_LINE]
    if len(set(long)) == len(long):
        return 0
    return sum(_repeats(lines))


def drop_repeated_lines(text: str) -> str:
    """Leaves out the long lines that stand earlier in the same document."""
    repeats = _repeats(_stripped_lines(text))
    lines = zip(text.split("\n"), repeats, strict=True)
    return "\n".join(line for line, repeated in lines if not repeated)


def _stripped_lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n")]


def _repeats(lines: list[str]) -> list[bool]:
    """Returns for each stripped line whether it repeats one of its document."""
    seen: set[str] = set()
    found = []
    for line in lines:
        if not line:
            seen.clear()
        found.append(line in seen)
        if len(line) >= LONG_LINE:
            seen.add(line)
    return found
