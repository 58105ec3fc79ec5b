"""Vectors of sentences: alike texts near each other, others far apart.

    花呗怎么还款    花呗如何还钱    1     pairs with a label, or a score: CoSENT
    今天天气很好                          texts alone, one on a line: SimCSE

Which of the two is learned follows from the training file, or from
`vector_loss`; dev and test rows are pairs with a label where they can be.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_tf2.errors import UserError
from albert_tf2.settings import COSENT, POOLINGS, SIMCSE, VECTOR_LOSSES
from albert_tf2.tasks import base, columns, reading
from albert_tf2.tasks.encoding import Example, Packed, pack, tokenize_all
from albert_tf2.tasks.pair_files import PairsOrTexts
from albert_tf2.tasks.reading import BadRow
from albert_tf2.tasks.regression import area_under_curve, correlation, ranks
from albert_tf2.tasks.text_rows import TextRow
from albert_tf2.tasks.text_task import TextTask

# What cosines are multiplied by in both losses: CoSENT's 20, and SimCSE's
# temperature, 1 / 0.05.
SCALE = 20.0
# Texts among which each must find itself, where no labels tell how good
# vectors are.
GROUP = 64


class SentenceVectors(TextTask):
    """A vector for each text, of length 1: its products are cosines."""

    kind = base.VECTORS
    label_kind = columns.SCORE
    choices = 2  # the two texts of a pair, each by itself

    def __init__(
        self,
        name: str,
        *,
        pooling: str = "mean",
        vector_loss: str | None = None,
        **settings: Any,
    ):
        """Describes the task.

        Args:
            name: As `--task` spells it.
            pooling: One of `settings.POOLINGS`.
            vector_loss: One of `settings.VECTOR_LOSSES`; None decides by the
                training file.
            **settings: See `TextTask`.
        """
        super().__init__(name, metric="spearman", **settings)
        if self.labels:
            raise UserError(
                f"task {name} takes labels as numbers: `labels` has no meaning "
                "there"
            )
        self.pooling = pooling
        self.asked_loss = vector_loss
        self.loss = vector_loss or COSENT

    @classmethod
    def of_own_files(cls, name, given):
        reader = PairsOrTexts(
            label=cls.label_kind,
            columns=given.columns,
            delimiter=given.delimiter,
            may_lack_labels=True,
        )
        return cls(
            name,
            reader=reader,
            labels=given.labels,
            pooling=given.pooling,
            vector_loss=given.vector_loss,
        )

    def learn_labels(self, path, found):
        self.loss = self.asked_loss or (COSENT if found else SIMCSE)
        if self.loss == SIMCSE:
            return
        if not found:
            raise UserError(
                f"{path} has no labels, and `vector_loss=cosent` learns from "
                "them: give it pairs with a label each, or leave the setting "
                "out"
            )
        if len(set(found)) < 2:
            raise UserError(
                f"{path}: all labels are {found[0]:g}, and nothing tells "
                "nearer pairs from others"
            )

    def check(self, row, *, test, report):
        if test or self.loss == SIMCSE:
            return row
        if row.text_b is None:
            raise BadRow(
                "a single text with a label: CoSENT compares the two texts of "
                "a pair; --set vector_loss=simcse learns from texts alone"
            )
        if row.label is None:
            raise BadRow("the label is missing")
        return row

    def check_file(self, path, rows):
        """Takes any rows: training on texts is measured on pairs."""

    def target(self, row):
        return row.label

    def read(self, data_dir, split, *, on_error="fail", report=None):
        report = report or reading.ReadingReport()
        rows = super().read(data_dir, split, on_error=on_error, report=report)
        if split == reading.TEST or self.loss == COSENT:
            return rows
        labelled = any(_is_labelled_pair(row) for row in rows)
        if split == reading.DEV:
            self.metric = "spearman" if labelled else "log_likelihood"
            if labelled:
                return [row for row in rows if _is_labelled_pair(row)]
        texts = dict.fromkeys(
            text
            for row in rows
            for text in (row.text_a, row.text_b)
            if text is not None
        )
        if len(texts) < 2:
            raise UserError(
                f"{self.find(data_dir, split)[0]} holds one text, and SimCSE "
                "tells texts from each other"
            )
        report.tell(
            f"{len(texts):,} different texts, each by itself"
            + (": labels are not used" if labelled else "")
        )
        return [TextRow(number, text) for number, text in enumerate(texts)]

    def describe(self):
        return {
            **super().describe(),
            "pooling": self.pooling,
            "loss": self.loss,
        }

    def restore(self, description):
        super().restore(description)
        for key, known in (("pooling", POOLINGS), ("loss", VECTOR_LOSSES)):
            value = base.taken(description, key, str)
            if value not in known:
                raise UserError(
                    f"`{key}` is damaged, it is none of {', '.join(known)}: "
                    "put the file back that was written with the model"
                )
            setattr(self, key, value)

    def encode(self, rows, tokenizer, lengths, *, training=False):
        texts = [row.text_a for row in rows]
        texts += [row.text_b for row in rows if row.text_b is not None]
        packed = [
            pack([ids], tokenizer.vocabulary, lengths.max_seq_length)
            for ids in tokenize_all(tokenizer, texts)
        ]
        seconds = iter(packed[len(rows) :])
        examples = []
        for index, row in enumerate(rows):
            first = packed[index]
            sequences: tuple[Packed, ...]
            if row.text_b is not None:
                sequences = (first, next(seconds))
            else:
                # SimCSE: the text beside itself, under another dropout.
                sequences = (first, first) if training else (first,)
            label = 0.0 if training and row.label is None else row.label
            examples.append(Example(index, sequences, label))
        return examples

    def decode(self, rows, examples, logits, lengths):
        del lengths
        predictions: list[dict[str, Any]] = [{"id": row.row_id} for row in rows]
        alone = []
        for example, vectors in zip(examples, logits, strict=True):
            if len(example.sequences) == 1:
                alone.append((example.row, vectors[0]))
                continue
            cosine = round(float(vectors[0] @ vectors[1]), 6)
            predictions[example.row]["similarity"] = cosine
        if alone:
            found = own_log_likelihoods(np.stack([v for _, v in alone]))
            for (row, _), value in zip(alone, found, strict=True):
                predictions[row]["log_likelihood"] = round(float(value), 6)
        return predictions

    def score(self, rows, predictions):
        if self.metric == "log_likelihood":
            values = [
                prediction["log_likelihood"]
                for prediction in predictions
                if "log_likelihood" in prediction
            ]
            if values:
                mean = float(np.mean(values))
                return {"log_likelihood": mean, "rows": len(values)}
        pairs = [
            (row.label, prediction["similarity"])
            for row, prediction in zip(rows, predictions, strict=True)
            if _is_labelled_pair(row)
        ]
        return pair_metrics(pairs)

    def overview(self, train, dev, test):
        if self.loss == SIMCSE:
            lines = [
                f"SimCSE: each of {len(train):,} texts is told from the others "
                "of its batch under two dropouts"
            ]
        else:
            labels = Counter(row.label for row in train)
            lines = [
                f"CoSENT: {len(labels)} different labels from "
                f"{min(labels):g} to {max(labels):g}; pairs of a higher one "
                "shall be nearer"
            ]
        found = {
            split: self.score(
                rows, [{"similarity": shared_characters(row)} for row in rows]
            )
            for split, rows in (("dev", dev), ("test", test))
            if any(_is_labelled_pair(row) for row in rows)
        }
        return lines + [
            f"baseline: shared characters: {split} {base.figures_text(figures)}"
            for split, figures in found.items()
        ]


def _is_labelled_pair(row: TextRow) -> bool:
    return row.label is not None and row.text_b is not None


def shared_characters(row: TextRow) -> float:
    """Returns the cosine of the two sets of characters; 0 without a pair."""
    first, second = set(row.text_a), set(row.text_b or "")
    if not first or not second:
        return 0.0
    return len(first & second) / float(np.sqrt(len(first) * len(second)))


def own_log_likelihoods(vectors: np.ndarray, group: int = GROUP) -> np.ndarray:
    """Says how far each text is from others: log p(itself), at most 0.

    SimCSE's loss without dropout, among `group` texts at a time; it says that
    texts are spread out, not that alike ones are near.

    Args:
        vectors: [N, H], of length 1.
        group: Texts that are compared with each other.
    """
    found = []
    for first in range(0, len(vectors), group):
        part = vectors[first : first + group].astype(np.float64)
        scores = SCALE * (part @ part.T)
        found.append(np.log(np.diag(base.softmax(scores))))
    return np.concatenate(found)


def pair_metrics(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Returns the figures of (label, cosine) pairs.

    Spearman's rank correlation, and where there are two labels, the area
    under the curve.
    """
    if not pairs:
        return {}
    labels, cosines = np.array(pairs, np.float64).T
    figures: dict[str, float] = {
        "spearman": correlation(ranks(labels), ranks(cosines))
    }
    if len(set(labels.tolist())) == 2:
        figures["auc"] = area_under_curve(cosines, labels == labels.max())
    return figures | {"rows": len(pairs)}
