"""Damages a folder's files one at a time, and opens it each time.

    python tests/damage.py KIND FOLDER COUNT SEED

Run as a process of its own (`survives`), since what is looked for may end the
process. It prints a line before each try, so that the last one tells what did;
a line of `BAD` where the opener raised anything but a `UserError`.
"""

import json
import random
import shutil
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
    b"[" * 100_000,
    b'{"a": 1, "a": 2}',
    b"9" * 5_000,
    b"\xff\xfe{}",
]
HOSTILE_VALUES = [None, -1, 0, 10**9, 10**30, 1.5, "", "x", [], {}, True]


def damaged(content: bytes, name: str, rng: random.Random) -> bytes | None:
    """Returns a file's content after a damage; None for no file at all."""
    kinds = ["cut", "flip", "zeros", "longer", "gone"]
    if name.endswith(".json"):
        kinds = ["json", "value", "value", "value", "cut", "gone"]
    kind = rng.choice(kinds)
    if kind == "gone":
        return None
    if kind == "json":
        return rng.choice(HOSTILE_JSON)
    if kind == "value":
        return _other_value(content, rng)
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


def _other_value(content: bytes, rng: random.Random) -> bytes:
    """Gives one key another value, or takes it away."""
    values = json.loads(content)
    owner = values
    key = rng.choice(list(owner))
    while isinstance(owner[key], dict) and owner[key] and rng.random() < 0.7:
        owner = owner[key]
        key = rng.choice(list(owner))
    if rng.random() < 0.2:
        del owner[key]
    else:
        owner[key] = rng.choice(HOSTILE_VALUES)
    return json.dumps(values).encode()


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
            if content is None:
                (copy / file).unlink()
            else:
                (copy / file).write_bytes(content)
            yield f"try {number} {file}", copy


def open_tuned(folder: Path) -> None:
    from albert_tf2 import Predictor

    Predictor(str(folder)).classify([("今天", "明天")])


def open_pretrained(folder: Path) -> None:
    from albert_tf2 import load_pretrained

    load_pretrained(folder)


def open_workdir(folder: Path) -> None:
    """Trains `run` for two steps more on `records`, which lie beside it."""
    import dataclasses

    from albert_tf2.pretraining.run import Run
    from albert_tf2.training import run_folder
    from albert_tf2.training.identity import PRETRAINING

    workdir = folder / "run"
    run_folder.expect(workdir, PRETRAINING)
    recipe = run_folder.read_recipe(workdir, PRETRAINING)
    recipe = dataclasses.replace(recipe, train_steps=recipe.train_steps + 2)
    run = Run(recipe, folder / "records", workdir, "one_device")
    run.start(None)
    run.train()


OPENERS = {
    "tuned": open_tuned,
    "pretrained": open_pretrained,
    "workdir": open_workdir,
}


def survives(kind: str, folder: Path, count: int, seed: int = 1) -> None:
    """Raises with what went wrong, if any of the tries did."""
    run = subprocess.run(
        [sys.executable, __file__, kind, folder, str(count), str(seed)],
        capture_output=True,
        text=True,
        timeout=1_800,
    )
    lines = run.stdout.splitlines()
    assert run.returncode == 0, (lines[-1:], run.stderr[-2000:])
    assert "BAD" not in run.stdout, run.stdout[-6000:]
    assert sum(line.startswith("try ") for line in lines) == count


if __name__ == "__main__":
    import resource

    import tensorflow  # noqa: F401

    from albert_tf2.errors import UserError

    # 4 GB above what TensorFlow maps at its start.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30),) * 2)
    kind, whole, *numbers = sys.argv[1:]
    for told, copy in tries(Path(whole), *map(int, numbers)):
        print(told, flush=True)
        try:
            OPENERS[kind](copy)
        except UserError as error:
            sentence = str(error)
            if len(sentence) > 1_000 or "\n" in sentence:
                print(f"BAD {told}: {sentence[:300]}", flush=True)
        except Exception as error:
            print(f"BAD {told}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc(limit=-6, file=sys.stdout)
