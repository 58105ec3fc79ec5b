"""A Python whose processes start with TensorFlow already imported.

Importing TensorFlow costs 6 seconds of processor time, more than most commands
do after it. So one process imports it, and what few packages come with it, and
then forks a child for each command, as Android's zygote does. A child knows
nothing of `albert_tf2`, which it imports anew; it has its own working folder,
environment, streams and exit code, and can be killed.

`start` writes a program that is called as `python` is: with `-m MODULE`, with
`-c CODE` or with a file. What cannot be the same in a forked process (other
flags, an environment that Python or TensorFlow read as they start) runs in a
new one. A test takes it by the fixture `warm_python`, which puts it in the
place of `sys.executable`.
"""

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What the children find imported.
PACKAGES = (
    "tensorflow",
    "tensorflow_text",
    "tensorflow_hub",
    "tf_keras",
    "official.modeling.optimization.lamb",
    "tensorflow_addons",
    "fastapi",
    "uvicorn",
)
# Read while Python and TensorFlow start: a child would be too late for others.
READ_AT_START = ("PYTHON", "TF_", "KERAS_", "XLA_", "OMP_", "LC_", "LANG")
READ_LATER = ("TF_CPP_MIN_LOG_LEVEL", "TF_CONFIG")

CLIENT = """\
#!{python} -IS
import json, os, signal, socket, struct, sys

PYTHON, ADDRESS, HERE = {python!r}, {address!r}, {here!r}
arguments = sys.argv[1:]
rest = arguments[2:] if arguments[:1] == ["-W"] else arguments
what = rest[0] if rest else "-"
known = what in ("-c", "-m") or not what.startswith("-")
if what == "-c" and rest[1].startswith("from multiprocessing"):
    known = False
if not known or HERE != {{
    name: value
    for name, value in os.environ.items()
    if name.startswith({read_at_start!r}) and name not in {read_later!r}
}}:
    os.execv(PYTHON, [PYTHON, *arguments])
server = socket.socket(socket.AF_UNIX)
server.connect(ADDRESS)
request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [struct.pack("Q", len(request))], [0, 1, 2])
server.sendall(request)
answers = server.makefile()
child = int(answers.readline())
with open(f"{{ADDRESS}}-{{os.getpid()}}", "w") as file:
    file.write(str(child))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(child, number))
status = int(answers.readline() or 9)
code = os.waitstatus_to_exitcode(status)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if code != -9 else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def _relevant(environment):
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_AT_START) and name not in READ_LATER
    }


class WarmPython:
    """Starts the process that forks; `path` is called as `python` is."""

    def __init__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="warm-python-"))
        self._address = address = str(self._folder / "socket")
        self.path = str(self._folder / "python")
        client = CLIENT.format(
            python=sys.executable,
            address=address,
            here=_relevant(os.environ),
            read_at_start=READ_AT_START,
            read_later=READ_LATER,
        )
        Path(self.path).write_text(client, "utf-8")
        Path(self.path).chmod(0o755)
        self._server = subprocess.Popen(
            [sys.executable, __file__, address, self.path],
            stdin=subprocess.PIPE,  # its end is the end of the server
            start_new_session=True,
        )
        while not os.path.exists(address):
            if self._server.poll() is not None:
                raise RuntimeError("no warm Python: its server has ended")
            time.sleep(0.01)

    def kill(self, process):
        """Kills, with SIGKILL, what `subprocess.Popen` started here.

        `process.kill` would reach the caller alone, and the child a moment
        after it.
        """
        known = Path(f"{self._address}-{process.pid}")
        os.kill(int(known.read_text("utf-8")), signal.SIGKILL)

    def close(self):
        self._server.stdin.close()
        self._server.wait()
        shutil.rmtree(self._folder)


def _read(connection, count):
    data = b""
    while len(data) < count:
        data += connection.recv(count - len(data))
    return data


def _run(arguments):
    """Runs what the command line says, as `python` would."""
    import runpy
    import warnings

    if arguments[0] == "-W":
        warnings.simplefilter(arguments[1])
        arguments = arguments[2:]
    what, *rest = arguments
    if what == "-m":
        sys.argv = rest
        sys.path[0] = os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path[0] = ""
        module = type(sys)("__main__")
        sys.modules["__main__"] = module
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.abspath(what))
        runpy.run_path(what, run_name="__main__")


def _become(request, descriptors, executable):
    """Turns a forked child into the process that was asked for."""
    import atexit
    import threading
    import traceback

    arguments, folder, environment = request
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")
    sys.stderr.reconfigure(line_buffering=True)
    sys.executable = executable
    code = 0
    try:
        _run(arguments)
    except SystemExit as ending:
        code = ending.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit((code or 0) & 255)


def _serve(address, executable):
    """Forks until standard input ends."""
    for name in PACKAGES:
        with contextlib.suppress(ImportError):
            __import__(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen()
    os.rename(address + ".new", address)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(0, selectors.EVENT_READ)
    children = {}  # connection -> (pid, its descriptor), and back
    while True:
        for key, _ in waiting.select():
            ready = key.fileobj
            if ready is listener:
                connection, _ = listener.accept()
                size, descriptors, *_ = socket.recv_fds(connection, 8, 3)
                size += _read(connection, 8 - len(size))
                data = _read(connection, int.from_bytes(size, "little"))
                child = os.fork()
                if not child:
                    os.setsid()
                    waiting.close()
                    listener.close()
                    connection.close()
                    _become(json.loads(data), descriptors, executable)
                for descriptor in descriptors:
                    os.close(descriptor)
                connection.sendall(b"%d\n" % child)
                handle = os.pidfd_open(child)
                children[handle] = child, connection
                children[connection] = child, handle
                waiting.register(handle, selectors.EVENT_READ)
                waiting.register(connection, selectors.EVENT_READ)
            elif ready == 0:
                for child, _ in children.values():
                    with contextlib.suppress(OSError):
                        os.kill(child, signal.SIGKILL)
                return
            elif isinstance(ready, int):
                child, connection = children.pop(ready)
                _, status = os.waitpid(child, 0)
                if connection in children:
                    with contextlib.suppress(OSError):
                        connection.sendall(b"%d\n" % status)
                    children.pop(connection)
                    waiting.unregister(connection)
                    connection.close()
                waiting.unregister(ready)
                os.close(ready)
            else:  # who waits for it was killed, and so is it
                child, _ = children.pop(ready)
                os.kill(child, signal.SIGKILL)
                waiting.unregister(ready)
                ready.close()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
