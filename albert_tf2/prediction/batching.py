"""Requests of many clients, answered in common passes of the model.

A pass over thirty short texts takes little longer than one over a single text.
One thread owns the model, and nothing else calls it:

    waiting   classify 9   classify 12   tag 200   classify 11   (tokens)
    a pass    classify 9   classify 12             classify 11   together
    the next                             tag 200

It takes what has waited longest, and with it what is of the same kind and of
about the same length, for all are padded to the longest. While it computes, the
next requests gather. When it falls idle it waits for as many as there were
last, for `wait_seconds` at most: a client alone waits for nobody.
"""

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

# Texts that differ by fewer tokens share a pass.
STEP = 16
# Up to so many steps texts of each are computed by themselves; beyond, those
# of up to twice as many together.
FINE_STEPS = 4


def bucket(length: int) -> int:
    """Numbers the lengths that share a pass.

    tokens  1-16  17-32  33-48  49-64  65-128  129-256
    bucket     1      2      3      4       7        8
    """
    steps = -(-length // STEP)
    if steps <= FINE_STEPS:
        return steps
    return FINE_STEPS + (steps - 1).bit_length()


class Busy(Exception):
    """So much is waiting that no more is taken."""


@dataclasses.dataclass(eq=False, slots=True)
class _Work:
    """What one request asks.

    Attributes:
        group: What may be answered in one pass with it.
        items: What is asked.
        future: Takes the answers, on its own event loop.
        arrived: When it began to wait, in seconds of `time.monotonic`.
    """

    group: tuple[Hashable, int]
    items: Sequence[Any]
    future: asyncio.Future
    arrived: float


class Batcher:
    """A queue, and the thread that answers what stands in it."""

    def __init__(
        self,
        answer: Callable[[Any, list[Any]], Sequence[Any]],
        *,
        most_items: int = 64,
        most_waiting: int = 1024,
        wait_seconds: float = 0.005,
        seen: Callable[[int, float], None] | None = None,
    ):
        """Starts the thread.

        Args:
            answer: From a kind and a list of items to an answer for each. It
                is called by one thread.
            most_items: Of one pass. A request that holds more is answered by
                itself.
            most_waiting: Items; what would make them more is refused.
            wait_seconds: How long a request waits for others at most, when
                the thread is idle.
            seen: Told of each pass: how many items, and seconds.
        """
        self._answer = answer
        self._most_items = most_items
        self._most_waiting = most_waiting
        self._wait_seconds = wait_seconds
        self._seen = seen
        self._changed = threading.Condition()
        self._waiting: list[_Work] = []
        self._expected = 1  # requests, as the last time
        self._closed = False
        # A daemon: whoever ends the process need not wait for a pass.
        self._thread = threading.Thread(
            target=self._run, name="batcher", daemon=True
        )
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return sum(len(work.items) for work in list(self._waiting))

    async def ask(
        self, kind: Hashable, items: Sequence[Any], *, length: int
    ) -> list[Any]:
        """Returns the answers to some items, in their order.

        Whoever is cancelled while it waits leaves the queue.

        Args:
            kind: The kind of question; only equal kinds share a pass.
            items: What is asked.
            length: Of the longest item, in tokens or nearly so.

        Raises:
            Busy: If too much waits already, or after `close`.
        """
        work = _Work(
            (kind, bucket(length)),
            items,
            asyncio.get_running_loop().create_future(),
            time.monotonic(),
        )
        with self._changed:
            waiting = self.waiting
            if (
                self._closed
                or waiting
                and (waiting + len(items) > self._most_waiting)
            ):
                raise Busy
            self._waiting.append(work)
            # A thread that waits for more is not woken by each.
            if len(self._waiting) in (1, self._expected):
                self._changed.notify()
        return await work.future

    def close(self, seconds: float) -> bool:
        """Takes no more; returns whether all was answered in some seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while works := self._next():
            self._serve(works)

    def _next(self) -> list[_Work]:
        """Waits, and takes what the next pass answers; nothing at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return []
                until = self._waiting[0].arrived + self._wait_seconds
                while (
                    len(self._waiting) < self._expected
                    and not self._closed
                    and (left := until - time.monotonic()) > 0
                ):
                    self._changed.wait(left)
                self._waiting = [
                    work for work in self._waiting if not work.future.done()
                ]
                if self._waiting:
                    self._expected = len(self._waiting)
                    return self._take()

    def _take(self) -> list[_Work]:
        """Takes the oldest work, and what goes with it."""
        group = self._waiting[0].group
        taken: list[_Work] = []
        left: list[_Work] = []
        room = self._most_items
        for work in self._waiting:
            fits = work.group == group and len(work.items) <= room
            if fits or not taken:
                taken.append(work)
                room -= len(work.items)
            else:
                left.append(work)
        self._waiting = left
        return taken

    def _serve(self, works: list[_Work]) -> None:
        items = [item for work in works for item in work.items]
        began = time.monotonic()
        try:
            answers = list(self._answer(works[0].group[0], items))
        except Exception as error:
            if len(works) > 1:
                # Nobody pays for a neighbour's mistake.
                for work in works:
                    self._serve([work])
            else:
                _deliver(works, [error])
            return
        if self._seen:
            self._seen(len(items), time.monotonic() - began)
        parts = []
        first = 0
        for work in works:
            parts.append(answers[first : first + len(work.items)])
            first += len(work.items)
        _deliver(works, parts)


def _deliver(works: Sequence[_Work], results: Sequence[Any]) -> None:
    """Hands results over: each event loop is woken once."""
    loops = {work.future.get_loop() for work in works}
    for loop in loops:
        pairs = [
            (work.future, result)
            for work, result in zip(works, results, strict=True)
            if work.future.get_loop() is loop
        ]
        try:
            loop.call_soon_threadsafe(_resolve, pairs)
        except RuntimeError:
            pass  # The loop has ended, and with it whoever waited.


def _resolve(pairs: Sequence[tuple[asyncio.Future, Any]]) -> None:
    for future, result in pairs:
        if future.done():  # cancelled meanwhile
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
