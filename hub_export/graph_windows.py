"""What graphs of long texts share: windows, offsets, steps of many rows.

The windows are those of `tasks.encoding.windows`, and offsets count
characters, as `Tokenizer.tokenize` counts them.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from .preprocessor import Preprocessor

Tensors = dict[str, tf.Tensor]
# Rows that go through the model at once: a long text may have hundreds of
# windows, and attention's memory grows with their number.
ROWS_IN_A_STEP = 32


class Tokens(NamedTuple):
    """Texts [B], cut; of each of all their tokens, where it stands.

    Attributes:
        text: string [B], without invalid UTF-8: what offsets count in.
        ids: int32 ragged [B, (tokens)].
        starts: int64 [tokens], bytes.
        limits: int64 [tokens], bytes; exclusive.
    """

    text: tf.Tensor
    ids: tf.RaggedTensor
    starts: tf.Tensor
    limits: tf.Tensor

    @classmethod
    def of(cls, text: tf.Tensor, preprocessor: Preprocessor) -> "Tokens":
        return cls(*preprocessor.tokenize.cut_with_offsets(text))

    @property
    def counts(self) -> tf.Tensor:
        """Tokens of each text: int32 [B]."""
        return tf.cast(self.ids.row_lengths(), tf.int32)

    @property
    def firsts(self) -> tf.Tensor:
        """Index of each text's first token among all: int32 [B]."""
        return tf.cast(self.ids.row_starts(), tf.int32)


class Windows(NamedTuple):
    """The windows of all texts, one after the other: int32 [W] each.

    Attributes:
        rows: Which text.
        starts, ends: Its tokens that the window holds.
        first_owned, last_owned: Those that it decides about.
    """

    rows: tf.Tensor
    starts: tf.Tensor
    ends: tf.Tensor
    first_owned: tf.Tensor
    last_owned: tf.Tensor

    @classmethod
    def of(
        cls, counts: tf.Tensor, sizes: tf.Tensor, strides: tf.Tensor
    ) -> "Windows":
        """Cuts texts of some tokens; all arguments are int32 [B]."""
        more = tf.maximum(counts - sizes, 0)
        numbers = 1 + (more + strides - 1) // strides
        rows = tf.repeat(tf.range(tf.size(counts)), numbers)
        firsts = tf.gather(tf.cumsum(numbers, exclusive=True), rows)
        place = tf.range(tf.size(rows)) - firsts  # 0, 1, ... in its text
        count, size = tf.gather(counts, rows), tf.gather(sizes, rows)
        stride = tf.gather(strides, rows)
        starts = place * stride
        ends = tf.minimum(starts + size, count)
        # Between two windows the middle of their overlap is the border.
        last_owned = (starts + stride + ends + 1) // 2
        before = (starts + (starts - stride + size) + 1) // 2
        is_last = place == tf.gather(numbers, rows) - 1
        return cls(
            rows,
            starts,
            ends,
            tf.where(place == 0, 0, before),
            tf.where(is_last, count, last_owned),
        )

    def segment(self, tokens: Tokens) -> tf.RaggedTensor:
        """Returns what each window holds: int32 ragged [W, (tokens)]."""
        first = tf.gather(tokens.firsts, self.rows)
        places = tf.ragged.range(first + self.starts, first + self.ends)
        return tf.RaggedTensor.from_row_splits(
            tf.gather(tokens.ids.flat_values, places.flat_values),
            places.row_splits,
            validate=False,
        )


def characters(
    text: tf.Tensor, rows: tf.Tensor, offsets: tf.Tensor
) -> tf.Tensor:
    """Turns offsets in bytes into offsets in characters: int32 [n].

    Args:
        text: string [B], valid UTF-8.
        rows: int [n], the text of each offset.
        offsets: int64 [n].
    """
    sizes = tf.cast(tf.strings.length(text), tf.int64)
    row_starts = tf.gather(tf.cumsum(sizes, exclusive=True), rows)
    every_byte = tf.io.decode_raw(tf.strings.reduce_join(text), tf.uint8)
    begins = tf.bitwise.bitwise_and(every_byte, 0xC0) != 0x80
    before = tf.pad(tf.cumsum(tf.cast(begins, tf.int32)), [[1, 0]])
    return tf.gather(before, row_starts + offsets) - tf.gather(
        before, row_starts
    )


def in_steps(
    function: Callable[[Tensors], Tensors],
    inputs: Tensors,
    outputs: dict[str, tf.TensorSpec],
    *,
    rows: int = ROWS_IN_A_STEP,
) -> Tensors:
    """Calls a function of rows with some rows at a time.

    Args:
        function: From tensors [n, ...] to tensors [n, ...].
        inputs: Tensors [N, ...].
        outputs: Of the function.
        rows: The most that a call gets.

    Returns:
        Its outputs [N, ...].
    """
    count = tf.shape(next(iter(inputs.values())))[0]
    # One step at least: its shapes are those of no rows, too.
    steps = tf.maximum((count + rows - 1) // rows, 1)
    arrays = {
        name: tf.TensorArray(
            spec.dtype, steps, element_shape=spec.shape, infer_shape=False
        )
        for name, spec in outputs.items()
    }

    def step(index, arrays):
        part = slice(index * rows, (index + 1) * rows)
        found = function({name: value[part] for name, value in inputs.items()})
        return index + 1, {
            name: array.write(index, found[name])
            for name, array in arrays.items()
        }

    _, arrays = tf.while_loop(
        lambda index, _: index < steps,
        step,
        (0, arrays),
        parallel_iterations=1,
    )
    return {name: array.concat() for name, array in arrays.items()}
