"""TFLite models: every output, precision and kind of input."""

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2 import AlbertPretrainer, Tokenizer, UserError, Vocabulary
from albert_tf2.hub_export import tflite, tflite_archive
from albert_tf2.hub_export.tflite_variants import calibration_samples
from albert_tf2.hub_export.verify import probe_inputs
from albert_tf2.keras_api import keras
from albert_tf2.model import layers
from albert_tf2.text.normalization import REPLACEMENTS
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import SPECIAL_TOKENS

pytestmark = pytest.mark.usefixtures("warm_python")

T = 16
SIGNS = [*"ab12\"'-.！", "##b", "##1", "##2"]


@pytest.fixture
def tokenizer():
    letters = (chr(0x4E00 + i) for i in range(197 - len(SIGNS)))
    return Tokenizer(Vocabulary([*SPECIAL_TOKENS, *SIGNS, *letters]))


@pytest.fixture
def pretrainer(tiny_config):
    keras.utils.set_random_seed(0)
    return AlbertPretrainer(tiny_config)


def score_padding(pretrainer, scale):
    """Draws queries and keys: the larger, the more padding may attract."""
    attention = pretrainer.encoder.attention_layers[0]
    for layer in (attention.query, attention.key):
        noise = tf.random.stateless_normal(layer.kernel.shape, [3, 4])
        layer.kernel.assign(scale * noise)


def one_row(length=T):
    return {name: v[1:2] for name, v in probe_inputs(202, length).items()}


def run(path, *, strings=False, **inputs):
    signature = tflite.interpreter(path, strings=strings)
    return signature.get_signature_runner()(**inputs)


def mean_vector(pretrainer, inputs):
    outputs = pretrainer.encoder(inputs)["sequence_output"].numpy()[0]
    mean = outputs[inputs["input_mask"][0] == 1].mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize(
    "precision, tolerance",
    [("fp32", 2e-5), ("fp16", 2e-3), ("dynamic_int8", 0.05)],
)
def test_embedding(precision, tolerance, pretrainer, tokenizer, tmp_path):
    path = tflite.export_tflite(
        pretrainer,
        tmp_path / "m.tflite",
        tokenizer,
        precision=precision,
        seq_length=T,
    )
    found = run(path, **one_row())["embedding"]
    expected = mean_vector(pretrainer, one_row())
    np.testing.assert_allclose(found[0], expected, atol=tolerance)


def test_full_int8_keeps_the_direction(pretrainer, tokenizer, tmp_path):
    """Its length is the caller's; padding must not flatten attention."""
    sentences = ["一丁七万丈三上下", "不与丐丑", "专且丕世丘丙业丛东丝"]
    path = tflite.export_tflite(
        pretrainer,
        tmp_path / "m.tflite",
        tokenizer,
        precision="int8",
        seq_length=T,
        samples=calibration_samples(sentences, tokenizer, seq_length=T),
    )
    found = run(path, **one_row())["embedding"][0]
    expected = mean_vector(pretrainer, one_row())
    assert expected @ found / np.linalg.norm(found) > 0.98


@pytest.mark.parametrize("scale, is_deeper", [(0.1, False), (1.0, True)])
def test_int8_hides_padding_whatever_it_would_score(
    scale, is_deeper, pretrainer, tokenizer, monkeypatch
):
    """Training leaves those scores free: a trained model's can be high."""
    score_padding(pretrainer, scale)
    function = tflite.output_function(pretrainer, "sequence")
    samples = calibration_samples(
        ["一丁七万丈三上下", "不与"], tokenizer, seq_length=T
    )

    def outputs():
        found = [function(sample)["sequence"].numpy() for sample in samples]
        return np.concatenate(found)

    expected = outputs()
    score = tflite.int8_masked_score(function, samples)
    assert (score < -16) == is_deeper
    np.testing.assert_array_equal(outputs(), expected)  # as it was
    level = np.abs(expected).max() / 256
    monkeypatch.setattr(layers, "MASKED_SCORE", score)
    np.testing.assert_allclose(outputs(), expected, atol=level)
    monkeypatch.setattr(layers, "MASKED_SCORE", -16.0)
    assert (np.abs(outputs() - expected).max() > level) == is_deeper


def test_int8_is_traced_with_the_score_that_was_chosen(pretrainer, tokenizer):
    score_padding(pretrainer, 1.0)
    function = tflite.output_function(pretrainer, "sequence")
    samples = calibration_samples(["一丁七万丈三上下"], tokenizer, seq_length=T)
    traced = []

    def spy(inputs):
        if not tf.executing_eagerly():
            traced.append(layers.MASKED_SCORE)
        return function(inputs)

    specs = tflite.id_specs("sequence", T)
    tflite.convert(spy, specs, precision="int8", samples=samples)
    assert set(traced) == {tflite.int8_masked_score(function, samples)}
    assert traced[0] < -16 and layers.MASKED_SCORE == -10000


def test_int8_says_when_no_score_hides_padding(pretrainer, tokenizer):
    score_padding(pretrainer, 30.0)
    function = tflite.output_function(pretrainer, "sequence")
    samples = calibration_samples(
        ["一丁", "七万丈三上下"], tokenizer, seq_length=T
    )
    with pytest.warns(UserWarning, match="padding is not hidden .* -256"):
        assert tflite.int8_masked_score(function, samples) == -256


def test_any_length(pretrainer, tokenizer, tmp_path):
    path = tflite.export_tflite(
        pretrainer, tmp_path / "m.tflite", tokenizer, seq_length=None
    )
    for length in (5, 23):
        inputs = one_row(length)
        np.testing.assert_allclose(
            run(path, **inputs)["embedding"][0],
            mean_vector(pretrainer, inputs),
            atol=2e-5,
        )


def test_other_outputs(pretrainer, tokenizer, tmp_path):
    def export(output, **kwargs):
        return tflite.export_tflite(
            pretrainer,
            tmp_path / f"{output}.tflite",
            tokenizer,
            output=output,
            seq_length=T,
            **kwargs,
        )

    inputs = one_row()
    positions = np.arange(20, dtype=np.int32)[None] % T
    expected = pretrainer({**inputs, "masked_lm_positions": positions})
    found = run(export("sequence"), **inputs)["sequence"]
    np.testing.assert_allclose(found, expected["sequence_output"], atol=2e-5)
    found = run(export("mlm"), **inputs, masked_lm_positions=positions)["mlm"]
    np.testing.assert_allclose(found, expected["mlm_logits"], atol=2e-5)
    path = export(
        "classifier",
        classifier=lambda x: pretrainer(x, training=False)["sop_logits"],
    )
    np.testing.assert_allclose(
        run(path, **inputs)["classifier"],
        tf.nn.softmax(expected["sop_logits"]),
        atol=2e-5,
    )
    pair = {name: value[:2] for name, value in probe_inputs(202, T).items()}
    first, second = (
        mean_vector(pretrainer, {k: v[i : i + 1] for k, v in pair.items()})
        for i in range(2)
    )
    found = run(export("similarity"), **pair)["similarity"]
    np.testing.assert_allclose(found, [first @ second], atol=2e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_strings(normalize, pretrainer, tokenizer, tmp_path):
    """The tokenizer inside gives the Python tokenizer's ids, folded or not."""
    plain = tokenizer
    settings = TextSettings(normalize=normalize)
    tokenizer = Tokenizer(plain.vocabulary, settings)
    path = tflite.export_tflite(
        pretrainer,
        tmp_path / "m.tflite",
        tokenizer,
        seq_length=T,
        takes_strings=True,
    )
    texts = ["一丁七", "", "万 丈\u200d三，Ａ é", "上" * 40]
    for text in [*texts, "ＡＢ１２！", "“一”——丁…", "丁‘ａ’–２１"]:
        ids = tokenizer.tokenize(text).ids
        differs = ids != plain.tokenize(text).ids
        assert differs == (normalize and bool(REPLACEMENTS.keys() & {*text}))
        ids = [2, *ids[: T - 2], 3]
        inputs = {
            "input_word_ids": np.array([ids]),
            "input_mask": np.ones_like([ids]),
            "input_type_ids": np.zeros_like([ids]),
        }
        found = run(path, strings=True, text=np.array([text]))["embedding"]
        np.testing.assert_allclose(
            found[0], mean_vector(pretrainer, inputs), atol=2e-5
        )


def test_similarity_of_strings(pretrainer, tokenizer, tmp_path):
    path = tflite.export_tflite(
        pretrainer,
        tmp_path / "m.tflite",
        tokenizer,
        output="similarity",
        seq_length=T,
        takes_strings=True,
    )
    given = {"text_a": np.array(["一丁"]), "text_b": np.array(["一丁"])}
    found = run(path, strings=True, **given)["similarity"]
    np.testing.assert_allclose(found, [1], atol=1e-5)


def test_metadata_and_vocabulary_are_inside(pretrainer, tokenizer, tmp_path):
    import zipfile

    path = tflite.export_tflite(
        pretrainer, tmp_path / "m.tflite", tokenizer, seq_length=T
    )
    metadata = tflite_archive.read_metadata(path)
    assert metadata["inputs"]["input_mask"] == {
        "shape": [1, T],
        "type": "int32",
    }
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    inside = Tokenizer(tmp_path / "unpacked")
    assert inside.vocabulary.tokens == tokenizer.vocabulary.tokens
    assert inside.settings == tokenizer.settings
    with pytest.raises(UserError, match="no TFLite model of this project"):
        tflite_archive.read_metadata(tmp_path / "unpacked" / "vocab.txt")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"output": "embeddings"}, "`output` must be one of embedding"),
        ({"output": "classifier"}, "needs a fine-tuned classifier"),
        ({"precision": "int4"}, "`precision` must be one of fp32"),
        ({"precision": "int8"}, "needs `samples`"),
        ({"precision": "int8", "output": "similarity"}, "in full int8"),
        ({"takes_strings": True, "output": "mlm"}, "takes ids"),
        ({"takes_strings": True, "seq_length": None}, "a fixed `seq_length`"),
    ],
)
def test_what_cannot_be_exported(
    settings, message, pretrainer, tokenizer, tmp_path
):
    path = tmp_path / "m.tflite"
    with pytest.raises(UserError, match=message):
        tflite.export_tflite(pretrainer, path, tokenizer, **settings)
    assert not path.exists()


def test_an_existing_file_stays(pretrainer, tokenizer, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="already exists"):
        tflite.export_tflite(pretrainer, path, tokenizer)
    assert path.read_bytes() == b"mine"
