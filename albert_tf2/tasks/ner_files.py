"""Files of named entities: a token and its tag per line, or JSON.

    浙 B-company           BIO, BMES, BIOES or BILOU tags after tabs or spaces;
    商 I-company           an empty line ends a sentence

    {"text": "浙商银行说", "label": {"company": {"浙商银行": [[0, 3]]}}}
    {"text": "浙商银行说", "entities": [{"start": 0, "end": 4,
                                       "type": "company", "text": "浙商银行"}]}
    {"text": "浙商银行说", "label": [[0, 4, "company"]]}
    {"tokens": ["浙", "商"], "tags": ["B-company", "I-company"]}

The first JSON layout is CLUENER's, which counts ends in. Of the lists of
spans some count them in and some do not (CMeEE and doccano): the words beside
them tell, and where nothing does, the reader says what it assumed.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from albert_tf2.tasks import bio
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.bio import OUTSIDE, Entity
from albert_tf2.tasks.reading import BadRow, ReadingReport, field

# What others call the fields of their JSON.
TEXT_FIELDS = ("text", "sentence", "content", "data")
SPAN_FIELDS = ("entities", "label", "labels", "spans", "entity_list", "ner")
TAG_FIELDS = ("tags", "ner_tags", "labels", "label")
_TYPE_FIELDS = ("type", "label", "entity_type", "tag", "labels")
_START_FIELDS = ("start", "start_idx", "start_offset", "begin", "start_pos")
_END_FIELDS = ("end", "end_idx", "end_offset", "stop", "end_pos")
_SURFACE_FIELDS = ("text", "entity", "word", "surface", "mention", "span")
_TAG = re.compile(r"([BIMESLU])[-_](.+)", re.IGNORECASE)
# `科0`: a character and its place in its word (Weibo NER).
_SEGMENTED = re.compile(r"(.)(\d{1,9})", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class TaggedRow:
    """A text; `entities` is None where they are unknown."""

    row_id: int | str | None
    text: str
    entities: tuple[Entity, ...] | None = None


class Line(NamedTuple):
    """A line of a column file: where it stands, its token, its tag."""

    place: str
    token: str
    tag: str | None


def records(path: str, report: ReadingReport) -> Iterator[tuple[str, Any]]:
    """Yields (place, what `row_of` takes) of a file in any of the layouts."""
    first = reading.first_line(path)
    if first.lstrip().startswith('{"') or first.strip() == "{":
        parsed = (_parsed(*entry) for entry in reading.json_lines(path))
    elif first.startswith("[") and path.endswith((".json", ".jsonl")):
        parsed = (
            (f"{path}, record {number}", record)
            for number, record in enumerate(reading.json_file(path, list), 1)
        )
    else:
        yield from _sentences(path, report)
        return
    every = list(parsed)
    ends_count = _ends_count(path, every, report)
    for place, record in every:
        yield place, (record, ends_count)


def row_of(record: Any) -> TaggedRow:
    """Makes a row of what `records` yields.

    Raises:
        BadRow: Saying what is wrong; in a column file with its line.
    """
    if isinstance(record, list):
        return column_row(record)
    record, ends_count = record
    if isinstance(record, BadRow):
        raise record
    if not isinstance(record, dict):
        raise BadRow("not a JSON object")
    row_id = record.get("id")
    if "tokens" in record:
        text, entities = _tagged_tokens(record)
        return TaggedRow(row_id, text, entities)
    text = _text(record)
    name = _first_of(record, SPAN_FIELDS)
    if name is None:
        return TaggedRow(row_id, text)
    if isinstance(record[name], dict):
        spans = list(_surface_spans(record, name))
        ends_count = True
    else:
        spans = [_span(span) for span in field(record, name, list)]
    entities = {_entity(text, *span, ends_count=ends_count) for span in spans}
    return TaggedRow(row_id, text, tuple(sorted(entities)))


def unlabelled(record: Any) -> TaggedRow:
    """Makes the row that stands for a bad one of a test file."""
    if isinstance(record, list):
        return TaggedRow(None, bio.join_tokens([li.token for li in record])[0])
    record = record[0]
    if not isinstance(record, dict):
        return TaggedRow(None, "")
    try:
        return TaggedRow(record.get("id"), _text(record))
    except BadRow:
        return TaggedRow(record.get("id"), "")


def column_row(lines: Sequence[Line]) -> TaggedRow:
    """Makes a row of the lines of a sentence; without tags it has none."""
    text, places = bio.join_tokens([line.token for line in lines])
    if all(line.tag is None for line in lines):
        return TaggedRow(None, text)
    tags = []
    for line in lines:
        if line.tag is None:
            raise BadRow(f"{line.token!r} has no tag beside it", line.place)
        tags.append(bio_tag(line.tag, line.place))
    return TaggedRow(None, text, tuple(bio.spans_of(tags, places)))


def bio_tag(tag: str, place: str | None = None) -> str:
    """Returns a tag as O, B-TYPE or I-TYPE, from any of the spellings.

    >>> bio_tag("M-LOC"), bio_tag("b_disease"), bio_tag("S-PER"), bio_tag("o")
    ('I-LOC', 'B-disease', 'B-PER', 'O')
    """
    if tag in (OUTSIDE, "o"):
        return OUTSIDE
    found = _TAG.fullmatch(tag)
    if not found:
        raise BadRow(
            f"tag {tag!r} is not O, B-TYPE or I-TYPE (nor a tag of BMES, BIOES "
            "or BILOU)",
            place,
        )
    begins = found[1].upper() in "BSU"
    return f"{'B' if begins else 'I'}-{found[2]}"


def _sentences(path: str, report) -> Iterator[tuple[str, list[Line]]]:
    """Yields (place, lines) of a column file; an empty line ends one."""
    every: list[list[Line]] = []
    sentence: list[Line] = []
    for number, line in reading.numbered_lines(path):
        if line.strip() and not line.startswith("-DOCSTART-"):
            token, *rest = cells_of(line)
            tag = rest[-1] if rest else None
            sentence.append(Line(f"{path}, line {number}", token, tag))
        elif sentence:
            every.append(sentence)
            sentence = []
    if sentence:
        every.append(sentence)
    if every and all(map(_is_segmented, every)):
        report.tell(
            "each token is a character and its place in a word, such as "
            f"{every[0][0].token}: the places are taken off"
        )
        every = [
            [line._replace(token=line.token[0]) for line in sentence]
            for sentence in every
        ]
    for sentence in every:
        yield sentence[0].place, sentence


def cells_of(line: str) -> list[str]:
    """Cuts a line at tabs, or at spaces; the token may itself be a space.

    >>> cells_of("浙\\tNR\\tB-LOC"), cells_of("浙  O"), cells_of("  O")
    (['浙', 'NR', 'B-LOC'], ['浙', 'O'], [' ', 'O'])
    """
    if "\t" in line:
        token, *rest = line.split("\t")
    else:
        token, *rest = line.split(" ")
        token = token or " "
    return [token, *(cell.strip() for cell in rest if cell.strip())]


def _is_segmented(sentence: list[Line]) -> bool:
    """Whether the tokens count their places: 科0 技1 全0 方1 位2."""
    last = -1
    for line in sentence:
        found = _SEGMENTED.fullmatch(line.token)
        if not found or int(found[2]) not in (0, last + 1):
            return False
        last = int(found[2])
    return True


def _parsed(place: str, line: str) -> tuple[str, Any]:
    try:
        return place, reading.json_object(line)
    except BadRow as error:
        return place, error


def _text(record: dict[str, Any]) -> str:
    name = _first_of(record, TEXT_FIELDS)
    return field(record, name or TEXT_FIELDS[0])


def _first_of(record: dict[str, Any], names: Iterable[str]) -> str | None:
    return next((n for n in names if record.get(n) is not None), None)


def _tagged_tokens(record):
    tokens = field(record, "tokens", list)
    if not all(isinstance(token, str) for token in tokens):
        raise BadRow("field `tokens` must be a list of strings")
    text, places = bio.join_tokens(tokens)
    name = _first_of(record, TAG_FIELDS)
    if name is None:
        return text, None
    tags = field(record, name, list)
    if len(tags) != len(tokens):
        raise BadRow(f"{len(tokens)} tokens have {len(tags)} `{name}`")
    if not all(isinstance(tag, str) for tag in tags):
        raise BadRow(
            f"field `{name}` must hold the tags' names, such as B-LOC. "
            f"Received: {tags[:3]!r}"
        )
    return text, tuple(bio.spans_of(map(bio_tag, tags), places))


def _surface_spans(record, name) -> Iterator[tuple[str, Any, Any, str]]:
    """Yields (type, start, end, surface) of CLUENER's layout."""
    try:
        for kind, surfaces in record[name].items():
            for surface, spans in surfaces.items():
                for start, end in spans:
                    yield kind, start, end, surface
    except (AttributeError, TypeError, ValueError):
        raise BadRow(
            f"field `{name}` must be {{type: {{surface: [[start, end]]}}}} or "
            f"a list of spans. Received: {record[name]!r}"
        ) from None


def _span(span: Any) -> tuple[Any, Any, Any, Any]:
    """Returns (type, start, end, surface or None) of an entry of a list."""
    if isinstance(span, list) and len(span) in (3, 4):
        start, end, kind, *surface = span
        return kind, start, end, surface[0] if surface else None
    if isinstance(span, dict):
        names = [
            _first_of(span, names)
            for names in (_TYPE_FIELDS, _START_FIELDS, _END_FIELDS)
        ]
        if None not in names:
            kind, start, end = (span[name] for name in names)
            return kind, start, end, span.get(_first_of(span, _SURFACE_FIELDS))
    raise BadRow(
        "a span must be [start, end, type] or have `start`, `end` and `type`. "
        f"Received: {span!r}"
    )


def _entity(text, kind, start, end, surface, *, ends_count: bool) -> Entity:
    for name, value in (("start", start), ("end", end)):
        if type(value) is not int:
            raise BadRow(
                f"the {name} of a span must be a whole number. Received: "
                f"{value!r}"
            )
    if isinstance(kind, list) and len(kind) == 1:
        kind = kind[0]
    if not isinstance(kind, str) or not kind:
        raise BadRow(f"the type of a span must be a word. Received: {kind!r}")
    last = end + ends_count
    if not 0 <= start < last <= len(text):
        raise BadRow(
            f"{kind!r} {surface or ''!r} does not stand at [{start}, {end}], "
            f"in a text of {len(text)} characters"
        )
    if surface is not None and text[start:last] != surface:
        raise BadRow(
            f"{kind!r} {surface!r} does not stand at [{start}, {end}], where "
            f"the text has {text[start:last]!r}"
        )
    return Entity(start, last, kind)


def _ends_count(path: str, every, report: ReadingReport) -> bool:
    """Whether the ends of lists of spans count in; looks at all rows."""
    counts = {True: 0, False: 0}
    lists = 0
    for _, record in every:
        if not isinstance(record, dict) or "tokens" in record:
            continue
        name = _first_of(record, SPAN_FIELDS)
        if name is None or not isinstance(record[name], list):
            continue
        for span in record[name]:
            try:
                _, start, end, surface = _span(span)
                text = _text(record)
            except BadRow:
                continue  # told when the row is read
            if type(start) is int and type(end) is int:
                lists += 1
                for counted in counts:
                    counts[counted] += _fits(text, start, end, surface, counted)
    if not lists or counts[False] == counts[True]:
        if lists:
            report.tell(
                "nothing tells whether the ends of spans count in: taken for "
                "the place after the last character"
            )
        return False
    return counts[True] > counts[False]


def _fits(text, start, end, surface, counted: bool) -> bool:
    """Whether a span can be meant with its end counted in, or not."""
    last = end + counted
    if surface is not None:
        return text[start:last] == surface
    return 0 <= start < last <= len(text)
