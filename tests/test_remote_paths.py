"""The whole way through a bucket: records, training, export, and back.

`ram://`, TensorFlow's file system in memory, stands for a bucket: it is served
by the same calls as `gs://`.
"""

import os

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2 import (
    AlbertPretrainer,
    UserError,
    load_pretrained,
    paths,
    save_pretrained,
)
from albert_tf2.text.tokenization import SPECIAL_TOKENS, Vocabulary


@pytest.fixture
def bucket():
    return f"ram://bucket-{os.urandom(4).hex()}"


@pytest.fixture
def model(tiny_config):
    return AlbertPretrainer(tiny_config)


def assert_same(model, again):
    for ours, theirs in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_models_go_to_a_bucket_and_come_back(model, bucket, tmp_path):
    vocabulary = Vocabulary(
        [*SPECIAL_TOKENS, *(chr(0x4E00 + i) for i in range(197))]
    )
    (tmp_path / "vocab.txt").write_bytes(vocabulary.to_bytes())
    folder = f"{bucket}/model"
    save_pretrained(model, folder, vocab_file=tmp_path / "vocab.txt")
    with pytest.raises(UserError, match=f"{folder} already exists"):
        save_pretrained(model, folder)
    for source in (folder, f"{folder}/model", f"{folder}/model.index"):
        again = load_pretrained(source)
        assert_same(model, again)
        found = Vocabulary.load(again.vocab_file)
        assert found.tokens == vocabulary.tokens
    damaged = paths.join(folder, "model.index")
    with paths.atomic_file(damaged, "wb") as stream:
        stream.write(b"cut")
    with pytest.raises(UserError, match=f"^{damaged} is truncated"):
        load_pretrained(folder)
    with pytest.raises(UserError, match=f"^{bucket}/absent does not exist"):
        load_pretrained(f"{bucket}/absent")


def test_of_a_run_in_a_bucket_one_checkpoint_is_fetched(
    model, bucket, monkeypatch
):
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model), f"{bucket}/checkpoints", max_to_keep=3
    )
    first = [variable.numpy() for variable in model.variables]
    manager.save()
    for variable in model.variables:
        variable.assign(variable + 1)
    manager.save()
    model.config.to_json(f"{bucket}/albert_config.json")
    fetched = []
    copy_file = paths.copy_file
    monkeypatch.setattr(
        paths, "copy_file", lambda a, b: fetched.append(a) or copy_file(a, b)
    )
    assert_same(model, load_pretrained(bucket))
    assert f"{bucket}/checkpoints/ckpt-2.index" in fetched
    assert not any("ckpt-1" in path for path in fetched)
    older = load_pretrained(f"{bucket}/checkpoints/ckpt-1")
    for array, variable in zip(first, older.variables, strict=True):
        np.testing.assert_array_equal(array, variable)
