"""What TF Hub asks of a text model, row by row, in one fresh process.

The rows P1-P8 (preprocessor) and E1-E8 (encoder) are those of the reference
`HUB_CONTRACT.md`. The test exports, moves the folders, removes the originals,
and runs this file as a program elsewhere; it imports nothing of this project.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

IDS = ("input_word_ids", "input_mask", "input_type_ids")
T, H, V, LAYERS = 7, 48, 202, 3
CLS, SEP = 2, 3
FOLDERS: dict[str, str] = {}  # by part, filled by `main`
ROWS = [f"{part}{number}" for part in "PE" for number in range(1, 9)]


def inputs(length=T):
    """Three rows, of which the last two are padded: int32 [3, T]."""
    import tensorflow as tf

    ids = np.random.default_rng(0).integers(5, V, (3, length), np.int32)
    mask = (np.arange(length) < [[length], [4], [2]]).astype(np.int32)
    rows = (ids, mask, np.zeros_like(ids))
    return {k: tf.constant(v) for k, v in zip(IDS, rows, strict=True)}


def p1(preprocessor, tf):
    """string [B] -> int32 [B, 128] each."""
    outputs = preprocessor(tf.constant(["一丁", ""]))
    assert sorted(outputs) == sorted(IDS)
    for value in outputs.values():
        assert value.dtype == tf.int32 and value.shape == (2, 128)


def p2(preprocessor, tf):
    """int32 ragged [B, (words), (tokens)]."""
    tokens = preprocessor.tokenize(tf.constant(["ab，一", ""]))
    assert isinstance(tokens, tf.RaggedTensor) and tokens.dtype == tf.int32
    assert [len(word) for word in tokens.to_list()[0]] == [2, 1, 1]


def p3(preprocessor, tf):
    """One or two segments, of ragged rank 1 or 2, to any length."""
    words = preprocessor.tokenize(tf.constant(["一丁", "七"]))
    for segment in (words, words.merge_dims(1, 2)):
        for segments in ([segment], [segment, segment]):
            for length in (4, 300):
                packed = preprocessor.bert_pack_inputs(
                    segments, seq_length=tf.constant(length)
                )
                assert {tuple(v.shape) for v in packed.values()} == {
                    (2, length)
                }


def p4(preprocessor, tf):
    """[CLS] s1 [SEP] s2 [SEP]; long pairs keep about equal shares."""
    texts = ["一" * 9], ["丁" * 9]
    first, second = (preprocessor.tokenize(tf.constant(t)) for t in texts)
    one, two = (int(s.flat_values[0]) for s in (first, second))
    packed = preprocessor.bert_pack_inputs([first, second], seq_length=8)
    ids, mask, types = (packed[name].numpy()[0].tolist() for name in IDS)
    assert ids == [CLS, one, one, one, SEP, two, two, SEP]
    assert mask == [1] * 8 and types == [0] * 5 + [1] * 3
    packed = preprocessor.bert_pack_inputs([first], seq_length=13)
    assert packed["input_word_ids"].numpy()[0, -2:].tolist() == [0, 0]


def p5(preprocessor, tf):
    """The special tokens' ids, scalar int32."""
    special = preprocessor.tokenize.get_special_tokens_dict()
    assert all(v.dtype == tf.int32 and v.shape == () for v in special.values())
    assert {name: int(value) for name, value in special.items()} == {
        "vocab_size": V,
        "padding_id": 0,
        "start_of_sequence_id": CLS,
        "end_of_segment_id": SEP,
        "mask_id": 4,
    }


def p6(preprocessor, tf):
    """Tokens, starts, limits."""
    text = "一 aB丁"
    tokens, starts, limits = preprocessor.tokenize.tokenize_with_offsets(
        tf.constant([text])
    )
    spans = zip(starts.flat_values, limits.flat_values, strict=True)
    cut = [text.encode()[int(i) : int(j)].decode() for i, j in spans]
    assert cut == ["一", "a", "B", "丁"] and len(tokens.flat_values) == 4


def p7(preprocessor, tf):
    """No variables at all."""
    import tensorflow_hub as hub

    layer = hub.KerasLayer(preprocessor)
    assert not layer.variables and not layer.trainable_variables


def p8(preprocessor, tf):
    """In `Dataset.map`, without Assert; the asset moved along; no rows."""
    from tensorflow.core.protobuf import saved_model_pb2

    texts = tf.data.Dataset.from_tensor_slices(["一", "", "丁七"]).batch(2)
    shapes = [tuple(b["input_mask"].shape) for b in texts.map(preprocessor)]
    assert shapes == [(2, 128), (1, 128)]
    none = preprocessor(tf.constant([], tf.string))
    assert none["input_mask"].shape == (0, 128)
    asset = Path(preprocessor.vocab_file.asset_path.numpy().decode())
    assert len(asset.read_text("utf-8").splitlines()) == V
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((asset.parents[1] / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = [n for f in graph.library.function for n in f.node_def]
    ops = {node.op for node in [*graph.node, *nodes]}
    assert "FastWordpieceTokenizeWithOffsets" in ops  # the walk sees all
    assert not [op for op in ops if "Assert" in op]


def e1(encoder, tf):
    """Any T, also one that is known when a graph is traced."""
    for length in (T, 11):
        assert encoder(inputs(length))["sequence_output"].shape[1] == length
    specs = [{k: tf.TensorSpec([None, 5], tf.int32) for k in IDS}]
    traced = tf.function(encoder, input_signature=specs)
    assert traced(inputs(5))["sequence_output"].shape == (3, 5, H)


def e2(encoder, tf):
    """All outputs, and which of them are the same."""
    outputs = encoder(inputs())
    layers = outputs["encoder_outputs"]
    assert len(layers) == LAYERS
    assert {tuple(layer.shape) for layer in layers} == {(3, T, H)}
    assert outputs["pooled_output"].shape == (3, H)
    for one, other in (
        (layers[-1], outputs["sequence_output"]),
        (outputs["default"], outputs["pooled_output"]),
    ):
        np.testing.assert_array_equal(one, other)


def e3(encoder, tf):
    """Trains: dropout, gradients to every variable, inside a strategy."""
    first, second = (
        encoder(inputs(), training=True)["pooled_output"] for _ in range(2)
    )
    assert np.abs(first - second).max() > 0.01
    variables = {id(v) for v in encoder.variables}
    assert {id(v) for v in encoder.trainable_variables} <= variables
    assert list(encoder.regularization_losses) == []
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(inputs(), training=True)["default"] ** 2)
    gradients = tape.gradient(loss, encoder.trainable_variables)
    assert variables and all(gradient is not None for gradient in gradients)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        scoped = tf.saved_model.load(FOLDERS["encoder"])
    mirrored = scoped.trainable_variables[0]
    assert len(strategy.experimental_local_results(mirrored)) == 2


def e4(encoder, tf):
    """Masked words, whose variables the root does not count."""
    positions = tf.constant([[0, 3], [1, 1], [0, 0]])
    logits = encoder.mlm({**inputs(), "masked_lm_positions": positions})
    assert logits["mlm_logits"].shape == (3, 2, V)
    assert "sequence_output" in logits
    roots = {v.name for v in encoder.variables}
    heads = [v.name for v in encoder.mlm.trainable_variables]
    assert len(heads) == len(set(heads)) > len(roots)
    assert roots < set(heads)


def e5(encoder, tf):
    """Sentence order."""
    assert encoder.sop(inputs())["sop_logits"].shape == (3, 2)


def e6(encoder, tf):
    """The vocabulary, and how to cut by it."""
    asset = Path(encoder.vocab_file.asset_path.numpy().decode())
    assert asset.is_relative_to(FOLDERS["encoder"])
    assert len(asset.read_text("utf-8").splitlines()) == V
    assert encoder.do_lower_case.numpy()


def e7(encoder, tf):
    """A signature of ids; another model takes strings."""
    served = encoder.signatures["serving_default"](**inputs())
    np.testing.assert_allclose(
        served["pooled_output"], encoder(inputs())["pooled_output"], atol=1e-6
    )
    strings = tf.saved_model.load(FOLDERS["serving"]).signatures
    embedding = strings["serving_default"](text=tf.constant(["一丁"]))
    assert embedding["embedding"].shape == (1, H)


def e8(encoder, tf):
    """float32 outputs of a model that computes in bfloat16."""
    outputs = tf.saved_model.load(FOLDERS["mixed"])(inputs())
    tensors = [outputs["pooled_output"], *outputs["encoder_outputs"]]
    assert {tensor.dtype for tensor in tensors} == {tf.float32}
    apart = np.abs(tensors[0] - encoder(inputs())["pooled_output"]).max()
    assert 0 < apart < 0.1  # it does compute in less


def main(folders):
    """Prints the rows that hold."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 (P7: what the card asks for)

    FOLDERS.update(folders)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    loaded = {
        "P": tf.saved_model.load(folders["preprocessor"]),
        "E": tf.saved_model.load(folders["encoder"]),
    }
    for row in ROWS:
        globals()[row.lower()](loaded[row[0]], tf)
        print(row, flush=True)


@pytest.fixture
def folders(tiny_config, tmp_path):
    """All parts, moved; the vocabulary that they were made from is gone."""
    from albert_tf2 import AlbertPretrainer
    from albert_tf2.hub_export.encoder import export_encoder
    from albert_tf2.hub_export.preprocessor import export_preprocessor
    from albert_tf2.hub_export.serving import export_serving
    from albert_tf2.keras_api import keras
    from albert_tf2.text.tokenization import SPECIAL_TOKENS, Tokenizer

    letters = (chr(0x4E00 + i) for i in range(V - 8))
    tokens = [*SPECIAL_TOKENS, "a", "##b", "，", *letters]
    vocab_file = tmp_path / "vocab.txt"
    vocab_file.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    written = tmp_path / "written"
    config = tiny_config.replace(hidden_dropout_prob=0.2)
    pretrainer = AlbertPretrainer(config)
    tokenizer = Tokenizer(vocab_file)
    export_preprocessor(tokenizer, written / "preprocessor")
    export_encoder(pretrainer, tokenizer, written / "encoder")
    export_serving(pretrainer, tokenizer, written / "serving")
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        mixed = AlbertPretrainer(config)
        mixed.set_weights(pretrainer.get_weights())
        export_encoder(mixed, tokenizer, written / "mixed")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    vocab_file.unlink()
    moved = Path(shutil.move(written, tmp_path / "moved"))
    return {path.name: str(path) for path in moved.iterdir()}


def test_every_row_holds_in_a_fresh_process(folders, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = subprocess.run(
        [sys.executable, __file__, json.dumps(folders)],
        capture_output=True,
        text=True,
        cwd=elsewhere,
    )
    assert result.stdout.split() == ROWS, result.stderr
    assert result.returncode == 0, result.stderr


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
