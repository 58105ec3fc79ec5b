"""Tagging: named entities as BIO tags on tokens, found through offsets.

    text    浙 商 银 行 叶 老 桂
    tags    B-company I- I- I- B-name I- I-

Entities are half-open spans of characters of the original text; only the
files of CLUENER count their ends inclusively.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, bio
from albert_tf2.tasks import reading as reading
from albert_tf2.tasks.bio import OUTSIDE, Entity
from albert_tf2.tasks.encoding import Example, Window, pack, windows
from albert_tf2.tasks.reading import BadRow, field

CLUENER_TYPES = (
    "address book company game government movie name organization position "
    "scene"
).split()
IGNORED = -1  # the label of [CLS], [SEP] and tokens another window decides


@dataclasses.dataclass(frozen=True, slots=True)
class TaggedRow:
    """A text; `entities` is None where they are unknown."""

    row_id: int | str
    text: str
    entities: tuple[Entity, ...] | None = None


class _Origin(NamedTuple):
    window: Window
    offsets: list[tuple[int, int]]  # of all tokens of the text


class Tagging(base.Task):
    """Entities of a text, each an exact span with a type."""

    kind = base.TAGGING

    def __init__(self, name: str, *, types: Sequence[str] = (), **settings):
        """Describes a tagging task.

        Args:
            name: "cluener" for its JSON Lines, "bio" for column files.
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
        if not types:
            path = self.find(data_dir, reading.TRAIN)[0]
            raise UserError(f"{path} holds no entity: are the tags there?")
        self._set_types(types)

    def describe(self):
        return {**super().describe(), "types": list(self.types)}

    def read_file(self, path, *, test, on_error, report):
        if self.name == "cluener":
            rows = reading.parse_rows(
                reading.json_lines(path),
                lambda line: self._cluener_row(line, test),
                on_error=on_error,
                report=report,
                placeholder=_unreadable if test else None,
            )
        else:
            rows = reading.parse_rows(
                bio.bio_sentences(path),
                self._bio_row,
                on_error=on_error,
                report=report,
                placeholder=_bio_text_only if test else None,
            )
        return [
            dataclasses.replace(row, row_id=index) if row.row_id == -1 else row
            for index, row in enumerate(rows)
        ]

    def _cluener_row(self, line: str, test: bool) -> TaggedRow:
        record = reading.json_object(line)
        text = field(record, "text")
        row_id = record.get("id", -1)
        if "label" not in record and test:
            return TaggedRow(row_id, text)
        try:
            entities = [
                (kind, surface, start, end)
                for kind, surfaces in record["label"].items()
                for surface, spans in surfaces.items()
                for start, end in spans
            ]
        except (KeyError, AttributeError, TypeError, ValueError):
            raise BadRow(
                "field `label` must be {type: {surface: [[start, end]]}}. "
                f"Received: {record.get('label')!r}"
            ) from None
        for kind, surface, start, end in entities:
            self._check_type(kind)
            found = text[max(start, 0) : end + 1]
            if start < 0 or found != surface:
                raise BadRow(
                    f"{kind} {surface!r} does not stand at [{start}, {end}], "
                    f"where the text has {found!r}"
                )
        spans = {
            Entity(start, end + 1, kind) for kind, _, start, end in entities
        }
        return TaggedRow(row_id, text, tuple(sorted(spans)))

    def _check_type(self, kind: str) -> None:
        if self.types and kind not in self.types:
            raise BadRow(
                f"entity type {kind!r} is not one of {', '.join(self.types)}"
            )

    def _bio_row(self, sentence: list[list[str]]) -> TaggedRow:
        text, places = bio.join_tokens([cells[0] for cells in sentence])
        if all(len(cells) == 1 for cells in sentence):
            return TaggedRow(-1, text)
        for cells in sentence:
            if len(cells) < 2:
                raise BadRow(f"{cells[0]!r} has no tag beside it")
        tags = [cells[-1] for cells in sentence]
        for tag in tags:
            if tag == OUTSIDE:
                continue
            if tag[:2] not in bio.PREFIXES:
                raise BadRow(f"tag {tag!r} is not O, B-TYPE or I-TYPE")
            self._check_type(tag[2:])
        entities = bio.spans_of(bio.as_bio(tags), places)
        return TaggedRow(-1, text, tuple(entities))

    def encode(self, rows, tokenizer, lengths, *, training=False):
        examples = []
        size = lengths.max_seq_length - 2
        stride = min(lengths.doc_stride, max(size // 2, 1))
        for index, row in enumerate(rows):
            encoding = tokenizer.tokenize(row.text)
            labels = None
            if row.entities is not None:
                tags = bio.token_tags(encoding.offsets, row.entities)
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

    def score(self, rows, predictions):
        pairs = [
            (
                set(row.entities),
                {
                    Entity(e["start"], e["end"], e["type"])
                    for e in p["entities"]
                },
            )
            for row, p in zip(rows, predictions, strict=True)
            if row.entities is not None
        ]
        return bio.entity_metrics(pairs)


def _confidence(entity, places, path, probabilities) -> float:
    """The least probability of a token of the entity."""
    return min(
        float(probabilities[i, path[i]])
        for i, (start, end) in enumerate(places)
        if start < entity.end and end > entity.start
    )


def _bio_text_only(sentence: list[list[str]]) -> TaggedRow:
    return TaggedRow(-1, bio.join_tokens([cells[0] for cells in sentence])[0])


def _unreadable(line: str) -> TaggedRow:
    row_id = reading.id_of(line)
    return TaggedRow(-1 if row_id is None else row_id, "")
