"""Sentence order and n-gram whole-word masks, drawn afresh for whole batches.

A record holds the plain token ids of one or several pairs of segments. This
module turns a batch of them into what the model reads, in tensor ops with
static shapes: the same code runs eagerly, in `tf.data`, and inside an XLA
program on a TPU.

    tokens:      使 用 语 言 模 型 | 来 预 测 词 语
    word starts:  1  0  1  0  1  0 |  1  1  0  1  0
    one row:     [CLS] 来 预 测 词 语 [SEP] 使 用 [MASK] [MASK] 模 型 [SEP]
    labels:      order 1 (swapped); positions 9 10, ids 语 言

Randomness is counter-based: every draw is a hash of (seed, row, purpose,
index). So a row's mask does not depend on the batch size, on how many workers
share the batch, or on where a run was resumed.

Spans: a row's words are cut into tiles of 1..max_ngram words whose lengths
are drawn with p(n) proportional to 1/n (1909.11942, section 4.1). Segment
borders cut tiles. Tiles are taken in random order while they fit the budget.

Letters: S tokens stored in a row, M candidate tiles; else as in `features`.
"""

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

from albert_tf2 import features
from albert_tf2.errors import UserError, check_choice
from albert_tf2.records import draws, layout
from albert_tf2.settings import LABEL_STYLES, MAX_LENGTH, check_number
from albert_tf2.text.tokenization import (
    CHINESE_BLOCKS,
    PIECE_PREFIX,
    SPECIAL_TOKENS,
    Vocabulary,
)

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # the rest stays as it is (1810.04805)
# How often what is left of the budget is offered to the tiles that fit it.
REFILLS = 3


def row_keys(seed: int, rows: tf.Tensor) -> tf.Tensor:
    """Returns one random key per row, uint32 [B].

    Args:
        seed: Any integer.
        rows: int64 [B], the number of each row since the run began (step *
            global batch size + place in the batch), or since the first
            duplicate when masks are stored.
    """
    rows = tf.convert_to_tensor(rows, tf.int64)
    low = tf.cast(tf.bitwise.bitwise_and(rows, 0xFFFFFFFF), tf.uint32)
    high = tf.cast(tf.bitwise.right_shift(rows, 32), tf.uint32)
    key = tf.constant(seed & 0xFFFFFFFF, tf.uint32)
    key = draws.mix(key + tf.constant((seed >> 32) & 0xFFFFFFFF, tf.uint32))
    golden = tf.constant(draws.GOLDEN, tf.uint32)
    return draws.mix(draws.mix(key + high * golden) + low * golden)


def replacement_ids(vocabulary: Vocabulary) -> np.ndarray:
    """Returns the ids that may replace a masked token, int32.

    Differs from albert_zh, which draws from the whole vocabulary: 46 % `##`
    pieces, besides [unused] and special tokens.
    """
    kept = [
        number
        for number, token in enumerate(vocabulary.tokens)
        if not token.startswith(PIECE_PREFIX)
        and not (token.startswith("[unused") and token.endswith("]"))
        and token not in SPECIAL_TOKENS
    ]
    if not kept:
        raise UserError(
            "the vocabulary has no ordinary token, only special ones and "
            f"`{PIECE_PREFIX}` pieces: use another vocabulary"
        )
    return np.array(kept, np.int32)


def piece_ids(vocabulary: Vocabulary) -> np.ndarray:
    """Returns for every id the id of its `##` form, int32 [V].

    Only Chinese characters have one here: 灸 (4133) -> ##灸 (17190) in the
    released vocabulary. Everything else maps to itself.
    """
    table = np.arange(len(vocabulary), dtype=np.int32)
    for number, token in enumerate(vocabulary.tokens):
        if len(token) == 1 and any(
            first <= ord(token) <= last for first, last in CHINESE_BLOCKS
        ):
            table[number] = vocabulary.ids.get(PIECE_PREFIX + token, number)
    return table


def tile_length_thresholds(max_ngram: int) -> list[int]:
    """Returns 16-bit limits: a length exceeds n when the draw is >= limit n."""
    weights = 1.0 / np.arange(1, max_ngram + 1)
    shares = np.cumsum(weights / weights.sum())[:-1]
    return [round(float(share) * 65536) for share in shares]


def tile_count(words: int, max_ngram: int) -> int:
    """Returns how many tiles cover so many words, but for one row in 10^9."""
    lengths = np.arange(1, max_ngram + 1)
    shares = 1.0 / lengths / (1.0 / lengths).sum()
    mean = float(shares @ lengths)
    spread = float(shares @ (lengths - mean) ** 2) ** 0.5
    # The count of drawn lengths that fill n words has mean n / mean and, for
    # long rows, variance n * spread^2 / mean^3 (renewal theory); six standard
    # deviations are passed once in 10^9.
    needed = words / mean + 6.0 * spread * (words / mean**3) ** 0.5
    return min(words, math.ceil(needed) + 1)


@dataclasses.dataclass(frozen=True)
class Masker:
    """Turns batches of stored pairs into model inputs and labels.

    Example:
        >>> masker = Masker(vocabulary, max_seq_length=128,
        ...                 max_predictions_per_seq=20)
        >>> batch = masker(tokens, word_starts, segment_lengths,
        ...                row_keys(seed, rows))
    """

    vocabulary: Vocabulary
    max_seq_length: int = 512
    max_predictions_per_seq: int = 51
    masked_lm_prob: float = 0.10
    # Longest span in words; 1 is plain whole-word masking.
    max_ngram: int = 3
    # plain, or albert_zh: labels of all but the first character of a word are
    # `##` ids, which continuing the released weights needs.
    label_style: str = "plain"

    def __post_init__(self):
        check_choice("label_style", self.label_style, LABEL_STYLES)
        for name, kind, limits in (
            ("masked_lm_prob", float, {"above": 0.0, "below": 1.0}),
            ("max_predictions_per_seq", int, {"least": 1, "most": MAX_LENGTH}),
            ("max_ngram", int, {"least": 1, "most": MAX_LENGTH}),
        ):
            check_number(name, getattr(self, name), kind=kind, **limits)

    # The tables are the same for every batch.
    @functools.cached_property
    def _ordinary(self) -> np.ndarray:
        return replacement_ids(self.vocabulary)

    @functools.cached_property
    def _pieces(self) -> np.ndarray:
        return piece_ids(self.vocabulary)

    def __call__(
        self,
        tokens: tf.Tensor,
        word_starts: tf.Tensor,
        segment_lengths: tf.Tensor,
        keys: tf.Tensor,
        *,
        packed: bool | None = None,
    ) -> dict[str, tf.Tensor]:
        """Draws order and masks, and lays the rows out.

        Args:
            tokens: int32 [B, S], ids of a1 b1 a2 b2 ..., then zeros.
            word_starts: bool [B, S], whether a word begins here.
            segment_lengths: int32 [B, 2K]: a1, b1, a2, b2, ...; 0 0 for an
                absent pair, which must come last.
            keys: uint32 [B] of `row_keys`.
            packed: Whether to add the inputs that rows of several pairs
                need; by default if K > 1.

        Returns:
            The inputs and labels that `features` names, with T =
            `max_seq_length` and P = `max_predictions_per_seq`.
        """
        pairs = segment_lengths.shape[1] // 2
        words = number_words(word_starts, segment_lengths)  # [B, S]
        places = layout.Layout.draw(segment_lengths, keys)
        source, valid = self._draw_masked(words, segment_lengths, keys)
        source, positions, weights = layout.sort_by_place(places, source, valid)
        labels, hidden = self._replace(tokens, words, source, keys)

        batch = places.lay_out(tokens, self.max_seq_length, self.vocabulary)
        batch[features.INPUT_WORD_IDS] = layout.scatter(
            batch[features.INPUT_WORD_IDS], positions, hidden, weights
        )
        valid = tf.cast(weights, tf.int32)
        batch |= {
            features.MASKED_LM_POSITIONS: positions,
            features.MASKED_LM_IDS: labels * valid,
            features.MASKED_LM_WEIGHTS: weights,
            features.SENTENCE_ORDER_LABELS: places.swapped,
            features.SENTENCE_ORDER_WEIGHTS: tf.cast(
                places.present, tf.float32
            ),
        }
        if not (pairs > 1 if packed is None else packed):
            for name in features.PACKED_INPUTS:
                del batch[name]
        return batch

    def _draw_masked(self, words, segment_lengths, keys):
        """Returns the masked tokens: int32 [B, P] places in S, bool [B, P]."""
        first, last = self.draw_tiles(words, segment_lengths, keys)  # [B, M]
        count = tf.reduce_sum(segment_lengths, 1, keepdims=True)  # [B, 1]
        begin = tf.searchsorted(words, first + 1)  # [B, M] in tokens
        end = tf.minimum(tf.searchsorted(words, last + 1), count)
        # The same tile may be drawn twice: the first draw counts.
        candidates = first.shape[1]
        earlier = np.tri(candidates, k=-1, dtype=bool)
        again = tf.reduce_any(
            (first[:, :, None] == first[:, None, :]) & earlier, axis=-1
        )
        length = tf.where(again | (last <= first), 0, end - begin)
        budget = tf.cast(count, tf.float32) * self.masked_lm_prob
        budget = tf.clip_by_value(
            tf.cast(tf.round(budget), tf.int32), 1, self.max_predictions_per_seq
        )
        length, budget = self._at_least_a_word(
            words, count, (first, last), begin, length, budget
        )
        for _ in range(REFILLS):
            total = tf.cumsum(length, axis=1)
            taken = tf.where(total <= budget, total, 0)
            left = budget - tf.reduce_max(taken, axis=1, keepdims=True)
            # Whatever is longer than the rest can never be taken any more.
            length = tf.where((total > budget) & (length > left), 0, length)
        total = tf.cumsum(length, axis=1)
        length = tf.where(total <= budget, length, 0)
        total = tf.cumsum(length, axis=1)
        # Token p of the budget lies in the tile where the total passes p.
        order = tf.range(self.max_predictions_per_seq)[None, :]  # [1, P]
        order = tf.broadcast_to(
            order, [tf.shape(words)[0], self.max_predictions_per_seq]
        )
        tile = tf.searchsorted(total, order, side="right")  # [B, P]
        source = order + draws.take(begin - total + length, tile)
        valid = order < total[:, -1:]
        return tf.where(valid, source, 0), valid

    def _at_least_a_word(self, words, count, tiles, begin, length, budget):
        """Gives rows of which no tile fits the budget one word to mask.

        They are short, and all their words are longer than the budget: two of
        two characters each, for instance.
        """
        first, last = tiles
        drawn = tf.cast(last > first, tf.int32)
        one = tf.argmax(drawn, axis=1, output_type=tf.int32)  # [B]
        word = draws.take(first, one[:, None])  # [B, 1]
        size = tf.minimum(tf.searchsorted(words, word + 2), count)
        size -= draws.take(begin, one[:, None])
        fits = tf.reduce_any((length > 0) & (length <= budget), 1, True)
        needed = (
            ~fits
            & (tf.reduce_max(drawn, 1, True) > 0)
            & (size <= self.max_predictions_per_seq)
        )
        alone = tf.one_hot(one, length.shape[1], dtype=tf.int32) * size
        return tf.where(needed, alone, length), tf.where(needed, size, budget)

    def candidate_count(self) -> int:
        """Returns M: how many draws find enough different tiles, nearly surely.

        Drawing a share f of all tiles takes -ln(1 - f) draws per tile.
        """
        share = min(self.masked_lm_prob, 0.9)
        draws = -math.log(1.0 - share) / share * self.max_predictions_per_seq
        return math.ceil(1.05 * draws) + 8

    def draw_tiles(
        self, words: tf.Tensor, segment_lengths: tf.Tensor, keys: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws random tiles of words, with repetition.

        Args:
            words: int32 [B, S], the number of each token's word, from 1.
            segment_lengths: int32 [B, 2K], in tokens.
            keys: uint32 [B].

        Returns:
            (first, last): int32 [B, M], half-open, in words from 0; empty
            (last == first) where a draw hit nothing.
        """
        half = (tile_count(words.shape[1], self.max_ngram) + 1) // 2
        bits = draws.random_bits(keys, draws.LENGTHS, tf.range(half)[None, :])
        sixteen = tf.constant(16, tf.uint32)
        low = tf.bitwise.bitwise_and(bits, tf.constant(0xFFFF, tf.uint32))
        high = tf.bitwise.right_shift(bits, sixteen)
        drawn = tf.cast(tf.concat([low, high], 1), tf.int32)
        lengths = tf.ones_like(drawn)
        for limit in tile_length_thresholds(self.max_ngram):
            lengths += tf.cast(drawn >= limit, tf.int32)
        ends = tf.cumsum(lengths, axis=1)  # [B, tiles], in words

        # In words: where each segment ends, and where the next one begins.
        borders = draws.take(words, tf.cumsum(segment_lengths, axis=1) - 1)
        word_count = borders[:, -1:]  # [B, 1]
        inner = borders[:, :-1]  # [B, 2K-1]
        # A border inside a tile makes the rest of that tile one of its own.
        cut = tf.searchsorted(ends, inner, side="right")
        cut_first = tf.where(cut > 0, draws.take(ends, cut - 1), 0)
        inside = (cut_first < inner) & (inner < word_count)
        cut_last = tf.where(inside, draws.take(ends, cut), inner)

        tiles = tf.searchsorted(ends, word_count) + 1  # [B, 1]
        number = tf.range(self.candidate_count())[None, :]
        drawn = draws.below(
            draws.random_bits(keys, draws.TILES, number), tiles + inner.shape[1]
        )  # [B, M]
        whole = drawn < tiles
        first = tf.where(
            whole,
            tf.where(drawn > 0, draws.take(ends, drawn - 1), 0),
            draws.take(inner, drawn - tiles),
        )
        last = tf.where(
            whole, draws.take(ends, drawn), draws.take(cut_last, drawn - tiles)
        )
        segment = tf.searchsorted(borders, first, side="right")
        return first, tf.maximum(
            tf.minimum(last, draws.take(borders, segment)), first
        )

    def _replace(self, tokens, words, source, keys):
        """Returns labels and what the model sees instead, int32 [B, P]."""
        ids = draws.take(tokens, source)
        word = draws.take(words, source)
        # One draw for each word.
        share = draws.uniform(draws.random_bits(keys, draws.ACTION, word))
        bits = draws.random_bits(keys, draws.REPLACEMENT, source)
        other = tf.gather(
            self._ordinary, draws.below(bits, len(self._ordinary))
        )
        hidden = tf.where(
            share < MASK_SHARE,
            self.vocabulary.mask_id,
            tf.where(share < MASK_SHARE + RANDOM_SHARE, other, ids),
        )
        begins = (source == 0) | (draws.take(words, source - 1) != word)
        return self._spelled(ids, begins), hidden

    def _spelled(self, ids: tf.Tensor, begins: tf.Tensor) -> tf.Tensor:
        """Returns the labels of tokens, where `begins` says if a word does."""
        if self.label_style == "plain":
            return ids
        return tf.where(begins, ids, tf.gather(self._pieces, ids))

    def all_labels(
        self,
        tokens: tf.Tensor,
        word_starts: tf.Tensor,
        segment_lengths: tf.Tensor,
    ) -> tf.Tensor:
        """Returns what each stored token's label would be: int32 [N].

        Args:
            tokens: As for a call; so are the others.
            word_starts: Those of `tokens`.
            segment_lengths: Those of `tokens`.

        Returns:
            The labels of all tokens of all rows, without the padding.
        """
        words = number_words(word_starts, segment_lengths)  # [B, S]
        begins = tf.pad(words, [[0, 0], [1, 0]])[:, :-1] != words
        used = tf.sequence_mask(
            tf.reduce_sum(segment_lengths, 1), tokens.shape[1]
        )
        return self._spelled(tokens, begins)[used]


def number_words(
    word_starts: tf.Tensor, segment_lengths: tf.Tensor
) -> tf.Tensor:
    """Returns the number of each token's word, from 1: int32 [B, S].

    A segment's first token begins a word, even where a long word was cut in
    two: no span may reach across a border.
    """
    rows = tf.range(tf.shape(word_starts)[0])[:, None]
    begin = tf.cumsum(segment_lengths, axis=1, exclusive=True)  # [B, 2K]
    present = tf.cast(segment_lengths > 0, tf.int32)
    index = tf.stack([rows + 0 * begin, begin * present], axis=-1)
    starts = tf.cast(word_starts, tf.int32)
    starts = tf.tensor_scatter_nd_max(starts, index, present)
    return tf.cumsum(starts, axis=1)
