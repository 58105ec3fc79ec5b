"""Breaks the code on purpose, a little at a time: do the tests notice?

`mutants/<room>.toml` lists small breaks, each with the promise that it breaks
and the tests that must fail. A break is a piece of source text, which stands
once in its file, and what stands there instead:

    [ties-count-once]
    breaks = "of equal logits the first one counts, not all"
    file = "albert_tf2/model/losses.py"
    old = '''tf.cast(guess == labels, tf.float32)'''
    new = '''tf.ones_like(weights)'''
    tests = ["test_losses.py::test_ties"]

The working tree stays as it is: breaks are made in a copy of it, which the
processes that tests start see too. TensorFlow is loaded once, and a fork of
this process runs the tests of one break. The same tests run unbroken first:
a test that fails anyway, or that is skipped, notices nothing.

    make mutants
    .venv/bin/python tests/run_mutants.py --room losses
    .venv/bin/python tests/run_mutants.py --only losses/ties-count-once

Ends with a table and, where fewer than 95 % were noticed, with 1. A break that
no test can notice stays in its list, with the reason as `survives`.
"""

import argparse
import dataclasses
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
LISTS = CHECKOUT / "tests" / "mutants"
SHARE = 0.95
# What `setup.py` maps into the package.
MAPPED = ("data", "hub_export", "configs", "starter")
# Loaded before the forks: whatever is slow, and none of our own.
SLOW = (
    "tensorflow",
    "tensorflow_text",
    "tensorflow_hub",
    "tf_keras",
    "official.modeling.optimization.lamb",
    "hypothesis",
    "jieba",
    "scipy.stats",
    "sklearn.metrics",
    "fastapi.testclient",
    "uvicorn",
    "pytest",
)
LEFT_OUT = (".*", "__pycache__", "site", "build", "dist", "runs", "*.egg-info")


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One break.

    Attributes:
        room: The name of its list.
        name: Its own.
        breaks: The promise that it breaks.
        file: Which file it changes, from the checkout on.
        old: What stands there, once.
        new: What stands there instead.
        tests: Of which at least one must fail, as pytest names them.
        survives: Why no test can notice it; empty for all others.
    """

    room: str
    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""

    def __str__(self) -> str:
        return f"{self.room}/{self.name}"

    def applied(self, source: str) -> str:
        """Returns the file's text with the break in it."""
        if source.count(self.old) != 1:
            raise ValueError(
                f"{self}: {self.old!r} stands {source.count(self.old)} times "
                f"in {self.file}, and must stand there once"
            )
        return source.replace(self.old, self.new)


def read_lists(folder: Path = LISTS) -> list[Mutant]:
    """Returns all breaks, room by room."""
    return [
        Mutant(
            room=path.stem,
            name=name,
            tests=tuple(f"tests/{test}" for test in fields.pop("tests")),
            **fields,
        )
        for path in sorted(folder.glob("*.toml"))
        for name, fields in tomllib.loads(path.read_text("utf-8")).items()
    ]


class Tree:
    """A copy of the checkout, with at most one break in it at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.root = folder / "checkout"
        shutil.copytree(
            CHECKOUT,
            self.root,
            symlinks=True,
            ignore=shutil.ignore_patterns(*LEFT_OUT),
        )
        for name in MAPPED:
            link = self.root / "albert_tf2" / name
            if not link.is_symlink():
                link.symlink_to(f"../{name}")
        shared = CHECKOUT.parent / "shared"
        if shared.is_dir():
            (folder / "shared").symlink_to(shared.resolve())

    def put(self, mutant: Mutant) -> None:
        """Makes a break."""
        source = (CHECKOUT / mutant.file).read_text("utf-8")
        self._write(mutant.file, mutant.applied(source))

    def restore(self, mutant: Mutant) -> None:
        """Takes it out again."""
        self._write(mutant.file, (CHECKOUT / mutant.file).read_text("utf-8"))

    def _write(self, file: str, text: str) -> None:
        path = self.root / file
        # Python takes compiled code for current by seconds and by size.
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()
        path.write_text(text, "utf-8")


class _Outcomes:
    """A plugin of pytest's: writes down how each test ended."""

    def __init__(self, path: Path):
        self.path = path
        self.seen: dict[str, list] = {"passed": [], "failed": [], "skipped": []}

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.seen[report.outcome].append(report.nodeid)

    def pytest_collectreport(self, report) -> None:
        if report.outcome != "passed":
            self.seen[report.outcome].append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps(self.seen), "utf-8")


class Run:
    """Tests that run in a fork of this process."""

    def __init__(self, tree: Tree, tests: Sequence[str], seconds: float):
        self.log = tree.folder / "log"
        self._outcomes = tree.folder / "outcomes.json"
        self._outcomes.unlink(missing_ok=True)
        self._temporary = tree.folder / "tmp"
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()
        self.began = time.monotonic()
        self._end = self.began + seconds
        self.seen: dict[str, list[str]] = {}
        self.timed_out = False
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            try:
                self._tests(tree, tests)
            finally:
                os._exit(70)

    def _tests(self, tree: Tree, tests: Sequence[str]) -> None:
        os.setsid()  # what it leaves running is ended with it
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ |= {
            "PYTHONPATH": str(tree.root),
            "TMPDIR": str(self._temporary),
        }
        tempfile.tempdir = None
        os.chdir(tree.root)
        sys.path[0] = str(tree.root)
        import pytest

        _shrinks_nothing()
        options = "-x -q -p no:cacheprovider -p no:randomly -p no:xdist"
        code = pytest.main(
            [*options.split(), *tests], plugins=[_Outcomes(self._outcomes)]
        )
        sys.stdout.flush()
        os._exit(code)

    def is_over(self) -> bool:
        """Whether it ended; one that takes too long is ended."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid and time.monotonic() < self._end:
            return False
        self.timed_out = not pid
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if not pid:
            os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status) if pid else None
        self.seconds = time.monotonic() - self.began
        if self._outcomes.exists():
            self.seen = json.loads(self._outcomes.read_text("utf-8"))
        return True


def _shrinks_nothing() -> None:
    """Lets hypothesis stop at the first example that fails."""
    try:
        from hypothesis import Phase, settings
    except ImportError:
        return
    settings.register_profile(
        "mutants",
        phases=[Phase.explicit, Phase.generate],
        database=None,
        derandomize=True,
    )
    settings.load_profile("mutants")


@dataclasses.dataclass(frozen=True)
class Baseline:
    """How the tests end where nothing is broken: by file, then by test."""

    passed: frozenset[str]
    seconds: dict[str, float]

    def of(self, tests: Iterable[str]) -> set[str]:
        """Returns which of the passed tests a list of names means."""
        return {
            node
            for node in self.passed
            if any(
                node == test or node.startswith((f"{test}[", f"{test}::"))
                for test in tests
            )
        }

    def limit(self, tests: Iterable[str]) -> float:
        """Returns how many seconds broken ones may take."""
        files = {test.partition("::")[0] for test in tests}
        return 30 + 3 * sum(self.seconds[file] for file in files)


def _queue(trees: list[Tree], work: Iterable) -> Iterator[tuple]:
    """Runs (mutant or None, tests, seconds) over the trees, yields as ended."""
    waiting = iter(work)
    running: dict[Tree, tuple] = {}
    free = list(trees)
    while True:
        while free:
            task = next(waiting, None)
            if task is None:
                break
            mutant, tests, seconds = task
            tree = free.pop()
            if mutant:
                tree.put(mutant)
            running[tree] = mutant, tests, Run(tree, tests, seconds)
        if not running:
            return
        time.sleep(0.02)
        for tree, (mutant, tests, run) in list(running.items()):
            if run.is_over():
                if mutant:
                    tree.restore(mutant)
                del running[tree]
                free.append(tree)
                yield mutant, tests, run


def unbroken(trees: list[Tree], mutants: Sequence[Mutant]) -> Baseline:
    """Runs all tests that the lists name, with nothing broken."""
    by_file: dict[str, set[str]] = {}
    for mutant in mutants:
        for test in mutant.tests:
            by_file.setdefault(test.partition("::")[0], set()).add(test)
    passed, seconds = set(), {}
    work = [(None, sorted(tests), 900.0) for tests in by_file.values()]
    for _, tests, run in _queue(trees, work):
        if run.code:
            print(run.log.read_text("utf-8", "replace")[-4000:])
            sys.exit(f"error: nothing is broken, and these fail: {tests}")
        passed |= set(run.seen["passed"])
        seconds[tests[0].partition("::")[0]] = run.seconds
    return Baseline(frozenset(passed), seconds)


def try_all(
    trees: list[Tree], mutants: Sequence[Mutant], baseline: Baseline
) -> dict[Mutant, str]:
    """Returns killed, timed out, survived or skipped, of each mutant."""
    results = {m: "skipped" for m in mutants if not baseline.of(m.tests)}
    for mutant in results:
        print(f"{'skipped':<10} {mutant}: its tests are skipped here")
    work = [
        (mutant, mutant.tests, baseline.limit(mutant.tests))
        for mutant in mutants
        if mutant not in results
    ]
    for mutant, _, run in _queue(trees, work):
        noticed = run.timed_out or run.code
        result = "killed" if noticed else "survived"
        results[mutant] = "timed out" if run.timed_out else result
        by = (run.seen.get("failed") or [f"exit code {run.code}"])[0]
        told = by if noticed else mutant.survives or mutant.breaks
        print(f"{results[mutant]:<10} {mutant}  {run.seconds:.1f} s  {told}")
    return results


def table(results: dict[Mutant, str]) -> str:
    """Returns what became of the mutants of each room, and of all."""
    names = ("killed", "timed out", "survived", "skipped")
    rooms = sorted({mutant.room for mutant in results})
    lines = [f"{'room':<20}" + "".join(f"{name:>11}" for name in names)]
    for room in [*rooms, "all"]:
        ends = [end for m, end in results.items() if room in (m.room, "all")]
        counts = "".join(f"{ends.count(name):>11}" for name in names)
        lines.append(f"{room:<20}{counts}")
    return "\n".join(lines)


def share(results: dict[Mutant, str]) -> float:
    """Returns which part of those that were tried was noticed."""
    tried = [end for end in results.values() if end != "skipped"]
    return sum(end != "survived" for end in tried) / max(len(tried), 1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--room", action="append", help="only this list's")
    add("--only", action="append", help="only this one: room/name")
    add("--jobs", type=int, default=1, help="how many at a time")
    args = parser.parse_args(argv)
    mutants = [
        mutant
        for mutant in read_lists()
        if (not args.room or mutant.room in args.room)
        and (not args.only or str(mutant) in args.only)
    ]
    if not mutants:
        parser.error("no such room or mutant")
    began = time.monotonic()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in SLOW:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # an extra: its tests say so themselves
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        trees = [Tree(Path(folder) / str(i)) for i in range(args.jobs)]
        results = try_all(trees, mutants, unbroken(trees, mutants))
    print(f"\n{table(results)}\n")
    print(
        f"{share(results):.1%} of {len(mutants)} noticed "
        f"in {(time.monotonic() - began) / 60:.1f} min"
    )
    for mutant, end in results.items():
        if end == "survived":
            reason = mutant.survives or "no test notices it"
            print(f"survived: {mutant} ({mutant.breaks}): {reason}")
    return int(share(results) < SHARE)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main())
