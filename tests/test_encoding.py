"""Packing and batches: no sequence is longer than its model reads."""

import pytest

from albert_tf2 import Vocabulary
from albert_tf2.tasks.encoding import (
    Example,
    Packed,
    collate,
    pack,
    prediction_order,
)
from albert_tf2.text.tokenization import SPECIAL_TOKENS

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "一"])


@pytest.mark.parametrize(
    "longest, positions, length",
    [(33, None, 48), (33, 50, 48), (49, 50, 50), (50, 50, 50), (3, 8, 8)],
)
def test_batches_are_not_rounded_past_the_positions(longest, positions, length):
    packed = [Packed([5] * n, [0] * n) for n in (2, longest)]
    examples = [Example(i, (one,)) for i, one in enumerate(packed)]
    batch = collate(examples, size=2, multiple=16, positions=positions)
    assert batch["input_mask"].shape == (2, length)
    assert batch["input_mask"].sum(1).tolist() == [2, longest]


def test_a_batch_is_as_long_as_its_longest():
    packed = [Packed([5] * n, [0] * n) for n in (2, 13)]
    examples = [Example(i, (one,)) for i, one in enumerate(packed)]
    assert collate(examples, size=2)["input_word_ids"].shape == (2, 13)


def test_the_longest_batch_is_predicted_first():
    packed = [Packed([5] * n, [0] * n) for n in (3, 9, 5)]
    examples = [Example(i, (one,)) for i, one in enumerate(packed)]
    assert list(prediction_order(examples, 2)) == [[1, 2], [0]]


def test_all_segments_but_the_first_have_type_1():
    packed = pack([[5], [5], [5]], VOCABULARY, 16)
    assert packed.type_ids == [0, 0, 0, 1, 1, 1, 1]
