"""Metadata in the files for phones, and MediaPipe itself reading them.

MediaPipe wants packages that this project does not: the test that runs it is
skipped without

    python3.11 -m venv mediapipe
    mediapipe/bin/pip install mediapipe==1.2.3
    ALBERT_TF2_MEDIAPIPE_PYTHON=mediapipe/bin/python \\
        python -m pytest --run_large tests/test_mediapipe.py
"""

import json
import os
import subprocess
import zipfile

import flatbuffers
import numpy as np
import phone_model
import pytest
import tensorflow as tf
from flatbuffers.table import Table

from albert_tf2.hub_export import mediapipe_metadata
from albert_tf2.text.text_settings import TextSettings

LENGTH = 12
TEXTS = ["今天天气很好。", "坏天气，很坏", "A今天", "", "今天" * 20]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return phone_model.write(tmp_path_factory.mktemp("phone"), LENGTH)


def field(table, number, read):
    """Returns what a field of a table holds, or None."""
    place = table.Offset(4 + 2 * number)
    return read(table, place) if place else None


def text_of(table, place):
    return table.String(table.Pos + place).decode()


def below(table, place):
    return Table(table.Bytes, table.Indirect(table.Pos + place))


def several(table, place):
    first = table.Vector(place)
    return [
        Table(table.Bytes, table.Indirect(first + 4 * i))
        for i in range(table.VectorLen(place))
    ]


def number(table, place):
    return table.Get(flatbuffers.number_types.Uint8Flags, table.Pos + place)


def files_of(table, at):
    return [
        (field(file, 0, text_of), field(file, 2, number))
        for file in field(table, at, several)
    ]


def test_the_metadata_name_inputs_labels_and_vocabulary(model):
    path, _ = model
    data = path.read_bytes()
    held = Table(data, int.from_bytes(data[:4], "little"))
    (entry,) = [
        one for one in field(held, 6, several)
        if field(one, 0, text_of) == "TFLITE_METADATA"
    ]  # fmt: skip
    where = entry.Offset(6)
    index = entry.Get(flatbuffers.number_types.Uint32Flags, entry.Pos + where)
    buffer = field(held, 4, several)[index]
    place = buffer.Offset(4)
    first, size = buffer.Vector(place), buffer.VectorLen(place)
    found = data[first : first + size]
    assert found[4:8] == b"M001"
    about = Table(found, int.from_bytes(found[:4], "little"))
    assert field(about, 0, text_of) == "TextClassifier"
    (graph,) = field(about, 3, several)
    run = tf.lite.Interpreter(str(path))
    order = [detail["name"] for detail in run.get_input_details()]
    named = [field(one, 0, text_of) for one in field(graph, 2, several)]
    for tensor, name in zip(order, named, strict=True):
        expected = {
            "word_ids": "ids",
            "mask": "mask",
            "type_ids": "segment_ids",
        }
        (key,) = [part for part in expected if f"input_{part}" in tensor]
        assert name == expected[key]
    (output,) = field(graph, 3, several)
    assert field(output, 0, text_of) == "probabilities"
    assert files_of(output, 6) == [("labels.txt", 2)]
    (unit,) = field(graph, 5, several)
    assert field(unit, 0, number) == 4  # a BERT tokenizer
    assert files_of(field(unit, 1, below), 0) == [("vocab.txt", 5)]
    # And the files lie in the archive as MediaPipe wants them.
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().split() == phone_model.LABELS
        kinds = {info.compress_type for info in archive.infolist()}
    assert kinds == {zipfile.ZIP_STORED}


def test_a_file_with_metadata_computes_what_it_did(model):
    path, function = model
    run = tf.lite.Interpreter(str(path))
    run.allocate_tensors()
    for text in TEXTS:
        row = phone_model.row_of(text, LENGTH)
        for detail in run.get_input_details():
            (name,) = [n for n in row if n in detail["name"]]
            run.set_tensor(detail["index"], row[name])
        run.invoke()
        (output,) = run.get_output_details()
        expected = function(**row)["probabilities"]
        np.testing.assert_allclose(
            run.get_tensor(output["index"]), expected, atol=1e-6
        )


@pytest.mark.parametrize(
    "kind, pairs, settings, fits",
    [
        ("classification", False, {}, True),
        ("multi_label", False, {}, True),
        ("sentence_vectors", False, {}, True),
        ("regression", False, {}, False),
        ("classification", True, {}, False),
        ("classification", False, {"do_lower_case": False}, False),
        ("classification", False, {"normalize": True}, False),
    ],
)
def test_only_what_mediapipe_reads_alike_is_described(
    kind, pairs, settings, fits
):
    found = mediapipe_metadata.fits(kind, pairs, TextSettings(**settings))
    assert found == fits


PROGRAM = """
import json, sys
from mediapipe.tasks.python import BaseOptions, text
options = text.TextClassifierOptions(
    base_options=BaseOptions(model_asset_path=sys.argv[1]))
with text.TextClassifier.create_from_options(options) as classifier:
    for one in json.load(sys.stdin):
        categories = classifier.classify(one).classifications[0].categories
        print(json.dumps({c.category_name: c.score for c in categories}))
"""


@pytest.mark.large
def test_mediapipe_answers_alike(model):
    python = os.environ.get("ALBERT_TF2_MEDIAPIPE_PYTHON")
    if not python:
        pytest.skip("set ALBERT_TF2_MEDIAPIPE_PYTHON (see above)")
    path, function = model
    texts = [one for one in TEXTS if one]  # it refuses empty ones
    run = subprocess.run(
        [python, "-c", PROGRAM, str(path)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    for text, answer in zip(texts, answers, strict=True):
        row = phone_model.row_of(text, LENGTH)
        expected = function(**row)["probabilities"][0].numpy()
        np.testing.assert_allclose(
            [answer[label] for label in phone_model.LABELS], expected, atol=1e-5
        )
