"""What graphs of long texts share, against the Python it stands for."""

import random

import pytest
import tensorflow as tf

from albert_tf2.hub_export import choice_graph, graph_windows, preprocessor
from albert_tf2.tasks.encoding import shares, windows

TEXTS = ["", "a", "今天", "e\u0301🙂é", "👨‍👩‍👧今a\u2028"]


def test_windows_are_those_of_the_tasks():
    rng = random.Random(0)
    counts = [0, 1, 5, *(rng.randrange(60) for _ in range(200))]
    sizes = [rng.randrange(1, 14) for _ in counts]
    strides = [rng.randrange(1, size + 1) for size in sizes]
    found = graph_windows.Windows.of(
        *map(tf.constant, (counts, sizes, strides))
    )
    expected = [
        (row, *window)
        for row, given in enumerate(zip(counts, sizes, strides, strict=True))
        for window in windows(*given)
    ]
    assert [*zip(*(column.numpy() for column in found), strict=True)] == (
        expected
    )


def test_characters_of_bytes():
    rows, offsets, expected = [], [], []
    for row, text in enumerate(TEXTS):
        for place in range(len(text) + 1):
            rows.append(row)
            offsets.append(len(text[:place].encode()))
            expected.append(place)
    found = graph_windows.characters(
        tf.constant(TEXTS), tf.constant(rows), tf.constant(offsets, tf.int64)
    )
    assert found.numpy().tolist() == expected


@pytest.mark.parametrize("segments", [3, 4])
def test_the_longest_segments_give_first(segments):
    rng = random.Random(segments)
    rows = [[rng.randrange(12) for _ in range(segments)] for _ in range(500)]
    for budget in (0, 1, 7, 8, 9, 100):
        lengths = tf.transpose(tf.constant(rows))
        found = preprocessor._longest_give(lengths, tf.constant(budget))
        assert tf.transpose(found).numpy().tolist() == [
            shares(row, budget) for row in rows
        ]


def test_finding_strings():
    pairs = [
        ("今天#idiom#今天", "#idiom#"),
        ("aab", "ab"),
        ("ab", "abc"),
        ("", "a"),
        ("x今今", "今"),
        ("abcabd", "abd"),
        ("天", "今"),  # other bytes of one length
    ]
    texts, wanted = zip(*pairs, strict=True)
    found = choice_graph.find(tf.constant(texts), tf.constant(wanted))
    assert found.numpy().tolist() == [
        text.encode().find(part.encode()) for text, part in pairs
    ]


def test_steps_join_what_they_gave():
    for count in (0, 1, 32, 33, 70):
        rows = tf.range(count, dtype=tf.float32)[:, tf.newaxis]
        seen = []

        def double(part, seen=seen):
            seen.append(int(tf.shape(part["x"])[0]))
            return {"y": 2 * part["x"]}

        found = graph_windows.in_steps(
            double, {"x": rows}, {"y": tf.TensorSpec([None, 1], tf.float32)}
        )
        assert found["y"].numpy().tolist() == (2 * rows).numpy().tolist()
        assert max(seen) <= graph_windows.ROWS_IN_A_STEP
        assert len(seen) == max(1, -(-count // 32))
