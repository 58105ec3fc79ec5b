"""Other projects load our TensorFlow 1 output, each in its own Python.

They need Pythons and TensorFlows that this project does not run on, so each
is named by a variable; a test without its variable is skipped:

    python3.8 -m venv peers
    peers/bin/pip install tensorflow==2.4.4 'protobuf<3.21' \\
        bert-for-tf2==0.14.9 bert4keras==0.11.5 keras==2.3.1
    python3.7 -m venv tf1
    tf1/bin/pip install tensorflow==1.15.5 'protobuf<3.21' \\
        bert4keras==0.11.5 keras==2.3.1 'h5py<3'
    ALBERT_TF2_PEERS_PYTHON=peers/bin/python \\
    ALBERT_TF2_TF1_PYTHON=tf1/bin/python \\
        python -m pytest --run_large tests/test_peers.py
"""

import os
import subprocess

import numpy as np
import pytest

from albert_tf2.checkpoints import (
    conversion,
    load_pretrained,
    names,
    read_weights,
)

pytestmark = pytest.mark.large

# Each program gets the folder of a converted model, runs it on inputs.npz in
# it and writes outputs.npz.
PROLOGUE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
folder = sys.argv[1]
inputs = np.load(folder + "/inputs.npz")
"""

BERT4KERAS = """
from bert4keras.backend import set_gelu
from bert4keras.models import build_transformer_model
set_gelu("tanh")
files = [folder + "/albert_config.json", folder + "/albert_model.ckpt"]
given = [inputs["ids"], inputs["types"]]
encoder = build_transformer_model(*files, model="albert")
pooler = build_transformer_model(*files, model="albert", with_pool=True)
mlm = build_transformer_model(*files, model="albert", with_mlm="linear")
np.savez(folder + "/outputs.npz", sequence_output=encoder.predict(given),
         pooled_output=pooler.predict(given), mlm_logits=mlm.predict(given))
"""

BERT_FOR_TF2 = """
import bert
brightmart = "ln_type" in open(folder + "/albert_config.json").read()
read = bert.params_from_pretrained_ckpt if brightmart else bert.albert_params
params = read(folder)
layer = bert.BertModelLayer.from_params(params, name="albert")
ids = tf.keras.layers.Input([inputs["ids"].shape[1]], dtype="int32")
types = tf.keras.layers.Input([inputs["ids"].shape[1]], dtype="int32")
model = tf.keras.Model([ids, types], layer([ids, types]))
model.build([None, inputs["ids"].shape[1]])
# Its load_albert_weights chooses between these two by the file name
# model.ckpt-best.meta.
names = (bert.loader.map_to_stock_variable_name if brightmart
         else bert.loader_albert.map_to_tfhub_albert_variable_name)
skipped = bert.loader.load_stock_weights(
    layer, folder + "/albert_model.ckpt", map_to_stock_fn=names)
assert not skipped
np.savez(folder + "/outputs.npz",
         sequence_output=model.predict([inputs["ids"], inputs["types"]]))
"""

SAVER = """
prefix = folder + "/albert_model.ckpt"
saved = tf.train.list_variables(tf.train.latest_checkpoint(folder))
variables = {n: tf.get_variable(n, s) for n, s in saved}
with tf.Session() as session:
    tf.train.Saver().restore(session, prefix)
    np.savez(folder + "/outputs.npz", **session.run(variables))
"""


def peer(variable, program, folder):
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"no {variable} names a Python (see this file's head)")
    done = subprocess.run(
        [python, "-c", PROLOGUE + program, str(folder)],
        capture_output=True,
        text=True,
        # Without TF2_BEHAVIOR, which TensorFlow 2 leaves in our environment.
        env={"PATH": os.environ["PATH"], "TF_KERAS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(folder / "outputs.npz")


@pytest.fixture
def converted(request, golden_folder, tmp_path):
    source = golden_folder / "pretraining" / request.param
    conversion.convert(read_weights(source), "tf1", tmp_path / "tf1")
    rng = np.random.default_rng(0)
    # No token 0: both projects take it for padding.
    np.savez(
        tmp_path / "tf1" / "inputs.npz",
        ids=rng.integers(5, 202, [3, 16]),
        types=np.repeat([[0] * 7 + [1] * 9], 3, axis=0),
    )
    return tmp_path / "tf1"


def ours(folder):
    inputs = np.load(folder / "inputs.npz")
    ids = inputs["ids"].astype(np.int32)
    everywhere = np.tile(np.arange(ids.shape[1], dtype=np.int32), [3, 1])
    return load_pretrained(folder)(
        {
            "input_word_ids": ids,
            "input_mask": np.ones_like(ids),
            "input_type_ids": inputs["types"].astype(np.int32),
            "masked_lm_positions": everywhere,
        }
    )


def compare(folder, outputs, tolerance):
    expected = ours(folder)
    for name in outputs.files:
        difference = np.abs(outputs[name] - expected[name].numpy()).max()
        print(f"{name}: {difference:.1e}")
        assert difference < tolerance, name


GOOGLE = ["google_toy", "google_samewidth_toy"]


@pytest.mark.parametrize("converted", GOOGLE, indirect=True)
@pytest.mark.parametrize("python", ["PEERS", "TF1"])
def test_bert4keras(converted, python):
    """bert4keras reads the google layout."""
    outputs = peer(f"ALBERT_TF2_{python}_PYTHON", BERT4KERAS, converted)
    compare(converted, outputs, 2e-5)


@pytest.mark.parametrize(
    "converted", ["google_toy", "brightmart_postln_toy"], indirect=True
)
def test_bert_for_tf2(converted):
    """bert-for-tf2 reads both layouts."""
    outputs = peer("ALBERT_TF2_PEERS_PYTHON", BERT_FOR_TF2, converted)
    compare(converted, outputs, 2e-5)


@pytest.mark.parametrize(
    "converted", ["google_groups_toy", "brightmart_preln_toy"], indirect=True
)
def test_tensorflow_1_saver(converted):
    found = peer("ALBERT_TF2_TF1_PYTHON", SAVER, converted)
    table = names.variables_by_name(load_pretrained(converted))
    assert set(found.files) == set(table)
    for name, variable in table.items():
        np.testing.assert_array_equal(found[name], variable)
