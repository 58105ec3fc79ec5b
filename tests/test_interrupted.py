"""Runs that are interrupted at every place: nothing lost, or one sentence.

SIGTERM in every phase, a disk that is full at every kind of write, two starts
at once, a clock that goes back, records that are replaced in between. The
same command afterwards must end where an undisturbed run ends, bit for bit.
`benchmarks/kill_anything.py` does the same with SIGKILL at random moments.
"""

import contextlib
import os
import signal
import subprocess
import time

import pytest
import small_records
import test_finetune_run as tuning
import test_training as training
from test_finetune_run import folder  # noqa: F401  the rows of fine-tuning
from test_training import model_file, records, whole_run  # noqa: F401

from albert_tf2.errors import Preempted, UserError
from albert_tf2.finetuning import run as finetuning_run
from albert_tf2.pretraining import run as pretraining_run
from albert_tf2.training.loop import Loop
from albert_tf2.training.snapshots import Snapshots

LAST = "while saving the last time"
# Where SIGTERM comes: a method, and in which of its calls.
PHASES = {
    "before the first step": (Loop, "resume", 1),
    "while compiling": ("run", "run_steps", 1),
    "in a step": ("run", "run_steps", 3),
    "while saving": (Snapshots, "save", 1),
    "while evaluating": ("run", "evaluate", 1),
    LAST: (Snapshots, "save", 3),
}


def stopped(phase):
    """What a run in which SIGTERM comes ends with."""
    # After the last step there is nothing to go on with: it ends by itself.
    if phase == LAST:
        return contextlib.nullcontext()
    return pytest.raises(Preempted)


def sigterm_in(patch, owner, name, call):
    """Sends this process SIGTERM in one of the calls of a method."""
    method = getattr(owner, name)
    calls = []

    def disturbed(self, *args, **named):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return method(self, *args, **named)

    patch.setattr(owner, name, disturbed)
    return calls


@pytest.mark.large
@pytest.mark.parametrize("phase", PHASES)
def test_sigterm_of_pretraining(
    whole_run,  # noqa: F811
    records,  # noqa: F811
    model_file,  # noqa: F811
    tmp_path,
    monkeypatch,
    phase,
):
    owner, name, call = PHASES[phase]
    owner = pretraining_run.Run if owner == "run" else owner
    a_recipe = training.recipe(model_file)
    with monkeypatch.context() as patch:
        calls = sigterm_in(patch, owner, name, call)
        with stopped(phase):
            training.train(a_recipe, records, tmp_path)
    assert len(calls) >= call
    assert training.train(a_recipe, records, tmp_path).step == 12
    training.same_runs(tmp_path, whole_run[0])


@pytest.mark.large
@pytest.mark.parametrize("phase", PHASES)
def test_sigterm_of_finetuning(
    folder,  # noqa: F811
    checkpoint,
    tmp_path,
    monkeypatch,
    phase,
):
    owner, name, call = PHASES[phase]
    owner = finetuning_run.Run if owner == "run" else owner
    changes = {"eval_every": 3}
    tuning.run(folder, checkpoint, tmp_path / "whole", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(finetuning_run, "STEPS_PER_LOOP", 1)
        calls = sigterm_in(patch, owner, name, call)
        with stopped(phase):
            tuning.run(folder, checkpoint, tmp_path / "cut", **changes)
    assert len(calls) >= call
    assert (tmp_path / "cut" / "results.json").exists() == (phase == LAST)
    tuning.run(folder, checkpoint, tmp_path / "cut", **changes)
    tuning.same_runs(tmp_path / "cut", tmp_path / "whole")


@contextlib.contextmanager
def small_disk(place, kilobytes):
    """Mounts a file system of a size; yields what gives it more room."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield lambda: subprocess.run(
            ["mount", "-o", "remount,size=1g", place], check=True
        )
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def used(place):
    """Returns the kilobytes that a finished run takes."""
    files = (path for path in place.rglob("*") if path.is_file())
    return sum(-(-path.stat().st_size // 4096) * 4 for path in files)


# Shares of what a whole run takes: the first does not hold the settings.
SHARES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@pytest.mark.large
@pytest.mark.parametrize("share", SHARES)
def test_a_full_disk_of_pretraining(
    whole_run,  # noqa: F811
    records,  # noqa: F811
    model_file,  # noqa: F811
    tmp_path,
    share,
):
    a_recipe = training.recipe(model_file)
    size = max(4, int(share * used(whole_run[0])))
    with small_disk(tmp_path / "disk", size) as make_room:
        workdir = tmp_path / "disk" / "run"
        with contextlib.suppress(UserError, OSError):
            training.train(a_recipe, records, workdir)
        left = [p.name for p in workdir.rglob("*albert-tmp*")]
        assert not left, "half-written files were left"
        make_room()
        assert training.train(a_recipe, records, workdir).step == 12
        training.same_runs(workdir, whole_run[0])


@pytest.mark.large
@pytest.mark.parametrize("share", SHARES)
def test_a_full_disk_of_finetuning(
    folder,  # noqa: F811
    checkpoint,
    tmp_path,
    share,
):
    whole = tmp_path / "whole"
    tuning.run(folder, checkpoint, whole)
    size = max(4, int(share * used(whole)))
    with small_disk(tmp_path / "disk", size) as make_room:
        workdir = tmp_path / "disk" / "run"
        with contextlib.suppress(UserError, OSError):
            tuning.run(folder, checkpoint, workdir)
        make_room()
        tuning.run(folder, checkpoint, workdir)
        tuning.same_runs(workdir, whole)
        assert (workdir / "results.json").exists()


@pytest.mark.large
def test_of_two_starts_at_once_one_runs(
    whole_run,  # noqa: F811
    records,  # noqa: F811
    model_file,  # noqa: F811
    tmp_path,
):
    both = [
        subprocess.Popen(
            training.command(model_file, records, tmp_path / "run"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=500)[1] for process in both]
    codes = [process.returncode for process in both]
    # The second may come after the first has ended: then it has nothing to do.
    assert sorted(codes) in ([0, 0], [0, 2]), said
    for code, text in zip(codes, said, strict=True):
        assert "Traceback" not in text
        assert code == 0 or "is in use by another run" in text
    training.same_runs(tmp_path / "run", whole_run[0])


@pytest.mark.large
def test_a_clock_that_goes_back(
    whole_run,  # noqa: F811
    records,  # noqa: F811
    model_file,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    """A day earlier after a restart, and earlier with every look at it."""
    a_recipe = training.recipe(model_file)
    training.interrupted(a_recipe, records, tmp_path, 5)
    now = time.time() - 86_400
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: now - next(ticks))
    monkeypatch.setattr(time, "time_ns", lambda: int(now - next(ticks)) * 10**9)
    assert training.train(a_recipe, records, tmp_path).step == 12
    training.same_runs(tmp_path, whole_run[0])


@pytest.mark.large
def test_records_that_were_replaced(
    records,  # noqa: F811
    model_file,  # noqa: F811
    tmp_path,
):
    """By others of the same names: refused, and the run is left as it was."""
    a_recipe = training.recipe(model_file)
    training.interrupted(a_recipe, records, tmp_path / "run", 5)
    before = {
        path: path.read_bytes()
        for path in (tmp_path / "run").rglob("*")
        if path.is_file()
    }
    small_records.write_set(tmp_path / "other", [9, 8, 8], held_out=7, seed=1)
    with pytest.raises(UserError, match="another `train`.*other data"):
        training.train(a_recipe, tmp_path / "other", tmp_path / "run")
    for path, content in before.items():
        assert path.read_bytes() == content, path
