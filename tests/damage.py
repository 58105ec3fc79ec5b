"""Damages a folder's files one at a time, and opens it each time.

    python tests/damage.py FOLDER COUNT SEED

Run as a process of its own, since what is looked for may end the process. It
prints a line before each try, so that the last one tells what did; a line of
`BAD` where the opener raised anything but a `UserError`.
"""

import json
import random
import shutil
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
            yield f"{number} {file}", copy


def open_model(folder: Path) -> None:
    from albert_tf2 import Predictor

    Predictor(str(folder)).classify([("今天", "明天")])


if __name__ == "__main__":
    import resource

    import tensorflow  # noqa: F401

    from albert_tf2.errors import UserError

    # 4 GB above what TensorFlow maps at its start.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30),) * 2)
    for told, copy in tries(Path(sys.argv[1]), *map(int, sys.argv[2:4])):
        print(told, flush=True)
        try:
            open_model(copy)
        except UserError as error:
            sentence = str(error)
            if len(sentence) > 1_000 or "\n" in sentence:
                print(f"BAD {told}: {sentence[:300]}", flush=True)
        except Exception as error:
            print(f"BAD {told}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc(limit=-6, file=sys.stdout)
