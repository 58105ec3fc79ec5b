"""Tagging: named entities as BIO tags on tokens, found through offsets.

    text    浙 商 银 行 叶 老 桂
    tags    B-company I- I- I- B-name I- I-

Entities are half-open spans of characters of the original text; only the
files of CLUENER count their ends inclusively (see `ner_files.py`).
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, bio, ner_files
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.bio import Entity
from albert_tf2.tasks.classification import shown_counts
from albert_tf2.tasks.encoding import Example, Window, pack, windows
from albert_tf2.tasks.ner_files import TaggedRow
from albert_tf2.tasks.outcomes import Outcome
from albert_tf2.tasks.reading import BadRow

CLUENER_TYPES = (
    "address book company game government movie name organization position "
    "scene"
).split()
# Each of their tags has a probability of following each other one.
MOST_TYPES = 1_000
IGNORED = -1  # the label of [CLS], [SEP] and tokens another window decides


class _Origin(NamedTuple):
    window: Window
    offsets: list[tuple[int, int]]  # of all tokens of the text


class Tagging(base.Task):
    """Entities of a text, each an exact span with a type."""

    kind = base.TAGGING

    def __init__(self, name: str, *, types: Sequence[str] = (), **settings):
        """Describes a tagging task.

        Args:
            name: As `--task` spells it.
            types: Entity types; empty takes them from the training file.
            **settings: See `base.Task`.
        """
        super().__init__(name, metric="f1", **settings)
        self._set_types(types)

    def _set_types(self, types: Iterable[str]) -> None:
        self.types = tuple(types)
        self.labels = bio.bio_labels(self.types)

    def prepare(self, data_dir, *, on_error):
        if self.types:
            return
        # Any type may occur: the check against the set comes afterwards.
        rows = self.read(data_dir, reading.TRAIN, on_error=on_error)
        types = sorted({e.type for row in rows for e in row.entities or ()})
        path = self.find(data_dir, reading.TRAIN)[0]
        if not types:
            raise UserError(f"{path} holds no entity: are the tags there?")
        if len(types) > MOST_TYPES:
            raise UserError(
                f"{path} has {len(types):,} types of entities, and at most "
                f"{MOST_TYPES:,} can be told apart: is the last column the tag?"
            )
        self._set_types(types)

    def describe(self):
        return {**super().describe(), "types": list(self.types)}

    def restore(self, description):
        self._set_types(base.taken(description, "types", list, each=str))

    def read_file(self, path, *, test, on_error, report):
        def parse(record):
            row = ner_files.row_of(record)
            if row.entities is None and not test:
                raise BadRow("has no entities: a field `label` or `entities`")
            self._check_types(row, test=test, report=report)
            return row

        rows = reading.parse_rows(
            ner_files.records(path, report),
            parse,
            on_error=on_error,
            report=report,
            placeholder=ner_files.unlabelled if test else None,
        )
        return [
            dataclasses.replace(row, row_id=index)
            if row.row_id is None
            else row
            for index, row in enumerate(rows)
        ]

    def _check_types(self, row: TaggedRow, *, test: bool, report) -> None:
        for entity in row.entities or ():
            if not self.types or entity.type in self.types:
                continue
            if not test:
                raise BadRow(
                    f"entity type {entity.type!r} is not one of "
                    f"{', '.join(self.types)}"
                )
            report.note(
                f"entities of type {entity.type!r}, which training lacks: "
                "counted as missed"
            )

    def encode(self, rows, tokenizer, lengths, *, training=False):
        examples = []
        size = lengths.max_seq_length - 2
        stride = min(lengths.doc_stride, max(size // 2, 1))
        for index, row in enumerate(rows):
            encoding = tokenizer.tokenize(row.text)
            labels = None
            if row.entities is not None:
                known = [e for e in row.entities if e.type in self.types]
                tags = bio.token_tags(encoding.offsets, known)
                labels = [self.labels.index(tag) for tag in tags]
            for window in windows(len(encoding.ids), size, stride):
                packed = pack(
                    [encoding.ids[window.start : window.end]],
                    tokenizer.vocabulary,
                    lengths.max_seq_length,
                )
                label = None
                if labels is not None:
                    label = [IGNORED] * len(packed.ids)
                    for i in range(window.first_owned, window.last_owned):
                        label[1 + i - window.start] = labels[i]
                examples.append(
                    Example(
                        row=index,
                        sequences=(packed,),
                        label=label,
                        origin=_Origin(window, encoding.offsets),
                    )
                )
        return examples

    def decode(self, rows, examples, logits, lengths):
        del lengths
        scores: list[list[np.ndarray]] = [[] for _ in rows]
        offsets: list[list[tuple[int, int]]] = [[] for _ in rows]
        for example, values in zip(examples, logits, strict=True):
            window, offsets[example.row] = example.origin
            first = 1 + window.first_owned - window.start
            last = 1 + window.last_owned - window.start
            scores[example.row].append(values[first:last])
        predictions = []
        for row, parts, places in zip(rows, scores, offsets, strict=True):
            values = np.concatenate(parts)
            path = bio.best_tags(values, self.labels)
            tags = [self.labels[i] for i in path]
            confident = base.softmax(values) if len(values) else values
            predictions.append(
                {
                    "id": row.row_id,
                    "text": row.text,
                    "entities": [
                        {
                            "type": entity.type,
                            "text": row.text[entity.start : entity.end],
                            "start": entity.start,
                            "end": entity.end,
                            "probability": round(
                                _confidence(entity, places, path, confident), 6
                            ),
                        }
                        for entity in bio.spans_of(tags, places)
                    ],
                }
            )
        return predictions

    def outcomes(self, rows, predictions):
        def item(text, start, end, kind):
            return kind, f"{start}-{end} {text[start:end]}"

        return [
            Outcome(
                number,
                frozenset(
                    item(row.text, e.start, e.end, e.type) for e in row.entities
                ),
                frozenset(
                    item(row.text, e["start"], e["end"], e["type"])
                    for e in prediction["entities"]
                ),
                min(
                    (e["probability"] for e in prediction["entities"]),
                    default=0.0,
                ),
            )
            for number, (row, prediction) in enumerate(
                zip(rows, predictions, strict=True)
            )
            if row.entities is not None
        ]

    def overview(self, train, dev, test):
        del dev, test
        counts = Counter(e.type for row in train for e in row.entities)
        without = sum(not row.entities for row in train)
        return [
            f"entities: {sum(counts.values())} of {len(self.types)} types: "
            f"{shown_counts(counts)}; {without} training rows have none"
        ]

    def score(self, rows, predictions):
        known = [
            (row, prediction)
            for row, prediction in zip(rows, predictions, strict=True)
            if row.entities is not None
        ]
        pairs = [
            (
                set(row.entities),
                {
                    Entity(e["start"], e["end"], e["type"])
                    for e in prediction["entities"]
                },
            )
            for row, prediction in known
        ]
        figures = bio.entity_metrics(pairs)
        if figures and self.name == "cluener":
            surfaces = [
                (_surfaces(row.text, wanted), _surfaces(row.text, found))
                for (row, _), (wanted, found) in zip(known, pairs, strict=True)
            ]
            figures["cluener_macro_f1"] = bio.surface_macro_f1(
                surfaces, self.types
            )
        return figures


def _surfaces(text: str, entities: set[Entity]) -> set[tuple[str, str]]:
    """Returns the (type, characters) of entities, wherever they stand."""
    return {(e.type, text[e.start : e.end]) for e in entities}


def _confidence(entity, places, path, probabilities) -> float:
    """The least probability of a token of the entity."""
    return min(
        float(probabilities[i, path[i]])
        for i, (start, end) in enumerate(places)
        if start < entity.end and end > entity.start
    )
