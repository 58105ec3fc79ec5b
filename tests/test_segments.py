"""Segment pairs and their packing: properties over many documents."""

import random

import numpy as np
import pytest

from albert_tf2.data import segments


def pairs_of(lengths, *, max_tokens, short_seq_prob=0.0, seed=0, starts=None):
    ends = np.cumsum(lengths).tolist()
    if starts is None:
        starts = np.ones(ends[-1], bool)
    return segments.pairs_of_document(
        ends,
        starts,
        max_tokens=max_tokens,
        short_seq_prob=short_seq_prob,
        rng=segments.rng_of("test", seed),
    )


@pytest.mark.parametrize("seed", range(200))
def test_pairs_cover_the_document_without_gaps(seed):
    rng = random.Random(seed)
    sizes = rng.choice([[1, 2, 10, 30, 60, 400], [20, 30, 40], [1], [900]])
    lengths = rng.choices(sizes, k=rng.randrange(1, 50))
    max_tokens = rng.choice([2, 13, 125, 509])
    starts = np.array([rng.random() < 0.6 for _ in range(sum(lengths))])
    pairs = pairs_of(
        lengths, max_tokens=max_tokens, short_seq_prob=0.3, seed=seed,
        starts=starts,
    )  # fmt: skip
    position = 0
    for start, middle, end in pairs:
        assert start == position
        assert start < middle < end
        assert end - start <= max_tokens
        position = end
    assert sum(lengths) - position <= 1


def test_pairs_are_cut_between_sentences_where_two_fit():
    lengths = [20, 30, 25, 40, 35, 20, 30, 15] * 5
    ends = set(np.cumsum(lengths).tolist())
    for seed in range(50):
        for pair in pairs_of(lengths, max_tokens=125, seed=seed):
            assert pair.middle in ends and pair.end in ends


def test_every_sentence_border_may_begin_segment_b():
    middles = {
        pairs_of([10, 10, 10, 10], max_tokens=100, seed=seed)[0].middle
        for seed in range(60)
    }
    assert middles == {10, 20, 30}


def test_the_last_sentence_keeps_a_companion():
    # Four sentences fit in 40, but then the fifth would be alone.
    pairs = pairs_of([10] * 5, max_tokens=40)
    assert [pair.end for pair in pairs] == [30, 50]
    assert pairs[1].middle == 40


def test_long_sentences_are_cut_at_words():
    starts = np.zeros(1000, bool)
    starts[::4] = True
    pairs = pairs_of([990, 10], max_tokens=101, starts=starts)
    assert all(p.middle % 4 == 0 for p in pairs[:-1])
    assert [p.end for p in pairs[:3]] == [100, 200, 300]


def test_a_token_is_not_left_alone_by_a_cut():
    pairs = pairs_of([11], max_tokens=10)
    assert [(p.start, p.end) for p in pairs] == [(0, 9), (9, 11)]


def test_one_token_makes_no_pair():
    assert pairs_of([1], max_tokens=10) == []
    assert pairs_of([2], max_tokens=10) == [(0, 1, 2)]


def test_short_pairs_respect_their_target():
    """Lengths are drawn evenly up to the maximum, for one pair in ten."""
    lengths = [1] * 2_000_000  # sentences of one token fit any target
    pairs = pairs_of(lengths, max_tokens=102, short_seq_prob=0.1)
    sizes = np.array([p.end - p.start for p in pairs])
    short = sizes[sizes < 102]
    expected = len(pairs) * 0.1 * 100 / 101  # the maximum may be drawn too
    assert abs(len(short) - expected) < 5 * expected**0.5
    counts = np.histogram(short, bins=10, range=(2, 102))[0]
    # Chi-square with 9 degrees of freedom: 27.9 is the 0.1 % point.
    even = len(short) / 10
    assert ((counts - even) ** 2 / even).sum() < 27.9


def test_the_generator_depends_on_its_key_alone():
    first = segments.rng_of(1, "a.txt", 2).random()
    assert first == segments.rng_of(1, "a.txt", 2).random()
    others = {
        segments.rng_of(*k).random()
        for k in [
            (2, "a.txt", 2),
            (1, "b.txt", 2),
            (1, "a.txt", 3),
            (1, "a.txt2"),
        ]
    }
    assert len(others | {first}) == 5


@pytest.mark.parametrize("max_pairs", [1, 3, 16])
def test_packing_keeps_every_pair_within_the_row(max_pairs):
    rng = random.Random(max_pairs)
    costs = [rng.randrange(5, 129) for _ in range(3000)]
    rows = segments.pack(costs, row_size=128, max_pairs=max_pairs)
    assert sorted(pair for row in rows for pair in row) == list(range(3000))
    for row in rows:
        assert sum(costs[pair] for pair in row) <= 128
        assert len(row) <= max_pairs
        assert row == sorted(row)
    if max_pairs == 16:  # a lower bound that no packing can beat by much
        assert sum(costs) / (128 * len(rows)) > 0.99


def test_a_pair_goes_where_the_least_room_is_left():
    # 6 and 5 open two rows; 4 just fits behind the 6, 3 behind the 5.
    rows = segments.pack([6, 5, 4, 3], row_size=10, max_pairs=4)
    assert rows == [[0, 2], [1, 3]]
