"""One loaded model that answers many questions.

>>> predictor = Predictor("runs/lcqmc/model")
>>> predictor.classify([("花呗怎么还款", "如何还花呗")])[0]["label"]
'1'
>>> Predictor("albert_tiny_zh").similarity(
...     ["我喜欢妈妈做的汤"], ["妈妈做的汤我很喜欢喝"])
array([0.98], dtype=float32)

Each kind of work has a class of its own: `TunedModel`, `MaskedWords`,
`SentenceVectors`. `Predictor` loads what a source holds and asks the right one.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_tf2 import paths
from albert_tf2.errors import UserError, check_choice
from albert_tf2.prediction import litert_cache
from albert_tf2.prediction.masked_words import MaskedWords
from albert_tf2.prediction.sentence_vectors import SentenceVectors
from albert_tf2.prediction.similarity import Whitening
from albert_tf2.prediction.texts import as_texts
from albert_tf2.prediction.tuned_model import (
    LABEL_KINDS,
    TunedModel,
    tuned_folder,
    vector_pooling,
    wrong_kind,
)
from albert_tf2.settings import (
    ENGINES,
    MAX_BATCH,
    MAX_LENGTH,
    POOLINGS,
    check_number,
)
from albert_tf2.tasks import base

__all__ = ["POOLINGS", "Predictor"]


class Predictor:
    """A fine-tuned or a pre-trained model, loaded once.

    Fine-tuned models `classify`, `tag`, `answer` or `choose`; pre-trained
    ones fill masks; all of them embed and compare sentences. Where a method
    takes a list of texts, a string alone is one text.

    Attributes:
        task: What the model was fine-tuned for; None for a pre-trained one.
        tokenizer: The model's.
        max_seq_length: Longer texts are cut, when embedding.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        *,
        vocab_file: paths.PathLike | None = None,
        batch_size: int = 64,
        max_seq_length: int = 128,
        engine: str = ENGINES[0],
    ):
        """Loads a model.

        Args:
            source: A folder that `finetune` wrote (`workdir/model`), or what
                `load_pretrained` reads, or a hub encoder.
            vocab_file: The `vocab.txt`, where none lies beside the weights.
            batch_size: Texts in a step.
            max_seq_length: In tokens, [CLS] and [SEP] included. Longer texts
                are cut, when embedding. A fine-tuned model knows its own
                length for its task, one for sentence vectors for these.
            engine: What computes: "tensorflow"; "litert", which loads no
                TensorFlow and answers the same; or "litert-int8", which is
                faster and a little off. The first use of a model with
                LiteRT converts it, in a process of its own. Neither fills
                masks.

        Raises:
            UserError: If the source is missing, damaged or of another kind,
                or has no vocabulary.
        """
        check_number("batch_size", batch_size, least=1, most=MAX_BATCH)
        # [CLS] a [SEP] is the least that can be asked.
        check_number("max_seq_length", max_seq_length, least=3, most=MAX_LENGTH)
        check_choice("engine", engine, ENGINES)
        litert_cache.check_engine(engine, source)
        self._tuned: TunedModel | None = None
        masked_model = None
        loaded: Any
        vectors_class = SentenceVectors
        folder = tuned_folder(source)
        if engine in litert_cache.PRECISIONS:
            from albert_tf2.prediction import litert

            loaded, self._tuned = litert_cache.load(source, engine, vocab_file)
            vectors_class = litert.LiteVectors
        elif folder is not None:
            self._tuned = TunedModel(folder, batch_size=batch_size)
            loaded = self._tuned.loaded
        else:
            loaded, masked_model = _load_pretrained(str(source), vocab_file)
        self.task: base.Task | None = getattr(self._tuned, "task", None)
        self.tokenizer = loaded.tokenizer
        pooling = vector_pooling(self.task)
        if self._tuned is not None and pooling is not None:
            max_seq_length = self._tuned.lengths.max_seq_length
        if loaded.hub_folder is not None and self.task is None:
            pooling = _exported_pooling(loaded.hub_folder)
        self.max_seq_length = min(max_seq_length, loaded.positions)
        lengths = {
            "max_seq_length": self.max_seq_length,
            "positions": loaded.positions,
        }
        self._vectors = vectors_class(
            loaded.encoder,
            self.tokenizer,
            batch_size=batch_size,
            tuned_pooling=pooling,
            **lengths,
        )
        self._masked_words: MaskedWords | None = None
        if masked_model is not None:
            self._masked_words = MaskedWords(
                masked_model, self.tokenizer, **lengths
            )

    def example(self) -> list[Any]:
        """Returns what one row of the training set asks; [] if none is kept.

        A text, a pair, a question and its text, or a text, a question and a
        list of choices.
        """
        return [] if self._tuned is None else self._tuned.example()

    def _need_tuned(self, *kinds: str) -> TunedModel:
        if self._tuned is None:
            raise wrong_kind(kinds, "pre-trained")
        return self._tuned

    def classify(
        self, texts: str | Iterable[str | tuple[str, str]]
    ) -> list[dict[str, Any]]:
        """Labels texts, or (text_a, text_b) pairs.

        Args:
            texts: What the model was tuned on: single texts, or pairs.

        Returns:
            For each a dict of `label`, `probability` and `probabilities` by
            label; of a model for several labels, of `labels` and
            `probabilities`. Probabilities are from 0 to 1.

        Raises:
            UserError: If the model was not tuned to label texts, or takes
                pairs where single texts are given.
        """
        return self._need_tuned(*LABEL_KINDS).classify(texts)

    def score(
        self, texts: str | Iterable[str | tuple[str, str]]
    ) -> list[dict[str, Any]]:
        """Scores texts, or (text_a, text_b) pairs.

        Args:
            texts: What the model was tuned on: single texts, or pairs.

        Returns:
            For each a dict of `score`, in the units of the training file,
            and, where all of its scores were whole, the `nearest` of them.

        Raises:
            UserError: If the model was not tuned for regression.
        """
        return self._need_tuned(base.REGRESSION).score(texts)

    def tag(self, texts: str | Iterable[str]) -> list[dict[str, Any]]:
        """Finds entities.

        Args:
            texts: Sentences; long ones are read in windows.

        Returns:
            For each a dict of `text` and `entities`, each of them a dict of
            `type`, `text`, `start`, `end` (characters, half-open) and
            `probability`.

        Raises:
            UserError: If the model was not tuned for tagging.
        """
        return self._need_tuned(base.TAGGING).tag(texts)

    def answer(
        self, questions: Iterable[tuple[str, str]]
    ) -> list[dict[str, Any]]:
        """Answers questions by a span of a text.

        Args:
            questions: (question, text) pairs; long texts are read in windows.

        Returns:
            For each a dict of `answer` ("" where the text holds none),
            `start` in characters, and `n_best`, the best answers with their
            probabilities.

        Raises:
            UserError: If the model was not tuned for reading comprehension.
        """
        return self._need_tuned(base.SPAN).answer(questions)

    def choose(
        self, questions: Iterable[tuple[str, str, Sequence[str]]]
    ) -> list[dict[str, Any]]:
        """Picks one of several choices.

        Args:
            questions: (text, question, choices) each. With a ChID model, the
                question is the tag of a blank in the text.

        Returns:
            For each a dict of `label` (the choice's number, from 0), `choice`
            (its text), `probability` and `probabilities`.

        Raises:
            UserError: If the model was not tuned for multiple choice, or for
                fewer choices.
        """
        return self._need_tuned(base.CHOICE).choose(questions)

    def fill_mask(
        self, text: str, *, top_k: int = 5
    ) -> list[list[dict[str, Any]]]:
        """Proposes what stands at each [MASK] of a text.

        The vocabulary has most Chinese characters twice, as `字` and as
        `##字`, and models that were trained with albert_zh's labels use both:
        their probabilities are added.

        Args:
            text: It holds `[MASK]` once or more; each stands for one token.
            top_k: How many proposals for each.

        Returns:
            For each [MASK] a list of `top_k` dicts of `text` and
            `probability`, best first.

        Raises:
            UserError: If the text holds no [MASK] or is too long, or if the
                model has no masked-word head.
        """
        return self.fill_masks([text], top_k=top_k)[0]

    @property
    def fills_masks(self) -> bool:
        """Whether the model has its masked-word head."""
        return self._masked_words is not None

    def fill_masks(
        self, texts: str | Iterable[str], *, top_k: int = 5
    ) -> list[list[list[dict[str, Any]]]]:
        """Proposes what stands at each [MASK] of each text, many at a time.

        Args:
            texts: Each of them as `fill_mask` takes it.
            top_k: How many proposals for each [MASK].

        Returns:
            For each text what `fill_mask` returns.

        Raises:
            UserError: As `fill_mask` does, for any of the texts.
        """
        if self._masked_words is None:
            raise UserError(
                "filling masks needs a pre-trained model with its masked-"
                "word head; this one has none"
            )
        return self._masked_words.fill(as_texts(texts), top_k=top_k)

    def embed(
        self, texts: str | Iterable[str], *, pooling: str | None = None
    ) -> np.ndarray:
        """Returns a vector for each text: float32 [N, H].

        Args:
            texts: Sentences.
            pooling: "mean" of the tokens' outputs, "cls" for that of [CLS],
                "pooled" for the pooler's; None takes the mean, or what a
                model for sentence vectors was tuned with, whose vectors have
                length 1. After `whiten`, vectors are whitened.

        Raises:
            UserError: If `pooling` is none of them, or not the tuned one.
        """
        return self._vectors.embed(texts, pooling=pooling)

    @property
    def whitening(self) -> Whitening | None:
        """What is applied to vectors: from `whiten`, or set from a file."""
        return self._vectors.whitening

    @whitening.setter
    def whitening(self, whitening: Whitening | None) -> None:
        self._vectors.whitening = whitening

    def whiten(
        self,
        texts: str | Iterable[str],
        *,
        dimensions: int | None = None,
        pooling: str | None = None,
    ) -> Whitening:
        """Fits whitening on sentences and applies it from now on.

        Any two vectors of a pre-trained model have a cosine near 1. Whitening
        moves their mean to 0 and their covariance to the identity
        (https://arxiv.org/abs/2103.15316).

        Args:
            texts: Sentences without labels, more than `dimensions`; better
                ten times as many.
            dimensions: Of the vectors from now on; None keeps them all.
            pooling: As for `embed`.

        Returns:
            The whitening, which can be saved and set again as `whitening`.

        Raises:
            UserError: If there are too few sentences.
        """
        return self._vectors.whiten(
            texts, dimensions=dimensions, pooling=pooling
        )

    def similarity(
        self,
        texts_a: str | Iterable[str],
        texts_b: str | Iterable[str],
        *,
        pooling: str | None = None,
    ) -> np.ndarray:
        """Returns the cosine of each pair: float32 [N].

        A model fine-tuned on pairs judges better by `classify`.

        Args:
            texts_a: N sentences.
            texts_b: N sentences; each is compared with its partner.
            pooling: As for `embed`.

        Raises:
            UserError: If the two are not of one length.
        """
        return self._vectors.similarity(texts_a, texts_b, pooling=pooling)

    def most_similar(
        self,
        query: str,
        candidates: str | Iterable[str] | np.ndarray,
        *,
        top_k: int = 5,
        pooling: str | None = None,
    ) -> list[tuple[int, float]]:
        """Ranks candidates: (index, cosine), best first.

        Args:
            query: A sentence.
            candidates: Sentences, or their embeddings [N, H] from `embed`.
            top_k: How many to return.
            pooling: As those embeddings were made.

        Returns:
            (index, cosine) of the best `top_k`; the index is the candidate's,
            from 0.
        """
        return self._vectors.most_similar(
            query, candidates, top_k=top_k, pooling=pooling
        )


def _exported_pooling(hub_folder: Path) -> str | None:
    """Returns "pooled" for an encoder that was published for its vectors."""
    task_file = hub_folder / "assets" / base.TASK_FILE
    if not task_file.is_file():
        return None
    kind = paths.read_json(task_file, dict).get("kind")
    return "pooled" if kind == base.VECTORS else None


def _load_pretrained(source: str, vocab_file: paths.PathLike | None):
    """Returns the encoder and what fills masks, or None in its place."""
    from albert_tf2 import checkpoints
    from albert_tf2.checkpoints import weights
    from albert_tf2.finetuning import encoders

    if encoders.is_hub(source):
        loaded = encoders.load_encoder(source, vocab_file=vocab_file)
        hub_object = getattr(loaded.encoder, "resolved_object", None)
        return loaded, getattr(hub_object, "mlm", None)
    model = checkpoints.load_pretrained(source)
    tokenizer = weights.tokenizer_of(model, source, vocab_file)
    loaded = encoders.own_encoder(model.encoder, tokenizer, model.config)
    return loaded, model if "mlm" in model.loaded_heads else None
