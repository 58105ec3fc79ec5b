"""Sentences as vectors, by any encoder: embeddings, cosines, neighbours."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from albert_tf2 import features
from albert_tf2.errors import UserError, check_choice
from albert_tf2.prediction.similarity import (
    Whitening,
    cosines,
    nearest,
)
from albert_tf2.prediction.texts import as_texts
from albert_tf2.settings import POOLINGS
from albert_tf2.tasks.encoding import (
    Example,
    collate,
    pack,
    prediction_order,
    tokenize_all,
)
from albert_tf2.text.tokenization import Tokenizer

DEFAULT_POOLING = "mean"


class SentenceVectors:
    """An encoder that embeds and compares sentences.

    Attributes:
        whitening: Applied to every vector from now on; None leaves them as
            they are.
    """

    def __init__(
        self,
        encoder: Any,
        tokenizer: Tokenizer,
        *,
        max_seq_length: int,
        positions: int,
        batch_size: int,
        tuned_pooling: str | None = None,
    ):
        """Keeps the parts; a graph is traced with the first texts.

        Args:
            encoder: An `AlbertEncoder` or a `hub.KerasLayer`.
            tokenizer: The encoder's.
            max_seq_length: Longer texts are cut.
            positions: See `collate`.
            batch_size: Texts in a step.
            tuned_pooling: The pooling of an encoder that was tuned for
                vectors: they have length 1, and no other pooling makes sense.
        """
        self._tuned_pooling = tuned_pooling
        self._encoder = encoder
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self._positions = positions
        self._batch_size = batch_size
        self._steps: dict[str, Any] = {}  # by pooling
        self.whitening: Whitening | None = None

    def embed(
        self, texts: str | Iterable[str], *, pooling: str | None = None
    ) -> np.ndarray:
        """See `Predictor.embed`."""
        pooling = self._pooling(pooling)
        vocabulary = self.tokenizer.vocabulary
        examples = [
            Example(i, (pack([ids], vocabulary, self.max_seq_length),))
            for i, ids in enumerate(
                tokenize_all(self.tokenizer, as_texts(texts))
            )
        ]
        if not examples:
            return np.zeros([0, 0], np.float32)
        stacked = np.stack(self._vectors(examples, pooling))
        return stacked if self.whitening is None else self.whitening(stacked)

    def _vectors(
        self, examples: Sequence[Example], pooling: str
    ) -> Sequence[np.ndarray]:
        """Returns the vector of each example."""
        from albert_tf2.finetuning.feeding import length_multiple

        vectors: list[Any] = [None] * len(examples)
        for indices in prediction_order(examples, self._batch_size):
            part = [examples[i] for i in indices]
            inputs = collate(
                part,
                size=len(part),
                multiple=length_multiple(),
                positions=self._positions,
            )
            found = self._step(pooling)(inputs).numpy()
            for i, vector in zip(indices, found, strict=True):
                vectors[i] = vector
        return vectors

    def _pooling(self, asked: str | None) -> str:
        """Returns what stands for a text: as asked, or the usual."""
        pooling = asked or self._tuned_pooling or DEFAULT_POOLING
        check_choice("pooling", pooling, POOLINGS)
        if self._tuned_pooling not in (None, pooling):
            raise UserError(
                f"this model was tuned for vectors by `pooling="
                f"{self._tuned_pooling}`, and others of it mean nothing. "
                f"Received: `pooling={pooling}`"
            )
        return pooling

    def _step(self, pooling: str):
        import tensorflow as tf

        from albert_tf2.model import fusion
        from albert_tf2.model.pooling import encode, pooled, sentence_vector

        pool = pooled if self._tuned_pooling is None else sentence_vector

        # Traced once, for all sizes: a program for each length would round
        # otherwise than the one for any.
        sizes = tf.TensorSpec([None, None], tf.int32)

        @tf.function(
            input_signature=[dict.fromkeys(features.ENCODER_INPUTS, sizes)],
            autograph=False,
        )
        def step(inputs):
            with fusion.known_chains(fusion.suits_devices()):
                outputs = encode(self._encoder, inputs, pooling, False)
            return pool(outputs, inputs[features.INPUT_MASK], pooling)

        if pooling not in self._steps:
            self._steps[pooling] = lambda inputs: step(
                {name: tf.constant(array) for name, array in inputs.items()}
            )
        return self._steps[pooling]

    def whiten(
        self,
        texts: str | Iterable[str],
        *,
        dimensions: int | None = None,
        pooling: str | None = None,
    ) -> Whitening:
        """See `Predictor.whiten`."""
        self.whitening = None
        self.whitening = Whitening.fit(
            self.embed(texts, pooling=pooling), dimensions
        )
        return self.whitening

    def similarity(
        self,
        texts_a: str | Iterable[str],
        texts_b: str | Iterable[str],
        *,
        pooling: str | None = None,
    ) -> np.ndarray:
        """See `Predictor.similarity`."""
        first, second = as_texts(texts_a), as_texts(texts_b)
        if len(first) != len(second):
            raise UserError(
                "`similarity` takes two lists of one length. Received: "
                f"{len(first)} and {len(second)}"
            )
        both = self.embed([*first, *second], pooling=pooling)
        return cosines(both[: len(first)], both[len(first) :])

    def most_similar(
        self,
        query: str,
        candidates: str | Iterable[str] | np.ndarray,
        *,
        top_k: int = 5,
        pooling: str | None = None,
    ) -> list[tuple[int, float]]:
        """See `Predictor.most_similar`."""
        if not isinstance(candidates, np.ndarray):
            candidates = self.embed(candidates, pooling=pooling)
        if not len(candidates):
            return []
        (found,) = nearest(
            self.embed([query], pooling=pooling), candidates, top_k=top_k
        )
        return found
