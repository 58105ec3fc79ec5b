"""Multiple choice: C3 (questions about texts) and ChID (idioms in blanks).

Each choice becomes a sequence of its own; the head gives each one number, and
the softmax runs over the choices. The files are in `choice_files.py`.
"""

import dataclasses
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.tasks import base, choice_files
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.choice_files import (
    IDIOM_CANDIDATES,
    IDIOM_TAG,
    MAX_C3_CHOICES,
    ChoiceRow,
)
from albert_tf2.tasks.encoding import Example, pack


class MultipleChoice(base.Task):
    """What C3 and ChID have in common."""

    kind = base.CHOICE

    @property
    def num_outputs(self) -> int:
        return 1  # per choice

    def score(self, rows, predictions):
        hits = [
            row.label == prediction["label"]
            for row, prediction in zip(rows, predictions, strict=True)
            if row.label is not None
        ]
        if not hits:
            return {}
        return {"accuracy": sum(hits) / len(hits), "rows": len(hits)}

    def overview(self, train, dev, test):
        counts = Counter(len(row.choices) for row in train)
        shown = ", ".join(f"{n} choices ({counts[n]})" for n in sorted(counts))
        best = Counter(row.label for row in train).most_common(1)[0][0]
        always = base.constant_figures(
            self, {"label": best}, "accuracy", train=train, dev=dev, test=test
        )
        return [
            f"questions: {shown}",
            *(f"baseline: always choice {best + 1}: {f}" for f in always),
        ]

    def decode(self, rows, examples, logits, lengths):
        del lengths
        predictions: list[dict[str, Any]] = [{} for _ in rows]
        for example, values in zip(examples, logits, strict=True):
            row = rows[example.row]
            probabilities = base.softmax(values[: len(row.choices)])
            predictions[example.row] = _prediction(
                row, probabilities, int(np.argmax(probabilities))
            )
        return predictions


def _prediction(row: ChoiceRow, probabilities, best) -> dict[str, Any]:
    return {
        "id": row.row_id,
        "label": best,
        "choice": row.choices[best] if row.choices else "",
        "probability": round(float(probabilities[best]), 6),
        "probabilities": [round(float(p), 6) for p in probabilities],
    }


class C3(MultipleChoice):
    """Questions about a text or a dialogue, with two to four choices."""

    choices = MAX_C3_CHOICES

    def read_file(self, path, *, test, on_error, report):
        return reading.parse_rows(
            choice_files.c3_records(path),
            lambda record: choice_files.c3_row(record, test=test),
            on_error=on_error,
            report=report,
            placeholder=choice_files.c3_unreadable if test else None,
        )

    def encode(self, rows, tokenizer, lengths, *, training=False):
        ids: dict[str, list[int]] = {}

        def tokenize(text):
            if text not in ids:
                ids[text] = tokenizer.tokenize(text).ids
            return ids[text]

        # [CLS] text [SEP] question [SEP] choice [SEP]
        return [
            Example(
                row=index,
                sequences=tuple(
                    pack(
                        [
                            tokenize(row.context),
                            tokenize(row.question),
                            tokenize(choice),
                        ],
                        tokenizer.vocabulary,
                        lengths.max_seq_length,
                    )
                    for choice in row.choices
                ),
                label=row.label,
            )
            for index, row in enumerate(rows)
        ]


class ChID(MultipleChoice):
    """Idioms missing from passages; the blanks of a row share candidates."""

    choices = IDIOM_CANDIDATES

    def sources(self, data_dir, split):
        found = self.find(data_dir, split)
        answers = [choice_files.chid_answer_file(path) for path in found]
        return found + [path for path in answers if paths.is_file(path)]

    def read_file(self, path, *, test, on_error, report):
        answers = choice_files.chid_answers(path, test=test)
        nested = reading.parse_rows(
            reading.json_lines(path),
            lambda line: choice_files.chid_rows(line, answers, test=test),
            on_error=on_error,
            report=report,
            placeholder=choice_files.chid_unreadable if test else None,
        )
        # Blanks of a line that share their candidates share a group.
        groups: dict[tuple[int, tuple[str, ...]], int] = {}
        return [
            dataclasses.replace(
                row, group=groups.setdefault((line, row.choices), len(groups))
            )
            for line, rows in enumerate(nested)
            for row in rows
        ]

    def encode(self, rows, tokenizer, lengths, *, training=False):
        return [
            Example(
                row=index,
                sequences=_idiom_sequences(row, tokenizer, lengths),
                label=row.label,
            )
            for index, row in enumerate(rows)
        ]

    def decode(self, rows, examples, logits, lengths):
        del lengths
        groups: dict[int | None, list[int]] = defaultdict(list)
        probabilities: list[np.ndarray] = [np.zeros(0)] * len(rows)
        for example, values in zip(examples, logits, strict=True):
            row = rows[example.row]
            count = max(len(row.choices), 1)
            probabilities[example.row] = base.softmax(values[:count])
            groups[row.group].append(example.row)
        predictions: list[dict[str, Any]] = [{} for _ in rows]
        for members in groups.values():
            scores = np.log(np.stack([probabilities[i] for i in members]))
            for i, choice in zip(members, assign(scores), strict=True):
                predictions[i] = _prediction(rows[i], probabilities[i], choice)
        return predictions


def _idiom_sequences(row, tokenizer, lengths) -> tuple:
    """Packs [CLS] idiom [SEP] ... [MASK] ... [SEP] for each candidate.

    The text is cut around the blank: half of the room goes to either side,
    and what one side does not need the other takes.
    """
    vocabulary = tokenizer.vocabulary
    before, after = (
        _passage_ids(part, tokenizer)
        for part in row.context.split(row.question, 1)
    )
    idioms = [tokenizer.tokenize(choice).ids for choice in row.choices]
    longest = max(len(ids) for ids in idioms)
    room = lengths.max_seq_length - 4 - longest
    if room < 0:  # the blank itself would be cut off
        raise UserError(
            f"`max_seq_length` must be at least {4 + longest}, for a blank "
            f"and an idiom of {longest} tokens. Received: "
            f"`max_seq_length={lengths.max_seq_length}`"
        )
    left = min(len(before), max(room // 2, room - len(after)))
    right = min(len(after), room - left)
    text = before[len(before) - left :] + [vocabulary.mask_id] + after[:right]
    return tuple(
        pack([ids, text], vocabulary, lengths.max_seq_length) for ids in idioms
    )


def _passage_ids(text: str, tokenizer) -> list[int]:
    """Tokenizes a passage; each other blank in it is one [UNK]."""
    ids: list[int] = []
    for index, part in enumerate(IDIOM_TAG.split(text)):
        if index:
            ids.append(tokenizer.vocabulary.unknown_id)
        ids += tokenizer.tokenize(part).ids
    return ids


def assign(scores: np.ndarray) -> list[int]:
    """Chooses a different candidate for each blank, with the best sum.

    Args:
        scores: [blanks, candidates], log probabilities. With more blanks than
            candidates no such choice exists, and each takes its own best.
    """
    alone = scores.argmax(axis=1).tolist()
    blanks, candidates = scores.shape
    if blanks > candidates or len(set(alone)) == blanks:
        return alone
    # Best sum and choices for each set of candidates already used (a bit
    # mask): exact, and at most 252 sets of 10 candidates at a time.
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for row in scores.tolist():
        reached: dict[int, tuple[float, list[int]]] = {}
        for used, (total, chosen) in best.items():
            for candidate, score in enumerate(row):
                key = used | 1 << candidate
                if key == used:
                    continue
                if key not in reached or total + score > reached[key][0]:
                    reached[key] = (total + score, [*chosen, candidate])
        best = reached
    return max(best.values(), key=lambda entry: entry[0])[1]
