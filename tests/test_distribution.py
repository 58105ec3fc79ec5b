"""One device, two replicas, two workers: the same losses and weights."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import tensorflow as tf
from small_records import write_set

from albert_tf2 import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.training import distribution
from albert_tf2.training.run_log import read_rows
from albert_tf2.training.workers import Workers

pytestmark = pytest.mark.usefixtures("warm_python")

STEPS = 20
# float32 sums in another order; LAMB divides them by small norms.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 5e-4

SETTINGS = {
    "word_vectors": "counted",
    "train_steps": STEPS,
    "global_batch_size": 32,
    "max_seq_length": 32,
    "max_predictions_per_seq": 4,
    "learning_rate": 0.01,
    "warmup_steps": 5,
    "log_every": 1,
    "checkpoint_every": STEPS,
    "eval_every": STEPS,
}

# Logical devices must be set up before TensorFlow is used at all.
TWO_REPLICAS = """
    import sys
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from albert_tf2.pretrain import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problem")
    write_set(folder / "records", [260, 250, 240], held_out=21)
    AlbertConfig(
        vocab_size=200,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    ).to_json(folder / "albert_config.json")
    return folder


def arguments(problem, strategy, workdir, **changes):
    settings = SETTINGS | {"model": problem / "albert_config.json"} | changes
    return [
        *("--strategy", strategy, "--workdir", str(workdir)),
        *("--data_dir", str(problem / "records")),
        *(f"--set={key}={value}" for key, value in settings.items()),
    ]


@pytest.fixture(scope="module")
def one_device(problem):
    workdir = problem / "one_device"
    run = subprocess.run(
        [sys.executable, "-m", "albert_tf2.pretrain"]
        + arguments(problem, "one_device", workdir),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    # TensorFlow's and XLA's own lines stand in no run's.
    logged = re.findall(
        r"^(?:[IWEF]\d{4} |WARNING: All log).*", run.stderr, re.M
    )
    assert not logged
    return workdir


def same_training(workdir, other):
    rows, others = (
        read_rows(folder / "metrics.jsonl") for folder in (workdir, other)
    )
    assert len(rows) == len(others) == STEPS
    for name in ("loss", "mlm_loss", "sop_loss", "gradient_norm"):
        np.testing.assert_allclose(
            [row[name] for row in rows],
            [row[name] for row in others],
            rtol=LOSS_TOLERANCE,
            err_msg=name,
        )
    last, other_last = (
        read_rows(folder / "evaluation.jsonl")[-1]
        for folder in (workdir, other)
    )
    assert last["examples"] == other_last["examples"]
    assert last["loss"] == pytest.approx(other_last["loss"], rel=1e-4)
    readers = [
        tf.train.load_checkpoint(str(folder / "checkpoints"))
        for folder in (workdir, other)
    ]
    names = [
        name
        for name in readers[0].get_variable_to_shape_map()
        # Softmax ignores the keys' bias: its gradient is rounding alone.
        if name.startswith("model/") and "key/bias" not in name
    ]
    assert len(names) > 20
    for name in names:
        if "OBJECT_GRAPH" not in name:
            np.testing.assert_allclose(
                readers[0].get_tensor(name),
                readers[1].get_tensor(name),
                atol=WEIGHT_TOLERANCE,
                err_msg=name,
            )


def test_two_replicas_train_as_one_device(problem, one_device):
    workdir = problem / "mirrored"
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TWO_REPLICAS)]
        + arguments(problem, "mirrored", workdir),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "on 2 replica(s)" in run.stdout
    same_training(workdir, one_device)


def cluster(count, chief=False):
    """Returns the TF_CONFIG of each of some workers on this machine.

    Args:
        count: How many there are.
        chief: Whether the first one is called so.
    """
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    workers = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    roles = {"chief": workers[:1], "worker": workers[1:]}
    roles = roles if chief else {"worker": workers}
    return [
        json.dumps({"cluster": roles, "task": {"type": role, "index": index}})
        for role, places in roles.items()
        for index in range(len(places))
    ]


@contextlib.contextmanager
def two_workers(problem, *workdirs, chief=False, **changes):
    """Starts a worker for each workdir; ends with none of them left."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "albert_tf2.pretrain"]
            + arguments(problem, "multi_worker", workdir, **changes),
            env=os.environ | {"TF_CONFIG": config},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for config, workdir in zip(cluster(2, chief), workdirs, strict=True)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def ends(process, timeout=500):
    """Returns a process's exit code and what it still wrote."""
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def wait_for(process, words):
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"ended without saying {words!r}")


def test_two_workers_train_as_one_device(problem, one_device):
    """And where one of them is told to stop, both stop at the same step."""
    workdir = problem / "multi_worker"
    with two_workers(problem, workdir, workdir) as (first, second):
        wait_for(first, "compiling the step")
        second.send_signal(signal.SIGTERM)
        code, output = ends(first)
        assert (code, ends(second)[0]) == (75, 75), output[-3000:]
        assert "SIGTERM: saved" in output and "ckpt-1;" in output
    with two_workers(problem, workdir, workdir) as processes:
        (code, output), (other, _) = map(ends, processes)
    assert (code, other) == (0, 0), output[-3000:]
    assert "resuming" in output and "on 2 replica(s)" in output
    assert not list(workdir.glob(".worker*"))
    same_training(workdir, one_device)


@pytest.mark.large
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_others(problem, one_device, victim):
    """In a sentence, within a minute, and the run can be gone on with."""
    workdir = problem / f"killed_{victim}"
    with two_workers(problem, workdir, workdir) as processes:
        wait_for(processes[0], "compiling the step")
        processes[victim].kill()
        began = time.monotonic()
        code, output = ends(processes[1 - victim], timeout=120)
        assert time.monotonic() - began < 60
    assert code == 75, output[-3000:]
    assert "lost another of the 2 workers" in output
    assert "Traceback" not in output
    with two_workers(problem, workdir, workdir) as processes:
        assert [ends(process)[0] for process in processes] == [0, 0]
    same_training(workdir, one_device)


def losses(workdir):
    return [
        (row["step"], row["loss"])
        for row in read_rows(workdir / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def chief_and_worker(problem, one_device):
    """An undisturbed run of a cluster with a chief and a worker."""
    workdir = problem / "chief"
    with two_workers(problem, workdir, workdir, chief=True) as processes:
        (code, output), (other, _) = map(ends, processes)
    assert (code, other) == (0, 0), output[-3000:]
    assert "on 2 replica(s)" in output
    same_training(workdir, one_device)
    return workdir


@pytest.mark.large
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_one_of_two_is_stopped_at_random_steps(
    problem, chief_and_worker, number
):
    """Three times one of them, at any step; the same losses in the end."""
    rng = random.Random(os.getpid() + number)
    workdir = problem / f"stopped_{number}"
    changes = {"chief": True, "checkpoint_every": 3}
    for stop in sorted(rng.sample(range(1, STEPS), 3)):
        victim = rng.randrange(2)
        with two_workers(problem, workdir, workdir, **changes) as processes:
            deadline = time.monotonic() + 300
            while len(read_rows(workdir / "metrics.jsonl")) < stop:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            processes[victim].send_signal(number)
            began = time.monotonic()
            code, output = ends(processes[1 - victim], timeout=120)
            # Unless it had made its last step just before.
            assert code in (0, 75), output[-3000:]
            assert time.monotonic() - began < 60
            assert "Traceback" not in output
            if number == signal.SIGTERM:
                assert ends(processes[victim])[0] == code
    with two_workers(problem, workdir, workdir, **changes) as processes:
        assert [ends(process)[0] for process in processes] == [0, 0]
    assert losses(workdir) == losses(chief_and_worker)


def test_workers_must_share_their_folder(problem):
    workdirs = [problem / "mine", problem / "yours"]
    with two_workers(problem, *workdirs) as processes:
        for process in processes:
            code, output = ends(process)
            assert code == 2, output[-3000:]
            assert "worker 1 does not see what worker 0 writes" in output
    assert not any(map(os.path.exists, workdirs))


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without a TPU or TF_CONFIG, whatever this one has.

    Gives it device files and variables.
    """
    for name in ("TF_CONFIG", "TPU_LIBRARY_PATH", *distribution.TPU_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    for name in ("TPU_DEVICES", "VFIO_DEVICES", "GPU_DEVICES"):
        pattern = getattr(distribution, name).replace("/dev", str(tmp_path))
        monkeypatch.setattr(distribution, name, pattern)
    monkeypatch.setattr(distribution, "TPU_LIBRARIES", ())
    monkeypatch.setattr(distribution.util, "find_spec", lambda _: None)

    def give(*files, **variables):
        for name in files:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return give


def test_no_tpu_is_one_clear_sentence(machine):
    with pytest.raises(UserError, match="TPU_NAME.*tpu_check"):
        distribution.create_strategy("tpu")


@pytest.mark.parametrize(
    "files, variables, address, where",
    [
        ([], {"TPU_NAME": "my-tpu"}, "my-tpu", "TPU_NAME=my-tpu"),
        (
            [],
            {"COLAB_TPU_ADDR": "1.2.3.4:8470"},
            "grpc://1.2.3.4:8470",
            "COLAB",
        ),
        ([], {"TPU_ACCELERATOR_TYPE": "v5litepod-8"}, "local", "v5litepod-8"),
        (["accel0", "accel1"], {}, "local", r"2 device\(s\)"),
        (["vfio/0"], {"TPU_LIBRARY_PATH": "x"}, "local", "vfio"),
    ],
)
@pytest.mark.parametrize("name", ["auto", "tpu"])
def test_auto_finds_what_tpu_finds(
    name, files, variables, address, where, machine, monkeypatch
):
    machine(*files, **variables)
    asked = []

    def resolver(address):
        asked.append(address)
        raise OSError("nobody here")

    monkeypatch.setattr(
        tf.distribute.cluster_resolver, "TPUClusterResolver", resolver
    )
    said = []
    with pytest.raises(UserError, match=f"{where}.*one_device"):
        distribution.create_strategy(name, say=said.append)
    assert asked == [address]
    assert len(said) == (name == "auto")


def test_devices_of_others_are_no_tpu(machine):
    """/dev/vfio is there wherever a device was given to a virtual machine."""
    machine("vfio/0", "vfio/vfio")
    assert distribution._best(None)[0] != "tpu"


def test_auto_tells_why_it_took_the_cpu(machine):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU, which auto takes")
    said = []
    strategy = distribution.create_strategy(say=said.append)
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert "neither a TPU nor a GPU" in said.pop()
    machine("nvidia0")
    distribution.create_strategy(say=said.append)
    assert "nvidia0 is there" in said[0] and "and-cuda" in said[0]


def test_a_tpu_that_does_not_answer_is_named():
    with pytest.raises(UserError, match="the TPU 'nobody'.*--tpu"):
        distribution.create_strategy("tpu", tpu="nobody")


TWO = {"worker": ["a:1", "b:1"]}


@pytest.mark.parametrize(
    "config, message",
    [
        (None, "needs the variable TF_CONFIG"),
        ("{", "needs the variable TF_CONFIG"),
        ({"cluster": {}}, "'task' is missing"),
        ([], "needs the variable TF_CONFIG"),
        ({"cluster": TWO, "task": {"index": 0}}, "'type' is missing"),
        ({"cluster": TWO, "task": {"type": "worker"}}, "'index' is missing"),
        (
            {"cluster": TWO, "task": {"type": "worker", "index": 2}},
            "`task.index` must be 0 to 1",
        ),
        (
            {"cluster": TWO, "task": {"type": "worker", "index": "0"}},
            "`task.index` must be 0 to 1",
        ),
        (
            {"cluster": TWO, "task": {"type": "chief", "index": 0}},
            "'chief' is missing",
        ),
        (
            {"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}},
            "`task.type` must be worker or chief",
        ),
        (
            {"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}},
            "",
        ),
    ],
)
def test_workers_need_tf_config(monkeypatch, config, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=f"TF_CONFIG.*{message}|{message}.*TF_"):
        distribution.create_strategy("multi_worker")


def test_a_chief_alone_is_one_machine(machine):
    alone = {
        "cluster": {"chief": ["localhost:1"]},
        "task": {"type": "chief", "index": 0},
    }
    machine(TF_CONFIG=json.dumps(alone))
    name, _ = distribution._best(None)
    assert name in ("one_device", "mirrored")


def test_names_are_checked():
    with pytest.raises(UserError, match="`strategy` must be one of"):
        distribution.create_strategy("two_devices")
    alone = Workers(tf.distribute.get_strategy())
    assert (alone.index, alone.count) == (0, 1)
