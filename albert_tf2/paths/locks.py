"""A folder has one owner.

On this machine's disks the kernel holds the lock (`flock`) and releases it
when the process ends, however it ends: it is never stale. On NFS, Linux turns
the same call into a lock of the server, so it excludes other machines too
(unless the disk was mounted with `nolock` or `local_lock`).

A bucket has no locks. There the owner writes a `.lock` object with a random
token and refreshes it every 20 s; an owner that was silent for 90 s is taken
for dead. Two that start within the same second can both pass, because stores
of objects are written without asking who was first; each of them then sees
the other's token at its next refresh, and `Lock.check` fails in the one that
lost. The clocks of the machines may differ by about a minute.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

from albert_tf2.errors import UserError
from albert_tf2.paths.backends import LOCAL, PathLike, backend_of, shown
from albert_tf2.paths.reading import (
    exists,
    join,
    parse_json,
    read_text,
    scheme_of,
    told,
)
from albert_tf2.paths.writing import (
    make_folder,
    remove_file,
    remove_leftovers,
    write_json,
)

NAME = ".lock"
BEAT_SECONDS = 20.0
STALE_SECONDS = 90.0
# Longer than a store needs between somebody's look and their write.
SETTLE_SECONDS = 1.0
# Only this process can see these, so there is nobody to wait for.
_IN_PROCESS = ("ram", "memory")


class Lock:
    """What the owner of a folder holds."""

    def __init__(self, folder: PathLike, what: str, wait: bool):
        self.folder, self.what, self.wait = folder, what, wait
        self.lost = threading.Event()

    def check(self) -> None:
        """Raises a `UserError` if another process took the folder over."""
        if self.lost.is_set():
            raise UserError(
                f"{shown(self.folder)} was taken over by another {self.what} "
                "while this one could not reach it: stop one of them"
            )


@contextlib.contextmanager
def lock(
    folder: PathLike, what: str = "run", wait: bool = False
) -> Iterator[Lock]:
    """Owns a folder, which is created, for the time of the block.

    What killed processes left in the folder is removed.

    Args:
        folder: A local or remote folder.
        what: What the owner is, for the sentence: "run" or "build".
        wait: Wait for another owner on this machine's disks, and say so.

    Raises:
        UserError: If another process, or this one, owns the folder.
    """
    backend, inner = backend_of(folder)
    make_folder(folder)
    held = Lock(folder, what, wait)
    own = _kernel_lock if backend is LOCAL else _lease
    with own(join(inner, NAME), held):
        remove_leftovers(folder, owned=True)
        yield held


def _claim(what: str) -> dict:
    """Returns what others read about the owner."""
    return {
        "what": what,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.datetime.now().astimezone().isoformat("T", "seconds"),
    }


def _owner(path: str) -> dict:
    """Returns what the owner wrote; nothing if that cannot be read."""
    try:
        return parse_json(read_text(path, 10_000), path, dict)
    except UserError:
        return {}


def _refuse(held: Lock, owner: dict, remedy: str) -> UserError:
    what = owner.get("what", held.what)
    return UserError(
        f"{shown(held.folder)} is in use by another {what} (process "
        f"{owner.get('pid', 'unknown')} on {owner.get('host', 'an unknown')}, "
        f"since {owner.get('since', 'an unknown time')}): {remedy}"
    )


@contextlib.contextmanager
def _kernel_lock(path: str, held: Lock) -> Iterator[None]:
    with told(path, "locked"):
        descriptor = _open_and_lock(path, held)
    if descriptor is None:
        with _lease(path, held):
            yield
        return
    owner = os.getpid()
    _DESCRIPTORS.add(descriptor)
    try:
        yield
    finally:
        if os.getpid() == owner:
            _DESCRIPTORS.discard(descriptor)
            # Removed before it is released: whoever waits looks again.
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(descriptor)


def _open_and_lock(path: str, held: Lock) -> int | None:
    """Returns a locked descriptor; None on a disk without locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _flock(descriptor, path, held)
            same = os.fstat(descriptor).st_nlink > 0
            if same:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_claim(held.what)).encode())
                return descriptor
        except UserError:
            os.close(descriptor)
            raise
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                return None
            raise
        os.close(descriptor)  # the last owner removed it just now


def _flock(descriptor: int, path: str, held: Lock) -> None:
    """Locks, waits, or refuses."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        told = _refuse(
            held,
            _owner(path),
            "wait until it has ended, or choose another folder",
        )
        if not held.wait:
            raise told from None
        print(f"waiting: {told}".rpartition(":")[0], file=sys.stderr)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


_DESCRIPTORS: set[int] = set()


def _close_in_child() -> None:
    """Leaves the lock to the parent: workers may outlive a killed one."""
    for descriptor in _DESCRIPTORS:
        os.close(descriptor)
    _DESCRIPTORS.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def _lease(path: str, held: Lock) -> Iterator[None]:
    claim = {**_claim(held.what), "token": os.urandom(16).hex()}
    settle = 0 if scheme_of(path) in _IN_PROCESS else SETTLE_SECONDS
    _take(path, held, claim, settle)
    ended = threading.Event()
    beating = threading.Thread(
        target=_beat, args=(path, held, claim, ended), daemon=True
    )
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        ours = _owner(path).get("token") == claim["token"]
        if ours and os.getpid() == claim["pid"]:
            with contextlib.suppress(UserError):
                remove_file(path)


def _take(path: str, held: Lock, claim: dict, settle: float) -> None:
    """Writes the claim if nobody else is alive, and looks whether it stands."""
    if exists(path):
        owner = _owner(path)
        if not owner:  # perhaps while it was being replaced
            time.sleep(settle)
            owner = _owner(path)
        silent = time.time() - _number(owner.get("beat"))
        if silent < STALE_SECONDS:
            raise _refuse(
                held,
                owner,
                "wait until it has ended, or choose another folder; if it was "
                f"killed, start again in {STALE_SECONDS - silent:.0f} s",
            )
    write_json(path, {**claim, "beat": time.time()})
    time.sleep(settle)
    owner = _owner(path)
    if owner.get("token") != claim["token"]:
        raise _refuse(held, owner, "it started at the same moment")


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0.0


def _beat(path: str, held: Lock, claim: dict, ended: threading.Event) -> None:
    """Refreshes the claim until the end, or until another one stands there."""
    while not ended.wait(BEAT_SECONDS):
        with contextlib.suppress(UserError, OSError):  # tried again soon
            owner = _owner(path)
            if owner and owner.get("token") != claim["token"]:
                held.lost.set()
                return
            write_json(path, {**claim, "beat": time.time()})
