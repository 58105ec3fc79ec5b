"""Files of multiple choice: C3 (questions about texts), ChID (idioms).

[[[line, ...], [{"question": ..., "choice": [...], "answer": ...}], id]]
                                                                    C3
{"context": ..., "question": ..., "choice": [...], "answer": ...}   C3, flat
{"candidates": [...], "content": ["...#idiom000378#..."]}   ChID in CLUE;
                          train_answer.json: {"#idiom000378#": 3}
{"id": 1, "candidates": [...], "content": "...#idiom#...", "answer": 3}
                                                        ChID in FewCLUE
{"content": "...#idiom1#...", "candidates": [[...]], "groundTruth": [...]}
                                                        ChID's own
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.reading import BadRow, field

IDIOM_TAG = re.compile(r"#idiom\d*#")
IDIOM_CANDIDATES = 10
MAX_C3_CHOICES = 4
_CHOICE_FIELDS = ("choice", "choices", "options")


@dataclasses.dataclass(frozen=True, slots=True)
class ChoiceRow:
    """A question with choices.

    Attributes:
        row_id: C3: the question's id; ChID: the blank's tag, or the row's id.
        context: The text; in ChID with tags where idioms are missing.
        question: The question; in ChID the tag of the blank.
        choices: What may be chosen.
        label: Index of the right choice; None if unknown.
        group: Rows of one group must choose differently (ChID).
    """

    row_id: int | str
    context: str
    question: str
    choices: tuple[str, ...]
    label: int | None = None
    group: int | None = None


def c3_records(path: str) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yields (place, question with its context) of a C3 file."""
    if _first_character(path) == "{":
        for place, line in reading.json_lines(path):
            try:
                yield place, reading.json_object(line)
            except BadRow as error:
                yield place, error
        return
    documents = reading.json_file(path, list)
    for number, document in enumerate(documents, 1):
        place = f"{path}, document {number}"
        if isinstance(document, dict):
            yield place, document
            continue
        match document:
            case [list() as lines, list() as questions, *rest] if (
                all(isinstance(line, str) for line in lines) and len(rest) < 2
            ):
                document_id = rest[0] if rest else number
            case _:
                yield place, BadRow("must be [[lines], [questions], id]")
                continue
        for index, question in enumerate(questions):
            record: dict[str, Any] | BadRow
            record = BadRow("a question must be a JSON object")
            if isinstance(question, dict):
                record = {
                    "id": f"{document_id}-{index}",
                    **question,
                    "context": lines,
                }
            yield f"{place}, question {index + 1}", record


def _first_character(path: str) -> str:
    return reading.first_line(path).lstrip()[:1]


def c3_row(record: dict[str, Any] | BadRow, *, test: bool) -> ChoiceRow:
    """Makes a row of what `c3_records` yields."""
    if isinstance(record, BadRow):
        raise record
    name = next((n for n in _CHOICE_FIELDS if n in record), _CHOICE_FIELDS[0])
    choices = _words(record, name)
    if not 2 <= len(choices) <= MAX_C3_CHOICES:
        raise BadRow(f"has {len(choices)} choices, and C3 has 2 to 4")
    answer = record.get("answer")
    label = None
    if isinstance(answer, str) and answer in choices:
        label = choices.index(answer)
    elif type(answer) is int and answer in range(len(choices)):
        label = answer
    elif not test:
        raise BadRow(f"answer {answer!r} is none of the choices {choices}")
    return ChoiceRow(
        record.get("id", ""),
        _context(record),
        field(record, "question"),
        choices,
        label,
    )


def _context(record: dict[str, Any]) -> str:
    context = record.get("context")
    if isinstance(context, list) and all(isinstance(c, str) for c in context):
        return "\n".join(context)
    return field(record, "context")


def _words(record: dict[str, Any], name: str) -> tuple[str, ...]:
    words = field(record, name, list)
    if not all(isinstance(word, str) for word in words):
        raise BadRow(
            f"field `{name}` must be a list of strings. Received: {words!r}"
        )
    return tuple(words)


def c3_unreadable(record: dict[str, Any] | BadRow) -> ChoiceRow:
    """Makes the row that stands for a bad one of a test file."""
    if isinstance(record, BadRow):
        return ChoiceRow("", "", "", ("", ""))
    try:
        context = _context(record)
    except BadRow:
        context = ""
    return ChoiceRow(record.get("id", ""), context, "", ("", ""))


def chid_answer_file(path: str) -> str:
    """Returns where CLUE's ChID has the answers to a file's blanks."""
    return f"{path.removesuffix('.json')}_answer.json"


def chid_answers(path: str, *, test: bool) -> dict[str, Any]:
    """Reads the answers beside a file of CLUE's ChID; other layouts have none.

    Raises:
        UserError: If CLUE's layout of a training file lacks them.
    """
    beside = chid_answer_file(path)
    if paths.is_file(beside):
        return reading.json_file(beside, dict)
    if test:
        return {}
    for _, line in reading.json_lines(path):
        try:
            record = reading.json_object(line)
        except BadRow:
            break
        if record.keys() & {"answer", "answers", "groundTruth"}:
            return {}
        break
    raise UserError(
        f"{path} holds no answers (`answer` or `groundTruth`), and "
        f"{paths.name(beside)} does not lie beside it"
    )


def chid_rows(
    line: str, answers: dict[str, Any], *, test: bool
) -> list[ChoiceRow]:
    """Makes the rows of a line of ChID: one for each blank."""
    record = reading.json_object(line)
    content = record.get("content")
    passages = [content] if isinstance(content, str) else content
    if not isinstance(passages, list) or not all(
        isinstance(passage, str) for passage in passages
    ):
        raise BadRow("field `content` must be a text or a list of texts")
    blanks = [
        (passage, match[0])
        for passage in passages
        for match in IDIOM_TAG.finditer(passage)
    ]
    if not blanks:
        raise BadRow("has no blank such as #idiom000378#")
    candidates = _candidates(record, len(blanks))
    labels = _labels(record, answers, blanks, candidates, test=test)
    numbered = all(tag != "#idiom#" for _, tag in blanks)
    if not numbered and len(blanks) > 1:
        raise BadRow(f"has {len(blanks)} blanks #idiom# without a number")
    return [
        ChoiceRow(
            tag if numbered else record.get("id", tag),
            passage,
            tag,
            choices,
            label,
        )
        for (passage, tag), choices, label in zip(
            blanks, candidates, labels, strict=True
        )
    ]


def _candidates(record, blanks: int) -> list[tuple[str, ...]]:
    """Returns the candidates of each blank; CLUE's blanks share them."""
    given = field(record, "candidates", list)
    if given and all(isinstance(each, list) for each in given):
        if len(given) != blanks:
            raise BadRow(f"has {len(given)} candidates for {blanks} blanks")
        every = [_words({"candidates": each}, "candidates") for each in given]
    else:
        every = [_words(record, "candidates")] * blanks
    for choices in every:
        if not 2 <= len(choices) <= IDIOM_CANDIDATES:
            raise BadRow(
                f"has {len(choices)} candidates, and ChID has 2 to "
                f"{IDIOM_CANDIDATES}"
            )
    return every


def _labels(record, answers, blanks, candidates, *, test) -> list[int | None]:
    given: list[Any]
    inside = record.get("answers")
    if isinstance(record.get("groundTruth"), list):
        given = [
            choices.index(idiom) if idiom in choices else idiom
            for idiom, choices in zip(
                record["groundTruth"], candidates, strict=False
            )
        ]
    elif isinstance(inside, dict) and isinstance(
        inside.get("candidate_id"), list
    ):
        given = inside["candidate_id"]
    elif "answer" in record:
        given = [record["answer"]]
    else:
        given = [answers.get(tag) for _, tag in blanks]
    if len(given) != len(blanks):
        raise BadRow(f"has {len(given)} answers for {len(blanks)} blanks")
    for (_, tag), choices, label in zip(blanks, candidates, given, strict=True):
        if label is None and not test:
            raise BadRow(f"blank {tag} is not in the file of answers")
        if label is not None and (
            type(label) is not int or label not in range(len(choices))
        ):
            raise BadRow(
                f"blank {tag}: answer {label!r} is not in 0..{len(choices) - 1}"
            )
    return given


def chid_unreadable(line: str) -> list[ChoiceRow]:
    """The blanks are answered by name: they stay, with nothing to go by."""
    row_id = reading.id_of(line)
    return [
        ChoiceRow(
            tag if tag != "#idiom#" or row_id is None else row_id,
            tag,
            tag,
            ("",) * IDIOM_CANDIDATES,
        )
        for tag in IDIOM_TAG.findall(line)
    ]
