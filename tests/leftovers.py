"""What a run of the tests must not leave: processes, and with `--leftovers`
files in the checkout or in the temporary folder.

Files are looked for only if asked: beside other work in the same checkout or
on the same machine, a new file need not be the tests'.
"""

import fcntl
import os
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Handed down to every process that a test starts.
MARK = "ALBERT_TF2_TESTS"
# Helpers of Python and of Spark, which end with the process that they serve.
SERVANTS = ("multiprocessing.", "from multiprocessing", "pyspark", "loky")
# Of `paths.writing`, and of the tests' own temporary folders.
OURS = ("*.albert-tmp*", "albert-test-*")
GRACE_SECONDS = 5


def mark() -> None:
    """Makes what is started from now on known as this session's."""
    os.environ[MARK] = f"session-{os.getpid()}"


def processes() -> list[str]:
    """Returns the command lines of what this session started and still runs.

    Where there is no /proc there is nothing to be seen.
    """
    wanted = f"{MARK}=session-{os.getpid()}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:  # it ended meanwhile, or is another user's
            continue
        text = line.decode(errors="replace").strip()
        if text and not any(name in text for name in SERVANTS):
            found.append(f"{folder.name}: {text[:200]}")
    return found


def files() -> set[str]:
    """Returns what git does not know here, and our temporary files."""
    listing = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    temporary = Path(tempfile.gettempdir())
    ours = [path for name in OURS for path in temporary.glob(name)]
    return {*listing.splitlines(), *map(str, filter(_is_left, ours))}


def _is_left(path: Path) -> bool:
    """Says whether nobody holds a file; some are kept until a process ends."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # gone meanwhile
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def check(before: set[str] | None) -> None:
    """Raises `AssertionError` if something is left.

    Args:
        before: Of `files`, when the session began; None looks at processes
            alone.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    while (left := processes()) and time.monotonic() < deadline:
        time.sleep(0.1)  # one that was told to end may need a moment
    assert not left, f"the tests left processes running: {left}"
    if before is not None:
        new = sorted(files() - before)
        assert not new, f"the tests left files: {new}"
