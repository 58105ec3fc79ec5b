"""Harnesses, one for each kind of thing that this project has many of.

    check_command    a command line: help, version, wrong flags
    check_refused    its bad input: one sentence, exit code 2, nothing written
    check_task       a task: its files, rows, description, damaged files
    check_layout     a layout of checkpoints: there, certified, and back
    check_export     an export: whole, without a path of this machine, movable

CONTRIBUTING.md shows how to test a new task, layout or command with them.
"""

import atexit
import contextlib
import importlib
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

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
