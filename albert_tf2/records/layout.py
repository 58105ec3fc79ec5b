"""Where the stored tokens of a batch go in the rows that the model reads.

    stored:  a1 a2 b1 | c1 d1            two pairs, A B A B
    row:     [CLS] a1 a2 [SEP] b1 [SEP] [CLS] d1 [SEP] c1 [SEP] [PAD] ...

The second pair is swapped here. Letters: S tokens stored in a row; else as in
`features`.
"""

import dataclasses

import tensorflow as tf

from albert_tf2 import features
from albert_tf2.records import draws
from albert_tf2.text.tokenization import Vocabulary


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each stored token of a batch goes: [CLS] x [SEP] y [SEP] ..."""

    swapped: tf.Tensor  # int32 [B, K]
    present: tf.Tensor  # bool [B, K]
    pair_begin: tf.Tensor  # int32 [B, K], in the row of T
    piece_ends: tf.Tensor  # int32 [B, 2K]: [CLS] x [SEP], then y [SEP]
    piece_shift: tf.Tensor  # int32 [B, 2K]: place in T minus place in S
    segment_ends: tf.Tensor  # int32 [B, 2K], in S
    segment_shift: tf.Tensor  # int32 [B, 2K], segments in stored order

    @classmethod
    def draw(cls, segment_lengths: tf.Tensor, keys: tf.Tensor) -> "Layout":
        """Draws the order of each pair with equal chances."""
        pairs = segment_lengths.shape[1] // 2
        lengths = tf.reshape(segment_lengths, [-1, pairs, 2])  # [B, K, 2]
        present = tf.reduce_sum(lengths, -1) > 0  # [B, K]
        bits = draws.random_bits(keys, draws.ORDER, tf.range(pairs)[None, :])
        swapped = (draws.uniform(bits) < 0.5) & present
        begin = tf.reshape(
            tf.cumsum(segment_lengths, axis=1, exclusive=True), [-1, pairs, 2]
        )
        swap = swapped[:, :, None]
        ordered = tf.where(swap, lengths[:, :, ::-1], lengths)
        specials = tf.constant([2, 1]) * tf.cast(present, tf.int32)[..., None]
        sizes = tf.reshape(ordered + specials, [-1, 2 * pairs])
        ends = tf.cumsum(sizes, axis=1)  # [B, 2K]
        piece_begin = tf.reshape(ends - sizes, [-1, pairs, 2])
        # The first piece opens with [CLS].
        text_begin = piece_begin + tf.constant([1, 0])
        shift = text_begin - tf.where(swap, begin[:, :, ::-1], begin)
        return cls(
            swapped=tf.cast(swapped, tf.int32),
            present=present,
            pair_begin=piece_begin[:, :, 0],
            piece_ends=ends,
            piece_shift=tf.reshape(shift, [-1, 2 * pairs]),
            segment_ends=tf.cumsum(segment_lengths, axis=1),
            segment_shift=tf.reshape(
                tf.where(swap, shift[:, :, ::-1], shift), [-1, 2 * pairs]
            ),
        )

    def lay_out(
        self, tokens: tf.Tensor, max_seq_length: int, vocabulary: Vocabulary
    ) -> dict[str, tf.Tensor]:
        """Returns the encoder's inputs for unmasked rows, [B, T] each."""
        place = tf.range(max_seq_length)[None, :]  # [1, T]
        place = tf.broadcast_to(place, [tf.shape(tokens)[0], max_seq_length])
        piece = tf.searchsorted(self.piece_ends, place, side="right")
        begin = tf.repeat(self.pair_begin, 2, axis=1)  # [B, 2K]
        table = tf.stack([self.piece_shift, self.piece_ends, begin], -1)
        # One more piece for the padding: no token, no end, no beginning.
        padding = tf.constant([[0, 0], [0, 1], [0, 0]])
        table = tf.pad(table, padding, constant_values=-1)
        shift, end, begin = tf.unstack(
            tf.gather(table, piece, batch_dims=1), axis=-1
        )  # [B, T] each
        filled = begin >= 0
        first, last = place == begin, place == end - 1
        special = tf.where(
            first,
            vocabulary.cls_id,
            tf.where(last, vocabulary.sep_id, vocabulary.padding_id),
        )
        text = filled & ~(first | last)
        ids = tf.where(text, draws.take(tokens, place - shift), special)
        mask = tf.cast(filled, tf.int32)
        return {
            features.INPUT_WORD_IDS: ids,
            features.INPUT_MASK: mask,
            # Bits, because a division takes a CPU ten times as long.
            features.INPUT_TYPE_IDS: tf.bitwise.bitwise_and(piece, mask),
            features.INPUT_PAIR_IDS: (tf.bitwise.right_shift(piece, 1) + 1)
            * mask,
            features.INPUT_POSITION_IDS: (place - begin) * mask,
            features.CLS_POSITIONS: self.pair_begin
            * tf.cast(self.present, tf.int32),
        }


def sort_by_place(layout: Layout, source: tf.Tensor, valid: tf.Tensor):
    """Orders masked tokens by their place in the row.

    Returns:
        (source, positions, weights): int32, int32, float32 [B, P]; the
        absent ones last, with position and weight 0.
    """
    segment = tf.searchsorted(layout.segment_ends, source, side="right")
    positions = source + draws.take(layout.segment_shift, segment)
    # One sort moves both: the place decides, the source rides along.
    key = tf.where(valid, positions * 65536 + source, tf.int32.max)
    key = tf.sort(key, axis=1)
    valid = key < tf.int32.max
    source = tf.where(valid, tf.bitwise.bitwise_and(key, 0xFFFF), 0)
    positions = tf.where(valid, tf.bitwise.right_shift(key, 16), 0)
    return source, positions, tf.cast(valid, tf.float32)


def scatter(ids, positions, hidden, weights):
    """Writes `hidden` [B, P] at `positions` of `ids` [B, T] where weighted."""
    # Absent predictions rewrite position 0 with what stands there.
    value = tf.where(weights > 0, hidden, ids[:, :1])
    rows = tf.range(tf.shape(ids)[0])[:, None] + 0 * positions
    return tf.tensor_scatter_nd_update(
        ids, tf.stack([rows, positions], -1), value
    )
