"""The encoder SavedModel: what TF Hub asks of a text encoder."""

import dataclasses
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

import albert_tf2
from albert_tf2 import AlbertConfig, AlbertPretrainer, Tokenizer, UserError
from albert_tf2.hub_export.encoder import export_encoder
from albert_tf2.hub_export.verify import probe_inputs
from albert_tf2.keras_api import keras
from albert_tf2.text.tokenization import SPECIAL_TOKENS

pytestmark = pytest.mark.usefixtures("warm_python")

LAYOUTS = {
    "brightmart": {},
    "preln": {"ln_type": "preln"},
    "google": {"layout": "google"},
    "groups": {
        "layout": "google",
        "num_hidden_groups": 2,
        "inner_group_num": 2,
    },
    "same_width": {"layout": "google"},
    "unshared": {"parameter_sharing": "none"},
}


def make_vocab(folder, size=202):
    tokens = [*SPECIAL_TOKENS, *(chr(0x4E00 + i) for i in range(size - 5))]
    path = folder / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=LAYOUTS)
def pretrainer(request):
    keras.utils.set_random_seed(0)
    return AlbertPretrainer(
        AlbertConfig(
            vocab_size=202,
            embedding_size=16 if request.param != "same_width" else 48,
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=96,
            max_position_embeddings=64,
            hidden_dropout_prob=0.2,
            **LAYOUTS[request.param],
        )
    )


@pytest.fixture(scope="module")
def folder(pretrainer, tmp_path_factory):
    """An export that was moved; its vocabulary's original is gone."""
    root = tmp_path_factory.mktemp("encoder")
    vocab_file = make_vocab(root)
    tokenizer = Tokenizer(vocab_file)
    exported = export_encoder(pretrainer, tokenizer, root / "written")
    vocab_file.unlink()
    return shutil.move(exported, root / "moved")


def tensors(inputs):
    return {name: tf.constant(value) for name, value in inputs.items()}


def test_outputs_are_those_of_the_model(pretrainer, folder):
    """E1, E2, E8: any T, and the same numbers as in memory."""
    loaded = tf.saved_model.load(str(folder))
    for length in (5, 11):
        inputs = tensors(probe_inputs(202, length))
        outputs = loaded(inputs)
        expected = pretrainer.encoder(inputs, training=False)
        assert sorted(outputs) == sorted(expected)
        layers = outputs["encoder_outputs"]
        assert len(layers) == 3
        np.testing.assert_array_equal(layers[-1], outputs["sequence_output"])
        np.testing.assert_array_equal(
            outputs["default"], outputs["pooled_output"]
        )
        assert outputs["sequence_output"].shape == (3, length, 48)
        assert outputs["pooled_output"].dtype == tf.float32
        for name in ("sequence_output", "pooled_output"):
            np.testing.assert_allclose(outputs[name], expected[name], atol=2e-5)
        for layer, wanted in zip(
            layers, expected["encoder_outputs"], strict=True
        ):
            np.testing.assert_allclose(layer, wanted, atol=2e-5)


def test_heads(pretrainer, folder):
    """E4, E5: extra outputs, and no variable of theirs in the root."""
    loaded = tf.saved_model.load(str(folder))
    inputs = tensors(probe_inputs(202))
    positions = tf.constant([[0, 3], [1, 1], [0, 0]])
    expected = pretrainer(
        {**inputs, "masked_lm_positions": positions}, training=False
    )
    mlm = loaded.mlm({**inputs, "masked_lm_positions": positions})
    sop = loaded.sop(inputs)
    assert mlm["mlm_logits"].shape == (3, 2, 202)
    assert sop["sop_logits"].shape == (3, 2)
    for found, name in ((mlm, "mlm_logits"), (sop, "sop_logits")):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5)
        assert "encoder_outputs" in found
    count = len(pretrainer.encoder.variables)
    assert len(loaded.variables) == len(loaded.trainable_variables) == count
    assert len(loaded.mlm.trainable_variables) == count + 5
    assert len(loaded.sop.trainable_variables) == count + 2


def test_dropout_is_live_in_training_only(folder):
    """E3."""
    loaded = tf.saved_model.load(str(folder))
    inputs = tensors(probe_inputs(202))

    def spread(**kwargs):
        runs = [loaded(inputs, **kwargs)["sequence_output"] for _ in range(4)]
        return np.std(runs, axis=0).max()

    assert spread(training=True) > 0.05
    assert spread(training=False) == spread() == 0
    assert list(loaded.regularization_losses) == []


def test_dropout_can_be_given(tiny_config, tmp_path):
    pretrainer = AlbertPretrainer(tiny_config)  # 0, as the released models
    export_encoder(
        pretrainer,
        Tokenizer(make_vocab(tmp_path)),
        tmp_path / "out",
        dropout=0.5,
    )
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    inputs = tensors(probe_inputs(202))
    expected = pretrainer.encoder(inputs)["pooled_output"]
    np.testing.assert_allclose(
        loaded(inputs)["pooled_output"], expected, atol=2e-5
    )
    trained = loaded(inputs, training=True)["pooled_output"]
    assert np.abs(trained - expected).max() > 0.1


def test_assets_and_signature(folder):
    """E6, E7."""
    loaded = tf.saved_model.load(str(folder))
    assert bool(loaded.do_lower_case) is True
    vocab_file = loaded.vocab_file.asset_path.numpy().decode()
    assert vocab_file.startswith(str(folder))
    inputs = tensors(probe_inputs(202))
    served = loaded.signatures["serving_default"](**inputs)
    np.testing.assert_allclose(
        served["pooled_output"], loaded(inputs)["pooled_output"], atol=1e-6
    )


def test_load_pretrained_reads_an_export(pretrainer, folder):
    again = albert_tf2.load_pretrained(folder)
    assert again.config == pretrainer.config
    for found, wanted in zip(
        again.variables, pretrainer.variables, strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_exporting_the_loaded_model_again(tiny_config, tmp_path):
    """What broke for others: the second save, after the first is gone."""
    vocab_file = make_vocab(tmp_path)
    pretrainer = AlbertPretrainer(tiny_config)
    export_encoder(pretrainer, Tokenizer(vocab_file), tmp_path / "first")
    vocab_file.unlink()
    inputs = tensors(probe_inputs(202))
    expected = pretrainer.encoder(inputs)["pooled_output"]
    loaded = tf.saved_model.load(str(tmp_path / "first"))
    tf.saved_model.save(loaded, str(tmp_path / "second"))
    shutil.rmtree(tmp_path / "first")
    shutil.move(tmp_path / "second", tmp_path / "third")
    again = tf.saved_model.load(str(tmp_path / "third"))
    np.testing.assert_allclose(
        again(inputs, training=False)["pooled_output"], expected, atol=2e-5
    )
    with open(again.vocab_file.asset_path.numpy(), "rb") as stream:
        assert stream.read().startswith(b"[PAD]\n")
    assert again.mlm and again.sop


def test_untrained_heads_are_left_out(tiny_config, tmp_path):
    export_encoder(
        AlbertPretrainer(tiny_config),
        Tokenizer(make_vocab(tmp_path)),
        tmp_path / "out",
        heads=("sop",),
    )
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    assert hasattr(loaded, "sop") and not hasattr(loaded, "mlm")


def test_vocabulary_of_another_size_is_refused(tiny_config, tmp_path):
    vocab_file = make_vocab(tmp_path, size=201)
    with pytest.raises(UserError, match="201 tokens.*202"):
        export_encoder(
            AlbertPretrainer(tiny_config),
            Tokenizer(vocab_file),
            tmp_path / "out",
        )
    assert list(tmp_path.iterdir()) == [vocab_file]


def test_no_path_of_this_machine_stays_inside(folder):
    parts = [str(folder.parent).encode(), b"/tmp/", str(sys.prefix).encode()]
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [part for part in parts if part in content], path


def test_float32_outputs_under_mixed_precision(tiny_config, tmp_path):
    """E8."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        pretrainer = AlbertPretrainer(tiny_config)
        vocab_file = make_vocab(tmp_path)
        export_encoder(pretrainer, Tokenizer(vocab_file), tmp_path / "out")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    outputs = loaded(tensors(probe_inputs(202)))
    found = [outputs["pooled_output"], *outputs["encoder_outputs"]]
    assert {tensor.dtype for tensor in found} == {tf.float32}
    assert {v.dtype for v in loaded.trainable_variables} == {tf.float32}


FINE_TUNE = """
import sys
import tensorflow as tf, tensorflow_hub as hub
from albert_tf2.hub_export.verify import probe_inputs
from albert_tf2.keras_api import keras
mode = sys.argv[2]
keras.utils.set_random_seed(0)
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
strategy = tf.distribute.get_strategy()
if mode == "mirrored":
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
if mode == "mixed":
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
with strategy.scope():
    ids = {
        name: keras.Input([None], dtype=tf.int32, name=name)
        for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    layer = hub.KerasLayer(sys.argv[1], trainable=True, name="albert")
    pooled = layer(ids)["pooled_output"]
    assert pooled.dtype == tf.float32
    model = keras.Model(ids, keras.layers.Dense(2, dtype="float32")(pooled))
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=mode == "xla",
    )
inputs = {k: tf.repeat(v, 8, 0) for k, v in probe_inputs(202, 8).items()}
labels = tf.repeat([0, 1, 1], 8)
before = [v.numpy() for v in layer.trainable_variables]
history = model.fit(inputs, labels, batch_size=12, epochs=12, verbose=0)
losses = history.history["loss"]
moved = sum(
    bool(abs(v.numpy() - b).max() > 0)
    for v, b in zip(layer.trainable_variables, before)
)
print(losses[0], losses[-1], moved, len(before))
"""


@pytest.mark.parametrize(
    "mode",
    ["mirrored", "mixed", pytest.param("xla", marks=pytest.mark.large)],
)
def test_hub_layer_fine_tunes_in_a_fresh_process(mode, tiny_config, tmp_path):
    """E3 under MirroredStrategy on two CPUs, mixed precision and XLA."""
    config = dataclasses.replace(tiny_config, hidden_dropout_prob=0.1)
    folder = export_encoder(
        AlbertPretrainer(config),
        Tokenizer(make_vocab(tmp_path)),
        tmp_path / "out",
    )
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FINE_TUNE), str(folder), mode],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    first, last, moved, count = result.stdout.split()
    assert float(last) < 0.5 * float(first)
    assert moved == count  # every variable learns
