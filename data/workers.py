"""Runs the builder's work on the cores of this machine."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

from albert_tf2.errors import UserError

from . import gather, part_files, parts, shards, units
from .census import Census

KILLED = (
    "a worker process was killed (out of memory?): run the same command again "
    "to go on from here"
)


def available_cores(
    groups: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup"
) -> int:
    """Returns how many cores this process may use.

    A container sees all cores of its machine, but is stopped for the rest of
    each period when it has used up its share of them.

    Args:
        groups: Where Linux tells the control groups of this process.
        root: Where their limits are mounted.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return max(1, min([cores, *_quotas(groups, root)]))


def _quotas(groups: str, root: str) -> Iterator[int]:
    """Yields the limits of the control groups that this process is in."""
    for line in _lines(groups):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = os.path.join(root, controllers).rstrip("/")
        folder = os.path.normpath(f"{top}/{path}")
        while folder.startswith(top):  # a group's parents limit it too
            fields = " ".join(_lines(f"{folder}/cpu.max")).split()
            fields = fields or [
                *_lines(f"{folder}/cpu.cfs_quota_us"),
                *_lines(f"{folder}/cpu.cfs_period_us"),
            ]
            if len(fields) == 2 and fields[0] not in ("max", "-1"):
                yield -(-int(fields[0]) // int(fields[1]))
            folder = os.path.dirname(folder)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().splitlines()
    except OSError:
        return []


class Workers:
    """Worker processes; with one worker, this process does the work."""

    def __init__(self, num_workers: int, *, progress: bool = True):
        if num_workers < 1:
            raise UserError(
                f"--num_workers must be at least 1. Received: {num_workers}"
            )
        self.num_workers = num_workers
        self.progress = progress

    def make_parts(self, plan: shards.Plan) -> Census:
        """Processes every unit whose part is not there yet."""
        total = sum(file.size for file in plan.files)
        census = Census()
        with tqdm(
            total=total, unit="B", unit_scale=True, desc=plan.stage,
            disable=not self.progress, mininterval=1.0,
        ) as bar:  # fmt: skip
            for place, head, size in self._map(plan, make_part, _tasks(plan)):
                census.add(place, head)
                bar.update(size)
            bar.update(total - bar.n)
        return census

    def look(
        self, plan: shards.Plan
    ) -> Iterator[tuple[tuple[int, int], Any, int]]:
        """Yields what the plan's builder sees in every unit.

        Yields:
            The unit's place, what was seen, and its share of the bytes; in
            the order of the corpus.
        """
        tasks = (
            ((file_number, unit.index), unit)
            for file_number in range(len(plan.files))
            for unit in plan.units_of(file_number)
        )
        numbered = ((number, *task) for number, task in enumerate(tasks))
        waiting: dict[int, tuple[tuple[int, int], Any, int]] = {}
        next_number = 0
        for number, *seen in self._map(plan, look, numbered):
            waiting[number] = tuple(seen)
            while next_number in waiting:
                yield waiting.pop(next_number)
                next_number += 1

    def gather(
        self, plan: shards.Plan, continued: Mapping[tuple[int, int], str]
    ) -> list[Any]:
        """Brings together what the parts hold for each shard.

        Args:
            plan: The build; its parts are there.
            continued: The subsets of continued documents (`Census.close`).

        Returns:
            What `plan.finish` makes of each shard, in any order.
        """
        wanted = plan.wanted()
        stretches = gather.stretches(shards.part_names(plan), self.num_workers)
        with gather.spools_folder(plan) as folder:
            tasks = [
                (stretch, names, _subsets(continued, names), wanted, folder)
                for stretch, names in enumerate(stretches)
            ]
            self._all(plan, "gather", spool, tasks)
            return self._all(
                plan, "shards", finish, [(key, folder) for key in wanted]
            )

    def check_shards(
        self, output_dir: str, entries: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Returns the entries of a manifest whose file is not what it was."""
        tasks = [(output_dir, entry) for entry in entries]
        return list(filter(None, self._all(None, "check", damage, tasks)))

    def _all(
        self,
        plan: shards.Plan | None,
        stage: str,
        function: Callable,
        tasks: Sequence[tuple],
    ) -> list[Any]:
        """Runs a stage of the build; results come in any order."""
        return list(
            tqdm(
                self._map(plan, function, tasks),
                total=len(tasks),
                desc=stage,
                disable=not self.progress,
            )
        )

    def _map(
        self,
        plan: shards.Plan | None,
        function: Callable,
        tasks: Iterable[tuple],
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
                    ready = [
                        pipe
                        for pipe in multiprocessing.connection.wait(busy)
                        if isinstance(pipe, Connection)
                    ]
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


def _start(plan: shards.Plan | None) -> tuple[Any, Connection]:
    """Starts a worker process; returns it and the pipe to it."""
    context = _context()
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(plan, theirs, os.getpid()), daemon=True
    )
    process.start()
    theirs.close()  # so that its death is the end of the pipe
    return process, ours


def _serve(plan: shards.Plan | None, pipe: Connection, parent: int) -> None:
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


def _tasks(plan: shards.Plan) -> Iterator[tuple]:
    """Yields the place of every part, its unit, and whether it is there."""
    there = frozenset(shards.part_names(plan))
    for file_number in range(len(plan.files)):
        for unit in plan.units_of(file_number):
            name = part_files.part_name(file_number, unit.index)
            yield (file_number, unit.index), unit, name in there


def _subsets(
    continued: Mapping[tuple[int, int], str], names: Iterable[str]
) -> dict[str, str]:
    """Returns what of `continued` some parts need, by their names."""
    found = {name: continued.get(part_files.place_of(name)) for name in names}
    return {name: subset for name, subset in found.items() if subset}


# What a worker process works on.
# What `_begin` was given: set before any work is.
_plan: Any = None
_builder: Any = None


def _begin(plan: shards.Plan | None) -> None:
    """Prepares this process for a plan."""
    global _plan, _builder
    _plan, _builder = plan, None


def _die_with_parent(parent: int) -> None:
    """Ends this process when the one that started it was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def make_part(
    place: tuple[int, int], unit: units.Unit, is_there: bool
) -> tuple[tuple[int, int], parts.Head, int]:
    """Turns a unit into a part on disk, unless an earlier run did.

    Returns:
        The part's place, what it tells, and its share of the bytes.
    """
    global _builder
    path = _plan.part_path(*place)
    head = part_files.load_head(path) if is_there else None
    if head is None:
        if _builder is None:
            _builder = _plan.part_builder()
        head = shards.make_part(_plan, _builder, path, unit)
    return place, head, unit.progress


def look(
    number: int, place: tuple[int, int], unit: units.Unit
) -> tuple[int, tuple[int, int], Any, int]:
    """Looks at a unit without writing anything."""
    global _builder
    if _builder is None:
        _builder = _plan.part_builder()
    return number, place, _builder.look(unit), unit.progress


def spool(
    stretch: int,
    names: Sequence[str],
    continued: Mapping[str, str],
    wanted: Sequence[gather.Key],
    folder: str,
) -> None:
    """Deals the rows of a stretch of parts out to its spools."""
    gather.spool(_plan, stretch, names, continued, wanted, folder)


def finish(key: gather.Key, folder: str) -> Any:
    """Makes one shard of its spools."""
    outcome = _plan.finish(key, gather.read_spools(folder, key))
    gather.remove_spools(folder, key)
    return outcome


def damage(output_dir: str, entry: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the entry of a shard that is not what it was."""
    return None if shards.is_intact(output_dir, entry) else entry


def _context() -> Any:
    """Fork where that is safe: it is quick, and TensorFlow is not loaded.

    The threads of TensorFlow and fsspec do not survive a fork.
    """
    threads = {"tensorflow", "fsspec"} & {*sys.modules}
    safe = sys.platform == "linux" and not threads
    return multiprocessing.get_context("fork" if safe else "spawn")
