"""Files that are either whole or not there.

Everything the project writes goes to a temporary name in the same folder and
is renamed at the end, so a killed process or a full disk never leaves half a
file under a name that somebody will read.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from albert_tf2.errors import UserError

PathLike = str | os.PathLike


@contextlib.contextmanager
def atomic_file(path: PathLike, mode: str = "w") -> Iterator[IO]:
    """Opens a file that appears under `path` only if the block succeeds.

    Text modes write UTF-8 with LF line ends on every platform.
    """
    path = Path(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, **text) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"{path} could not be written ({error.strerror or error}): free "
            "some space or choose another place"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_directory(
    path: PathLike, *, overwrite: bool = False
) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` if the block succeeds.

    Args:
        path: The folder to create.
        overwrite: Replace an existing folder, which stays untouched until
            the new one is complete.

    Raises:
        UserError: If `path` exists and may not be replaced.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(
            f"{path} already exists: choose another folder or pass --overwrite"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        # mkdtemp makes private folders; a published one is for everybody.
        temporary.chmod(0o755)
        if path.exists():
            retired = Path(tempfile.mkdtemp(dir=path.parent)) / path.name
            os.replace(path, retired)
            os.replace(temporary, path)
            shutil.rmtree(retired.parent)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sha256(path: PathLike) -> str:
    """Returns the hexadecimal SHA-256 of a file, read in pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: PathLike, value: Any) -> None:
    """Writes readable JSON (UTF-8, two spaces, final newline), atomically."""
    with atomic_file(path) as stream:
        json.dump(value, stream, ensure_ascii=False, indent=2)
        stream.write("\n")


def read_json(path: PathLike) -> Any:
    """Reads a JSON file, or raises a `UserError` that names it."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte {error.start}): convert it first"
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg})"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): check the path"
        ) from error
