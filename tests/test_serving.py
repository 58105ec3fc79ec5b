"""The serving SavedModel: strings in, embeddings out (E7)."""

import functools
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the graph's operations
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

from albert_tf2 import AlbertPretrainer, Tokenizer, UserError
from albert_tf2.hub_export import serving
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import SPECIAL_TOKENS

pytestmark = pytest.mark.usefixtures("warm_python")

TEXTS = ["一丁七", "", "万丈三上下不与丐丑专且丕世", "丁丁丁"]
SIGNS = [*"ab12\"'-.！", "##b", "##1", "##2"]
WITH_SIGNS = ["ＡＢ１２！", "“一”——丁…", "丁‘ａ’–２１", "ab12！"]


@pytest.fixture
def vocab_file(tmp_path):
    letters = (chr(0x4E00 + i) for i in range(197 - len(SIGNS)))
    tokens = [*SPECIAL_TOKENS, *SIGNS, *letters]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def pretrainer(tiny_config):
    return AlbertPretrainer(tiny_config)


@pytest.fixture
def signatures(pretrainer, vocab_file, tmp_path):
    """Of a moved export that cuts at 12 tokens."""
    folder = serving.export_serving(
        pretrainer,
        Tokenizer(vocab_file),
        tmp_path / "written",
        seq_length=12,
    )
    moved = shutil.move(folder, tmp_path / "moved")
    return tf.saved_model.load(str(moved)).signatures


def encoder_inputs(tokenizer, text, second=None, *, limit=12):
    """Packs without the code under test; `text` alone is cut."""
    ids = [2, *tokenizer.tokenize(text).ids[: limit - 2], 3]
    types = [0] * len(ids)
    if second is not None:
        ids += [*tokenizer.tokenize(second).ids, 3]
        types += [1] * (len(ids) - len(types))
    return {
        "input_word_ids": tf.constant([ids]),
        "input_mask": tf.ones_like([ids]),
        "input_type_ids": tf.constant([types]),
    }


def expected_embedding(pretrainer, tokenizer, text):
    outputs = pretrainer.encoder(encoder_inputs(tokenizer, text))
    mean = outputs["sequence_output"].numpy()[0].mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_embeddings_of_a_batch(pretrainer, vocab_file, signatures):
    """Padding to the longest text changes nothing."""
    tokenizer = Tokenizer(vocab_file)
    served = signatures["serving_default"](text=tf.constant(TEXTS))
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(
            served["embedding"][row],
            expected_embedding(pretrainer, tokenizer, text),
            atol=2e-5,
        )
        pooled = pretrainer.encoder(encoder_inputs(tokenizer, text))
        np.testing.assert_allclose(
            served["pooled_output"][row], pooled["default"][0], atol=2e-5
        )


def test_folded_signs(pretrainer, vocab_file, tmp_path):
    """With `normalize`, the ids are those of the Python tokenizer's folding.

    Without it they would be others, but for the text that has no such sign.
    """
    written = serving.export_serving(
        pretrainer,
        Tokenizer(vocab_file, TextSettings(normalize=True)),
        tmp_path / "written",
    )
    moved = shutil.move(written, tmp_path / "moved")
    serve = tf.saved_model.load(str(moved)).signatures["serving_default"]
    served = serve(text=tf.constant(WITH_SIGNS))["embedding"].numpy()
    folding, plain = (
        np.stack(
            [
                expected_embedding(
                    pretrainer,
                    Tokenizer(vocab_file, TextSettings(normalize=fold)),
                    text,
                )
                for text in WITH_SIGNS
            ]
        )
        for fold in (True, False)
    )
    np.testing.assert_allclose(served, folding, atol=2e-5)
    moved_by = np.abs(folding - plain).max(axis=-1)
    assert (moved_by > 0.01).tolist() == [True, True, True, False]


def test_similarity_of_pairs(pretrainer, vocab_file, signatures):
    tokenizer = Tokenizer(vocab_file)
    others = TEXTS[::-1]
    served = signatures["similarity"](
        text_a=tf.constant(TEXTS), text_b=tf.constant(others)
    )["similarity"]
    for found, *pair in zip(served, TEXTS, others, strict=True):
        first, second = (
            expected_embedding(pretrainer, tokenizer, text) for text in pair
        )
        np.testing.assert_allclose(found, first @ second, atol=2e-5)


def test_another_vocabulary_is_refused(pretrainer, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("\n".join(SPECIAL_TOKENS), encoding="utf-8")
    with pytest.raises(UserError, match="5 tokens"):
        serving.export_serving(pretrainer, Tokenizer(other), tmp_path / "out")


# What a warm-up request uses of TF Serving's prediction_log.proto,
# predict.proto and model.proto: number, name, type.
WARMUP_MESSAGES = {
    "PredictionLog": [(6, "predict_log", ".warmup.PredictLog")],
    "PredictLog": [(1, "request", ".warmup.PredictRequest")],
    "PredictRequest": [
        (1, "model_spec", ".warmup.ModelSpec"),
        (2, "inputs", "[.warmup.Input]"),
    ],
    "Input": [(1, "key", "string"), (2, "value", ".tensorflow.TensorProto")],
    "ModelSpec": [(1, "name", "string"), (3, "signature_name", "string")],
}


@functools.cache
def prediction_log_class():
    """Returns PredictionLog, without the package that pins TensorFlow."""
    described = descriptor_pb2.FileDescriptorProto(
        name="warmup.proto",
        package="warmup",
        dependency=[tensor_pb2.DESCRIPTOR.name],
    )
    for message, fields in WARMUP_MESSAGES.items():
        added = described.message_type.add(name=message)
        for number, name, kind in fields:
            field = added.field.add(number=number, name=name)
            field.label = (
                field.LABEL_REPEATED
                if kind.startswith("[")
                else field.LABEL_OPTIONAL
            )
            if kind == "string":
                field.type = field.TYPE_STRING
            else:
                field.type = field.TYPE_MESSAGE
                field.type_name = kind.strip("[]")
    pool = descriptor_pool.Default()  # it knows TensorProto
    pool.AddSerializedFile(described.SerializeToString())
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("warmup.PredictionLog")
    )


def test_warmup_requests_run(signatures, tmp_path):
    """The file is at TF Serving's place, and each request is answerable."""
    path = tmp_path / "moved/assets.extra/tf_serving_warmup_requests"
    names = []
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_class().FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name == "serving"
        signature = signatures[request.model_spec.signature_name]
        texts = {
            entry.key: tf.constant(tf.make_ndarray(entry.value))
            for entry in request.inputs
        }
        assert signature(**texts)
        names.append(request.model_spec.signature_name)
    assert sorted(names) == sorted([*signatures] * 2)


def test_saved_model_cli_runs_it_through_the_cpp_loader(signatures, tmp_path):
    """As TF Serving would: no Python of ours, the session loader in C++."""
    del signatures  # exported
    program = (
        "import tensorflow_text\n"
        "from tensorflow.python.tools import saved_model_cli\n"
        "saved_model_cli.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "run", "--dir", tmp_path / "moved"]
        + ["--tag_set", "serve", "--signature_def", "similarity"]
        + ["--input_exprs", 'text_a=["一丁"];text_b=["一丁"]'],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "similarity:\n[1" in result.stdout or "[0.99999" in result.stdout
