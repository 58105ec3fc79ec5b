"""What may stand at the [MASK]s of a text, by a pre-trained model."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from albert_tf2 import features
from albert_tf2.errors import UserError, shown
from albert_tf2.tasks import base
from albert_tf2.tasks.encoding import Example, collate, pack
from albert_tf2.text.tokenization import (
    MASK,
    PIECE_PREFIX,
    Tokenizer,
    is_chinese,
)


class MaskedWords:
    """A masked-word head over its encoder."""

    def __init__(
        self,
        model: Callable[..., dict[str, Any]],
        tokenizer: Tokenizer,
        *,
        max_seq_length: int,
        positions: int,
    ):
        """Keeps the parts; the graph is traced with the first text.

        Args:
            model: From encoder inputs and positions to outputs with
                `mlm_logits`: an `AlbertPretrainer`, or a hub encoder's `mlm`.
            tokenizer: The model's.
            max_seq_length: The most tokens of a text.
            positions: See `collate`.
        """
        self._model = model
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self._positions = positions

    def fill(self, text: str, *, top_k: int = 5) -> list[list[dict[str, Any]]]:
        """See `Predictor.fill_mask`."""
        vocabulary = self.tokenizer.vocabulary
        parts = text.split(MASK)
        if len(parts) == 1:
            raise UserError(
                f"the text holds no {MASK}. Received: {shown(text)}"
            )
        ids: list[int] = []
        for number, part in enumerate(parts):
            if number:
                ids.append(vocabulary.mask_id)
            ids += self.tokenizer.tokenize(part).ids
        packed = pack([ids], vocabulary, self.max_seq_length)
        places = [
            i
            for i, token in enumerate(packed.ids)
            if token == vocabulary.mask_id
        ]
        if len(places) < len(parts) - 1:
            raise UserError(
                f"the text is longer than {self.max_seq_length} tokens, and "
                f"a {MASK} stands after that"
            )
        inputs = collate(
            [Example(0, (packed,))], size=1, positions=self._positions
        )
        inputs[features.MASKED_LM_POSITIONS] = np.array([places], np.int32)
        names, groups = self._merged_tokens
        proposals = []
        for probabilities in base.softmax(self._step(inputs).numpy()[0]):
            merged = np.bincount(groups, probabilities, len(names))
            best = np.argsort(-merged, kind="stable")[:top_k]
            proposals.append(
                [
                    {"text": names[i], "probability": round(merged[i], 6)}
                    for i in best
                ]
            )
        return proposals

    @functools.cached_property
    def _merged_tokens(self) -> tuple[list[str], np.ndarray]:
        """What tokens are shown as, and which of these names each one has."""
        numbers: dict[str, int] = {}
        groups = []
        for token in self.tokenizer.vocabulary.tokens:
            piece = token.removeprefix(PIECE_PREFIX)
            is_character = len(piece) == 1 and is_chinese(piece)
            name = piece if is_character else token
            groups.append(numbers.setdefault(name, len(numbers)))
        return list(numbers), np.array(groups)

    @functools.cached_property
    def _step(self):
        import tensorflow as tf

        @tf.function(reduce_retracing=True)
        def step(inputs):
            return self._model(inputs, training=False)[features.MLM_LOGITS]

        return lambda inputs: step(
            {name: tf.constant(array) for name, array in inputs.items()}
        )
