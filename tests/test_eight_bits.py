"""Models written for eight bits: the same numbers, and fewer of them lost."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2 import AlbertPretrainer
from albert_tf2.hub_export import eight_bits, tflite
from albert_tf2.hub_export.verify import probe_inputs
from albert_tf2.keras_api import keras

T = 16


def rows(count=6):
    inputs = probe_inputs(202, T)
    generator = np.random.default_rng(0)
    for _ in range(count):
        ids = generator.integers(1, 202, [1, T], np.int32)
        yield {name: v[1:2] for name, v in inputs.items()} | {
            "input_word_ids": ids
        }


def model(config, **changes):
    keras.utils.set_random_seed(0)
    pretrainer = AlbertPretrainer(config.replace(**changes))
    encoder = pretrainer.encoder
    for variable in encoder.variables:  # as training leaves them: not tiny
        noise = tf.random.stateless_normal(variable.shape, [1, 2])
        variable.assign_add(0.1 * noise)
    # One channel answers a hundred times as loudly as the others.
    block = encoder.feed_forward_layers[0]
    loud = np.ones(config.hidden_size, np.float32)
    loud[3] = 100
    block.output_dense.kernel.assign(block.output_dense.kernel * loud)
    # As in trained models, it is not heard outside of its block.
    block.layer_norm.gamma.assign(block.layer_norm.gamma / loud)
    # And one word is a hundred times as long.
    words = encoder.embeddings.word_embeddings
    words.assign(tf.tensor_scatter_nd_update(words, [[7]], 100 * words[7:8]))
    return pretrainer


def read_by(blob, name):
    """Returns which operations compute what those of a kind read, in order."""
    # There is no public way to list them.
    ops = tf.lite.Interpreter(model_content=blob)._get_ops_details()
    made = {index: op for op in ops for index in op["outputs"]}

    def source(op):
        op = made[op["inputs"][0]]
        moves = op["op_name"] in ("RESHAPE", "STRIDED_SLICE")
        return source(op) if moves else op["op_name"]

    return [source(op) for op in ops if op["op_name"] == name]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layout": "google"},
        {"ln_type": "preln"},
        {"hidden_act": "relu"},
    ],
)
def test_nothing_changes_in_float32(changes, tiny_config):
    function = tflite.output_function(model(tiny_config, **changes), "sequence")
    samples = list(rows())

    def outputs():
        found = [function(sample)["sequence"].numpy() for sample in samples]
        return np.concatenate(found)

    expected = outputs()
    with contextlib.ExitStack() as tracing:
        tracing.enter_context(eight_bits.even_words())
        tracing.enter_context(eight_bits.exact_products())
        tracing.enter_context(eight_bits.even_feed_forward(function, samples))
        found = outputs()
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(outputs(), expected)  # as it was


def test_a_loud_channel_and_a_long_word_cost_little(tiny_config, monkeypatch):
    """Without the channels' own ranges, most of the others' bits are lost."""
    function = tflite.output_function(
        model(tiny_config, layout="google"), "embedding", normalized=False
    )
    samples = list(rows(12))
    expected = np.concatenate([function(s)["embedding"] for s in samples])
    blobs = []

    def cosines():
        blob = tflite.convert(
            function,
            tflite.id_specs("embedding", T),
            precision="int8",
            samples=samples,
        )
        blobs.append(blob)
        run = tf.lite.Interpreter(model_content=blob).get_signature_runner()
        found = np.concatenate([run(**s)["embedding"] for s in samples])
        product = (expected * found).sum(1)
        lengths = np.linalg.norm(expected, axis=1)
        return product / lengths / np.linalg.norm(found, axis=1)

    ours = cosines().min()
    # What these read was not rounded on its way: the segments' vectors, the
    # projection, and in each layer the values; the loudest units read GELU's.
    assert read_by(blobs[0], "CONV_2D") == [
        "ONE_HOT",
        "ADD",
        *(tiny_config.num_hidden_layers * ["ADD", "DEQUANTIZE"]),
    ]
    monkeypatch.setattr(
        eight_bits,
        "even_feed_forward",
        lambda function, samples: contextlib.nullcontext(),
    )
    without = cosines().min()
    assert ours > 0.99
    assert 1 - without > 3 * (1 - ours)


def test_segments_are_told_apart(tiny_config):
    """The converter's own EMBEDDING_LOOKUP would read them in a wrong range."""
    pretrainer = model(tiny_config, layout="google")
    types = pretrainer.encoder.embeddings.token_type_embeddings
    types.assign(tf.stack([types[0] + 3, 0.2 * types[1]]))
    function = tflite.output_function(pretrainer, "sequence")
    samples = list(rows(4))
    for number, sample in enumerate(samples):
        sample["input_type_ids"] = np.full([1, T], number % 2, np.int32)
    blob = tflite.convert(
        function,
        tflite.id_specs("sequence", T),
        precision="int8",
        samples=samples,
    )
    run = tf.lite.Interpreter(model_content=blob).get_signature_runner()
    for sample in samples:
        expected = function(sample)["sequence"].numpy()
        found = run(**sample)["sequence"]
        assert np.abs(found - expected).mean() < 0.05 * expected.std()


def test_words_are_rows_of_equal_range(tiny_config):
    """What the converter rounds to eight bits, whatever a word's length."""
    embeddings = model(tiny_config).encoder.embeddings
    ids = tf.constant([5, 7])
    expected = embeddings.look_up(ids)

    @tf.function(autograph=False)
    def look_up(ids):
        return embeddings.look_up(ids)

    with eight_bits.even_words():
        graph = look_up.get_concrete_function(ids)
    tables = [
        tf.make_ndarray(node.attr["value"].tensor)
        for node in graph.graph.as_graph_def().node
        if node.op == "Const"
        and len(node.attr["value"].tensor.tensor_shape.dim) == 2
    ]
    (table,) = [t for t in tables if t.dtype == np.float32]
    ranges = np.abs(table).max(axis=1)
    np.testing.assert_allclose(ranges, ranges.max(), rtol=1e-3)
    np.testing.assert_allclose(graph(ids), expected, rtol=1e-5)
