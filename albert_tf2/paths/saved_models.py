"""SavedModels, written with the sums of their files and read with suspicion.

TensorFlow's loader is made for files that are whole: at others it raises
whatever it meets, waits for a pipe, or takes the memory until the process
ends. So a SavedModel of this project says what belongs to it, in the folder
that the format keeps for a program's own files, which TensorFlow ignores:

    assets.extra/sha256.json     name -> bytes and SHA-256
    saved_model.pb  assets/*  variables/*     what it names

The sums tell a damage, not an attack: whoever changes a file can change its
sum. `fingerprint.pb` is not among them, since it holds a random number.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from albert_tf2 import errors
from albert_tf2.errors import UserError
from albert_tf2.paths.backends import PathLike, shown, text_of
from albert_tf2.paths.reading import (
    describe_files,
    exists,
    is_file,
    join,
    parent,
    read_bytes,
    read_json,
    sha256,
    size,
)
from albert_tf2.paths.writing import make_folder, write_json

SAVED_MODEL = "saved_model.pb"
SUMS_FILE = "assets.extra/sha256.json"
# What TensorFlow reads of a SavedModel, and nothing outside of it.
_NAMES = re.compile(r"saved_model\.pb|(assets|variables)/(?!\.\.?$)[^/]+")
# A protocol buffer has no more bytes than this, a fingerprint a hundred.
MOST_GRAPH_BYTES = (2 << 30) - 1
MOST_FINGERPRINT_BYTES = 1 << 16


def save(root: Any, folder: Path, signatures: Any) -> None:
    """Writes a SavedModel and the sums of its files.

    Args:
        root: As for `tf.saved_model.save`, like `signatures`.
        folder: The new folder, on this machine.
        signatures: A function, or several by name.
    """
    import tensorflow as tf

    tf.saved_model.save(root, str(folder), signatures=signatures)
    write_sums(folder)


def write_sums(folder: Path) -> None:
    """Writes `SUMS_FILE` of what a SavedModel holds now."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and _NAMES.fullmatch(path.relative_to(folder).as_posix())
    ]
    make_folder(parent(folder / SUMS_FILE))
    write_json(folder / SUMS_FILE, describe_files(found, folder))


def load(folder: PathLike) -> Any:
    """Returns what `tf.saved_model.load` makes of a SavedModel, checked."""
    import tensorflow as tf

    with loading(folder):
        return tf.saved_model.load(text_of(folder))


@contextlib.contextmanager
def loading(folder: PathLike) -> Iterator[None]:
    """Checks a SavedModel, and gives what its loader raises a sentence.

    Raises:
        UserError: See `check`; or if the loader could not.
    """
    check(folder)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # every layer below raises its own kind
        reason = errors.cut(str(error).strip().split("\n")[0])
        raise UserError(
            f"{shown(folder)} cannot be loaded ({type(error).__name__}: "
            f"{reason}): import the library that its operations come "
            "from, or fetch or export it again"
        ) from error


def check(folder: PathLike) -> None:
    """Compares a SavedModel's files with its sums, where it has any.

    Of another program's, which has none, the graph is parsed: TensorFlow's
    loader is not given what is no graph at all.

    Raises:
        UserError: If a file is damaged or missing.
    """
    sums = join(folder, SUMS_FILE)
    if exists(sums):
        for name, facts in _listed(sums).items():
            _compare(join(folder, name), facts)
    elif is_file(join(folder, SAVED_MODEL)):
        _parse(join(folder, SAVED_MODEL))
    fingerprint = join(folder, "fingerprint.pb")
    if exists(fingerprint):
        read_bytes(fingerprint, MOST_FINGERPRINT_BYTES)


def _listed(sums: str) -> dict[str, Mapping[str, Any]]:
    """Returns what a list says of each file, without reading the files."""
    files = read_json(sums, dict)
    for name in (SAVED_MODEL, *files):
        facts = files.get(name)
        sound = isinstance(facts, dict) and facts.keys() == {"bytes", "sha256"}
        if not (sound and _NAMES.fullmatch(name)):
            raise UserError(
                f"{shown(sums)} is damaged ({errors.shown(name)}): export or "
                "fetch the model again"
            )
    return files


def _compare(path: str, facts: Mapping[str, Any]) -> None:
    """Compares a file with its size, which is cheap, and with its sum."""
    found = size(path) if is_file(path) else None
    if found is None:
        difference = "it is missing"
    elif found != facts["bytes"]:
        wanted = errors.shown(facts["bytes"])
        difference = f"it has {found} bytes, not {wanted}"
    elif sha256(path) != facts["sha256"]:
        difference = "its SHA-256 is another"
    else:
        return
    raise UserError(
        f"{shown(path)} is not what was exported ({difference}): "
        f"export or fetch the model again, or remove {SUMS_FILE} if you "
        "changed the file yourself"
    )


def _parse(path: str) -> None:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved_model_pb2.SavedModel.FromString(
            read_bytes(path, MOST_GRAPH_BYTES)
        )
    except DecodeError as error:
        raise UserError(
            f"{shown(path)} is truncated or damaged ({error}): fetch or copy "
            "the model again"
        ) from error
