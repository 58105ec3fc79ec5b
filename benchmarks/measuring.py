"""What benchmarks measure with: processes, contenders in turns, the machine.

Contenders whose memory or threads would be in each other's way live in
processes of their own and take turns:

    # contenders.py, beside this file
    if __name__ == "__main__":
        measuring.serve({"ours": ours})    # ours(asked) -> Contender

    # the benchmark
    worker = Worker("contenders.py", "ours", {"rows": 64}, "ours.log")
    worker.turn()                          # {"units", "wall", "cpu", ...}
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from albert_tf2.errors import UserError

# Instructions that make matrix products fast, as /proc/cpuinfo names them.
INSTRUCTIONS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
PACKAGES = (
    "tensorflow",
    "tensorflow-text",
    "tf_keras",
    "ai-edge-litert",
    "torch",
    "transformers",
    "tokenizers",
    "onnxruntime",
    "numpy",
)


class Usage(NamedTuple):
    """What a command took."""

    cpu: float  # seconds of all its processes
    wall: float  # seconds
    peak_mb: float  # of its largest process
    output: str  # what it wrote to the screen


def run_and_measure(command: list[str], cwd: str | None = None) -> Usage:
    """Runs a command; what it says of errors appears only if it fails."""
    # A process of its own, so that the peak is not that of an earlier one.
    code = (
        "import json, resource, subprocess, sys, time\n"
        "begin = time.monotonic()\n"
        "done = subprocess.run(json.loads(sys.argv[1]), "
        "capture_output=True, text=True)\n"
        "wall = time.monotonic() - begin\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([done.returncode, done.stderr[-2000:], "
        "used.ru_utime + used.ru_stime, wall, used.ru_maxrss, done.stdout]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(command)],
        cwd=cwd, capture_output=True, text=True, check=True,
    )  # fmt: skip
    status, errors, cpu, wall, peak_kb, output = json.loads(done.stdout)
    if status:
        raise UserError(f"{' '.join(command)} failed: {errors}")
    return Usage(cpu, wall, peak_kb / 1000, output)


def peak_from_here() -> Callable[[], float]:
    """Forgets this process's peak of memory.

    Returns:
        What says by how many megabytes it grew since, at most.
    """
    # Linux alone; elsewhere this fails.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    return lambda: _status("VmHWM") - before


def _status(key: str) -> float:
    """Returns a figure of this process in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 1024


class Contender(NamedTuple):
    """What a worker does when it is its turn.

    Attributes:
        turn: Does one turn's work. Returns `units`, and what else the table
            wants; `wall` and `cpu` only if they are not this process's.
        result: Numbers that should be the same for all contenders of a row,
            if they are known before the first turn; else the first turn
            returns them as `result`.
    """

    turn: Callable[[], dict[str, Any]]
    result: Any = None


def serve(makers: Mapping[str, Callable[[SimpleNamespace], Contender]]) -> None:
    """Is a worker: makes the contender that is named, and takes its turns."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name, asked = sys.argv[1:]
    contender = makers[name](SimpleNamespace(**json.loads(asked)))
    print(json.dumps({}), file=answers, flush=True)
    known, told = contender.result, False
    for _ in sys.stdin:  # a line for each turn
        wall, cpu = time.perf_counter(), time.process_time()
        found = contender.turn()
        cpu = time.process_time() - cpu
        wall = time.perf_counter() - wall
        result = found.pop("result", None) if known is None else known
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        row = {"wall": wall, "cpu": cpu, "peak_mb": peak} | found
        if result is not None and not told:
            row["result"] = [float(value) for value in result]
            told = True
        print(json.dumps(row), file=answers, flush=True)


class Worker:
    """A contender in a process of its own; a context manager."""

    def __init__(
        self, file: str, name: str, asked: Mapping[str, Any], log: str | Path
    ):
        """Starts it, and waits until it is made.

        Args:
            file: A program that calls `serve`, by its place from here.
            name: The contender's, there.
            asked: What its maker gets; as JSON.
            log: Receives what it prints.

        Raises:
            UserError: If it ended instead.
        """
        self.name, self.log = name, Path(log)
        with self.log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).parent / file), name]
                + [json.dumps(asked)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
                text=True,
            )
        try:
            self._answer()
        except BaseException:
            self.stop()
            raise

    def turn(self) -> dict[str, Any]:
        """Lets it take a turn."""
        assert self._process.stdin is not None
        self._process.stdin.write("turn\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self.log.read_text("utf-8", "replace").strip().splitlines()
            raise UserError(
                f"{self.name} ended: {said[-1] if said else 'no message'} "
                f"(all that it said: {self.log})"
            )
        return json.loads(line)

    def stop(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(60)  # it reads the end of its input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def use_threads(count: int) -> None:
    """Gives TensorFlow so many threads; before its first operation."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def gemm(asked: SimpleNamespace) -> Contender:
    """The limit: the fastest of some float32 products, 2048 x 2048 each."""
    use_threads(asked.threads)
    from albert_tf2.model import flops

    size = 2048

    def turn():
        return {"flops_per_second": flops.measured_peak(size=size)}

    return Contender(turn)


def machine() -> dict[str, Any]:
    """Returns what figures depend on: processor, versions, commit, load."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    facts = dict(
        [part.strip() for part in line.split(":", 1)]
        for line in lines
        if ":" in line
    )
    there = facts.get("flags", "").split()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {
        "processor": facts.get("model name", platform.processor()),
        "instructions": [name for name in INSTRUCTIONS if name in there],
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit or "unknown",
        "time": time.strftime("%Y-%m-%d %H:%M"),
    }
