"""Reading comprehension: the answer is a span of the text (CMRC 2018, DRCD).

A text longer than the model is read through overlapping windows. Each window
proposes spans; the best of all windows are the n-best answers of a question.
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, span_metrics
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.encoding import Example, Window, pack, windows
from albert_tf2.tasks.reading import BadRow, field

# Where the span of a window without the answer points: at [CLS].
NO_ANSWER = (0, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class QuestionRow:
    """A question about a text.

    Attributes:
        row_id: The question's id.
        question: What is asked.
        context: Where the answer stands.
        answers: Reference answers as (text, start in the context); the start
            is -1 where the text does not stand there. None if unknown.
    """

    row_id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None = None


class _Origin(NamedTuple):
    window: Window
    first_token: int  # where the text begins in the packed sequence
    offsets: list[tuple[int, int]]  # of all tokens of the text


class ReadingComprehension(base.Task):
    """Finds the answer to a question in a text."""

    kind = base.SPAN
    num_outputs = 2  # start and end

    def __init__(self, name: str, **settings: Any):
        """Describes the task (see `base.Task`)."""
        super().__init__(name, metric="f1", **settings)

    def read_file(self, path, *, test, on_error, report):
        def parse(record):
            return _question_row(record, test=test, report=report)

        return reading.parse_rows(
            _questions(path),
            parse,
            on_error=on_error,
            report=report,
            placeholder=_unreadable if test else None,
        )

    def encode(self, rows, tokenizer, lengths, *, training=False):
        contexts: dict[str, Any] = {}
        examples = []
        for index, row in enumerate(rows):
            if row.context not in contexts:
                contexts[row.context] = tokenizer.tokenize(row.context)
            text = contexts[row.context]
            question = tokenizer.tokenize(row.question).ids
            question = question[: lengths.max_query_length]
            first_token = len(question) + 2
            size = lengths.max_seq_length - first_token - 1
            stride = min(lengths.doc_stride, size)
            span = _answer_tokens(row, text.offsets)
            if training and span is None:
                continue
            for window in windows(len(text.ids), size, stride):
                packed = pack(
                    [question, text.ids[window.start : window.end]],
                    tokenizer.vocabulary,
                    lengths.max_seq_length,
                )
                label = NO_ANSWER
                if span and window.start <= span[0] and span[1] < window.end:
                    label = tuple(first_token + i - window.start for i in span)
                examples.append(
                    Example(
                        row=index,
                        sequences=(packed,),
                        label=None if span is None else label,
                        origin=_Origin(window, first_token, text.offsets),
                    )
                )
        return examples

    def decode(self, rows, examples, logits, lengths):
        candidates: list[list[tuple[float, int, int]]] = [[] for _ in rows]
        for example, values in zip(examples, logits, strict=True):
            candidates[example.row] += spans(values, example.origin, lengths)
        return [
            _prediction(row, found, lengths.n_best)
            for row, found in zip(rows, candidates, strict=True)
        ]

    def score(self, rows, predictions):
        scores = defaultdict(float)
        count = 0
        for row, prediction in zip(rows, predictions, strict=True):
            if row.answers:
                texts = [text for text, _ in row.answers]
                answer = prediction["answer"]
                scores["em"] += span_metrics.exact_match(texts, answer)
                scores["f1"] += span_metrics.f1(texts, answer)
                count += 1
        if not count:
            return {}
        em, f1 = scores["em"] / count, scores["f1"] / count
        return {"f1": f1, "em": em, "average": (f1 + em) / 2, "rows": count}


def spans(
    logits: np.ndarray, origin: _Origin, lengths: base.Lengths
) -> list[tuple[float, int, int]]:
    """Returns the best (score, start, end) of a window, in characters.

    Args:
        logits: [T, 2], for start and end.
        origin: The window.
        lengths: `max_answer_length` in tokens, `n_best`.
    """
    count = origin.window.end - origin.window.start
    first = origin.first_token
    starts, ends = logits[first : first + count].astype(np.float64).T
    if not count:
        return []
    # All (start, end) with 0 <= end - start < max_answer_length.
    scores = starts[:, None] + ends[None, :]
    gap = np.arange(count)[None, :] - np.arange(count)[:, None]
    scores[(gap < 0) | (gap >= lengths.max_answer_length)] = -np.inf
    flat = scores.ravel()
    best = np.argsort(-flat, kind="stable")[: lengths.n_best]
    return [
        (
            float(flat[i]),
            origin.offsets[origin.window.start + i // count][0],
            origin.offsets[origin.window.start + i % count][1],
        )
        for i in best
        if np.isfinite(flat[i])
    ]


def _prediction(row, candidates, n_best) -> dict[str, Any]:
    best: dict[tuple[int, int], float] = {}
    for score, start, end in sorted(candidates, reverse=True):
        # Two windows may propose one span: the better score stands.
        best.setdefault((start, end), score)
        if len(best) == n_best:
            break
    if not best:
        best = {(0, 0): 0.0}
    probabilities = base.softmax(np.array(list(best.values())))
    ranked = [
        {
            "text": row.context[start:end],
            "start": start,
            "end": end,
            "score": round(score, 5),
            "probability": round(float(probability), 6),
        }
        for ((start, end), score), probability in zip(
            best.items(), probabilities, strict=True
        )
    ]
    return {
        "id": row.row_id,
        "answer": ranked[0]["text"],
        "start": ranked[0]["start"],
        "probability": ranked[0]["probability"],
        "n_best": ranked,
    }


def _answer_tokens(row, offsets) -> tuple[int, int] | None:
    """Returns the first and last token of the first answer that stands."""
    for text, start in row.answers or ():
        if start < 0:
            continue
        inside = [
            i
            for i, (first, last) in enumerate(offsets)
            if first < start + len(text) and last > start
        ]
        if inside:
            return inside[0], inside[-1]
    return None


def _question_row(record, *, test, report) -> QuestionRow | None:
    context, question = record["context"], field(record, "question")
    answers = record.get("answers")
    row_id = str(field(record, "id", object))
    if answers is None or (test and not answers):
        if not test:
            raise BadRow(f"question {row_id}: field `answers` is missing")
        return QuestionRow(row_id, question, context)
    found = []
    for answer in answers:
        # The old layout of CMRC holds plain strings.
        if isinstance(answer, str):
            answer = {"text": answer, "answer_start": -1}
        text = field(answer, "text")
        start = answer.get("answer_start", -1)
        found.append((text, _locate(text, start, context, report)))
    if not found or not any(text.strip() for text, _ in found):
        raise BadRow(f"question {row_id}: holds no answer")
    if all(start < 0 for _, start in found):
        report.note(
            "questions whose answer does not stand in the text: no use for "
            "training, still scored"
        )
    return QuestionRow(row_id, question, context, tuple(found))


def _locate(text: str, start: Any, context: str, report) -> int:
    """Returns where an answer stands, or -1; the files are often wrong."""
    if (
        isinstance(start, int)
        and start >= 0
        and context[start : start + len(text)] == text
    ):
        return start
    places = []
    at = context.find(text) if text else -1
    while at >= 0:
        places.append(at)
        at = context.find(text, at + 1)
    if not places:
        report.note("answers that do not stand in their text")
        return -1
    report.note("answers found again at another place than the file says")
    near = start if isinstance(start, int) and start >= 0 else 0
    return min(places, key=lambda place: abs(place - near))


def _questions(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the questions of a SQuAD file, or of CMRC's older layout."""
    document = _read_document(path)
    articles = document["data"] if isinstance(document, dict) else document
    for number, article in enumerate(articles, 1):
        place = f"{path}, article {number}"
        try:
            paragraphs = article.get("paragraphs")
            if paragraphs is None:
                paragraphs = [_old_paragraph(article)]
            for paragraph in paragraphs:
                context = paragraph["context"]
                for question in paragraph["qas"]:
                    yield (
                        f"{place}, question {question.get('id')}",
                        {**question, "context": context},
                    )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{place}: not in the SQuAD layout nor in CMRC's older one "
                f"({type(error).__name__}: {error})"
            ) from None


def _old_paragraph(article: dict[str, Any]) -> dict[str, Any]:
    return {
        "context": article["context_text"],
        "qas": [
            {
                "id": qa["query_id"],
                "question": qa["query_text"],
                **({"answers": qa["answers"]} if "answers" in qa else {}),
            }
            for qa in article["qas"]
        ],
    }


def _read_document(path: Path) -> Any:
    text = "\n".join(line for _, line in reading.numbered_lines(path))
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg})"
        ) from None
    if isinstance(document, dict) and not isinstance(
        document.get("data"), list
    ):
        raise UserError(f"{path}: has no list `data`: is it a SQuAD file?")
    return document


def _unreadable(record: dict[str, Any]) -> QuestionRow:
    return QuestionRow(
        str(record.get("id")),
        str(record.get("question", "")),
        record["context"],
    )
