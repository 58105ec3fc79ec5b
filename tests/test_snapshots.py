"""Checkpoints of a run: what is kept, and by whom."""

import pytest
import tensorflow as tf

from albert_tf2.errors import UserError
from albert_tf2.training.snapshots import Snapshots


def snapshots(workdir, **options):
    variable = tf.Variable(0.0)
    checkpoint = tf.train.Checkpoint(value=variable)
    return variable, Snapshots(checkpoint, workdir, keep=2, **options)


def test_the_newest_few_stay_and_the_newest_is_restored(tmp_path):
    variable, saved = snapshots(tmp_path)
    assert saved.restore_newest() is None
    for step in (3, 5, 8):
        variable.assign(step)
        assert saved.save(step).endswith(f"ckpt-{step}")
    assert [p.rsplit("-", 1)[1] for p in saved.prefixes] == ["5", "8"]
    other, again = snapshots(tmp_path)
    assert again.restore_newest().endswith("ckpt-8")
    assert float(other) == 8.0


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
    _, saved = snapshots(tmp_path)
    saved.save(1)
    told = []
    other = tf.train.Checkpoint(other=tf.Variable([1.0, 2.0]))
    with pytest.raises(UserError, match="--init_checkpoint"):
        Snapshots(other, tmp_path, keep=2, report=told.append).restore_newest()
    assert len(told) == 1 and "ckpt-1 is damaged or of another" in told[0]
