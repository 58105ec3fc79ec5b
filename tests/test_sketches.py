"""Counts in bounded memory, against counting everything."""

from collections import Counter

import numpy as np
import pytest

from albert_tf2.data import duplicates, sketches


def test_lengths_are_exact_where_it_says_so():
    rng = np.random.default_rng(1)
    drawn = np.round(10 ** rng.uniform(0, 6, 20_001)).astype(np.int64)
    found = sketches.Lengths()
    for some in np.array_split(drawn, 7):
        found.add(some)
    assert (found.count, found.sum) == (len(drawn), drawn.sum())
    assert found.longest == drawn.max()
    for limit in (1, 5, 500, 4096, 8192, 32768, 1 << 19):
        assert found.up_to(limit) == (drawn <= limit).sum()
    assert found.median() == np.sort(drawn)[len(drawn) // 2]
    long = sketches.Lengths()
    long.add(drawn * 1000)
    assert long.median() == pytest.approx(1000 * np.median(drawn), rel=0.011)
    one = sketches.Lengths()
    one.add(np.array([101_465]))
    assert one.median() == 101_465  # never beyond the longest
    assert sketches.Lengths().median() == 0


def test_the_commonest_stay_and_errors_are_told():
    rng = np.random.default_rng(2)
    drawn = np.minimum(rng.zipf(1.3, 50_000), 10**9)
    exact = Counter(drawn.tolist())
    found = sketches.Commonest(most=200)
    for some in np.array_split(drawn, 40):
        found.add({n: (c, f"<{n}>") for n, c in Counter(some.tolist()).items()})
    assert 0 < found.error <= len(drawn) / 200
    ranked = found.ranked(10)
    assert [r[0] for r in ranked] == [n for n, _ in exact.most_common(10)]
    for thing, count, remark in ranked:
        assert exact[thing] - found.error <= count <= exact[thing]
        assert remark == f"<{thing}>"
    assert len(found._found) <= 400
    small = sketches.Commonest(most=200)
    small.add({"b": (2, "first"), "a": (2, "x")})
    small.add({"b": (1, "second")})
    assert small.ranked(9) == [("b", 3, "first"), ("a", 2, "x")]
    assert small.error == 0


def keys_of(numbers):
    """Keys of documents that are alike where their numbers are."""
    numbers = np.asarray(numbers, np.uint64)
    mixed = duplicates._mixed(numbers + np.uint64(1))
    near = mixed[:, None] + np.arange(duplicates.BANDS, dtype=np.uint64)
    return duplicates.Keys(mixed, near, duplicates._mixed(mixed))


def test_few_documents_are_all_compared():
    sample = sketches.DocumentSample(most=100)
    sample.add(keys_of([1, 2, 3, 2]), 0)
    keys = keys_of([7, 8])
    keys.near[1, 5] = keys_of([3]).near[0, 5]  # 8 is nearly 3
    sample.add(keys, 1000)
    sample.add(keys_of([7, 2]), 2000)
    assert sample.duplicates() == (3, 1)
    assert (sample.share, sample.error()) == (1.0, 0.0)
    # Copies take no place.
    for place in range(60):
        sample.add(keys_of([1, 2, 3]), 3000 + 10 * place)
    assert sample.duplicates() == (3 + 180, 1)
    assert sample.share == 1.0


def test_of_many_documents_a_share_is_enough():
    rng = np.random.default_rng(3)
    numbers = rng.permutation(
        np.concatenate([np.arange(60_000), np.arange(9_000)])
    )
    results = []
    for pieces in (7, 100):
        sample = sketches.DocumentSample(most=2000)
        begin = 0
        for some in np.array_split(numbers, pieces):
            sample.add(keys_of(some), begin)
            begin += len(some)
        exact, _ = sample.duplicates()
        assert sample.share == 2.0**-5 and len(sample._rows) <= 2000
        assert abs(exact - 9_000) < sample.error() * len(numbers) * 1.5
        results.append(exact)
    assert results[0] == results[1]  # however it came


def test_alike_documents_are_drawn_together():
    """`Keys.least` agrees as often as 5-grams do."""
    rng = np.random.default_rng(4)
    agreed = 0
    for _ in range(200):
        ids = rng.integers(0, 2000, 300).astype(np.uint64)
        other = ids.copy()
        other[150] = 2001  # 5 of 296 5-grams: J = 0.97
        both = np.concatenate([ids, other])
        numbers = duplicates._minima(
            both, np.repeat([0, 1], 300), np.zeros(2, np.uint64)
        )
        least = numbers.min(axis=1)
        agreed += least[0] == least[1]
    assert agreed > 180
