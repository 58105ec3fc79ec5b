"""Runs the builder's work on the cores of this machine."""

import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from albert_tf2.errors import UserError

from . import corpus, parts, shards

# Units in flight per worker: enough to keep it busy, few enough that units
# read from a compressed file do not pile up in memory.
AHEAD = 2


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
        """Yields results as they come, a bounded number of tasks ahead."""
        if self.num_workers == 1:
            _begin(plan, watch_parent=False)
            yield from (function(*task) for task in tasks)
            return
        with concurrent.futures.ProcessPoolExecutor(
            self.num_workers,
            mp_context=_context(),
            initializer=_begin,
            initargs=(plan,),
        ) as executor:
            pending: set[concurrent.futures.Future] = set()
            try:
                for task in tasks:
                    pending.add(executor.submit(function, *task))
                    if len(pending) >= AHEAD * self.num_workers:
                        done, pending = concurrent.futures.wait(
                            pending, return_when="FIRST_COMPLETED"
                        )
                        yield from (future.result() for future in done)
                for future in concurrent.futures.as_completed(pending):
                    yield future.result()
            except BrokenProcessPool:
                raise UserError(
                    "a worker process was killed (out of memory?): run the "
                    "same command again to go on from here"
                ) from None
            finally:
                executor.shutdown(cancel_futures=True)


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


def _begin(plan: shards.Plan, watch_parent: bool = True) -> None:
    """Prepares this process for a plan."""
    global _plan, _builder
    _plan, _builder = plan, None
    if watch_parent:
        # Ctrl-C reaches every process: one of them is to answer.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Ends this process when the one that started it was killed."""
    parent = os.getppid()
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
    """Fork where that is safe: it is quick, and TensorFlow is not loaded."""
    safe = sys.platform == "linux" and "tensorflow" not in sys.modules
    return multiprocessing.get_context("fork" if safe else "spawn")
