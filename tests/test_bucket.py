"""TensorFlow's own gs:// client against a bucket on loopback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_bucket
import pytest

DOOR = """
import tensorflow as tf
from albert_tf2 import UserError, paths

run = "gs://albert/run"
assert not paths.exists(run) and paths.names(run) == []
for text in ("first\\n", "字\\r\\n" * 1000):
    with paths.atomic_file(f"{run}/a.txt") as stream:
        stream.write(text)
assert paths.read_text(f"{run}/a.txt") == text
assert paths.size(f"{run}/a.txt") == len(text.encode())
try:
    with paths.atomic_file(f"{run}/a.txt") as stream:
        stream.write("half")
        raise KeyError
except KeyError:
    assert paths.read_text(f"{run}/a.txt") == text
for line in "12":
    paths.append_line(f"{run}/rows.jsonl", line)
assert paths.read_text(f"{run}/rows.jsonl") == "1\\n2\\n"
with paths.atomic_directory(f"{run}/model") as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "x").write_text("1")
with paths.atomic_directory(f"{run}/model", overwrite=True) as folder:
    (folder / "y").write_text("2")
assert paths.find(f"{run}/**") == [
    f"{run}/{name}" for name in ("a.txt", "model/y", "rows.jsonl")
]
with paths.lock(run):
    assert paths.names(run) == [".lock", "a.txt", "model", "rows.jsonl"]
manager = tf.train.CheckpointManager(
    tf.train.Checkpoint(v=tf.Variable(1.0)), f"{run}/checkpoints", 1
)
manager.save(), manager.save()
assert paths.names(f"{run}/checkpoints") == [
    "checkpoint", "ckpt-2.data-00000-of-00001", "ckpt-2.index"
]
with paths.local_copy(f"{run}/checkpoints/ckpt-2.index") as here:
    assert paths.sha256(here) == paths.sha256(f"{run}/checkpoints/ckpt-2.index")
paths.remove_folder(f"{run}/checkpoints")
try:
    paths.read_json("gs://albert/absent.json")
except UserError as error:
    print(error)
"""


@pytest.fixture
def bucket(tmp_path):
    with fake_bucket.serve(tmp_path) as served:
        yield served


def start(bucket, *arguments, **settings):
    environment = os.environ | bucket.environment
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def run(bucket, *arguments):
    process = start(bucket, *arguments)
    out, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    return out


def test_the_door_opens_to_a_bucket(bucket):
    told = run(bucket, "-c", DOOR)
    assert told == "gs://albert/absent.json does not exist: check the path\n"
    assert sorted(bucket.objects) == [
        f"albert/run/{name}" for name in ("a.txt", "model/y", "rows.jsonl")
    ]


HOLD = """
import sys, time
from albert_tf2 import paths
from albert_tf2.paths import locks
locks.STALE_SECONDS = float(sys.argv[1])
with paths.lock("gs://albert/run"):
    print("holding", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.large
def test_a_bucket_has_one_owner_among_processes(bucket):
    first = start(bucket, "-c", HOLD, "90", "600")
    assert first.stdout.readline() == "holding\n"
    second = start(bucket, "-c", HOLD, "90", "0")
    assert "is in use by another run" in second.communicate()[1]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert "albert/run/.lock" in bucket.objects
    assert "holding" in run(bucket, "-c", HOLD, "1", "0")
    assert "albert/run/.lock" not in bucket.objects


@pytest.mark.large
@pytest.mark.parametrize("what", ["pre_training", "fine_tuning"])
def test_the_whole_way_goes_through_a_bucket(bucket, what, monkeypatch):
    """Records, run, resume, evaluation, export: as `test_remote_paths` does."""
    tests = Path(__file__).with_name("test_remote_paths.py")
    monkeypatch.setenv("ALBERT_TF2_TEST_BUCKET", "gs://albert/way")
    run(bucket, "-m", "pytest", "-q", "-x", str(tests), "-k", what)
    assert any(name.startswith("albert/way") for name in bucket.objects)
