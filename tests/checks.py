"""Harnesses, one for each kind of thing that this project has many of.

    check_command    a command line: help, version, wrong flags
    check_refused    its bad input: one sentence, exit code 2, nothing written
    check_task       a task: its files, rows, description, damaged files
    check_learns     a task: it learns its rows by heart, and leaves a model
    check_layout     a layout of checkpoints: there, certified, and back
    check_export     an export: whole, without a path of this machine, movable

CONTRIBUTING.md shows how to test a new task, layout or command with them.
"""

import atexit
import contextlib
import importlib
import io
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from albert_tf2.errors import UserError
from albert_tf2.tasks.reading import ReadingReport

ROOT = Path(__file__).resolve().parents[1]


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


# --- commands

# Forks a process for each command line, with Python and what all commands
# share loaded once. TensorFlow ends it: arguments are judged before it loads.
_SERVER = """
import importlib.abc, json, os, runpy, sys, traceback
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "torch"):
            sys.stderr.flush()
            os._exit(99)
sys.meta_path.insert(0, Blocker())
import numpy, albert_tf2.command_line, albert_tf2.recipes
def work(asked):
    os.chdir(asked["cwd"])
    for number, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    sys.argv = [asked["module"], *asked["arguments"]]
    code = 0
    try:
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
for line in sys.stdin:
    child = os.fork()
    if not child:
        work(json.loads(line))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
_server: list[subprocess.Popen] = []


def _ask(line: str) -> int:
    if not _server:
        _server.append(
            subprocess.Popen(
                [sys.executable, "-c", _SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        atexit.register(end_commands)
    process = _server[0]
    assert process.stdin and process.stdout
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def end_commands() -> None:
    """Ends the process that forks commands, if there is one."""
    while _server:
        process = _server.pop()
        process.communicate()  # closes what it reads, which ends it


def command(
    module: str,
    *arguments: Any,
    cwd: Path = ROOT,
    may_load_tensorflow: bool = False,
) -> Done:
    """Runs a command line; returns how it ended.

    Args:
        module: For instance `albert_tf2.plot`.
        *arguments: What stands behind it.
        cwd: Where it runs.
        may_load_tensorflow: Runs it in this process: one of its own would
            need seconds to load TensorFlow. Else TensorFlow ends it with 99.
    """
    given = [str(argument) for argument in arguments]
    if may_load_tensorflow:
        return _here(module, given, cwd)
    with tempfile.TemporaryDirectory(prefix="albert-test-") as folder:
        out, err = f"{folder}/out", f"{folder}/err"
        asked = {"module": module, "arguments": given, "cwd": str(cwd)}
        code = _ask(json.dumps(asked | {"out": out, "err": err}))
        return Done(
            code, Path(out).read_text("utf-8"), Path(err).read_text("utf-8")
        )


def _here(module: str, arguments: list[str], cwd: Path) -> Done:
    from albert_tf2 import command_line

    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            command_line.run(importlib.import_module(module).main)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return Done(code, out.getvalue(), err.getvalue())


def check_command(module: str, *, own_version: bool = False) -> str:
    """Checks what every command answers; returns its help.

    Args:
        module: For instance `albert_tf2.plot`.
        own_version: Whether `--version` is a flag of its own.
    """
    import albert_tf2

    told = command(module, "--help")
    assert told.returncode == 0, told.stderr
    usage, _, text = told.stdout.partition("\n\n")
    assert usage.startswith(f"usage: python -m {module}")
    assert f"python -m {module}" in text.split("\noptions:")[0]
    version = command(module, "--version")
    if own_version:
        assert "--version: expected one argument" in version.stderr
    else:
        assert version.stdout == f"albert_tf2 {albert_tf2.__version__}\n"
    wrong = command(module, "--no_such_flag")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert wrong.stderr.count("\n") == 1
    return told.stdout


def check_refused(
    module: str,
    *arguments: Any,
    says: str,
    writes: Path | None = None,
    **where: Any,
) -> str:
    """Checks that bad input gets one sentence and exit code 2.

    Args:
        module: For instance `albert_tf2.plot`.
        *arguments: What stands behind it.
        says: What the sentence holds.
        writes: The folder that it would write to, which stays without a file
            (but for `.parts`, from which a build resumes).
        **where: See `command`.

    Returns:
        The sentence.
    """
    done = command(module, *arguments, **where)
    assert done.returncode == 2, done
    errors = re.findall(r"^error: .*$", done.stderr, re.M)
    assert len(errors) == 1 and says in errors[0], done.stderr
    assert "Traceback" not in done.stderr
    if writes is not None:
        left = [p for p in writes.rglob("*") if ".parts" not in p.parts]
        assert not [path for path in left if path.is_file()], left
    return errors[0]


# --- tasks

VALUES = [
    *(None, True, 0, -1, 1.5, "", [], {}, [None], [[1]], "文", {"text": [1]}),
    *("9" * 5000, float("nan"), [["a"]], {"answer_start": -5}),
]
SIGNS = [
    *('"', "\t", ",", "\n", "\0", "[", "{", "]", "}", "\r", "\u2028", "||"),
    *("\n\n", "label", "文", "9", '{"id": ', "\ud800"),
]


def changed(value: Any, rng: random.Random) -> Any:
    """Puts a strange value somewhere into a JSON value."""
    if not isinstance(value, list | dict) or not value or rng.random() < 0.2:
        return rng.choice(VALUES)
    value = value.copy()
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(keys)
    if rng.random() < 0.2:
        del value[key]
    else:
        value[key] = changed(value[key], rng)
    return value


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Returns a task file with a strange value, or with strange signs."""
    text = data.decode()
    if rng.random() < 0.5:
        try:
            return json.dumps(changed(json.loads(text), rng)).encode()
        except ValueError:
            lines = text.splitlines()
            place = rng.randrange(len(lines))
            if lines[place].startswith("{"):
                value = changed(json.loads(lines[place]), rng)
                lines[place] = json.dumps(value)
                return "\n".join(lines).encode()
    letters = list(text)
    for _ in range(rng.choice([1, 2, 9])):
        place = rng.randrange(len(letters) + 1)
        if rng.random() < 0.4:
            del letters[place : place + rng.choice([1, 5, 40])]
        else:
            letters[place:place] = rng.choice(SIGNS)
    return "".join(letters).encode("utf-8", "surrogatepass")


def check_task(
    name: str, write: Callable[[Path], Path], folder: Path, *, damages: int = 60
) -> None:
    """Checks a task without training it; `check_learns` trains.

    Its files are read, and read damaged: rows, or one sentence that names
    the file. Rows become examples of the length asked for; whatever a model
    says of them becomes a prediction for each row, which JSON holds and which
    is scored. What a tuned model keeps of the task answers the same.

    Args:
        name: As `--task` spells it.
        write: Writes the task's files into a folder; returns it.
        folder: An empty one.
        damages: How many times files are damaged.
    """
    import task_samples

    from albert_tf2.tasks import base, registry
    from albert_tf2.tasks.reading import SPLITS
    from albert_tf2.text.tokenization import Tokenizer

    tokenizer = Tokenizer(task_samples.write_vocab(folder))
    (folder / "data").mkdir()
    data = write(folder / "data")
    lengths = base.Lengths(max_seq_length=40, max_query_length=8)

    def read(on_error: str = "fail") -> tuple[Any, dict[str, Any]]:
        task, rows = registry.create(name), {}
        task.prepare(data, on_error=on_error)
        for split in SPLITS:
            report = ReadingReport()
            rows[split] = task.read(
                data, split, on_error=on_error, report=report
            )
            task.encode(rows[split], tokenizer, lengths)
            assert all("\n" not in line for line in report.lines())
        assert all("\n" not in line for line in task.overview(**rows))
        return task, rows

    task, rows = read()
    assert all(rows.values())
    again = registry.from_description(json.loads(json.dumps(task.describe())))
    for split in SPLITS:
        found = answers(task, rows[split], tokenizer, lengths)
        assert len(found) == len(rows[split])
        assert found == answers(again, rows[split], tokenizer, lengths)
        json.dumps(found, allow_nan=False)
    assert task.metric in task.score(
        rows["dev"], answers(task, rows["dev"], tokenizer, lengths)
    )

    rng, survived = random.Random(name), 0
    whole = {path: path.read_bytes() for path in data.iterdir()}
    for _ in range(damages):
        for path, content in whole.items():
            hit = rng.random() < 2 / len(whole)
            path.write_bytes(damaged(content, rng) if hit else content)
        try:
            read(rng.choice(["fail", "skip"]))
            survived += 1
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            assert str(data) in str(error), error
    assert survived


def answers(task: Any, rows: Any, tokenizer: Any, lengths: Any) -> list[Any]:
    """Returns a task's predictions from logits that follow from a seed."""
    from albert_tf2.tasks import base

    examples = task.encode(rows, tokenizer, lengths)
    assert all(example.length <= lengths.max_seq_length for example in examples)
    rng = np.random.default_rng(0)
    logits = []
    for example in examples:
        outputs = {
            base.CHOICE: [task.choices],
            base.TAGGING: [example.length, task.num_outputs],
            base.SPAN: [example.length, 2],
            base.VECTORS: [2, 8],
        }.get(task.kind, [task.num_outputs])
        logits.append(rng.normal(size=outputs).astype(np.float32))
    return task.decode(rows, examples, logits, lengths)


# Enough to learn a handful of rows in seconds.
LEARNS = dict(
    max_seq_length=32,
    max_query_length=8,
    global_batch_size=4,
    learning_rate=3e-3,
    num_train_epochs=100,
    eval_every=1000,
    checkpoint_every=1000,
    log_every=20,
    classifier_dropout=0.0,
)


def check_learns(
    name: str,
    write: Callable[[Path], Path],
    folder: Path,
    checkpoint: Path,
    **changes: Any,
) -> Path:
    """Checks that a task learns its rows by heart; returns the run's folder.

    Args:
        name: As `--task` spells it.
        write: Writes the task's files into a folder; returns it.
        folder: An empty one.
        checkpoint: What to start from.
        **changes: Fields of the recipe beside `LEARNS`.
    """
    from albert_tf2 import finetune
    from albert_tf2.recipes import FinetuneRecipe
    from albert_tf2.tasks import registry

    (folder / "data").mkdir()
    recipe = FinetuneRecipe(**{**LEARNS, **changes})
    task = registry.from_recipe(name, recipe)
    data = finetune.read_data(task, write(folder / "data"), recipe, say=str)
    results = finetune.fine_tune(
        task,
        data,
        init_checkpoint=str(checkpoint),
        recipe=recipe,
        workdir=folder / "run",
        say=str,
    )
    assert results["dev"][task.metric] > 0.99
    rows = (folder / "run/metrics.jsonl").read_text().splitlines()
    losses = [json.loads(row)["loss"] for row in rows]
    assert losses[-1] < 0.8 * losses[0]
    predictions = (folder / "run/predictions/test.jsonl").read_text("utf-8")
    assert len(predictions.splitlines()) == len(data.test) > 0
    for part in ("task.json", "vocab.txt", "albert_config.json"):
        assert (folder / "run" / "model" / part).is_file()
    # A row of the training set, for the service's page to show.
    kept = json.loads((folder / "run/model/task.json").read_text("utf-8"))
    assert kept["example"] and all(kept["example"])
    return folder / "run"


# --- layouts of checkpoints, and exports


def check_layout(source: Path, target: str, out: Path) -> dict[str, Any]:
    """Converts weights, and reads them back where that can be done.

    Args:
        source: Weights in any form that is read.
        target: Of `convert --to`.
        out: Where to; nothing lies there yet.

    Returns:
        The certificate.
    """
    from albert_tf2 import convert
    from albert_tf2.checkpoints import read_weights

    given = ["--input", source, "--output", out, "--to", target]
    assert convert.main([str(argument) for argument in given]) == 0
    certificate = json.loads((out / "conversion.json").read_text())
    assert max(certificate["max_abs_difference"].values()) <= 2e-5
    assert certificate["target"]["kind"] == target
    if target in ("tf2", "tf1", "huggingface", "hub"):
        before, after = read_weights(source), read_weights(out)
        assert after.config == before.config
        assert after.vocab_file.read_text() == before.vocab_file.read_text()
        for name, array in before.arrays.items():
            np.testing.assert_array_equal(array, after.arrays[name])
    return certificate


def check_export(source: Path, out: Path, what: str, *flags: str) -> Path:
    """Exports parts, moves them, and looks what they hold; returns where.

    Every part is there, with its version and nothing half-written beside it;
    no file holds a path of this machine; SavedModels load from where they
    were moved to.

    Args:
        source: What to export.
        out: Where to; nothing lies there yet.
        what: Of `export --what`, without `all`.
        *flags: Others of the command.
    """
    import tensorflow as tf

    from albert_tf2.hub_export import export

    given = ["--checkpoint", str(source), "--export_dir", str(out)]
    assert export.main([*given, "--what", what, *flags]) == 0
    moved = out.with_name(f"{out.name}-moved")
    shutil.move(out, moved)
    parts = what.split(",")
    written = {path.name for path in moved.iterdir()}
    assert written | {"cards"} == {*parts, "cards"}
    here = [bytes(path) for path in (out, source, Path(sys.prefix))]
    for path in moved.rglob("*"):
        assert "albert-tmp" not in path.name, path
        if path.is_file():
            content = path.read_bytes()
            assert not [part for part in here if part in content], path
    for part in parts:
        folder = moved / part / "1"
        assert folder.is_dir(), part
        if (folder / "saved_model.pb").exists():
            tf.saved_model.load(str(folder))
    return moved
