"""Fine-tuning end to end on small files: learning, resuming, seeds."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import task_samples as samples
from checks import LEARNS, check_learns

from albert_tf2 import finetune
from albert_tf2.errors import UserError
from albert_tf2.recipes import FinetuneRecipe

RECIPE = LEARNS | {"num_train_epochs": 40}


def run(task_name, folder, checkpoint, workdir, *, strategy=None, **changes):
    from albert_tf2.tasks import registry

    recipe = FinetuneRecipe(**{**RECIPE, **changes})
    task = registry.from_recipe(task_name, recipe)
    data = finetune.read_data(task, folder, recipe, say=lambda line: None)
    return finetune.fine_tune(
        task,
        data,
        init_checkpoint=str(checkpoint),
        recipe=recipe,
        workdir=workdir,
        strategy=strategy,
        say=lambda line: None,
    )


@pytest.mark.parametrize(
    "name",
    [
        "lcqmc",
        "cluener",
        "cmrc2018",
        "chid",
        "multi_label",
        "regression",
        "qa",
        pytest.param("ner", marks=pytest.mark.large),
        pytest.param("c3", marks=pytest.mark.large),
    ],
)
def test_learns_its_rows_by_heart(name, tmp_path, checkpoint):
    # Idioms are drawn from ten: easy ones are learned in time.
    write = {**samples.TASK_FILES, "chid": samples.write_easy_chid}[name]
    epochs = 60 if name == "lcqmc" else 100
    check_learns(name, write, tmp_path, checkpoint, num_train_epochs=epochs)


def weights_of(workdir):
    from albert_tf2.finetuning import encoders

    _, model, _, _ = encoders.load(workdir / "model")
    return model.get_weights()


def test_a_finished_run_is_reported_and_another_one_refused(
    tmp_path, checkpoint
):
    folder = samples.write_lcqmc(tmp_path / "data")
    first = run("lcqmc", folder, checkpoint, tmp_path / "w", max_train_steps=1)
    again = run("lcqmc", folder, checkpoint, tmp_path / "w", max_train_steps=1)
    assert again == json.loads(json.dumps(first))
    with pytest.raises(UserError, match="another `max_train_steps`"):
        run("lcqmc", folder, checkpoint, tmp_path / "w", max_train_steps=2)


def test_class_weights_balance(tmp_path):
    from albert_tf2.finetuning import run as tuning
    from albert_tf2.tasks import registry
    from albert_tf2.tasks.text_rows import TextRow

    task = registry.create("lcqmc")
    rows = [TextRow(0, "甲", "乙", label) for label in "0111"]
    np.testing.assert_allclose(
        tuning.balanced_weights(task, rows), [4 / 2, 4 / 6]
    )


TWO_REPLICAS = """
import sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
from albert_tf2 import finetune
sys.exit(finetune.main(sys.argv[1:]))
"""


@pytest.mark.large
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_two_replicas_train_as_one(tmp_path, checkpoint, dropout):
    """The same rows and the same sum of gradients, wherever they are taken."""
    folder = samples.write_lcqmc(tmp_path / "data")
    for name in ("one_device", "mirrored"):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                TWO_REPLICAS,
                *command(folder, checkpoint, tmp_path / name),
                "--strategy",
                name,
                "--set",
                "max_train_steps=4",
                "--set",
                "global_batch_size=6",
                "--set",
                "max_seq_length=32",
                "--set",
                f"classifier_dropout={dropout}",
            ],  # fmt: skip
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    for a, b in zip(
        weights_of(tmp_path / "one_device"),
        weights_of(tmp_path / "mirrored"),
        strict=True,
    ):
        # With dropout each replica draws its own mask: near, not equal.
        np.testing.assert_allclose(a, b, atol=5e-2 if dropout else 2e-5)


@pytest.mark.parametrize(
    "precision",
    [
        "mixed_bfloat16",
        pytest.param("mixed_float16", marks=pytest.mark.large),
    ],
)
def test_mixed_precision(tmp_path, checkpoint, precision):
    from albert_tf2.keras_api import keras

    results = run(
        "lcqmc",
        samples.write_lcqmc(tmp_path / "data"),
        checkpoint,
        tmp_path / "w",
        precision=precision,
        num_train_epochs=30,
    )
    assert results["dev"]["accuracy"] >= 0.75
    assert keras.mixed_precision.global_policy().name == "float32"


def test_preln_head_normalizes(tmp_path):
    from albert_tf2 import Tokenizer
    from albert_tf2.finetuning import encoders
    from albert_tf2.model.albert import AlbertEncoder
    from albert_tf2.tasks import registry

    vocab_file = samples.write_vocab(tmp_path)
    for ln_type, expected in (("preln", True), ("postln", False)):
        config = samples.small_config(vocab_file, ln_type=ln_type)
        loaded = encoders.LoadedEncoder(
            AlbertEncoder(config), Tokenizer(vocab_file), 64, config
        )
        model = encoders.build(registry.create("lcqmc"), loaded)
        assert (model.head.layer_norm is not None) is expected


def test_head_normalization_and_shapes():
    from albert_tf2.finetuning.model import TaskHead

    head = TaskHead(3, 8, normalize=True)
    hidden = np.random.default_rng(0).normal(3, 2, [2, 5, 8]).astype("float32")
    mean = hidden.mean(-1, keepdims=True)
    normal = (hidden - mean) / hidden.std(-1, keepdims=True)
    np.testing.assert_allclose(
        head(hidden),
        normal @ head.output_weights.numpy().T,
        atol=1e-5,
    )


# --- the command line


def command(folder, checkpoint, workdir, *more):
    return [
        "--task", "lcqmc", "--data_dir", str(folder), "--init_checkpoint",
        str(checkpoint), "--workdir", str(workdir), *more,
    ]  # fmt: skip


def test_command_line(tmp_path, checkpoint, capsys):
    folder = samples.write_lcqmc(tmp_path / "data")
    code = finetune.main(
        command(
            folder,
            checkpoint,
            tmp_path / "w",
            "--set",
            "max_train_steps=2",
            "--set",
            "max_seq_length=32",
            "--strategy",
            "one_device",
        )  # fmt: skip
    )
    assert code == 0
    assert "test accuracy: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, reason",
    [
        (["--task", "lcqm"], "did you mean `lcqmc`"),
        (["--data_dir", "nowhere"], "nowhere is not a folder"),
        (["--set", "learning_rat=1"], "did you mean `learning_rate`"),
        (["--set", "optimizer=sgd"], "must be one of lamb, adamw"),
        (["--train_file", "nowhere.txt"], "nowhere.txt does not exist"),
        (["--set", "max_seq_length=128"], "the model's 64 positions"),
        (["--set", "global_batch_size=0"], "must be a whole number from 1"),
    ],
)
def test_bad_input(tmp_path, checkpoint, more, reason):
    folder = samples.write_lcqmc(tmp_path / "data")
    with pytest.raises(UserError) as error:
        finetune.main(command(folder, checkpoint, tmp_path / "w", *more))
    assert reason in str(error.value)
    assert not (tmp_path / "w" / "model").exists()


def test_every_task_has_a_recipe():
    from albert_tf2.tasks.registry import TASKS

    for name in TASKS:
        recipe = finetune.read_recipe(name, None, [])
        assert recipe.max_seq_length <= 512
    assert finetune.read_recipe("lcqmc", None, []).num_train_epochs == 5


@pytest.mark.large
def test_two_workers_train_as_one(tmp_path, checkpoint):
    """Two processes, as on two machines: the first one's files count."""
    folder = samples.write_lcqmc(tmp_path / "data")
    settings = ["--set", "max_train_steps=3", "--set", "max_seq_length=32"]
    settings += ["--set", "global_batch_size=6", "--set", "eval_batch_size=8"]
    settings += ["--set", "classifier_dropout=0.0"]
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    workers = []
    for index in range(2):
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        task = {"type": "worker", "index": index}
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "albert_tf2.finetune"]
                + command(folder, checkpoint, tmp_path / "two", *settings)
                + ["--strategy", "multi_worker"],
                env={
                    **os.environ,
                    "TF_CONFIG": json.dumps({"cluster": cluster, "task": task}),
                    "CUDA_VISIBLE_DEVICES": "",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        for worker in workers:
            output, _ = worker.communicate(timeout=300)
            assert worker.returncode == 0, output[-3000:]
    finally:
        for worker in workers:
            worker.kill()
    finetune.main(
        command(folder, checkpoint, tmp_path / "one", *settings)
        + ["--strategy", "one_device"]
    )
    for a, b in zip(
        weights_of(tmp_path / "one"), weights_of(tmp_path / "two"), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-5)
    results = [
        json.loads((tmp_path / name / "results.json").read_text())
        for name in ("one", "two")
    ]
    assert results[0]["test"] == results[1]["test"]


def test_random_weights_follow_from_the_seed(tmp_path):
    """`config:` starts differ between seeds, and between nothing else."""
    folder = samples.write_lcqmc(tmp_path)
    vocab_file = samples.write_vocab(tmp_path)
    config = tmp_path / "albert_config.json"
    samples.small_config(vocab_file).to_json(config)

    def weights(name, seed):
        from albert_tf2.tasks import registry

        recipe = FinetuneRecipe(
            **{**RECIPE, "max_train_steps": 1, "seed": seed}
        )
        task = registry.create("lcqmc")
        data = finetune.read_data(task, folder, recipe, say=len)
        finetune.fine_tune(
            task,
            data,
            init_checkpoint=f"config:{config}",
            recipe=recipe,
            workdir=tmp_path / name,
            vocab_file=str(vocab_file),
            say=len,
        )
        return weights_of(tmp_path / name)

    first, again, other = weights("a", 1), weights("b", 1), weights("c", 2)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
