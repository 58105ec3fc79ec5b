"""Keras 3's layers: exports and foreign encoders under plain `tf.keras`.

The file is a program too: what wants two logical devices, or a process that
never saw the model, runs it as `python test_keras3.py train|reload FOLDER`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

pytestmark = pytest.mark.usefixtures("warm_python")

IDS = ("input_word_ids", "input_mask", "input_type_ids")
TEXTS = ["一丁丂", "七丄丅丆", "万丈三上", "下丌不"] * 4
PAIRS = (TEXTS, TEXTS[::-1])
LABELS = [0, 1, 1, 0] * 4
TENSORS = 24  # of an encoder whose layers are shared; the head adds two

IS_KERAS_3 = getattr(tf.keras, "version", lambda: "2")().startswith("3.")
keras_3_only = pytest.mark.skipif(
    not IS_KERAS_3, reason="tf.keras is Keras 2 on this line"
)


def token_inputs():
    """Four rows of tokens, int32 [4, 6] each, and their labels."""
    ids = np.random.default_rng(0).integers(5, 202, (4, 6), np.int32)
    rows = (ids, np.ones_like(ids), np.zeros_like(ids))
    inputs = {k: tf.constant(v) for k, v in zip(IDS, rows, strict=True)}
    return inputs, tf.constant([0, 1, 1, 0])


def functional(folder: Path):
    """Strings in pairs -> two scores; `dtype` keeps the scores float32."""
    from albert_tf2.keras3 import Encoder, Preprocessor

    keras = tf.keras
    keras.utils.set_random_seed(1)
    sides = [keras.Input([], dtype="string") for _ in range(2)]
    inputs = Preprocessor(folder / "preprocessor", seq_length=16)(sides)
    outputs = Encoder(folder / "encoder", name="albert")(inputs)
    pooled = keras.layers.Dropout(0.1)(outputs["pooled_output"])
    return keras.Model(sides, keras.layers.Dense(2, dtype="float32")(pooled))


def sequential(folder: Path):
    from albert_tf2.keras3 import Encoder, Preprocessor

    return tf.keras.Sequential(
        [
            tf.keras.Input([], dtype="string"),
            Preprocessor(folder / "preprocessor", seq_length=16),
            Encoder(folder / "encoder", output_key="pooled_output"),
            tf.keras.layers.Dense(2),
        ]
    )


def fit(model, optimizer, data, *, steps=3) -> list[float]:
    """Trains; returns the losses, after every variable was seen to move."""
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    assert len(model.trainable_variables) == TENSORS + 2
    before = [v.numpy() for v in model.trainable_variables]
    history = model.fit(data, epochs=steps, verbose=0).history["loss"]
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert np.abs(variable.numpy() - old).max() > 0, variable.path
    return history


def batches(inputs):
    return tf.data.Dataset.from_tensor_slices((inputs, LABELS)).batch(8)


def train(folder: Path) -> None:
    """Four optimizers, both kinds of model, two devices, mixed precision."""
    from albert_tf2.keras3 import Encoder, Preprocessor

    keras = tf.keras
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    for name in ("Adam", "SGD", "Lamb"):
        fit(functional(folder), getattr(keras.optimizers, name)(1e-2), data())
    model = functional(folder)
    losses = fit(model, keras.optimizers.AdamW(3e-3), data(), steps=8)
    assert losses[-1] < 0.7 * losses[0], losses
    keep(model, folder / "functional", [tf.constant(side) for side in PAIRS])

    model = sequential(folder)
    fit(model, keras.optimizers.AdamW(1e-2), batches(TEXTS))
    keep(model, folder / "sequential", tf.constant(TEXTS))

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    preprocessor = Preprocessor(folder / "preprocessor", seq_length=16)
    packed = data().map(lambda sides, labels: (preprocessor(sides), labels))
    with strategy.scope():
        ids = {
            name: keras.Input([None], None, "int32", name=name) for name in IDS
        }
        outputs = Encoder(folder / "encoder")(ids)
        scores = keras.layers.Dense(2)(outputs["pooled_output"])
        model = keras.Model(ids, scores)
        optimizer = keras.optimizers.AdamW(3e-3)
    losses = fit(model, optimizer, packed, steps=8)
    assert losses[-1] < 0.7 * losses[0], losses

    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = functional(folder)
    fit(model, keras.optimizers.AdamW(1e-2), data())
    assert {v.dtype for v in model.trainable_variables} == {"float32"}


def data():
    return batches(PAIRS)


def keep(model, path: Path, inputs) -> None:
    """Saves a model both ways, and what it answers."""
    model.save(f"{path}.keras")
    model.export(path, verbose=False)
    np.save(f"{path}.npy", model.predict(inputs, verbose=0))


def reload(folder: Path) -> None:
    """What was saved answers the same here, and goes on learning."""
    import albert_tf2.keras3  # noqa: F401 (tells Keras the layers' names)

    inputs = {
        "functional": [tf.constant(side) for side in PAIRS],
        "sequential": tf.constant(TEXTS),
    }
    for kind, texts in inputs.items():
        expected = np.load(folder / f"{kind}.npy")
        model = tf.keras.models.load_model(folder / f"{kind}.keras")
        found = model.predict(texts, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        exported = tf.saved_model.load(str(folder / kind))
        np.testing.assert_allclose(
            exported.serve(texts), expected, rtol=0, atol=1e-6
        )
        assert len(exported.trainable_variables) == TENSORS + 2
    fit(model, tf.keras.optimizers.Adam(1e-2), batches(TEXTS))


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder with our encoder and preprocessor, with dropout."""
    from albert_tf2 import AlbertConfig, AlbertPretrainer
    from albert_tf2.hub_export.encoder import export_encoder
    from albert_tf2.hub_export.preprocessor import export_preprocessor
    from albert_tf2.keras_api import keras
    from albert_tf2.text.tokenization import SPECIAL_TOKENS, Tokenizer

    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("keras3")
    tokens = [*SPECIAL_TOKENS, *(chr(0x4E00 + i) for i in range(197))]
    vocab_file = folder / "vocab.txt"
    vocab_file.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    config = AlbertConfig(
        vocab_size=202,
        embedding_size=16,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=128,
        hidden_dropout_prob=0.1,
    )
    tokenizer = Tokenizer(vocab_file)
    export_encoder(AlbertPretrainer(config), tokenizer, folder / "encoder")
    export_preprocessor(tokenizer, folder / "preprocessor")
    return folder


class Foreign(tf.Module):
    """An encoder of the contract that owes this project nothing."""

    def __init__(self):
        super().__init__()
        draw = np.random.default_rng(1).standard_normal
        self.table = tf.Variable(draw((202, 8)), dtype=tf.float32, name="table")
        self.kernel = tf.Variable(draw((8, 8)), dtype=tf.float32)
        self.scale = tf.Variable(2.0, trainable=False, name="scale")
        spec = {n: tf.TensorSpec([None, None], tf.int32, n) for n in IDS}
        for training in (False, True):
            self.__call__.get_concrete_function(spec, training=training)

    @tf.function
    def __call__(self, inputs, training=False):
        tokens = tf.gather(self.table, inputs["input_word_ids"])
        if training:
            tokens = tf.nn.dropout(tokens, 0.5)
        tokens = self.scale * tf.tanh(tokens @ self.kernel)
        pooled = tf.reduce_mean(tokens, 1)
        return {
            "default": pooled,
            "pooled_output": pooled,
            "sequence_output": tokens,
            "encoder_outputs": [tokens],
        }


def save_foreign(folder, kind: str) -> Path:
    """Saves `Foreign`: bare, or as TF Hub's reusable SavedModel."""
    module = Foreign()
    root = module
    if kind == "reusable":
        root = tf.train.Checkpoint()
        root.__call__ = module.__call__
        root.variables = [module.table, module.kernel, module.scale]
        root.trainable_variables = [module.table, module.kernel]
        loss = tf.function(
            lambda: 0.5 * tf.nn.l2_loss(module.kernel), input_signature=[]
        )
        root.regularization_losses = [loss]
        root.module = module
    tf.saved_model.save(root, str(folder / kind))
    return folder / kind


def classifier(layer):
    ids = {
        name: tf.keras.Input([None], None, "int32", name=name) for name in IDS
    }
    scores = tf.keras.layers.Dense(2)(layer(ids)["pooled_output"])
    return tf.keras.Model(ids, scores)


def run(exports, command, **environment):
    return subprocess.run(
        [sys.executable, __file__, command, str(exports)],
        capture_output=True,
        text=True,
        cwd=exports,
        env=os.environ | environment,
    )


@keras_3_only
def test_fit_save_and_reload_in_fresh_processes(exports):
    for command in ("train", "reload"):
        done = run(exports, command)
        assert done.returncode == 0, done.stderr


@keras_3_only
@pytest.mark.parametrize("kind", ["bare", "reusable"])
def test_a_foreign_encoder(kind, tmp_path):
    from albert_tf2.keras3 import Encoder

    folder = save_foreign(tmp_path, kind)
    inputs, labels = token_inputs()
    wanted = tf.saved_model.load(str(folder))(inputs)
    layer = Encoder(folder, name="foreign")
    for name, value in layer(inputs).items():
        np.testing.assert_allclose(value, wanted[name], atol=1e-6)
    assert [len(layer.trainable_variables), len(layer.variables)] == [2, 3]
    model = classifier(layer)
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(True))
    before = [v.numpy() for v in layer.variables]
    model.fit(inputs, labels, verbose=0)
    moved = [
        bool(np.abs(v.numpy() - old).max() > 0)
        for v, old in zip(layer.variables, before, strict=True)
    ]
    assert moved == [v.trainable for v in layer.variables]
    # The encoder itself learned, not a copy of its variables.
    assert np.abs(layer(inputs)["default"] - wanted["default"]).max() > 0
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(inputs), model(inputs), atol=1e-6)


@keras_3_only
def test_regularization_losses_are_added_while_it_learns(tmp_path):
    from albert_tf2.keras3 import Encoder

    layer = Encoder(save_foreign(tmp_path, "reusable"))
    inputs, _ = token_inputs()
    layer(inputs, training=True)
    kernel = layer.trainable_variables[1].numpy()
    wanted = 0.25 * (kernel**2).sum()
    np.testing.assert_allclose(sum(layer.losses), wanted, rtol=1e-6)
    layer.trainable = False
    layer(inputs, training=True)
    assert layer.losses == []


@keras_3_only
def test_a_loaded_object_and_dropout(exports):
    from albert_tf2.keras3 import Encoder

    loaded = tf.saved_model.load(str(exports / "encoder"))
    layer = Encoder(loaded)
    assert len(layer.trainable_variables) == TENSORS
    assert layer.resolved_object is loaded
    inputs, _ = token_inputs()

    def spread(**options):
        runs = [layer(inputs, **options)["default"] for _ in range(3)]
        return np.ptp(runs, axis=0).max()

    assert spread() == spread(training=False) == 0
    assert spread(training=True) > 0.01
    layer.trainable = False
    assert not layer.trainable_variables
    assert spread(training=True) == 0
    with pytest.raises(ValueError, match="made from a loaded object"):
        layer.get_config()


@keras_3_only
def test_variables_have_names_that_say_what_they_are(exports):
    from albert_tf2.keras3 import Encoder

    layer = Encoder(exports / "encoder", name="albert")
    names = [variable.name for variable in layer.variables]
    assert len(set(names)) == TENSORS
    assert not [name for name in names if ":" in name or "/" in name]
    # What `optimizer.exclude_from_weight_decay(var_names=...)` looks for.
    assert sum("LayerNorm" in name for name in names) == 6
    assert sum(name.endswith("bias") for name in names) == 7


@keras_3_only
def test_the_preprocessor_is_the_saved_models(exports):
    from albert_tf2.keras3 import Preprocessor

    layer = Preprocessor(exports / "preprocessor", seq_length=9)
    loaded = layer.resolved_object
    sides = [loaded.tokenize(tf.constant(side)) for side in PAIRS]
    one = loaded.bert_pack_inputs(sides[:1], tf.constant(9))
    two = loaded.bert_pack_inputs(sides, tf.constant(9))
    column = tf.constant(TEXTS)[:, None]
    for found, wanted in (
        (layer(TEXTS), one),
        (layer(column), one),
        (layer(TEXTS[0]), {k: v[:1] for k, v in one.items()}),
        (layer(PAIRS), two),
        (layer([column, tf.constant(PAIRS[1])]), two),
    ):
        assert sorted(found) == sorted(IDS)
        for name, value in found.items():
            np.testing.assert_array_equal(value, wanted[name])
    assert layer([])["input_mask"].shape == (0, 9)
    assert not layer.variables
    with pytest.raises(ValueError, match="one text or a pair. Received: 3"):
        layer([TEXTS, TEXTS, TEXTS])


@keras_3_only
def test_a_moved_folder_gets_a_sentence_and_its_remedy_works(exports, tmp_path):
    from albert_tf2.keras3 import Encoder

    folder = save_foreign(tmp_path, "bare")
    model = classifier(Encoder(folder))
    model.layers[-2].trainable_variables[0].assign_add(tf.ones([202, 8]))
    model.save(tmp_path / "model.keras")
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="bare holds no saved_model.pb.*load_"):
        tf.keras.models.load_model(tmp_path / "model.keras")
    again = classifier(Encoder(moved))
    again.load_weights(tmp_path / "model.keras")
    inputs, _ = token_inputs()
    np.testing.assert_allclose(again(inputs), model(inputs), atol=1e-6)


@keras_3_only
def test_what_is_no_encoder_gets_a_sentence(exports, tmp_path):
    from albert_tf2.keras3 import Encoder, Preprocessor

    inputs, _ = token_inputs()
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="empty cannot be called"):
        Encoder(tmp_path / "empty")
    with pytest.raises(ValueError, match="empty has no `tokenize`"):
        Preprocessor(tmp_path / "empty")
    with pytest.raises(ValueError, match="holds no saved_model.pb: Encoder"):
        Encoder(tmp_path)
    with pytest.raises(ValueError, match="not an address.*hub.resolve"):
        Encoder("https://tfhub.dev/google/albert_base/3")
    with pytest.raises(ValueError, match="no trainable variables"):
        Encoder(exports / "preprocessor")
    with pytest.raises(ValueError, match="`output_key` must be one of default"):
        Encoder(exports / "encoder", output_key="pooled")(inputs)
    del inputs["input_mask"]
    with pytest.raises(ValueError, match="takes a dict of input_word_ids"):
        Encoder(exports / "encoder")(inputs)


@keras_3_only
def test_the_guide_says_what_works(exports, tmp_path):
    guide = Path(__file__).parents[1] / "docs" / "keras.md"
    programs = re.findall(
        r"^```python\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S
    )
    assert len(programs) == 2
    for part in ("encoder", "preprocessor"):
        (tmp_path / "exported" / part).mkdir(parents=True)
        (tmp_path / "exported" / part / "1").symlink_to(exports / part)
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr


def test_keras_2_gets_one_sentence(tmp_path):
    done = run(tmp_path, "train", TF_USE_LEGACY_KERAS="1")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "made for Keras 3" in last and "hub.KerasLayer" in last


if __name__ == "__main__":
    {"train": train, "reload": reload}[sys.argv[1]](Path(sys.argv[2]))
