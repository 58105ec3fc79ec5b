"""From text to hub.KerasLayer, within a minute: `make smoke`.

Every step is the command that a user types, in one process. What the numbers
are worth is the business of the other tests.
"""

import numpy as np
import pytest
import tensorflow as tf
from lamb import OPTIMIZER

from albert_tf2 import pretrain, quickstart
from albert_tf2.data import build_pretraining_data, vocabulary
from albert_tf2.hub_export import export
from albert_tf2.keras_api import keras

pytestmark = pytest.mark.usefixtures("warm_python")


def test_text_records_training_export_hub_layer(tmp_path, capsys):
    import tensorflow_hub as hub
    import tensorflow_text  # noqa: F401 (registers the preprocessor's ops)

    corpus = sorted(quickstart.sample("corpus").glob("*.txt"))[0]
    vocab_file, records = tmp_path / "vocab.txt", tmp_path / "records"
    model, hub_folder = tmp_path / "model", tmp_path / "hub"

    def run(command, line):
        assert not command.main([str(word) for word in line])

    run(
        vocabulary,
        ["--input_file", corpus, "--output", vocab_file, "--vocab_size", 800],
    )
    run(
        build_pretraining_data,
        ["--input_file", corpus, "--vocab_file", vocab_file]
        + ["--output_dir", records, "--max_seq_length", 32]
        + ["--eval_fraction", 0.1, "--num_workers", 1],
    )
    settings = {
        "optimizer": OPTIMIZER,
        "train_steps": 2,
        "warmup_steps": 1,
        "eval_every": 2,
        "global_batch_size": 4,
        "max_seq_length": 32,
    }
    run(
        pretrain,
        ["--config", "configs/pretrain_quickstart.yaml"]
        + ["--data_dir", records, "--workdir", model]
        + [f"--set={key}={value}" for key, value in settings.items()],
    )
    run(
        export,
        ["--checkpoint", model, "--export_dir", hub_folder]
        + ["--what", "preprocessor,encoder"],
    )
    preprocessor = hub.load(str(hub_folder / "preprocessor" / "1"))
    inputs = preprocessor(tf.constant(["今天天气很好", "我喜欢妈妈做的汤"]))
    layer = hub.KerasLayer(str(hub_folder / "encoder" / "1"), trainable=True)
    scores = keras.Sequential([keras.layers.Dense(2)])
    optimizer = keras.optimizers.Adam(1e-3)
    with tf.GradientTape() as tape:
        pooled = layer(inputs, training=True)["pooled_output"]
        loss = tf.reduce_mean(scores(pooled) ** 2)
    gradients = tape.gradient(loss, layer.trainable_variables)
    before = [variable.numpy() for variable in layer.trainable_variables]
    optimizer.apply_gradients(
        zip(gradients, layer.trainable_variables, strict=True)
    )
    moved = [
        float(np.abs(variable.numpy() - old).max())
        for variable, old in zip(layer.trainable_variables, before, strict=True)
    ]
    assert pooled.shape == (2, 128) and min(moved) > 0
    assert "verified" in capsys.readouterr().out
