"""Reading comprehension: the answer is a span of the text (CMRC 2018, DRCD).

The user's own questions may have no answer in their text, as in SQuAD 2.0:
that is a span of its own, at [CLS].

A text longer than the model is read through overlapping windows. Each window
proposes spans; the best of all windows are the n-best answers of a question.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from albert_tf2.tasks import base, question_files, span_metrics
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.encoding import Example, Window, pack, windows
from albert_tf2.tasks.question_files import QuestionRow

# Where the span of a window without the answer points: at [CLS].
NO_ANSWER = (0, 0)
# The characters of an answer that the text does not hold.
NOWHERE = (-1, -1)


class _Origin(NamedTuple):
    window: Window
    first_token: int  # where the text begins in the packed sequence
    offsets: list[tuple[int, int]]  # of all tokens of the text


class ReadingComprehension(base.Task):
    """Finds the answer to a question in a text."""

    kind = base.SPAN
    num_outputs = 2  # start and end

    def __init__(
        self, name: str, *, may_be_unanswerable: bool = False, **settings: Any
    ):
        """Describes the task.

        Args:
            name: As `--task` spells it.
            may_be_unanswerable: Whether the training file may hold questions
                without an answer, as in SQuAD 2.0; if it does, the model may
                answer "".
            **settings: See `base.Task`.
        """
        super().__init__(name, metric="f1", **settings)
        self.may_be_unanswerable = may_be_unanswerable
        self.has_unanswerable = False

    def prepare(self, data_dir, *, on_error):
        if self.may_be_unanswerable and self.find(data_dir, reading.TRAIN):
            rows = self.read(data_dir, reading.TRAIN, on_error=on_error)
            self.has_unanswerable = any(row.answers == () for row in rows)

    def describe(self):
        return {
            **super().describe(),
            "has_unanswerable": self.has_unanswerable,
        }

    def restore(self, description):
        super().restore(description)
        self.has_unanswerable = base.taken(
            description, "has_unanswerable", bool
        )

    def read_file(self, path, *, test, on_error, report):
        def parse(record):
            return question_files.row_of(
                record,
                test=test,
                unanswerable=self.may_be_unanswerable,
                report=report,
            )

        rows = reading.parse_rows(
            question_files.records(path),
            parse,
            on_error=on_error,
            report=report,
            placeholder=question_files.unreadable if test else None,
        )
        if test and not any(row.answers for row in rows):
            # Empty answers all over hide them; some alone are the truth.
            rows = [dataclasses.replace(row, answers=None) for row in rows]
        return [
            row if row.row_id else dataclasses.replace(row, row_id=str(index))
            for index, row in enumerate(rows)
        ]

    def overview(self, train, dev, test):
        lengths = [len(row.answers[0][0]) for row in train if row.answers]
        mean = sum(lengths) / max(len(lengths), 1)
        without = sum(row.answers == () for row in train)
        lines = [
            f"questions: {len(train)}, answers of {mean:.1f} characters"
            + (f"; {without} have none in their text" if without else "")
        ]
        if self.has_unanswerable:
            never = base.constant_figures(
                self, {"answer": ""}, "f1", dev=dev, test=test
            )
            lines += [f"baseline: never answering: {f}" for f in never]
        return lines

    def encode(self, rows, tokenizer, lengths, *, training=False):
        contexts: dict[str, Any] = {}
        examples = []
        for index, row in enumerate(rows):
            if row.context not in contexts:
                contexts[row.context] = tokenizer.tokenize(row.context)
            text = contexts[row.context]
            question = tokenizer.tokenize(row.question).ids
            question = question[: lengths.question_room]
            first_token = len(question) + 2
            size = lengths.max_seq_length - first_token - 1
            stride = min(lengths.doc_stride, size)
            span = _answer_tokens(row, text.offsets)
            is_known = span is not None or row.answers == ()
            if training and not is_known:
                continue
            for window in windows(len(text.ids), size, stride):
                packed = pack(
                    [question, text.ids[window.start : window.end]],
                    tokenizer.vocabulary,
                    lengths.max_seq_length,
                )
                label = NO_ANSWER
                if span and window.start <= span[0] and span[1] < window.end:
                    shift = first_token - window.start
                    label = (span[0] + shift, span[1] + shift)
                examples.append(
                    Example(
                        row=index,
                        sequences=(packed,),
                        label=label if is_known else None,
                        origin=_Origin(window, first_token, text.offsets),
                    )
                )
        return examples

    def decode(self, rows, examples, logits, lengths):
        candidates: list[list[tuple[float, int, int]]] = [[] for _ in rows]
        for example, values in zip(examples, logits, strict=True):
            found = candidates[example.row]
            found += spans(values, example.origin, lengths)
            if self.has_unanswerable:
                found.append((float(values[0].sum()), *NOWHERE))
        return [
            _prediction(row, found, lengths.n_best)
            for row, found in zip(rows, candidates, strict=True)
        ]

    def score(self, rows, predictions):
        pairs = [
            ([text for text, _ in row.answers], prediction["answer"])
            for row, prediction in zip(rows, predictions, strict=True)
            if row.answers is not None
        ]
        return span_metrics.figures(pairs)


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


def _prediction(row: QuestionRow, candidates, n_best) -> dict[str, Any]:
    """Ranks the spans of all windows; of "no answer" the least sure counts."""
    nowhere = [score for score, *span in candidates if tuple(span) == NOWHERE]
    best: dict[tuple[int, int], float] = {}
    if nowhere:
        best[NOWHERE] = min(nowhere)
    for score, start, end in sorted(candidates, reverse=True):
        # Two windows may propose one span: the better score stands.
        best.setdefault((start, end), score)
        if len(best) == n_best + bool(nowhere):
            break
    if not best:
        best = {(0, 0): 0.0}
    best = dict(sorted(best.items(), key=lambda entry: -entry[1])[:n_best])
    probabilities = base.softmax(np.array(list(best.values())))
    ranked = [
        {
            "text": "" if (start, end) == NOWHERE else row.context[start:end],
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
