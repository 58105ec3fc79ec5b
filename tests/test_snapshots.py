"""Checkpoints of a run: what is kept, by whom, and what damage does."""

import os
import signal

import pytest
import tensorflow as tf

from albert_tf2.errors import UserError
from albert_tf2.training.snapshots import Snapshots


def snapshots(workdir, **options):
    variable = tf.Variable(0.0)
    checkpoint = tf.train.Checkpoint(value=variable)
    return variable, Snapshots(checkpoint, workdir, **({"keep": 2} | options))


def saved_at(workdir, *steps, **options):
    variable, saved = snapshots(workdir, **options)
    for step in steps:
        variable.assign(step)
        assert saved.save(step).endswith(f"ckpt-{step}")
    return saved


@pytest.fixture(params=["local", "file", "ram"])
def workdir(request, tmp_path):
    """One folder, as each of the file systems of TensorFlow names it."""
    prefix = {"local": "", "file": "file://", "ram": "ram:/"}[request.param]
    return f"{prefix}{tmp_path}"


def test_the_newest_few_stay_and_the_newest_is_restored(workdir):
    variable, saved = snapshots(workdir)
    assert saved.restore_newest() is None and saved.newest == ""
    saved = saved_at(workdir, 3, 5, 8)
    assert saved.steps == [5, 8]
    variable, again = snapshots(workdir)
    assert again.restore_newest() == again.newest == saved.newest
    assert again.newest.endswith("checkpoints/ckpt-8")
    assert float(variable) == 8.0


def test_other_programs_find_the_newest(tmp_path):
    saved = saved_at(tmp_path, 8, 9, 10, 11)
    found = tf.train.get_checkpoint_state(str(tmp_path / "checkpoints"))
    assert found.model_checkpoint_path == saved.newest
    assert [path[-2:] for path in found.all_model_checkpoint_paths] == [
        "10",
        "11",
    ]


@pytest.mark.parametrize(
    "content", [None, b"", b"model_checkpoint_pa", b"\xff"]
)
def test_the_list_file_is_not_needed(tmp_path, content):
    """Missing, empty, cut off: the checkpoints themselves are looked at."""
    saved_at(tmp_path, 56, 58, 60, keep=3)
    listing = tmp_path / "checkpoints" / "checkpoint"
    listing.unlink() if content is None else listing.write_bytes(content)
    variable, again = snapshots(tmp_path, keep=3)
    assert again.restore_newest().endswith("ckpt-60")
    assert float(variable) == 60.0
    again.save(62)
    assert again.steps == [58, 60, 62]
    newest = tf.train.latest_checkpoint(str(tmp_path / "checkpoints"))
    assert newest.endswith("ckpt-62")


def test_steps_are_compared_as_numbers_and_whole(tmp_path):
    """10000 is newer than 9000, and no leftover of 1000."""
    saved = saved_at(tmp_path, 9000, 10000)
    folder = tmp_path / "checkpoints"
    (folder / "ckpt-1000.data-00000-of-00001").write_bytes(b"half")
    (folder / "ckpt-1000_temp").mkdir()
    (folder / "ckpt-1000_temp" / "part").write_bytes(b"half")
    (folder / "ckpt-1000.txt").write_text("the user's own")
    assert saved.newest.endswith("ckpt-10000")
    saved.save(11000)
    assert saved.steps == [10000, 11000]
    left = [path.name for path in folder.glob("ckpt-1000[._]*")]
    assert left == ["ckpt-1000.txt"]


def test_damaged_ones_are_passed_over_and_then_replaced(tmp_path):
    saved_at(tmp_path, 1, 2, 3, keep=3)
    data = "ckpt-{}.data-00000-of-00001"
    folder = tmp_path / "checkpoints"
    (folder / data.format(3)).write_bytes(b"")
    (folder / data.format(2)).unlink()
    told = []
    variable, again = snapshots(tmp_path, keep=3, report=told.append)
    assert again.restore_newest().endswith("ckpt-1")
    assert float(variable) == 1.0
    assert ["ckpt-3" in told[0], "ckpt-2" in told[1]] == [True, True]
    # A damaged one of a later step is in nobody's way any more.
    again.save(2)
    assert again.steps == [1, 2]


@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001"])
def test_a_pipe_is_passed_over_and_not_waited_for(tmp_path, ending):
    def waited(*_):
        raise TimeoutError("it waits for the pipe's writer")

    saved_at(tmp_path, 3, 5)
    file = tmp_path / "checkpoints" / f"ckpt-5.{ending}"
    file.unlink()
    os.mkfifo(file)
    told = []
    variable, again = snapshots(tmp_path, report=told.append)
    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(20)
    try:
        assert again.restore_newest().endswith("ckpt-3")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert float(variable) == 3.0
    assert "ckpt-5 is damaged or of another model (UserError: " in told[0]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    saved = saved_at(tmp_path, 1000, 10000)
    write = saved.checkpoint.write

    def full(prefix):
        write(prefix)
        raise tf.errors.ResourceExhaustedError(None, None, "No space left")

    monkeypatch.setattr(saved.checkpoint, "write", full)
    with pytest.raises(UserError, match="No space left.*free some.*ckpt-10000"):
        saved.save(10001)
    assert saved.steps == [1000, 10000]
    assert not list((tmp_path / "checkpoints").glob("ckpt-10001*"))


def test_other_workers_leave_nothing_behind(tmp_path):
    variable, saved = snapshots(tmp_path, worker=1)
    for step in (1, 2, 3, 4):
        saved.save(step)
    assert list(tmp_path.iterdir()) == []
    first, chief = snapshots(tmp_path)
    first.assign(7.0)
    chief.save(1)
    assert saved.restore_newest().endswith("ckpt-1")
    assert float(variable) == 7.0


def test_a_folder_of_another_model_is_told(tmp_path):
    saved_at(tmp_path, 1)
    told = []
    other = tf.train.Checkpoint(other=tf.Variable([1.0, 2.0]))
    with pytest.raises(UserError, match="--init_checkpoint"):
        Snapshots(other, tmp_path, keep=2, report=told.append).restore_newest()
    assert len(told) == 1 and "ckpt-1 is damaged or of another" in told[0]


def test_a_place_that_tensorflow_cannot_reach_is_refused(tmp_path):
    with pytest.raises(UserError, match="not served by TensorFlow"):
        snapshots("sftp://host/run")
