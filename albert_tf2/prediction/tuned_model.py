"""A fine-tuned model: it answers rows of the task that it was tuned for."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from albert_tf2 import paths
from albert_tf2.checkpoints import download, repositories
from albert_tf2.errors import UserError, shown
from albert_tf2.prediction.sentence_vectors import SentenceVectors
from albert_tf2.prediction.texts import as_texts, as_tuple
from albert_tf2.tasks import base
from albert_tf2.tasks.choice_files import ChoiceRow
from albert_tf2.tasks.encoding import Example
from albert_tf2.tasks.ner_files import TaggedRow
from albert_tf2.tasks.question_files import QuestionRow
from albert_tf2.tasks.text_rows import TextRow
from albert_tf2.tasks.text_task import TextTask

# Kinds that give a text or a pair a label, or several.
LABEL_KINDS = (base.CLASSIFICATION, base.MULTI_LABEL)


def tuned_folder(source: paths.PathLike) -> str | None:
    """Returns where a fine-tuned model lies: there, or in a workdir."""
    source = repositories.here(source)
    if download.is_url(source):
        return None  # a released model, or a hub handle
    for folder in (str(source), paths.join(source, "model")):
        if paths.is_file(paths.join(folder, base.TASK_FILE)):
            return folder
    return None


def vector_pooling(task: base.Task | None) -> str | None:
    """Returns the pooling of a model for sentence vectors; None for others."""
    return getattr(task, "pooling", None)


class TunedModel:
    """A folder that `finetune` wrote, loaded once.

    Texts are batched by length; batches of one shape share a traced graph.
    """

    vectors_class: type[SentenceVectors] = SentenceVectors

    def __init__(self, folder: paths.PathLike, *, batch_size: int):
        """Loads the model.

        Args:
            folder: `workdir/model`.
            batch_size: Texts in a step.
        """
        from albert_tf2.finetuning import encoders

        self.task, self.model, self.loaded, self.lengths = encoders.load(folder)
        self.batch_size = batch_size
        self._folder = folder

    def example(self) -> list[Any]:
        """Returns a row of the training set as it is asked; [] if none is kept.

        See `base.example_of`. Models of before it was kept have none.
        """
        found = self.facts().get("example")
        texts = found if isinstance(found, list) else []
        for text in texts:
            several = text if isinstance(text, list) else [text]
            if not all(isinstance(part, str) for part in several):
                return []
        return texts

    def facts(self) -> dict[str, Any]:
        """Returns what `task.json` holds."""
        return paths.read_json(paths.join(self._folder, base.TASK_FILE), dict)

    def classify(
        self, texts: str | Iterable[str | tuple[str, str]]
    ) -> list[dict[str, Any]]:
        """See `Predictor.classify`."""
        self.need(*LABEL_KINDS)
        return self.run(self._text_rows(texts))

    def score(
        self, texts: str | Iterable[str | tuple[str, str]]
    ) -> list[dict[str, Any]]:
        """See `Predictor.score`."""
        self.need(base.REGRESSION)
        return self.run(self._text_rows(texts))

    def embed(self, texts: str | Iterable[str]) -> np.ndarray:
        """Returns the vectors of a model for sentence vectors: [N, H]."""
        self.need(base.VECTORS)
        return self.sentence_vectors.embed(texts)

    @functools.cached_property
    def sentence_vectors(self) -> SentenceVectors:
        """The encoder, which embeds with what it was tuned for."""
        return self.vectors_class(
            self.loaded.encoder,
            self.loaded.tokenizer,
            max_seq_length=self.lengths.max_seq_length,
            positions=self.loaded.positions,
            batch_size=self.batch_size,
            tuned_pooling=vector_pooling(self.task),
        )

    def _text_rows(
        self, texts: str | Iterable[str | tuple[str, str]]
    ) -> list[TextRow]:
        """Makes rows of what a model for texts, or one for pairs, takes."""
        assert isinstance(self.task, TextTask), "`need` looked"
        wanted = self.task.pairs
        rows: list[TextRow] = []
        for text in [texts] if isinstance(texts, str) else texts:
            if wanted not in (None, not isinstance(text, str)):
                kind = "pairs of texts" if wanted else "single texts"
                raise UserError(
                    f"this model was fine-tuned on {kind} ({self.task.name})"
                    f". Received: {shown(text)}"
                )
            parts = text
            if not isinstance(text, str):
                parts = as_tuple(text, "text_a, text_b")
            rows.append(TextRow(len(rows), *as_texts(parts)))
        return rows

    def tag(self, texts: str | Iterable[str]) -> list[dict[str, Any]]:
        """See `Predictor.tag`."""
        self.need(base.TAGGING)
        return self.run(
            [TaggedRow(i, text) for i, text in enumerate(as_texts(texts))]
        )

    def answer(
        self, questions: Iterable[tuple[str, str]]
    ) -> list[dict[str, Any]]:
        """See `Predictor.answer`."""
        self.need(base.SPAN)
        rows: list[QuestionRow] = []
        for values in questions:
            question, text = as_texts(as_tuple(values, "question, text"))
            rows.append(QuestionRow(str(len(rows)), question, text))
        return self.run(rows)

    def choose(
        self, questions: Iterable[tuple[str, str, Sequence[str]]]
    ) -> list[dict[str, Any]]:
        """See `Predictor.choose`."""
        self.need(base.CHOICE)
        rows: list[ChoiceRow] = []
        for values in questions:
            names = "text, question, choices"
            text, question, choices = as_tuple(values, names)
            if isinstance(choices, str) or not (
                2 <= len(choices) <= self.task.choices
            ):
                raise UserError(
                    f"this model takes 2 to {self.task.choices} choices. "
                    f"Received: {shown(choices)}"
                )
            text, question, *choices = as_texts([text, question, *choices])
            row = len(rows)
            rows.append(
                ChoiceRow(row, text, question, tuple(choices), group=row)
            )
        return self.run(rows)

    def describe(self) -> dict[str, Any]:
        """Returns what `task.json` says of the task: labels, lengths."""
        return {
            **self.task.describe(),
            "lengths": dataclasses.asdict(self.lengths),
        }

    def need(self, *kinds: str) -> None:
        """Raises unless the model was tuned for one of these kinds."""
        if self.task.kind not in kinds:
            raise wrong_kind(kinds, self.task.kind)

    def run(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Returns a prediction for each row of the task, in their order."""
        if not rows:
            return []
        examples = self.task.encode(rows, self.loaded.tokenizer, self.lengths)
        logits = self._logits(examples)
        return self.task.decode(rows, examples, logits, self.lengths)

    def _logits(self, examples: Sequence[Example]) -> list[np.ndarray]:
        """Returns what the head says of each example."""
        from albert_tf2.finetuning import feeding

        return feeding.predict_logits(
            self._step,
            examples,
            task=self.task,
            batch_size=self.batch_size,
            positions=self.loaded.positions,
        )

    @functools.cached_property
    def _step(self):
        import tensorflow as tf

        from albert_tf2.finetuning import feeding

        return feeding.make_predict_step(
            self.model, tf.distribute.get_strategy()
        )


def wrong_kind(wanted: Sequence[str], found: str) -> UserError:
    """Returns what says that a model is of another kind than was asked for."""
    return UserError(
        f"this needs a model fine-tuned for {wanted[0]} (python -m "
        f"albert_tf2.finetune), and this one is {found}"
    )
