"""Our own checkpoints: written, read back, and refused when they don't fit."""

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2 import AlbertEncoder, AlbertPretrainer, UserError
from albert_tf2.checkpoints import load_pretrained, native, save_pretrained
from albert_tf2.keras_api import keras


def assert_same(model, again):
    assert len(model.variables) == len(again.variables)
    for ours, theirs in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def train_one_step(model):
    optimizer = keras.optimizers.legacy.Adam(1e-2)
    gradients = [tf.ones_like(v) for v in model.trainable_variables]
    optimizer.apply_gradients(
        zip(gradients, model.trainable_variables, strict=True)
    )
    return optimizer


@pytest.mark.parametrize("sharing", ["all", "attention", "ffn", "none"])
@pytest.mark.parametrize("layout", ["brightmart", "google"])
def test_round_trip(layout, sharing, tiny_config, tmp_path):
    config = tiny_config.replace(layout=layout, parameter_sharing=sharing)
    model = AlbertPretrainer(config)
    save_pretrained(model, tmp_path / "saved")
    again = load_pretrained(tmp_path / "saved")
    assert again.config == config
    assert again.vocab_file is None
    assert_same(model, again)


def test_groups_and_equal_sizes_round_trip(tiny_config, tmp_path):
    config = tiny_config.replace(
        layout="google",
        embedding_size=48,
        num_hidden_layers=4,
        num_hidden_groups=2,
        inner_group_num=2,
    )
    model = AlbertPretrainer(config)
    save_pretrained(model, tmp_path / "saved")
    assert_same(model, load_pretrained(tmp_path / "saved"))


def test_training_checkpoint(tiny_config, tmp_path):
    """A workdir: the slots are left out, the newest checkpoint is taken."""
    model = AlbertPretrainer(tiny_config)
    optimizer = train_one_step(model)
    checkpoint = tf.train.Checkpoint(
        model=model, optimizer=optimizer, step=tf.Variable(7)
    )
    manager = tf.train.CheckpointManager(
        checkpoint, str(tmp_path / "checkpoints"), max_to_keep=3
    )
    manager.save()
    first = [v.numpy() for v in model.variables]
    optimizer.apply_gradients(
        [(tf.ones_like(v), v) for v in model.trainable_variables]
    )
    manager.save()
    tiny_config.to_json(tmp_path / "albert_config.json")
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    # Not every file beside a checkpoint is its configuration.
    (tmp_path / "metrics.jsonl").write_text("{}\n")

    again = load_pretrained(tmp_path)
    assert_same(model, again)
    assert again.vocab_file == tmp_path / "vocab.txt"
    older = load_pretrained(tmp_path / "checkpoints" / "ckpt-1")
    for array, variable in zip(first, older.variables, strict=True):
        np.testing.assert_array_equal(array, variable)
    assert older.config == tiny_config


def test_saved_folder_has_no_slots(tiny_config, tmp_path):
    model = AlbertPretrainer(tiny_config)
    model.compile(optimizer=train_one_step(model))
    save_pretrained(model, tmp_path / "saved")
    assert_same(model, load_pretrained(tmp_path / "saved"))
    held = tf.train.list_variables(str(tmp_path / "saved" / "model"))
    assert not [name for name, _ in held if "optimizer" in name.lower()]


def test_encoder_alone(tiny_config, tmp_path):
    encoder = AlbertEncoder(tiny_config)
    tf.train.Checkpoint(encoder=encoder).write(str(tmp_path / "model"))
    tiny_config.to_json(tmp_path / "albert_config.json")
    with pytest.warns(UserWarning, match="no mlm and no sop head"):
        model = load_pretrained(tmp_path)
    for ours, theirs in zip(
        encoder.variables, model.encoder.variables, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 96}, "`hidden_size` is 96"),
        ({"parameter_sharing": "none"}, "3 layers have weights of their own"),
        ({"layout": "google"}, "no place in the model"),
    ],
)
def test_configuration_of_another_model(
    changes, message, tiny_config, tmp_path
):
    save_pretrained(AlbertPretrainer(tiny_config), tmp_path / "saved")
    tiny_config.replace(**changes).to_json(
        tmp_path / "saved" / "albert_config.json"
    )
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path / "saved")


def test_unshared_into_shared_is_refused(tiny_config, tmp_path):
    config = tiny_config.replace(parameter_sharing="none")
    save_pretrained(AlbertPretrainer(config), tmp_path / "saved")
    tiny_config.to_json(tmp_path / "saved" / "albert_config.json")
    with pytest.raises(UserError, match="no place in the model"):
        load_pretrained(tmp_path / "saved")


def test_another_program(tiny_config, tmp_path):
    other = tf.train.Checkpoint(x=tf.Variable(1.0))
    other.write(str(tmp_path / "model"))
    tiny_config.to_json(tmp_path / "albert_config.json")
    with pytest.raises(UserError, match="no ALBERT of this project"):
        load_pretrained(tmp_path)


def test_an_existing_folder_is_kept(tiny_config, tmp_path):
    model = AlbertPretrainer(tiny_config)
    save_pretrained(model, tmp_path / "saved")
    with pytest.raises(UserError, match="already exists"):
        save_pretrained(model, tmp_path / "saved")
    native.save_pretrained(model, tmp_path / "saved", overwrite=True)
