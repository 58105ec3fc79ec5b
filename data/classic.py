"""Classic records: masked when they are written, as albert_zh writes them.

The masks come from the ops that training uses (`albert_tf2.records.masking`),
so there is one implementation; each pair is written `dupe_factor` times with
other masks. Prefer the default, dynamic masking: it needs no duplicates and
never shows the same mask twice.
"""

import os
from collections.abc import Sequence

import numpy as np

from albert_tf2 import features
from albert_tf2.text.tokenization import Vocabulary

from .build_config import BuildConfig
from .segments import SPECIAL_TOKENS_PER_PAIR, SegmentPair

# Rows masked at once: TensorFlow alone takes most of a worker's memory.
BATCH = 128


class ClassicWriter:
    """Serializes pairs as classic records; loads TensorFlow."""

    def __init__(self, config: BuildConfig, vocabulary: Vocabulary):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from albert_tf2.records import masking

        self._masking = masking
        self._stored = config.max_seq_length - SPECIAL_TOKENS_PER_PAIR
        self._dupe_factor = config.dupe_factor
        self._masker = masking.Masker(
            vocabulary,
            max_seq_length=config.max_seq_length,
            max_predictions_per_seq=config.max_predictions_per_seq,
            masked_lm_prob=config.masked_lm_prob,
            max_ngram=config.max_ngram,
            label_style=config.label_style,
        )

    def serialize(
        self,
        pairs: Sequence[SegmentPair],
        ids: np.ndarray,
        word_starts: np.ndarray,
        seed: int,
    ) -> list[bytes]:
        """Masks and serializes every pair `dupe_factor` times.

        Args:
            pairs: In positions of `ids`.
            ids: int32 [N], the tokens of the unit.
            word_starts: bool [N].
            seed: Of this unit: all its masks derive from it.
        """
        found = []
        for begin in range(0, len(pairs), BATCH):
            some = pairs[begin : begin + BATCH]
            tokens = np.zeros((len(some), self._stored), np.int32)
            starts = np.zeros(tokens.shape, bool)
            lengths = np.zeros((len(some), 2), np.int32)
            for row, (start, middle, end) in enumerate(some):
                tokens[row, : end - start] = ids[start:end]
                starts[row, : end - start] = word_starts[start:end]
                lengths[row] = middle - start, end - middle
            rows = np.arange(begin, begin + len(some), dtype=np.int64)
            for duplicate in range(self._dupe_factor):
                keys = self._masking.row_keys(
                    seed, rows + duplicate * len(pairs)
                )
                batch = self._masker(tokens, starts, lengths, keys)
                found.extend(_examples(batch))
        return found


def _examples(batch: dict) -> list[bytes]:
    """Serializes a batch under the keys of the originals."""
    import tensorflow as tf

    columns = {
        key: batch[name].numpy()
        for key, name in features.CLASSIC_TO_BATCH.items()
    }
    found = []
    for row in range(len(columns[features.CLASSIC_INPUT_IDS])):
        example = tf.train.Example()
        for key, column in columns.items():
            feature = example.features.feature[key]
            if column.dtype == np.float32:
                feature.float_list.value.extend(column[row].tolist())
            else:
                feature.int64_list.value.extend(column[row].tolist())
        # Maps have no order of their own; the same bytes need one.
        found.append(example.SerializeToString(deterministic=True))
    return found
