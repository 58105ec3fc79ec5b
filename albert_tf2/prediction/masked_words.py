"""What may stand at the [MASK]s of a text, by a pre-trained model."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from albert_tf2 import features
from albert_tf2.errors import UserError, shown
from albert_tf2.tasks import base
from albert_tf2.tasks.encoding import (
    LENGTH_MULTIPLE,
    Example,
    Packed,
    collate,
    pack,
)
from albert_tf2.text.tokenization import (
    MASK,
    PIECE_PREFIX,
    Tokenizer,
    is_chinese,
)

# Each takes 80 KB, at the released models' 21,128 tokens.
MASKS_AT_A_TIME = 256


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

    def fill(
        self, texts: Sequence[str], *, top_k: int = 5
    ) -> list[list[list[dict[str, Any]]]]:
        """See `Predictor.fill_masks`."""
        examples = [
            Example(row, (self._packed(text),))
            for row, text in enumerate(texts)
        ]
        places = [self._places(example.sequences[0]) for example in examples]
        found: list[Any] = [None] * len(examples)
        for rows in _batches(examples, places):
            part = [examples[row] for row in rows]
            inputs = collate(
                part,
                size=len(part),
                multiple=LENGTH_MULTIPLE,
                positions=self._positions,
            )
            positions = np.zeros([len(rows), len(places[rows[0]])], np.int32)
            for i, row in enumerate(rows):
                positions[i, : len(places[row])] = places[row]
            inputs[features.MASKED_LM_POSITIONS] = positions
            logits = self._step(inputs).numpy()  # [B, P, V]
            for row, of_text in zip(rows, logits, strict=True):
                found[row] = [
                    self._proposals(of_mask, top_k)
                    for of_mask in of_text[: len(places[row])]
                ]
        return found

    def _packed(self, text: str) -> Packed:
        """Returns a text's ids, after a look at its [MASK]s."""
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
        if len(self._places(packed)) < len(parts) - 1:
            raise UserError(
                f"the text is longer than {self.max_seq_length} tokens, and "
                f"a {MASK} stands after that"
            )
        return packed

    def _places(self, packed: Packed) -> list[int]:
        mask_id = self.tokenizer.vocabulary.mask_id
        return [i for i, token in enumerate(packed.ids) if token == mask_id]

    def _proposals(self, logits: np.ndarray, top_k: int) -> list[dict]:
        """Returns the best proposals of one [MASK], from its logits [V]."""
        names, groups = self._merged_tokens
        merged = np.bincount(groups, base.softmax(logits), len(names))
        # Those that can be among the best, before they are sorted: equal
        # ones in the vocabulary's order.
        least = np.partition(merged, -min(top_k, len(merged)))
        likely = np.flatnonzero(merged >= least[-min(top_k, len(merged))])
        best = likely[np.argsort(-merged[likely], kind="stable")][:top_k]
        return [
            {"text": names[i], "probability": round(merged[i], 6)} for i in best
        ]

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

        @tf.function(reduce_retracing=True, autograph=False)
        def step(inputs):
            return self._model(inputs, training=False)[features.MLM_LOGITS]

        return lambda inputs: step(
            {name: tf.constant(array) for name, array in inputs.items()}
        )


def _batches(
    examples: Sequence[Example], places: Sequence[list[int]]
) -> Iterator[list[int]]:
    """Yields rows that are computed together: most masks first.

    A mask's logits are as many as the vocabulary, so their number is bounded,
    and so are the masks that others are padded to.
    """
    order = sorted(range(len(examples)), key=lambda i: -len(places[i]))
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) + 1) * len(places[batch[0]]) > MASKS_AT_A_TIME:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
