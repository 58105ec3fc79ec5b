"""Damages a folder's files one at a time, and opens it each time.

    python tests/damage.py KIND[,KIND] FOLDER COUNT SEED

Run as a process of its own (`survives`), since what is looked for may end the
process. It prints a line before each try, so that the last one tells what did;
a line of `BAD` where the opener raised anything but a `UserError`, took a
minute, or wrote outside of its copy; at the end also where the whole sample is
refused. What can be opened is in `damage_kinds`.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

HOSTILE_JSON = [
    b"",
    b"[]",
    b"null",
    b"3",
    b'"x"',
    b"[" * 100_000,
    b'{"a": 1, "a": 2}',
    b"9" * 5_000,
    b"1e999",
    b"NaN",
    b'"\\ud83d"',
    b"\xff\xfe{}",
    b"\x00",
]
HOSTILE_VALUES = [
    *(None, -1, 0, 10**9, 10**30, 1.5, "", "x", [], {}, True),
    *([[]], [{}], {"x": []}, "\x00", "\ud83d", float("nan"), float("inf")),
]
# What a line of a table, a vocabulary or a recipe may hold by mistake.
HOSTILE_LINES = [
    *(b"", b"\t", b",", b'"', b'"""', b"\x00", b"\r", b"\xe2\x80\xa8"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\xbd", b"-", b"- - -", b"{}"),
    *(b"[", b"&a [*a]", b"!!python/object/apply:os.system [id]", b"a: b: c"),
    *(b"9" * 5_000, b"x" * 100_000, b"_" * 3, b"<<: *a", b"\x1b[31m"),
]
TEXTS = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".yaml")
SECONDS = 60
# Tries of a kind that needs TensorFlow, in the long proofs.
HEAVY_TRIES = 60


def damaged(content: bytes, name: str, rng: random.Random) -> bytes | None:
    """Returns a file's content after a damage; None for another kind of file.

    That is: none at all, a folder, a pipe, a link in a circle, or 6 GB of
    zeros (`place`).
    """
    kinds = ["cut", "flip", "zeros", "longer", "odd"]
    if name.endswith(TEXTS):
        kinds += ["line", "line", "line"]
    if name.endswith(".json"):
        kinds = ["json", "value", "value", "value", "cut", "odd"]
    if name.endswith(".jsonl"):
        kinds += ["row", "row", "row"]
    kind = rng.choice(kinds)
    if kind == "odd":
        return None
    if kind == "json":
        return rng.choice(HOSTILE_JSON)
    if kind in ("value", "row"):
        return _other_value(content, rng)
    if kind == "line":
        return _other_line(content, rng)
    at = rng.randrange(len(content) + 1)
    if kind == "cut":
        return content[:at]
    if kind == "zeros":
        return content[:at] + bytes(min(64, len(content) - at)) + content[at:]
    if kind == "longer":
        return content + rng.randbytes(100)
    copy = bytearray(content)
    for _ in range(rng.choice([1, 3, 20])):
        if copy:
            copy[rng.randrange(len(copy))] ^= 1 << rng.randrange(8)
    return bytes(copy)


def _other_line(content: bytes, rng: random.Random) -> bytes:
    """Puts a hostile line into a file, or a part of one into a line."""
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    hostile = rng.choice(HOSTILE_LINES)
    match rng.randrange(4):
        case 0:
            lines[at] = hostile
        case 1:
            lines.insert(at, hostile)
        case 2:
            lines[at] = lines[at] * 2
        case _:
            parts = re.split(rb"([\t,: ])", lines[at])
            parts[rng.randrange(len(parts))] = hostile
            lines[at] = b"".join(parts)
    return b"\n".join(lines)


def _other_value(content: bytes, rng: random.Random) -> bytes:
    """Gives one key another value, or takes it away."""
    lines = [content]
    try:
        values = json.loads(content)
    except ValueError:  # a value per line
        lines = content.split(b"\n")
        at = rng.randrange(max(1, len(lines) - 1))
        values = json.loads(lines[at])
    else:
        at = 0
    owner, key, depth = [values], 0, 0
    while isinstance(owner[key], dict | list) and owner[key]:
        if depth and rng.random() < 0.3:
            break
        owner, depth = owner[key], depth + 1
        is_list = isinstance(owner, list)
        key = rng.choice(range(len(owner)) if is_list else list(owner))
    if rng.random() < 0.2:
        del owner[key]
    else:
        owner[key] = rng.choice(HOSTILE_VALUES)
    lines[at] = json.dumps(values).encode()
    return b"\n".join(lines)


def place(path: Path, content: bytes | None, rng: random.Random) -> None:
    """Writes the damaged file, or something that is no file."""
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        return
    match rng.randrange(6):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(path.name)
        case 3:
            path.symlink_to("/dev/zero")
        case 4:
            path.touch()
            os.truncate(path, 6 << 30)
        case _:
            pass  # no file


def tries(folder: Path, count: int, seed: int):
    """Yields what was done and a damaged copy of the folder."""
    rng = random.Random(seed)
    files = sorted(
        p.relative_to(folder) for p in folder.rglob("*") if p.is_file()
    )
    for number in range(count):
        # Each file in turn: the largest would else be hit most.
        file = files[number % len(files)]
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary, "copy")
            shutil.copytree(folder, copy)
            content = damaged((folder / file).read_bytes(), file.name, rng)
            place(copy / file, content, rng)
            yield f"try {number} {file}", copy
            if strange := set(os.listdir(temporary)) - {"copy"}:
                print(f"BAD try {number} {file}: wrote {strange}", flush=True)


def survives(kind: str, folder: Path, count: int, seed: int = 1) -> None:
    """Raises with what went wrong, if any of the tries did.

    Args:
        kind: One of `damage_kinds.OPENERS`; several, with commas between
            them, are subfolders of these names.
        folder: What to damage.
        count: Tries, of each kind.
        seed: Decides the damages.
    """
    run = subprocess.run(
        [sys.executable, __file__, kind, folder, str(count), str(seed)],
        capture_output=True,
        text=True,
        timeout=3_600,
    )
    lines = run.stdout.splitlines()
    assert run.returncode == 0, (lines[-1:], run.stderr[-2000:])
    bad = [number for number, line in enumerate(lines) if "BAD" in line]
    assert not bad, "\n".join(lines[bad[0] : bad[0] + 30])
    done = sum(line.startswith("try ") for line in lines)
    assert done == count * (kind.count(",") + 1)


class Hang(BaseException):
    """A try that does not end; no reader may take it for an error."""


def _hang(*_) -> None:
    raise Hang(f"more than {SECONDS} s")


def attempt(told: str, open_it, copy: Path) -> None:
    """Opens a damaged copy, and prints `BAD` with what went wrong."""
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(SECONDS)
    try:
        open_it(copy)
    except UserError as error:
        sentence = str(error)
        if len(sentence) > 1_000 or "\n" in sentence:
            print(f"BAD {told}: {sentence[:300]!r}", flush=True)
    except BaseException as error:
        # What `command_line.run` gives a sentence of the system's own.
        if _sentence(error) is None or isinstance(error, MemoryError):
            print(f"BAD {told}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc(limit=-6, file=sys.stdout)
    finally:
        signal.alarm(0)


def main(kinds: str, whole: str, count: int, seed: int) -> None:
    import resource

    from damage_kinds import NEED_TENSORFLOW, OPENERS

    several = kinds.split(",")
    if NEED_TENSORFLOW & set(several):
        import tensorflow  # noqa: F401
    # 4 GB above what TensorFlow maps at its start.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30),) * 2)
    for kind in several:
        folder = Path(whole, kind) if "," in kinds else Path(whole)
        for told, copy in tries(folder, count, seed):
            print(f"{told} ({kind})", flush=True)
            attempt(f"{kind}, {told}", OPENERS[kind], copy)
        with tempfile.TemporaryDirectory() as temporary:
            copy = shutil.copytree(folder, Path(temporary, "copy"))
            attempt(f"{kind}, the whole sample", _whole(OPENERS[kind]), copy)


def _whole(open_it):
    """An opener that must succeed: a refused sample proves nothing of damage.

    Last of all, since a try may also leave the process unable to go on.
    """

    def open_whole(copy: Path) -> None:
        try:
            open_it(copy)
        except UserError as error:
            raise AssertionError(f"is refused: {error}") from error

    return open_whole


if __name__ == "__main__":
    from albert_tf2.command_line import _sentence
    from albert_tf2.errors import UserError

    main(*sys.argv[1:3], *map(int, sys.argv[3:5]))
