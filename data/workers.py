"""Runs the builder's work on the cores of this machine."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

from albert_tf2.errors import UserError

from . import corpus, parts, shards

KILLED = (
    "a worker process was killed (out of memory?): run the same command again "
    "to go on from here"
)


class Workers:
    """Worker processes; with one worker, this process does the work."""

    def __init__(self, num_workers: int, *, progress: bool = True):
        if num_workers < 1:
            raise UserError(
                f"--num_workers must be at least 1. Received: {num_workers}"
            )
        self.num_workers = num_workers
        self.progress = progress

    def make_parts(self, plan: shards.Plan) -> None:
        """Processes every unit whose part is not there yet."""
        total = sum(file.size for file in plan.files)
        with tqdm(
            total=total, unit="B", unit_scale=True, desc="records",
            disable=not self.progress, mininterval=1.0,
        ) as bar:  # fmt: skip
            tasks = _tasks(plan, bar)
            for size in self._map(plan, make_part, tasks):
                bar.update(size)
            bar.update(total - bar.n)

    def write_shards(self, plan: shards.Plan) -> list[dict[str, Any]]:
        """Writes every shard of the plan; returns their manifest entries."""
        wanted = sorted(plan.only) or shards.shards_of(plan.config)
        tasks = iter(wanted)
        return list(
            tqdm(
                self._map(plan, write_shard, tasks),
                total=len(wanted),
                desc="shards",
                unit="shard",
                disable=not self.progress,
            )  # fmt: skip
        )

    def _map(
        self, plan: shards.Plan, function: Callable, tasks: Iterable[tuple]
    ) -> Iterator[Any]:
        """Yields results as they come."""
        if self.num_workers == 1:
            _begin(plan)
            yield from (function(*task) for task in tasks)
            return
        # A pipe for each worker and no shared queue: a killed process may
        # die holding a queue's lock, and then all others wait for ever.
        processes = [_start(plan) for _ in range(self.num_workers)]
        idle = [pipe for _, pipe in processes]
        busy: list[Connection] = []
        try:
            for task in tasks:
                if not idle:
                    ready = multiprocessing.connection.wait(busy)
                    yield from (_receive(pipe) for pipe in ready)
                    busy = [pipe for pipe in busy if pipe not in ready]
                    idle.extend(ready)
                pipe = idle.pop()
                _send(pipe, (function, task))
                busy.append(pipe)
            yield from (_receive(pipe) for pipe in busy)
        finally:
            for process, pipe in processes:
                process.kill()
                process.join()
                pipe.close()


def _start(plan: shards.Plan) -> tuple[Any, Connection]:
    """Starts a worker process; returns it and the pipe to it."""
    context = _context()
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(plan, theirs, os.getpid()), daemon=True
    )
    process.start()
    theirs.close()  # so that its death is the end of the pipe
    return process, ours


def _serve(plan: shards.Plan, pipe: Connection, parent: int) -> None:
    """What a worker process does: a task, its result, the next task."""
    # Ctrl-C reaches every process: one of them is to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(
        target=_die_with_parent, args=(parent,), daemon=True
    ).start()
    _begin(plan)
    while True:
        function, task = pipe.recv()
        try:
            outcome = function(*task)
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note(traceback.format_exc())
            outcome = error
        pipe.send(outcome)


def _send(pipe: Connection, message: tuple) -> None:
    try:
        pipe.send(message)
    except OSError:
        raise UserError(KILLED) from None


def _receive(pipe: Connection) -> Any:
    try:
        outcome = pipe.recv()
    except (EOFError, OSError):
        raise UserError(KILLED) from None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _tasks(plan: shards.Plan, bar: tqdm) -> Iterator[tuple]:
    """Yields (path of the part, unit) for every part that is to be made."""
    for file_number, file in enumerate(plan.files):
        for unit in corpus.units(file, plan.config.unit_bytes):
            path = plan.part_path(file_number, unit.index)
            if parts.load_part(path) is None:
                yield path, unit
            else:
                bar.update(unit.progress)


# What a worker process works on.
_plan: shards.Plan
_builder: parts.PartBuilder | None = None


def _begin(plan: shards.Plan) -> None:
    """Prepares this process for a plan."""
    global _plan, _builder
    _plan, _builder = plan, None


def _die_with_parent(parent: int) -> None:
    """Ends this process when the one that started it was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def make_part(path: str, unit: corpus.Unit) -> int:
    """Turns a unit into a part on disk; returns its share of the bytes."""
    global _builder
    if _builder is None:
        _builder = _plan.part_builder()
    shards.make_part(_plan, _builder, path, unit)
    return unit.progress


def write_shard(subset: str, shard: int) -> dict[str, Any]:
    """Writes one shard; returns its manifest entry."""
    return shards.write_shard(_plan, subset, shard)


def _context() -> Any:
    """Fork where that is safe: it is quick, and TensorFlow is not loaded.

    The threads of TensorFlow and fsspec do not survive a fork.
    """
    threads = {"tensorflow", "fsspec"} & {*sys.modules}
    safe = sys.platform == "linux" and not threads
    return multiprocessing.get_context("fork" if safe else "spawn")
