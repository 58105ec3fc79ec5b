"""One door: what holds for a local path holds for every other one."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from albert_tf2 import UserError, paths
from albert_tf2.paths import backends, locks


@pytest.fixture(params=["local", "file", "ram", "memory"])
def folder(request, tmp_path):
    """The same empty folder, behind each of the backends."""
    if request.param == "memory":
        pytest.importorskip("fsspec")
    if request.param in ("ram", "memory"):
        root = f"{request.param}://{tmp_path.name}-{os.urandom(4).hex()}"
        paths.make_folder(root)
        return root
    return f"file://{tmp_path}" if request.param == "file" else str(tmp_path)


def write(path, content=b"x"):
    with paths.atomic_file(path, "wb") as stream:
        stream.write(content)


def test_a_name_that_begins_as_anothers(folder):
    """As a SavedModel's `assets` and `assets.extra`."""
    with paths.atomic_directory(paths.join(folder, "model")) as temporary:
        for name in ("assets", "assets.extra"):
            (temporary / name).mkdir()
            (temporary / name / "vocab.txt").write_bytes(name.encode())
    model = paths.join(folder, "model")
    both = [("assets", True), ("assets.extra", True)]
    assert paths.entries(model) == both
    for name, _ in both:
        place = paths.join(model, name)
        assert paths.entries(place) == [("vocab.txt", False)]
        content = paths.read_bytes(paths.join(place, "vocab.txt"))
        assert content == name.encode()
    paths.remove_folder(paths.join(model, "assets"))
    assert paths.names(model) == ["assets.extra"]
    paths.remove_folder(model)
    assert not paths.exists(model)


def test_write_read_list_remove(folder):
    path = paths.join(folder, "sub", "a.bin")
    assert not paths.exists(path)
    assert paths.names(paths.join(folder, "sub")) == []
    for content in (b"first", b"second"):  # the second replaces the first
        write(path, content)
    assert paths.size(path) == 6
    assert paths.is_file(path) and not paths.is_dir(path)
    assert paths.is_dir(paths.parent(path))
    assert not paths.exists(path.removesuffix(".bin"))
    with paths.open_binary(path) as stream:
        stream.seek(3)
        assert stream.read() == b"ond"
    paths.write_json(paths.join(folder, "sub", "b.json"), {"的": 1})
    assert paths.read_json(paths.join(folder, "sub", "b.json")) == {"的": 1}
    paths.make_folder(paths.join(folder, "sub", "deep"))
    assert paths.entries(paths.join(folder, "sub")) == [
        ("a.bin", False),
        ("b.json", False),
        ("deep", True),
    ]
    paths.remove_file(path)
    paths.remove_file(path)
    assert paths.names(paths.join(folder, "sub")) == ["b.json", "deep"]
    paths.remove_folder(paths.join(folder, "sub"))
    paths.remove_folder(paths.join(folder, "sub"))
    assert not paths.exists(paths.join(folder, "sub"))


def test_text_keeps_its_line_ends(folder):
    path = paths.join(folder, "a.txt")
    with paths.atomic_file(path) as stream:
        stream.write("字\r\n二\n")
        assert not paths.exists(path)
    assert paths.read_bytes(path) == "字\r\n二\n".encode()
    with paths.open_text(path) as stream:
        assert list(stream) == ["字\r\n", "二\n"]
    paths.append_line(path, "三")
    paths.append_line(paths.join(folder, "new", "b.txt"), "一")
    assert paths.read_text(path).endswith("\n二\n三\n")
    assert paths.read_text(paths.join(folder, "new", "b.txt")) == "一\n"
    write(path, b"")
    assert paths.size(path) == 0


def test_a_failed_write_leaves_the_old_one(folder):
    path = paths.join(folder, "a.bin")
    write(path, b"old")
    with pytest.raises(KeyError), paths.atomic_file(path, "wb") as stream:
        stream.write(b"half")
        raise KeyError
    assert paths.read_bytes(path) == b"old"
    assert paths.names(folder) == ["a.bin"]


def test_what_is_not_there_is_one_sentence(folder):
    path = paths.join(folder, "absent")
    for read in (paths.open_binary, paths.size, paths.sha256, paths.read_json):
        with pytest.raises(UserError, match="absent does not exist: check"):
            read(path)
    paths.make_folder(path)
    for read in (paths.open_binary, paths.size, paths.read_json):
        with pytest.raises(UserError, match="absent is a folder"):
            read(path)


@pytest.mark.parametrize("root", ["ram://whole_bucket", "gs://nobodys/"])
def test_a_whole_bucket_is_not_replaced(root):
    """`--export_dir gs://bucket --overwrite` would have emptied it."""
    with (
        pytest.raises(UserError, match=f"whole bucket.*{root.rstrip('/')}/mo"),
        paths.atomic_directory(root, overwrite=True),
    ):
        raise AssertionError("it was begun")


def test_atomic_directory(folder):
    path = paths.join(folder, "model")
    with paths.atomic_directory(path) as temporary:
        (temporary / "a").write_text("1")
        (temporary / "deep").mkdir()
        (temporary / "deep" / "b").write_text("2")
        assert not paths.exists(path)
    assert paths.read_text(paths.join(path, "deep", "b")) == "2"
    with pytest.raises(UserError, match="model already exists"):
        with paths.atomic_directory(path):
            pass
    with pytest.raises(RuntimeError):
        with paths.atomic_directory(path, overwrite=True) as temporary:
            raise RuntimeError
    assert paths.read_text(paths.join(path, "a")) == "1"
    with paths.atomic_directory(f"{path}/", overwrite=True) as temporary:
        (temporary / "c").write_text("3")
    assert paths.names(path) == ["c"]
    assert paths.names(folder) == ["model"]
    assert not temporary.exists()


def test_local_copy_and_copies(folder, tmp_path):
    write(paths.join(folder, "in", "deep", "a"), b"content")
    with paths.local_copy(paths.join(folder, "in")) as here:
        assert Path(here, "deep", "a").read_bytes() == b"content"
    assert os.path.exists(here) != paths.is_remote(folder)
    with paths.local_copy(paths.join(folder, "in", "deep", "a")) as here:
        assert Path(here).read_bytes() == b"content"
    paths.copy_file(paths.join(folder, "in", "deep", "a"), tmp_path / "b")
    assert paths.sha256(tmp_path / "b") == paths.sha256(
        paths.join(folder, "in", "deep", "a")
    )
    with pytest.raises(UserError, match="nowhere does not exist"):
        with paths.local_copy(paths.join(folder, "nowhere")):
            pass


def test_globs(folder):
    for name in ("b.txt", "a.txt", ".c.txt", "c.dat", "sub/d.txt", "x/y/e.txt"):
        write(paths.join(folder, name))

    def find(pattern):
        found = paths.find(paths.join(folder, pattern))
        return [path.removeprefix(f"{folder}/") for path in found]

    assert find("*.txt") == ["a.txt", "b.txt"]
    assert find("a.txt") == ["a.txt"]
    assert find("[bc].*") == ["b.txt", "c.dat"]
    assert find("z*.txt") == []
    assert find("sub/*.txt") == ["sub/d.txt"]
    assert find("*/d.txt") == ["sub/d.txt"]
    assert find("**/*.txt") == ["a.txt", "b.txt", "sub/d.txt", "x/y/e.txt"]
    assert find("x/**") == ["x/y/e.txt"]
    with pytest.raises(UserError, match=r"is a folder: pass .*\*\.txt'"):
        paths.find(folder)


def test_a_glob_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("sub/a.txt")
    write("b.txt")
    write("c[1].txt")
    assert paths.find("*.txt") == ["b.txt", "c[1].txt"]
    assert paths.find("c[1].txt") == ["c[1].txt"]
    assert paths.find("**/*.txt") == ["b.txt", "c[1].txt", "sub/a.txt"]


def test_links_lead_to_each_file_once(tmp_path):
    write(tmp_path / "corpus" / "zh" / "a.txt")
    write(tmp_path / "elsewhere" / "b.txt")
    for name, goal in (
        ("corpus/zh/up", "corpus"),
        ("corpus/zh/again", "corpus"),
        ("corpus/aa", "corpus/zh"),
        ("corpus/other", "elsewhere"),
    ):
        (tmp_path / name).symlink_to(tmp_path / goal)
    assert paths.find(tmp_path / "corpus" / "**" / "*.txt") == [
        str(tmp_path / "corpus" / "other" / "b.txt"),
        str(tmp_path / "corpus" / "zh" / "a.txt"),
    ]


@pytest.mark.parametrize(
    ("path", "parent", "name"),
    [
        ("a/b", "a", "b"),
        ("b", ".", "b"),
        ("/b", "/", "b"),
        ("a/b/", "a", "b"),
        ("gs://bucket/run", "gs://bucket", "run"),
        ("gs://bucket/run/", "gs://bucket", "run"),
        ("gs://bucket", "gs://bucket", "bucket"),
        ("file:///run", "file:///", "run"),
        ("./odd:/b", "./odd:", "b"),
    ],
)
def test_names_and_parents(path, parent, name):
    assert (paths.parent(path), paths.name(path)) == (parent, name)
    assert paths.join(path, "x", "y") == f"{path.rstrip('/')}/x/y"


def test_local_paths():
    assert paths.local(Path("a/b")) == "a/b"
    assert paths.local("file:///a/b") == "/a/b"
    assert paths.local("file://localhost/a/b") == "/a/b"
    assert not paths.is_remote("file:///a") and paths.is_remote("gs://a/b")
    with pytest.raises(UserError, match="must be on this machine"):
        paths.local("gs://bucket/file")
    with pytest.raises(UserError, match="names the machine 'a'"):
        paths.local("file://a/b")


@pytest.mark.parametrize(
    "path", ["gs:/bucket/run", "gs:bucket/run", Path("gs://b/run"), "x3:/a"]
)
def test_a_missing_slash_is_refused_and_makes_no_folder(
    path, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for use in (paths.exists, paths.make_folder, paths.names, paths.find):
        with pytest.raises(UserError, match="without its two slashes: write"):
            use(path)
    with pytest.raises(UserError, match="without its two slashes"):
        with paths.atomic_file(path):
            pass
    assert not list(tmp_path.iterdir())
    write("./gs:/bucket")  # who wants such a folder can say so
    assert paths.names("./gs:") == ["bucket"]
    write("10:30.txt")  # a colon is a good part of a name


def test_unknown_schemes_are_told():
    pytest.importorskip("fsspec")
    with pytest.raises(UserError, match="nowhere://b/f cannot be reached"):
        paths.exists("nowhere://b/f")


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UserError, match=r"install the extra \[remote\]"):
        paths.exists("s3://bucket/file")


def test_what_tensorflow_serves():
    assert paths.for_tensorflow("gs://b/run") == "gs://b/run"
    assert paths.for_tensorflow("file:///a/b") == "/a/b"
    with pytest.raises(UserError, match="not served by TensorFlow"):
        paths.for_tensorflow("s3://b/run")


def test_importing_the_door_loads_no_backend():
    code = (
        "import sys; from albert_tf2 import paths; paths.exists('.'); "
        "sys.exit(bool({'tensorflow', 'fsspec', 'pyarrow'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_full_disk_is_one_sentence(tmp_path):
    path = tmp_path / "name.txt"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match="could not be written"):
            with paths.atomic_file(path) as stream:
                stream.write("x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unusable_folders_are_one_sentence(folder, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a", tmp_path / "file" / "b" / "c"):
        with pytest.raises(UserError, match="could not be written"):
            with paths.atomic_file(path):
                pass
        with pytest.raises(UserError):
            with paths.atomic_directory(path):
                pass
    with pytest.raises(UserError, match="file/sub cannot be created"):
        paths.make_folder(tmp_path / "file" / "sub")


def test_another_file_in_the_block_speaks_for_itself(tmp_path):
    with pytest.raises(FileNotFoundError):
        with paths.atomic_file(tmp_path / "goal"):
            open(tmp_path / "source")


def test_paths_that_no_disk_takes_are_one_sentence(tmp_path):
    for path in ("x" * 5000, "a\0b"):
        for use in (paths.exists, paths.read_json, paths.names, paths.find):
            with pytest.raises(UserError) as caught:
                use(tmp_path / path)
            assert len(str(caught.value)) < 500


def test_a_pipe_in_place_of_a_file_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a pipe, a socket or a device"):
        paths.read_json(tmp_path / "pipe")


# JSON that is not to be trusted.


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b'{"a": "\xff"}', r"x\.json is not UTF-8 \(byte 7\)"),
        (b'{"a": 1,\n"b" 2}', r"x\.json, line 2: not valid JSON"),
        (b"", r"x\.json: not valid JSON"),
        (b"[" * 100_000, r"x\.json: not valid JSON \(brackets within"),
        (b"1" * 5_000, r"x\.json: not valid JSON \(Exceeds"),
        (b"[1]", r"x\.json must hold an object of JSON. Received: a list"),
        (b"true", r"must hold an object of JSON. Received: True"),
        (b'{"a": "%s"}' % (b"x" * 200), r"x\.json is larger than 100 bytes"),
    ],
)
def test_bad_json_is_one_sentence(tmp_path, content, match):
    (tmp_path / "x.json").write_bytes(content)
    most = 100 if b"x" * 200 in content else 1 << 20
    with pytest.raises(UserError, match=match):
        paths.read_json(tmp_path / "x.json", dict, most)


def test_a_key_has_one_value(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": [{"b": 1, "c": 2, "b": 3}]}')
    with pytest.raises(UserError, match="x.json.*'b' has two values, 1 and 3"):
        paths.read_json(path)
    path.write_text('{"b": 1, "b": 1}')
    assert paths.read_json(path) == {"b": 1}


def test_json_is_readable(tmp_path):
    path = tmp_path / "x.json"
    paths.write_json(path, {"字": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "字": 1\n}\n'
    path.write_bytes(b"\xef\xbb\xbf[1]")  # as editors on Windows write it
    assert paths.read_json(path, list) == [1]


# What killed processes leave.

HOLD = """
import sys, time
from albert_tf2 import paths
with {what} as held:
    print("holding", flush=True)
    time.sleep(60)
"""


def holding(what):
    """Starts a process that holds something until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(what=what)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "holding\n"
    return process


def end(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_leftovers_of_the_dead_are_removed_and_nothing_else(tmp_path, kind):
    process = holding(f"paths.atomic_{kind}({str(tmp_path / 'goal')!r})")
    users = [tmp_path / "a.tmp", tmp_path / ".b.tmp"]
    for path in users:
        path.write_text("")
    paths.remove_leftovers(tmp_path)
    assert len(paths.names(tmp_path)) == 3  # it is alive
    end(process)
    paths.remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(users)


def test_the_next_folder_clears_up(tmp_path):
    end(holding(f"paths.atomic_directory({str(tmp_path / 'goal')!r})"))
    assert len(paths.names(tmp_path)) == 1
    with paths.atomic_directory(tmp_path / "goal"):
        pass
    assert paths.names(tmp_path) == ["goal"]


def test_an_old_version_comes_back_if_its_successor_did_not(tmp_path):
    retired = tmp_path / ".goal.0123.albert-old"
    write(retired / "goal" / "a", b"old")
    paths.remove_leftovers(tmp_path)
    assert (tmp_path / "goal" / "a").read_bytes() == b"old"
    write(retired / "goal" / "a", b"older")
    paths.remove_leftovers(tmp_path)
    assert (tmp_path / "goal" / "a").read_bytes() == b"old"
    assert paths.names(tmp_path) == ["goal"]


# One owner.


def test_a_folder_has_one_owner(folder):
    path = paths.join(folder, "run")
    with paths.lock(path, "build") as held:
        held.check()
        with pytest.raises(UserError, match="run is in use by another build"):
            with paths.lock(path, "build"):
                pass
        with paths.lock(paths.join(folder, "other")):
            pass
    with paths.lock(path):
        pass
    assert paths.names(path) == []


def test_a_killed_owner_leaves_the_folder_free(tmp_path):
    process = holding(f"paths.lock({str(tmp_path)!r}, 'run')")
    with pytest.raises(UserError) as caught:
        with paths.lock(tmp_path):
            pass
    assert f"(process {process.pid} on " in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path} is in use by another run")
    assert "wait until it has ended" in str(caught.value)
    end(process)
    with paths.lock(tmp_path):
        pass
    assert paths.names(tmp_path) == []


def test_a_patient_one_waits_and_says_so(tmp_path, capsys):
    process = holding(f"paths.lock({str(tmp_path)!r}, 'download')")
    killer = threading.Timer(0.5, end, [process])
    killer.start()
    with paths.lock(tmp_path, "download", wait=True):
        killer.join()
    told = capsys.readouterr().err
    assert told.startswith(f"waiting: {tmp_path} is in use by another download")
    assert told.count("\n") == 1
    assert paths.names(tmp_path) == []


def test_workers_that_outlive_a_killed_owner_do_not_hold_its_lock(tmp_path):
    # The worker tells when it runs: just forked, it holds what its parent does.
    worker = (
        "    import os\n"
        "    ear, mouth = os.pipe()\n"
        "    if not os.fork():\n"
        "        os.write(mouth, b'.')\n"
        "        time.sleep(5)\n"
        "        os._exit(0)\n"
        "    os.read(ear, 1)\n"
    )
    forked = HOLD.replace("    print", f"{worker}    print").format(
        what=f"paths.lock({str(tmp_path)!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", forked], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "holding\n"
    end(process)
    with paths.lock(tmp_path):
        pass


def test_the_owner_clears_up(folder):
    write(paths.join(folder, ".a.0123.albert-tmp"))
    write(paths.join(folder, "a.tmp"))
    with paths.lock(folder):
        pass
    assert paths.names(folder) == ["a.tmp"]


def ram_folder():
    return f"ram://lock-{os.urandom(4).hex()}"


def test_a_silent_owner_elsewhere_is_taken_for_dead():
    folder = ram_folder()
    claim = {"host": "a", "pid": 1, "since": "noon", "token": "theirs"}
    path = f"{folder}/{locks.NAME}"
    paths.write_json(path, {**claim, "beat": time.time() - 30})
    with pytest.raises(UserError, match="process 1 on a, .*again in [56]"):
        with paths.lock(folder):
            pass
    assert paths.read_json(path)["token"] == "theirs"
    paths.write_json(path, {**claim, "beat": time.time() - 100})
    with paths.lock(folder):
        assert paths.read_json(path)["pid"] == os.getpid()


def test_an_owner_elsewhere_refreshes_and_sees_its_loss(monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    folder = ram_folder()
    path = f"{folder}/{locks.NAME}"
    with paths.lock(folder) as held:
        first = paths.read_json(path)["beat"]
        deadline = time.monotonic() + 20
        beat = first
        while beat == first:
            assert time.monotonic() < deadline
            # In ram:// a file is away for a moment while it is replaced.
            with contextlib.suppress(UserError):
                beat = paths.read_json(path)["beat"]
        held.check()
        paths.write_json(path, {"token": "theirs", "beat": time.time()})
        assert held.lost.wait(20)
        with pytest.raises(UserError, match="was taken over by another run"):
            held.check()
    assert paths.read_json(path)["token"] == "theirs"


def test_of_two_that_start_at_once_one_sees_the_other(monkeypatch):
    folder = ram_folder()
    path = f"{folder}/{locks.NAME}"

    def late(seconds):
        paths.write_json(path, {"token": "theirs", "beat": time.time()})

    monkeypatch.setattr(locks.time, "sleep", late)
    with pytest.raises(UserError, match="it started at the same moment"):
        with paths.lock(folder):
            pass


def test_a_disk_without_locks_gets_the_bucket_kind(tmp_path, monkeypatch):
    def unsupported(descriptor, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0)
    with paths.lock(tmp_path):
        assert "token" in paths.read_json(tmp_path / locks.NAME)
        with pytest.raises(UserError, match="in use by another run"):
            with paths.lock(tmp_path):
                pass
    assert paths.names(tmp_path) == []


def test_a_failure_of_tensorflow_is_an_os_error():
    import tensorflow as tf

    for kind, expected in (
        (tf.errors.NotFoundError, FileNotFoundError),
        (tf.errors.UnauthenticatedError, PermissionError),
        (tf.errors.UnavailableError, OSError),
    ):
        with pytest.raises(expected, match="gs://b/f"):
            with backends._as_os_errors("gs://b/f"):
                raise kind(None, None, "one line\nand a stack trace")


def test_a_file_may_be_as_large_as_is_allowed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"1234567890")
    assert paths.read_bytes(path, 10) == b"1234567890"
    with pytest.raises(UserError, match="larger than 9 bytes"):
        paths.read_bytes(path, 9)


@pytest.mark.parametrize("link", ["a", "z"])
def test_a_file_goes_by_its_own_name_whatever_a_link_is_called(tmp_path, link):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "x.txt").write_text("x")
    (tmp_path / link).symlink_to("m")
    assert paths.find(f"{tmp_path}/**/*.txt") == [f"{tmp_path}/m/x.txt"]
