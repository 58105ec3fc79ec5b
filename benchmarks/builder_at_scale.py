"""Measures the record builder on a corpus of any size, stage by stage.

The corpus is written again and again under other names until it has so many
gigabytes. Printed are MB of text per CPU-second, wall time, peak memory (of
the largest process, and of all together), and the files that each stage
opens, counted by an audit hook in every process. The same counts are then
given for a corpus of 300 GB, which follows from the numbers of files, parts
and shards alone. With --master the same corpus is built once more on a Spark
cluster: wall time of each stage, and whether the records are the same bytes.

python benchmarks/builder_at_scale.py --input_file 'corpus/*.txt' --vocab_file vocab.txt --gigabytes 0.1 1 --workdir /big/disk
"""  # noqa: E501

import contextlib
import filecmp
import json
import mmap
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from albert_tf2 import command_line
from albert_tf2.data import (
    build_pretraining_data,
    gather,
    recognition,
    spark_build,
    workers,
)
from albert_tf2.data import parts as parts_module
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.data.read_config import ReadConfig
from albert_tf2.data.words import default_segmenter

KINDS = ("corpus", "part", "spool", "shard", "other")
STAGES = ("parts", "shards", "check")
# A process has a row of its own in the table of counts: no locks.
ROWS = 1 << 12


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and prints the figures as they come."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--input_file", nargs="+", required=True)
    add("--vocab_file", required=True)
    add("--gigabytes", type=float, nargs="+", default=[0.1, 1.0])
    add("--num_workers", type=int, default=workers.available_cores())
    add("--segmenter", default=default_segmenter())
    add("--master", help="of a Spark cluster: spark://host:7077 or local[2]")
    add("--workdir", help="where corpus, parts and records go, and vanish")
    add("--inside", help="used by the program itself")
    flags = parser.parse_args(argv)
    if flags.inside:
        return build_and_count(flags)
    rates = []
    for gigabytes in flags.gigabytes:
        with tempfile.TemporaryDirectory(dir=flags.workdir) as folder:
            rates.append(measure(flags, gigabytes, folder))
    print(f"rate, last to first: {rates[-1] / rates[0]:.3f}")
    print(at_size(flags, 300e9))
    return 0


def measure(flags: Any, gigabytes: float, folder: str) -> float:
    """Builds a corpus of a size; returns MB per CPU-second."""
    files = recognition.find(flags.input_file, ReadConfig())
    size = sum(file.size for file in files)
    copies = max(1, round(gigabytes * 1e9 / size))
    for copy in range(copies):
        for file in files:
            path = Path(folder, "corpus", f"{copy:05d}-{file.name}")
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(file.path, path)
    command = [
        sys.executable, __file__, "--inside", folder,
        "--input_file", f"{folder}/corpus/*", "--vocab_file", flags.vocab_file,
        "--num_workers", str(flags.num_workers), "--segmenter", flags.segmenter,
    ]  # fmt: skip
    with _peak_of_all() as peak:
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    found = json.loads(Path(folder, "figures.json").read_text())
    megabytes = copies * size / 1e6
    cpu = sum(stage["cpu"] for stage in found["stages"].values())
    print(
        f"{megabytes:,.0f} MB in {copies * len(files):,} files, "
        f"{flags.num_workers} workers: {megabytes / cpu:.2f} MB per "
        f"CPU-second, {found['wall']:.1f} s; largest process "
        f"{found['largest_mb']:.0f} MB, all together {max(peak):.0f} MB; "
        f"{found['parts']:,} parts, {found['shards']:,} shards, "
        f"{found['records']:,} records; {found['opened']:,} files opened, "
        f"{found['expected']:,} by the formula"
    )
    for name, stage in found["stages"].items():
        opened = ", ".join(f"{k} {n:,}" for k, n in stage["opened"].items())
        print(
            f"  {name:7} {stage['wall']:8.1f} s, {stage['cpu']:8.1f} CPU-s "
            f"({100 * stage['cpu'] / cpu:4.1f} %); opened: {opened}"
        )
    if flags.master:
        measure_spark(flags, folder)
    return megabytes / cpu


def measure_spark(flags: Any, folder: str) -> None:
    """Builds the corpus on a cluster, beside the records built here."""
    session = spark_build._connect(flags.master, [])
    try:
        pool = TimedSpark(session.sparkContext)
        begin = time.monotonic()
        manifest = build_pretraining_data.build(
            plan_of(flags, folder, "spark"), pool
        )
        wall = time.monotonic() - begin
    finally:
        session.stop()
    names = [entry["name"] for entry in manifest["shards"]]
    _, different, missing = filecmp.cmpfiles(
        f"{folder}/out", f"{folder}/spark", names, shallow=False
    )
    stages = ", ".join(f"{name} {t:.1f} s" for name, t in pool.seconds.items())
    print(
        f"  on {flags.master}: {wall:.1f} s ({stages}); "
        f"{len(different) + len(missing)} of {len(names)} shards differ"
    )


def plan_of(flags: Any, folder: str, name: str) -> Any:
    """Plans the build of the corpus into `folder/name`."""
    return build_pretraining_data.make_plan(
        f"{folder}/corpus/*", flags.vocab_file, f"{folder}/{name}",
        BuildConfig(segmenter=flags.segmenter),
    )  # fmt: skip


def build_and_count(flags: Any) -> int:
    """Builds in this process and its children, and writes figures.json."""
    folder = flags.inside
    plan = plan_of(flags, folder, "out")
    counter = Counter(plan.output_dir, f"{folder}/corpus")
    pool = Timed(flags.num_workers, counter)
    begin = time.monotonic()
    manifest = build_pretraining_data.build(plan, pool)
    wall = time.monotonic() - begin
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = manifest["counts"]
    opened = counter.counts()
    del opened["other"]
    figures = {
        "opened": sum(opened.values()),
        "expected": files_opened(
            len(plan.files),
            pool.parts,
            len(manifest["shards"]),
            flags.num_workers,
        ),
        "wall": wall,
        "largest_mb": max(children, own) / 1000,
        "parts": pool.parts,
        "shards": len(manifest["shards"]),
        "records": counts["train_records"] + counts["eval_records"],
        "stages": pool.stages,
    }
    Path(folder, "figures.json").write_text(json.dumps(figures))
    return 0


class Counter:
    """Counts the files that this process and its children open, by kind."""

    def __init__(self, output_dir: str, corpus_dir: str):
        self._table = memoryview(mmap.mmap(-1, ROWS * len(KINDS) * 8)).cast("q")
        self._output_dir, self._corpus_dir = output_dir, corpus_dir
        sys.addaudithook(self._hook)

    def _hook(self, event: str, found: tuple) -> None:
        if event == "open" and isinstance(found[0], str):
            row = os.getpid() % ROWS * len(KINDS)
            self._table[row + KINDS.index(self._kind(found[0]))] += 1

    def _kind(self, path: str) -> str:
        if path.startswith(self._corpus_dir):
            return "corpus"
        if not path.startswith(self._output_dir):
            return "other"
        name = os.path.basename(path)
        signs = {".parts": "other", ".part": "part", ".spool": "spool"}
        for sign, kind in (*signs.items(), ("-of-", "shard")):
            if sign in name:
                return kind
        return "other"

    def counts(self) -> dict[str, int]:
        return {
            kind: sum(self._table[number :: len(KINDS)])
            for number, kind in enumerate(KINDS)
        }


class Timed(workers.Workers):
    """Worker processes whose stages are timed and counted."""

    def __init__(self, num_workers: int, counter: Counter):
        super().__init__(num_workers)
        self.counter = counter
        self.stages: dict[str, dict] = {}
        self.parts = 0

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        begin = time.monotonic(), cpu_seconds(), self.counter.counts()
        yield
        opened = self.counter.counts()
        self.stages[name] = {
            "wall": time.monotonic() - begin[0],
            "cpu": cpu_seconds() - begin[1],
            "opened": {kind: n - begin[2][kind] for kind, n in opened.items()},
        }

    def make_parts(self, plan: Any) -> Any:
        with self._stage("parts"):
            return super().make_parts(plan)

    def gather(self, plan: Any, continued: Any) -> Any:
        self.parts = len(os.listdir(plan.parts_folder)) - 1
        with self._stage("shards"):
            return super().gather(plan, continued)

    def check_shards(self, output_dir: str, entries: Any) -> Any:
        with self._stage("check"):
            return super().check_shards(output_dir, entries)


class TimedSpark(spark_build.SparkPool):
    """A cluster whose stages are timed."""

    def __init__(self, context: Any):
        super().__init__(context)
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - begin

    def make_parts(self, plan: Any) -> Any:
        with self._stage("parts"):
            return super().make_parts(plan)

    def gather(self, plan: Any, continued: Any) -> Any:
        with self._stage("shards"):
            return super().gather(plan, continued)

    def check_shards(self, output_dir: str, entries: Any) -> Any:
        with self._stage("check"):
            return super().check_shards(output_dir, entries)


def cpu_seconds() -> float:
    """Returns those of this process and of its children that ended."""
    return sum(os.times()[:4])


@contextlib.contextmanager
def _peak_of_all() -> Iterator[list[float]]:
    """Samples the memory of this process's descendants, shared pages once."""
    found, ended = [0.0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.5):
            found[0] = max(found[0], _memory_mb(os.getpid()))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _memory_mb(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(OSError):  # it may end meanwhile
        for child in (
            Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ):
            text = Path(f"/proc/{child}/smaps_rollup").read_text()
            pss = [line for line in text.splitlines() if line[:4] == "Pss:"]
            total += int(pss[0].split()[1]) / 1000 + _memory_mb(int(child))
    return total


def files_opened(files: int, parts: int, shards: int, num_workers: int) -> int:
    """Returns how often a build opens files of its corpus and its own."""
    most = gather.open_files(shards + gather.OTHER_FILES) - gather.OTHER_FILES
    passes = -(-shards // most)
    stretches = min(num_workers, gather.MOST_STRETCHES)
    return (
        2 * files  # the ends of a file tell, twice, whether it is the same
        + parts * (1 + 1 + passes)  # the unit read, its part written and read
        + shards * (2 * stretches + 2)  # spools, the shard, its sum
    )


def at_size(flags: Any, size: float, file_bytes: float = 4e6) -> str:
    """Says what a corpus of a size takes, by counting."""
    config = BuildConfig().resolved(int(size))
    files = round(size / file_bytes)
    # The last unit of a file is half a unit on average.
    parts = round(size / config.unit_bytes + files / 2)
    shards = sum(
        parts_module.num_shards(config, subset)
        for subset in parts_module.SUBSETS
    )
    opened = files_opened(files, parts, shards, flags.num_workers)
    return (
        f"{size / 1e9:,.0f} GB: {parts:,} parts, {shards:,} shards, "
        f"{opened:,} files opened (every shard opening every part: "
        f"{parts * shards:,})"
    )


if __name__ == "__main__":
    command_line.run(main)
