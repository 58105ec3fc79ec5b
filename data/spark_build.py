"""Builds the same records on a Spark cluster.

The same units, functions and bytes as `build_pretraining_data`; Spark deals
out the units and repeats those of a machine that dies. --output_dir (and the
corpus) must be a folder that all machines see: a shared disk, or `hdfs://`
or `gs://`. The machines need this package (docs/data.md).

python -m albert_tf2.data.spark_build --master spark://host:7077 --input_file 'hdfs:///corpus/*.txt' --vocab_file vocab.txt --output_dir hdfs:///records
"""  # noqa: E501

import argparse
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from albert_tf2 import command_line
from albert_tf2.errors import UserError, install_line

from . import build_pretraining_data, gather, part_files, shards, units
from .census import Census

PROG = "python -m albert_tf2.data.spark_build"
# Units that one Spark task processes: what is repeated when a machine dies.
UNITS_PER_TASK = 8
# Parts that one task deals out: each task leaves a block for every shard.
PARTS_PER_TASK = 64

# The number of a file, and of a unit in it; None for all units of a file
# that must be read from its beginning.
Task = tuple[int, int | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line, connects to the cluster, builds."""
    parser = build_pretraining_data.argument_parser(__doc__, PROG)
    parser.add_argument(
        "--master", required=True, help="spark://host:7077, yarn or local[2]"
    )
    parser.add_argument(
        "--conf",
        action="append",
        default=[],
        type=_setting,
        metavar="KEY=VALUE",
        help="a Spark setting; may be repeated",
    )
    flags = parser.parse_args(argv)
    session = _connect(flags.master, flags.conf)
    try:
        build_pretraining_data.run(flags, SparkPool(session.sparkContext))
    finally:
        session.stop()
    return 0


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, not {text!r}")
    return key, value


def _connect(master: str, settings: Iterable[tuple[str, str]]) -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise UserError(
            f"spark_build needs PySpark and Java: {install_line('spark')}"
        ) from None
    _must_answer(master)
    configured = dict(settings)
    if master != "yarn" and "spark.pyspark.python" not in configured:
        # Spark would take whatever `python3` is on the path.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName("albert_tf2.data")
    for key, value in configured.items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except Exception as error:  # py4j's kinds are many
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"no Spark session at --master {master} ({reason}): is the "
            "cluster up, and is Java 17 installed?"
        ) from error


def _must_answer(master: str) -> None:
    """Refuses a standalone master that is not there.

    Spark itself tries for a minute and then waits for ever.
    """
    if not master.startswith("spark://"):
        return
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
            return
        except (OSError, ValueError):
            continue
    raise UserError(
        f"no Spark master answers at --master {master}: is the cluster up?"
    )


class SparkPool:
    """Runs the builder's work on a cluster, as `Workers` does here."""

    def __init__(self, context: Any):
        self._context = context

    def make_parts(self, plan: shards.Plan) -> Census:
        """Processes every unit whose part is not there yet."""
        shared = self._context.broadcast(plan)
        tasks = tasks_of(plan)
        found = self._run(
            tasks,
            max(1, len(tasks) // UNITS_PER_TASK),
            lambda some: _make_parts(shared.value, some),
        )
        census = Census()
        for one in found:
            census.merge(one)
        return census

    def gather(
        self, plan: shards.Plan, continued: Mapping[tuple[int, int], str]
    ) -> list[Any]:
        """Brings together what the parts hold for each shard.

        Spark's shuffle brings the rows of a shard together, so that every
        part is opened once (`gather`).
        """
        shared = self._context.broadcast((plan, dict(continued)))
        wanted = plan.wanted()
        names = shards.part_names(plan)
        dealt = self._context.parallelize(
            list(enumerate(names)), max(1, len(names) // PARTS_PER_TASK)
        ).mapPartitions(lambda some: _deal_parts(shared.value, wanted, some))
        outcomes = (
            dealt.partitionBy(len(wanted), lambda number: number)
            .mapPartitionsWithIndex(
                lambda number, rows: _finish(
                    shared.value[0], wanted[number], rows
                )
            )
            .collect()
        )
        return _without_errors(outcomes)

    def check_shards(
        self, output_dir: str, entries: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Returns the entries of a manifest whose file is not what it was."""
        return self._run(
            list(entries),
            len(entries),
            lambda some: (
                e for e in some if not shards.is_intact(output_dir, e)
            ),
        )

    def _run(self, items: list, num_tasks: int, function: Any) -> list:
        """Applies a function to each share of the items; a list of results.

        An error of the user inside a worker comes back as one.
        """
        if not items:
            return []
        outcomes = (
            self._context.parallelize(items, num_tasks)
            .mapPartitions(lambda some: _told(function, some))
            .collect()
        )
        return _without_errors(outcomes)


def _without_errors(outcomes: list) -> list:
    """Raises the first error of the user that a worker sent back."""
    for outcome in outcomes:
        if isinstance(outcome, UserError):
            raise outcome
    return outcomes


def _told(function: Any, some: Iterator) -> Iterator[Any]:
    """Turns a UserError into a result: Spark would bury and retry it."""
    try:
        yield from function(some)
    except UserError as error:
        yield error


def tasks_of(plan: shards.Plan) -> list[Task]:
    """Lists the units of plain files, and whole compressed files."""
    tasks: list[Task] = []
    for number, file in enumerate(plan.files):
        if file.is_sequential:
            tasks.append((number, None))
        else:
            found = plan.units_of(number)
            tasks.extend((number, unit.index) for unit in found)
    return tasks


def _make_parts(plan: shards.Plan, tasks: Iterator[Task]) -> Iterator[Census]:
    """Runs on the cluster: makes the parts of some tasks, and counts them."""
    builder = None
    census = Census()
    for number, index in tasks:
        some: Iterable[units.Unit] = [
            units.Unit(plan.files[number], index or 0, plan.config.unit_bytes)
        ]
        if index is None:
            some = plan.units_of(number)
        for unit in some:
            unit = plan.placed(unit, number)
            path = plan.part_path(number, unit.index)
            head = part_files.load_head(path)
            if head is None:
                builder = builder or plan.part_builder()
                head = shards.make_part(plan, builder, path, unit)
            census.add((number, unit.index), head)
    yield census


def _deal_parts(
    shared: tuple[shards.Plan, dict],
    wanted: Sequence[gather.Key],
    names: Iterator[tuple[int, str]],
) -> Iterator[tuple[int, tuple[int, Any]]]:
    """Runs on the cluster: yields (shard, (part, rows))."""
    plan, continued = shared
    numbers = {key: number for number, key in enumerate(wanted)}
    try:
        for part, name in names:
            subset = continued.get(part_files.place_of(name))
            dealt = gather.deal_part(plan, name, subset)
            for key in numbers.keys() & dealt:
                yield numbers[key], (part, dealt[key])
    except UserError as error:
        yield 0, (-1, error)


def _finish(
    plan: shards.Plan,
    key: gather.Key,
    rows: Iterator[tuple[int, tuple[int, Any]]],
) -> Iterator[Any]:
    """Runs on the cluster: makes a shard of what the shuffle brought."""
    # The shuffle keeps no order; a part sends a shard one block.
    blocks = dict(block for _, block in rows)
    if -1 in blocks:
        yield blocks[-1]
        return
    ordered = [blocks[part] for part in sorted(blocks)]
    try:
        yield plan.finish(key, ordered)
    except UserError as error:
        yield error


if __name__ == "__main__":
    command_line.run(main)
