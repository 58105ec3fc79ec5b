"""One device, two replicas, two workers: the same losses and weights."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from small_records import write_set

from albert_tf2 import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.training import distribution
from albert_tf2.training.run_log import read_rows

STEPS = 20
# float32 sums in another order; LAMB divides them by small norms.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 5e-4

SETTINGS = {
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
    write_set(folder / "records", [60, 50, 40], held_out=21)
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


def arguments(problem, strategy, workdir):
    settings = SETTINGS | {"model": problem / "albert_config.json"}
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


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_two_workers_train_as_one_device(problem, one_device):
    workdir = problem / "multi_worker"
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        config = {
            "cluster": {"worker": workers},
            "task": {"type": "worker", "index": index},
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "albert_tf2.pretrain"]
                + arguments(problem, "multi_worker", workdir),
                env=os.environ | {"TF_CONFIG": json.dumps(config)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    assert "on 2 replica(s)" in outputs[0]
    assert not list(workdir.glob(".worker-*"))
    same_training(workdir, one_device)


def test_no_tpu_is_one_clear_sentence(monkeypatch):
    for name in distribution.TPU_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    monkeypatch.setattr(os.path, "isdir", lambda _: False)
    with pytest.raises(UserError, match="TPU_NAME.*tpu_check"):
        distribution.create_strategy("tpu")


def test_a_tpu_that_does_not_answer_is_named():
    with pytest.raises(UserError, match="could not connect to 'nobody'"):
        distribution.create_strategy("tpu", tpu="nobody")


@pytest.mark.parametrize("text", [None, "{", '{"cluster": {}}', "[]"])
def test_workers_need_tf_config(monkeypatch, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG"):
        distribution.create_strategy("multi_worker")


def test_names_are_checked():
    with pytest.raises(UserError, match="`strategy` must be one of"):
        distribution.create_strategy("two_devices")
    assert distribution.worker_of(tf.distribute.get_strategy()) == (0, 1)


def test_auto_is_one_device_here(monkeypatch):
    for name in ("TF_CONFIG", *distribution.TPU_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU, which auto takes")
    strategy = distribution.create_strategy()
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
