"""TensorFlow 1 checkpoints against what the original programs computed."""

import json

import numpy as np
import pytest
import tensorflow as tf
from model_weights import weights_of

from albert_tf2 import AlbertConfig, AlbertPretrainer, UserError
from albert_tf2.checkpoints import (
    load_pretrained,
    names,
    read_weights,
    tf1,
    weights,
)
from albert_tf2.model import losses

LAYOUTS = (
    "brightmart_postln_toy",
    "brightmart_preln_toy",
    "google_toy",
    "google_groups_toy",
    "google_samewidth_toy",
)
TOLERANCE = 2e-5


def close(actual, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def model_inputs(golden):
    return {
        "input_word_ids": golden["input_ids"],
        "input_mask": golden["input_mask"],
        "input_type_ids": golden["segment_ids"],
        "masked_lm_positions": golden["masked_lm_positions"],
    }


def model_labels(golden):
    return {
        "masked_lm_ids": golden["masked_lm_ids"],
        "masked_lm_weights": golden["masked_lm_weights"],
        "sentence_order_labels": golden["next_sentence_labels"],
    }


@pytest.fixture(scope="module", params=LAYOUTS)
def golden(request, golden_folder):
    folder = golden_folder / "pretraining" / request.param
    return load_pretrained(folder), dict(np.load(folder / "golden.npz"))


def test_every_layer_is_the_originals(golden):
    model, expected = golden
    outputs = model(model_inputs(expected))
    layers = [n for n in expected if n.startswith("encoder_layer_")]
    # The originals list every inner layer; ours, every layer.
    inner = len(layers) // len(outputs["encoder_outputs"])
    for i, output in enumerate(outputs["encoder_outputs"]):
        close(output, expected[f"encoder_layer_{(i + 1) * inner - 1}"])
    close(outputs["sequence_output"], expected["sequence_output"])
    close(outputs["pooled_output"], expected["pooled_output"])
    mlm = tf.nn.log_softmax(outputs["mlm_logits"])
    close(tf.reshape(mlm, [-1, mlm.shape[-1]]), expected["masked_lm_log_probs"])
    close(tf.nn.log_softmax(outputs["sop_logits"]), expected["sop_log_probs"])


def test_embeddings_are_the_originals(golden):
    model, expected = golden
    embedded = model.encoder.embeddings(
        expected["input_ids"], input_type_ids=expected["segment_ids"]
    )
    shape = expected["embedding_output"].shape
    close(tf.reshape(embedded, shape), expected["embedding_output"])


def test_losses_and_gradients_are_the_originals(golden):
    model, expected = golden
    table = names.variables_by_name(model)
    with tf.GradientTape() as tape:
        sums = losses.pretraining_sums(
            model(model_inputs(expected)), model_labels(expected)
        )
        found = losses.means(sums)
    close(found["mlm_loss"], expected["masked_lm_loss"], 1e-5)
    close(found["sop_loss"], expected["sop_loss"], 1e-5)
    close(found["loss"], expected["total_loss"], 1e-5)
    gradients = tape.gradient(found["loss"], list(table.values()))
    checked = 0
    for name, gradient in zip(table, gradients, strict=True):
        reference = expected[f"grad:{name}"]
        gradient = tf.convert_to_tensor(gradient).numpy()
        scale = max(np.abs(reference).max(), 1e-3)
        error = np.abs(gradient - reference).max() / scale
        assert error < 1e-4, (name, error)
        checked += 1
    assert checked == sum(n.startswith("grad:") for n in expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip_is_bit_exact(layout, golden_folder, tmp_path):
    source = golden_folder / "pretraining" / layout
    original = read_weights(source)
    model = weights.to_model(original)
    tf1.write(weights_of(model), tmp_path)
    ours = tf.train.load_checkpoint(str(tmp_path / "albert_model.ckpt"))
    theirs = tf.train.load_checkpoint(str(source / "albert_model.ckpt"))
    shapes = theirs.get_variable_to_shape_map()
    assert ours.get_variable_to_shape_map() == shapes
    for name in shapes:
        np.testing.assert_array_equal(
            ours.get_tensor(name), theirs.get_tensor(name)
        )
    assert read_weights(tmp_path).config == original.config


@pytest.mark.parametrize("layout", ["brightmart_postln_toy", "google_toy"])
def test_classifier(layout, golden_folder):
    """A fine-tuned model: encoder, and the head that albert_zh trains."""
    folder = golden_folder / "classifier" / layout
    expected = np.load(folder / "golden.npz")
    found = read_weights(folder)
    assert found.heads == ()
    assert set(found.task_arrays) == {"output_weights", "output_bias"}
    with pytest.warns(UserWarning, match="no mlm and no sop head"):
        model = weights.to_model(found)
    pooled = model.encoder(
        {
            "input_word_ids": expected["input_ids"],
            "input_mask": expected["input_mask"],
            "input_type_ids": expected["segment_ids"],
        }
    )["pooled_output"]
    head = found.task_arrays
    logits = pooled @ head["output_weights"].T + head["output_bias"]
    close(tf.nn.softmax(logits), expected["probabilities"])
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits(
        expected["labels"], logits
    )
    close(nll, expected["per_example_loss"])
    close(tf.reduce_mean(nll), expected["loss"], 1e-5)
    if "logits" in expected:
        close(logits, expected["logits"])


@pytest.mark.parametrize(
    ("run", "layout"),
    [
        ("brightmart_postln_toy_lamb", "brightmart_postln_toy"),
        ("google_toy_lamb", "google_toy"),
        ("google_toy_adamw", "google_toy"),
    ],
)
def test_optimizer_slots_are_left_out(run, layout, golden_folder):
    golden = golden_folder
    config = AlbertConfig.from_json(
        golden / "pretraining" / layout / "albert_config.json"
    )
    found = read_weights(golden / "optimizer" / run, config=config)
    steps = np.load(golden / "optimizer" / run / "golden_optim.npz")
    assert found.dropped == 2 * len(found.arrays) + 1  # m, v, global_step
    for name, array in found.arrays.items():
        np.testing.assert_array_equal(array, steps[f"after6:{name}"])


def test_counters_are_no_weights():
    counters = "global_step beta1_power beta2_power good_steps loss_scale"
    assert all(map(tf1.is_training_state, counters.split()))
    assert not tf1.is_training_state("bert/pooler/dense/kernel")


def test_the_layers_of_keras_are_counted_as_numbers():
    found = [f"a/layer_normalization_{n}/gamma" for n in (10, 9)]
    assert tf1.canonical_names(found) == {
        "a/LayerNorm_1/gamma": [found[0]],
        "a/LayerNorm/gamma": [found[1]],
    }


def save_named(folder, arrays, config):
    """Writes a TensorFlow 1 checkpoint with any names."""
    folder.mkdir(exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt"),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=[tf.constant(array) for array in arrays.values()],
    )
    values = config if isinstance(config, dict) else config.to_dict()
    (folder / "albert_config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture
def google_config(tiny_config):
    return tiny_config.replace(layout="google", inner_group_num=2)


def arrays_of(config):
    return dict(weights_of(AlbertPretrainer(config)).arrays)


def keras_spelling(arrays):
    """Renames LayerNorms as Keras numbers them: through the whole program."""
    renamed, numbers = {}, {}
    for name, array in arrays.items():
        scope, _, part = name.rpartition("/")
        if scope.rsplit("/")[-1].startswith("LayerNorm"):
            number = numbers.setdefault(scope, len(numbers))
            suffix = f"_{number}" if number else ""
            scope = scope.rpartition("/")[0] + f"/layer_normalization{suffix}"
        renamed[f"{scope}/{part}"] = array
    return renamed


@pytest.mark.parametrize("layout", ["brightmart", "google"])
def test_keras_layer_norm_names(layout, tiny_config, google_config, tmp_path):
    config = tiny_config if layout == "brightmart" else google_config
    arrays = {
        name: np.random.default_rng(i).normal(size=array.shape)
        for i, (name, array) in enumerate(arrays_of(config).items())
    }
    arrays = {n: a.astype(np.float32) for n, a in arrays.items()}
    renamed = keras_spelling(arrays)
    assert len(set(renamed) - set(arrays)) >= 8
    found = read_weights(save_named(tmp_path / "keras", renamed, config))
    assert set(found.arrays) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def test_a_quantized_file_is_refused(google_config, tmp_path):
    arrays = arrays_of(google_config)
    name = "bert/pooler/dense/kernel"
    arrays[name] = np.ones(arrays[name].shape, np.int32)
    folder = save_named(tmp_path / "quantized", arrays, google_config)
    with pytest.raises(UserError, match=f"`{name}` is of type int32"):
        read_weights(folder)


def test_layer_norms_unshared_by_mistake(google_config, tmp_path):
    """google-research/albert issue 241: copies per layer, equal or not."""
    config = google_config.replace(inner_group_num=1)
    arrays, scope = {}, "bert/encoder/transformer/"
    for name, array in arrays_of(config).items():
        if "inner_group_0/LayerNorm" not in name:
            arrays[name] = array
            continue
        part = name.rpartition("/")[2]
        second = "LayerNorm_1" in name
        for layer in range(config.num_hidden_layers):
            group = f"group_0_{layer}" if layer else "group_0"
            number = 1 + 2 * layer + second
            arrays[
                f"{scope}{group}/layer_{layer}/inner_group_0/"
                f"layer_normalization_{number}/{part}"
            ] = array
    read_weights(save_named(tmp_path / "equal", arrays, config))
    odd = f"{scope}group_0_2/layer_2/inner_group_0/layer_normalization_5/gamma"
    arrays[odd] = arrays[odd] + 1
    with pytest.raises(UserError, match="own LayerNorm in every layer"):
        read_weights(save_named(tmp_path / "differ", arrays, config))


def test_missing_unused_and_misshaped_are_named(tiny_config, tmp_path):
    arrays = arrays_of(tiny_config)
    query = "bert/encoder/layer_shared/attention/self/query/bias"
    del arrays["bert/pooler/dense/bias"]
    arrays["bert/extra/kernel"] = np.zeros([2, 3], np.float32)
    arrays[query] = np.zeros([7], np.float32)
    folder = save_named(tmp_path / "bad", arrays, tiny_config)
    with pytest.raises(UserError) as error:
        load_pretrained(folder)
    message = str(error.value)
    assert f"`{query}` is (7,), the model needs (48,)" in message
    assert "missing: `bert/pooler/dense/bias` (48,)" in message
    assert "`bert/extra/kernel` (2, 3)" in message
    assert "ikely cause" in message


def test_half_a_head_is_an_error(tiny_config, tmp_path):
    arrays = arrays_of(tiny_config)
    del arrays["cls/predictions/transform/dense/kernel"]
    folder = save_named(tmp_path / "bad", arrays, tiny_config)
    with pytest.raises(UserError, match="cls/predictions/transform/dense"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hidden_size": 96},
            "`hidden_size` is 96 in the configuration and 48",
        ),
        ({"vocab_size": 203}, "`vocab_size` is 203 .* and 202"),
        ({"num_hidden_groups": 1, "ln_type": None}, "two layouts"),
        ({"layout": "google", "ln_type": None}, "two layouts"),
        ({"parameter_sharing": "none"}, "weights of their own"),
    ],
)
def test_configuration_of_another_model(
    changes, message, tiny_config, tmp_path
):
    values = {**tiny_config.to_dict(), **changes}
    if "num_hidden_groups" in changes:
        del values["layout"]
    folder = save_named(tmp_path / "x", arrays_of(tiny_config), values)
    with pytest.raises(UserError, match=message):
        load_pretrained(folder)


def test_layout_comes_from_the_variables(google_config, tmp_path):
    """A file without any key that tells the layouts apart."""
    config = google_config.replace(inner_group_num=1)
    values = config.to_dict()
    for key in ("layout", "num_hidden_groups", "inner_group_num"):
        del values[key]
    folder = save_named(tmp_path / "x", arrays_of(config), values)
    assert load_pretrained(folder).config == config


def test_preln_is_known_only_by_the_configuration(golden_folder):
    folder = golden_folder / "pretraining" / "brightmart_preln_toy"
    assert load_pretrained(folder).config.ln_type == "preln"


def test_released_sizes_are_recognised():
    config = AlbertConfig.from_name("albert_tiny_zh")
    other = AlbertConfig.from_name("albert_small_zh")
    from albert_tf2.checkpoints import detection

    table = names.variables_by_name(AlbertPretrainer(config))
    shapes = {n: tuple(v.shape) for n, v in table.items()}
    with pytest.raises(
        UserError, match="the sizes are those of albert_tiny_zh"
    ):
        detection.check_config(shapes, other, "x")


def test_google_fast_is_refused(google_config, tmp_path):
    arrays = {
        name: np.zeros([3, 6, 16], np.float32)
        if name.endswith("intermediate/dense/kernel")
        else array
        for name, array in arrays_of(google_config).items()
    }
    with pytest.raises(UserError, match="is a google_fast model"):
        load_pretrained(save_named(tmp_path / "x", arrays, google_config))


def test_bert_is_refused(tiny_config, tmp_path):
    arrays = {
        name.replace("layer_shared", "layer_0"): array
        for name, array in arrays_of(tiny_config).items()
        if "word_embeddings_2" not in name
    }
    with pytest.raises(UserError, match="a BERT, not an ALBERT"):
        load_pretrained(save_named(tmp_path / "x", arrays, tiny_config))


@pytest.mark.parametrize("layout", ["brightmart", "google"])
def test_unshared_round_trip(layout, tiny_config, tmp_path):
    config = tiny_config.replace(layout=layout, parameter_sharing="none")
    model = AlbertPretrainer(config)
    tf1.write(weights_of(model), tmp_path)
    again = load_pretrained(tmp_path)
    for ours, theirs in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_partial_sharing_has_no_tf1_form(tiny_config, tmp_path):
    config = tiny_config.replace(parameter_sharing="attention")
    found = weights_of(AlbertPretrainer(config))
    with pytest.raises(UserError, match="no TensorFlow 1 form"):
        tf1.write(found, tmp_path)
