"""Files of questions about texts, in the layouts they are published in.

    {"data": [{"paragraphs": [{"context": ..., "qas": [{"id": ..., "question":
      ..., "answers": [{"text": ..., "answer_start": 3}]}]}]}]}       SQuAD
    [{"context_id": ..., "context_text": ..., "qas": [...]}]    CMRC's first
    {"id": ..., "context": ..., "question": ..., "answers":
      {"text": [...], "answer_start": [...]}}     a question per line, as
                                                  `datasets` writes it

In SQuAD 2.0 a question may have no answer in its text (`is_impossible`).
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

from albert_tf2.errors import UserError
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.reading import BadRow, ReadingReport, field

_CONTEXT_FIELDS = ("context", "context_text", "text", "passage", "paragraph")
_QUESTION_FIELDS = ("question", "query", "query_text")
_ID_FIELDS = ("id", "query_id", "qid", "question_id")
_ANSWER_FIELDS = ("answers", "answer")


@dataclasses.dataclass(frozen=True, slots=True)
class QuestionRow:
    """A question about a text.

    Attributes:
        row_id: The question's id.
        question: What is asked.
        context: Where the answer stands.
        answers: Reference answers as (text, start in the context); the start
            is -1 where the text does not stand there. Empty if the text
            holds no answer, None if that is unknown.
    """

    row_id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None = None


def records(path: str) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yields (place, question with its context) of a file of any layout."""
    if _is_json_lines(path):
        for place, line in reading.json_lines(path):
            try:
                yield place, reading.json_object(line)
            except BadRow as error:
                yield place, error
        return
    document = reading.json_file(path)
    articles = document.get("data") if isinstance(document, dict) else document
    if not isinstance(articles, list):
        raise UserError(
            f"{path}: has no list `data`, nor is it a list: is it a SQuAD file?"
        )
    for number, article in enumerate(articles, 1):
        yield from _article(f"{path}, article {number}", article)


def _is_json_lines(path: str) -> bool:
    """Whether each line is a question, not the whole file a document."""
    first = reading.first_line(path)
    if not first.startswith("{"):
        return False
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and bool(_name(record, _QUESTION_FIELDS))


def _article(place: str, article: Any):
    """Yields the questions of an article of SQuAD, or of a flat list."""
    if not isinstance(article, dict):
        yield place, BadRow("not a JSON object")
    elif "paragraphs" in article:
        paragraphs = article["paragraphs"]
        if not isinstance(paragraphs, list):
            paragraphs = [None]
        for paragraph in paragraphs:
            yield from _paragraph(place, paragraph)
    elif "qas" in article:
        yield from _paragraph(place, article)
    elif _name(article, _QUESTION_FIELDS):
        yield f"{place}, question {_id(article)}", article
    else:
        yield (
            place,
            BadRow(
                "not in the SQuAD layout nor in CMRC's older one: no "
                "`paragraphs`, `qas` or `question`"
            ),
        )


def _paragraph(place: str, paragraph: Any):
    if not isinstance(paragraph, dict):
        yield place, BadRow("a paragraph must be a JSON object")
        return
    questions = paragraph.get("qas")
    context = _name(paragraph, _CONTEXT_FIELDS)
    if not isinstance(questions, list) or context is None:
        yield place, BadRow("a paragraph must have `context` and a list `qas`")
        return
    for question in questions:
        if isinstance(question, dict):
            record = {**question, "context": paragraph[context]}
            yield f"{place}, question {_id(question)}", record
        else:
            yield place, BadRow("a question must be a JSON object")


def _name(record: dict[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in record), None)


def _id(record: dict[str, Any]) -> Any:
    return record.get(_name(record, _ID_FIELDS) or "")


def row_of(
    record: dict[str, Any] | BadRow,
    *,
    test: bool,
    unanswerable: bool,
    report: ReadingReport,
) -> QuestionRow:
    """Makes a row of what `records` yields.

    Args:
        record: The question.
        test: Whether it may be without answers.
        unanswerable: Whether its text may hold no answer.
        report: Takes repairs.

    Raises:
        BadRow: Saying what is wrong.
    """
    if isinstance(record, BadRow):
        raise record
    context = field(record, _name(record, _CONTEXT_FIELDS) or "context")
    question = field(record, _name(record, _QUESTION_FIELDS) or "question")
    row_id = _id(record)
    row_id = "" if row_id is None else str(row_id)
    if record.get("is_impossible") is True and unanswerable:
        return QuestionRow(row_id, question, context, ())
    answers = _answers(record)
    if answers is None or (not answers and test and not unanswerable):
        if not test:
            raise BadRow("field `answers` is missing")
        return QuestionRow(row_id, question, context)
    if not answers and unanswerable:
        return QuestionRow(row_id, question, context, ())
    found = tuple(
        (text, _locate(text, start, context, report)) for text, start in answers
    )
    if not any(text.strip() for text, _ in found):
        raise BadRow("holds no answer")
    if all(start < 0 for _, start in found):
        report.note(
            "questions whose answer does not stand in the text: no use for "
            "training, still scored"
        )
    return QuestionRow(row_id, question, context, found)


def unreadable(record: dict[str, Any] | BadRow) -> QuestionRow:
    """Makes the row that stands for a bad one of a test file."""
    if isinstance(record, BadRow):
        return QuestionRow("", "", "")
    question, context = (
        text if isinstance(text, str) else ""
        for text in (
            record.get(_name(record, names) or "", "")
            for names in (_QUESTION_FIELDS, _CONTEXT_FIELDS)
        )
    )
    return QuestionRow(str(_id(record)), question, context)


def _answers(record: dict[str, Any]) -> list[tuple[str, Any]] | None:
    """Returns (text, start as the file has it); None without the field."""
    name = _name(record, _ANSWER_FIELDS)
    answers = None if name is None else record[name]
    if answers is None:
        return None
    if isinstance(answers, str):
        answers = [answers]
    if isinstance(answers, dict):
        answers = _columns_of_answers(answers)
    if not isinstance(answers, list):
        raise BadRow(f"field `{name}` must be a list. Received: {answers!r}")
    found = []
    for answer in answers:
        # The old layout of CMRC holds plain strings.
        if isinstance(answer, str):
            answer = {"text": answer}
        if not isinstance(answer, dict):
            raise BadRow(
                "an answer must have `text` and `answer_start`. Received: "
                f"{answer!r}"
            )
        found.append((field(answer, "text"), answer.get("answer_start", -1)))
    return found


def _columns_of_answers(answers: dict[str, Any]) -> list[dict[str, Any]]:
    """Turns {"text": [...], "answer_start": [...]} into a list of answers."""
    texts, starts = answers.get("text"), answers.get("answer_start")
    texts = [texts] if isinstance(texts, str) else texts
    starts = [starts] if isinstance(starts, int) else starts
    if not isinstance(texts, list):
        raise BadRow(
            "field `answers` must hold a list `text`. Received: "
            f"`answers={answers!r}`"
        )
    if not isinstance(starts, list):
        starts = [-1] * len(texts)
    if len(starts) != len(texts):
        raise BadRow(
            f"field `answers` holds {len(texts)} texts and {len(starts)} starts"
        )
    return [
        {"text": text, "answer_start": start}
        for text, start in zip(texts, starts, strict=True)
    ]


def _locate(text: str, start: Any, context: str, report) -> int:
    """Returns where an answer stands, or -1; the files are often wrong."""
    known = type(start) is int and start >= 0
    if known and context[start : start + len(text)] == text:
        return start
    near = start if known else 0
    # The nearest on either side: a text may hold the answer everywhere.
    before = context.rfind(text, 0, near - 1 + len(text))
    places = [at for at in (before, context.find(text, near)) if at >= 0]
    if not text:
        places = []
    if not places:
        report.note("answers that do not stand in their text")
        return -1
    report.note("answers found again at another place than the file says")
    return min(places, key=lambda place: abs(place - near))
