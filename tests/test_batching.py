"""Common passes of the model: what goes together, what waits, what is told."""

import asyncio
import threading
import time

import pytest

from albert_tf2.prediction import batching
from albert_tf2.prediction.batching import Batcher, Busy


class Model:
    """Answers (kind, item) and remembers its passes; waits when it is told."""

    def __init__(self):
        self.passes = []
        self.began = threading.Event()
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, kind, items):
        self.began.set()
        self.may_go.wait(10)
        self.passes.append((kind, items))
        if "bad" in items:
            raise ValueError("a bad item")
        return [(kind, item) for item in items]


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def start(model):
    batchers = []

    def start(**settings):
        batchers.append(Batcher(model, **settings))
        return batchers[-1]

    yield start
    for batcher in batchers:
        model.may_go.set()
        assert batcher.close(5)


async def behind_a_pass(model, batcher, questions):
    """Asks while the model is busy, so that everything waits together."""
    model.may_go.clear()
    first = asyncio.create_task(batcher.ask("first", ["x"], length=1))
    while not model.began.is_set():
        await asyncio.sleep(0.001)
    tasks = [
        asyncio.create_task(batcher.ask(kind, items, length=length))
        for kind, items, length in questions
    ]
    await asyncio.sleep(0.01)
    model.may_go.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_is_answered_together_and_in_its_order(model, start):
    questions = [("a", [i, -i], 9) for i in range(20)]
    found = asyncio.run(behind_a_pass(model, start(), questions))
    assert found == [[("a", i), ("a", -i)] for i in range(20)]
    assert [len(items) for _, items in model.passes] == [1, 40]


def test_a_pass_holds_one_kind_and_about_one_length(model, start):
    questions = [
        ("a", ["short"], 3),
        ("b", ["other"], 3),
        ("a", ["long"], 500),
        ("a", ["short too"], 16),
        ("a", ["less short"], 17),
        ("a", ["as long"], 400),
    ]
    asyncio.run(behind_a_pass(model, start(), questions))
    assert model.passes[1:] == [
        ("a", ["short", "short too"]),
        ("b", ["other"]),
        ("a", ["long", "as long"]),
        ("a", ["less short"]),
    ]


def test_short_lengths_are_told_apart_and_long_ones_roughly():
    ends = [16, 32, 48, 64, 128, 256, 512]
    buckets = [batching.bucket(length) for length in ends]
    assert sorted(set(buckets)) == buckets
    assert [batching.bucket(end + 1) for end in ends[:-1]] == buckets[1:]
    assert batching.bucket(65) == batching.bucket(128)


def test_a_pass_is_not_too_large_unless_one_request_is(model, start):
    questions = [("a", [0] * n, 9) for n in (2, 2, 1, 9, 4)]
    found = asyncio.run(behind_a_pass(model, start(most_items=4), questions))
    assert [len(answers) for answers in found] == [2, 2, 1, 9, 4]
    assert [len(items) for _, items in model.passes] == [1, 4, 1, 9, 4]


def test_nobody_pays_for_a_neighbours_mistake(model, start):
    questions = [("a", [1], 9), ("a", ["bad"], 9), ("a", [2], 9)]
    one, bad, two = asyncio.run(behind_a_pass(model, start(), questions))
    assert (one, two) == ([("a", 1)], [("a", 2)])
    assert str(bad) == "a bad item"


def test_a_client_alone_waits_for_nobody_and_many_for_each_other(model, start):
    batcher = start(wait_seconds=1)

    async def seconds_of(*items):
        began = time.monotonic()
        await asyncio.gather(
            *(batcher.ask("a", [item], length=9) for item in items)
        )
        return time.monotonic() - began

    async def run():
        assert await seconds_of(1) < 0.8
        await behind_a_pass(model, batcher, [("a", [i], 9) for i in range(3)])
        model.passes.clear()
        # Three were there the last time: they go as soon as they are.
        assert await seconds_of(1, 2, 3) < 0.8
        assert model.passes == [("a", [1, 2, 3])]
        # One alone waits for them, and the next time no more.
        assert 0.9 < await seconds_of(1) < 5
        assert await seconds_of(1) < 0.8

    asyncio.run(run())


def test_a_full_queue_takes_no_more(model, start):
    batcher = start(most_waiting=4)
    questions = [("a", [0, 0], 9), ("a", [0] * 3, 9), ("a", [0, 0], 9)]
    found = asyncio.run(behind_a_pass(model, batcher, questions))
    assert [type(answer) for answer in found] == [list, Busy, list]
    # What is more than the queue by itself finds it empty.
    assert len(asyncio.run(batcher.ask("a", [0] * 9, length=9))) == 9


def test_whoever_goes_leaves_the_queue(model, start):
    batcher = start()

    async def run():
        model.may_go.clear()
        first = asyncio.create_task(batcher.ask("a", ["first"], length=9))
        while not model.began.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await batcher.ask("a", ["gone"], length=9)
        stays = asyncio.create_task(batcher.ask("a", ["stays"], length=9))
        await asyncio.sleep(0.01)
        model.may_go.set()
        await asyncio.gather(first, stays)

    asyncio.run(run())
    assert [items for _, items in model.passes] == [["first"], ["stays"]]


def test_the_end_answers_what_waits_and_takes_no_more(model):
    batcher = Batcher(model)

    async def run():
        model.may_go.clear()
        asked = asyncio.create_task(batcher.ask("a", [1], length=9))
        while not model.began.is_set():
            await asyncio.sleep(0.001)
        assert not batcher.close(0.05)  # in the middle of a pass
        with pytest.raises(Busy):
            await batcher.ask("a", [2], length=9)
        model.may_go.set()
        assert await asked == [("a", 1)]

    asyncio.run(run())
    assert batcher.close(5)


def test_passes_are_counted(model):
    seen = []
    batcher = Batcher(model, seen=lambda items, seconds: seen.append(items))
    asyncio.run(batcher.ask("a", [1, 2], length=9))
    assert batcher.close(5) and seen == [2]
