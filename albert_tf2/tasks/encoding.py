"""Token ids to model inputs: packing, truncation, windows, batches.

Shapes: B batch, C choices, T sequence.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from albert_tf2 import features
from albert_tf2.errors import UserError
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

# Where each length of a batch costs something (a program that XLA compiles for
# it, tiles of a GPU), batches are padded to a multiple of this.
LENGTH_MULTIPLE = 16
# Characters that go through the bulk tokenizer at once.
BULK_CHARACTERS = 1_000_000


class Packed(NamedTuple):
    """One sequence as the model reads it; the two lists have one length."""

    ids: list[int]
    type_ids: list[int]


@dataclasses.dataclass(slots=True)
class Example:
    """What the model sees of a row.

    Attributes:
        row: Index of the row; a long row has several examples (windows).
        sequences: One packed sequence, or one per choice.
        label: A class, a (start, end) pair, or a class per token; None where
            the answer is unknown.
        origin: What decoding needs, as the task defines it.
    """

    row: int
    sequences: tuple[Packed, ...]
    label: Any = None
    origin: Any = None

    @property
    def length(self) -> int:
        return max(len(packed.ids) for packed in self.sequences)


def shares(lengths: Sequence[int], budget: int) -> list[int]:
    """Says how much of each segment stays when all must fit a budget.

    The longest segment gives first, as in the originals, so a short question
    stays whole beside a long text and two long ones keep equal halves:

        lengths 3 40, budget 20 -> 3 17        lengths 30 40 -> 10 10

    Raises:
        UserError: If the budget is negative.
    """
    if budget < 0:  # what is left could never fall to it
        raise UserError(
            f"`budget` must be at least 0. Received: `budget={budget}`"
        )
    kept = list(lengths)
    over = sum(kept) - budget
    while over > 0:
        longest = max(kept)
        below = max((n for n in kept if n < longest), default=0)
        tied = [i for i, n in enumerate(kept) if n == longest]
        each, more = divmod(over, len(tied))
        if each >= longest - below:
            each, more = longest - below, 0
        # The last of equal segments gives first.
        for place, i in enumerate(reversed(tied)):
            taken = each + (place < more)
            kept[i] -= taken
            over -= taken
    return kept


def pack(
    segments: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    max_seq_length: int,
) -> Packed:
    """Packs segments as [CLS] s1 [SEP] s2 [SEP] ..., cut to fit.

    The first segment has type 0, all others type 1.

    Raises:
        UserError: If there is no room for a token of each.
    """
    budget = max_seq_length - 1 - len(segments)
    texts = sum(map(bool, segments))  # an empty one needs no room
    if budget < texts:
        raise UserError(
            f"`max_seq_length` must be at least {1 + len(segments) + texts}, "
            f"for a token of each of {len(segments)} texts and what stands "
            f"between them. Received: `max_seq_length={max_seq_length}`"
        )
    kept = shares([len(segment) for segment in segments], budget)
    ids, type_ids = [vocabulary.cls_id], [0]
    for index, (segment, count) in enumerate(zip(segments, kept, strict=True)):
        ids.extend(segment[:count])
        ids.append(vocabulary.sep_id)
        type_ids.extend([min(index, 1)] * (count + 1))
    return Packed(ids, type_ids)


class Window(NamedTuple):
    """Tokens [start, end) of a long text, and those it decides about.

    Windows overlap; each token is decided by the window in which it has most
    context on its poorer side.
    """

    start: int
    end: int
    first_owned: int
    last_owned: int  # exclusive


def windows(length: int, size: int, stride: int) -> list[Window]:
    """Cuts a text of some tokens into overlapping windows.

    length 10, size 6, stride 3  ->  [0, 6) [3, 9) [6, 10)
    owned                            [0, 5) [5, 8) [8, 10)

    Raises:
        UserError: Unless 1 <= `stride` <= `size`: a window would never come
            to the end, or tokens would be in none.
    """
    if not 1 <= stride <= size:
        raise UserError(
            "windows must hold a token at least, and begin at most one window "
            f"apart. Received: `size={size}` and `stride={stride}`"
        )
    starts = [0]
    while starts[-1] + size < length:
        starts.append(starts[-1] + stride)
    ends = [min(start + size, length) for start in starts]
    # Between two windows the middle of their overlap is the border.
    borders = [
        (start + end + 1) // 2
        for start, end in zip(starts[1:], ends[:-1], strict=True)
    ]
    return [
        Window(*window)
        for window in zip(
            starts, ends, [0, *borders], [*borders, length], strict=True
        )
    ]


def tokenize_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Returns the ids of many texts; the same as one by one, much faster."""
    from albert_tf2.text.bulk_tokenization import BulkTokenizer

    bulk = BulkTokenizer(tokenizer)
    ids: list[list[int]] = []
    first = 0
    while first < len(texts):
        last, characters = first, 0
        while last < len(texts) and characters < BULK_CHARACTERS:
            characters += len(texts[last]) + 1
            last += 1
        part = texts[first:last]
        tokens = bulk.tokenize("\n".join(part))
        begins = np.cumsum([0] + [len(text) + 1 for text in part])
        borders = np.searchsorted(tokens.starts, begins)
        all_ids = tokens.ids.tolist()
        ids.extend(
            all_ids[borders[i] : borders[i + 1]] for i in range(len(part))
        )
        first = last
    return ids


def collate(
    examples: Sequence[Example],
    *,
    size: int,
    choices: int = 1,
    length: int | None = None,
    multiple: int = 1,
    positions: int | None = None,
) -> dict[str, np.ndarray]:
    """Makes a batch of model inputs.

    Args:
        examples: At most `size` examples.
        size: B; missing examples are rows of padding.
        choices: C, for tasks whose examples have several sequences.
        length: T; None takes that of the longest example.
        multiple: What the longest's is rounded up to a multiple of.
        positions: Those of the model, past which T is not rounded.

    Returns:
        int32 `input_word_ids`, `input_mask`, `input_type_ids`: [B, T], or
        [B, C, T] where C > 1; the mask of a missing choice is all 0.
    """
    if length is None:
        longest = max(example.length for example in examples)
        length = -(-longest // multiple) * multiple
        if positions is not None:
            length = max(longest, min(length, positions))
    arrays = np.zeros((3, size, choices, length), np.int32)
    for b, example in enumerate(examples):
        for c, packed in enumerate(example.sequences):
            count = len(packed.ids)
            arrays[0, b, c, :count] = packed.ids
            arrays[1, b, c, :count] = 1
            arrays[2, b, c, :count] = packed.type_ids
    if choices == 1:
        arrays = arrays[:, :, 0]
    return dict(zip(_COLLATED, arrays, strict=True))


_COLLATED = (
    features.INPUT_WORD_IDS,
    features.INPUT_MASK,
    features.INPUT_TYPE_IDS,
)


def training_order(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Draws the batches of one epoch: indices of examples, each once.

    Examples are shuffled, then sorted by length within stretches of 50
    batches, so that a batch has little padding, then the batches shuffled.
    The same seed and epoch give the same order: that is how a run resumes.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    stretch = 50 * batch_size
    batches = []
    for first in range(0, len(order), stretch):
        part = order[first : first + stretch]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [
            part[i : i + batch_size] for i in range(0, len(part), batch_size)
        ]
    return [batches[i] for i in rng.permutation(len(batches))]


def prediction_order(
    examples: Sequence[Example], batch_size: int
) -> Iterator[list[int]]:
    """Yields batches of indices, longest first: too big a batch fails early."""
    order = sorted(
        range(len(examples)), key=lambda i: examples[i].length, reverse=True
    )
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]
