"""The model against the paper's ideas in numbers, and against NumPy loops."""

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2 import features
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.keras_api import keras
from albert_tf2.model import layers
from albert_tf2.model.albert import (
    AlbertEncoder,
    AlbertPretrainer,
    layer_plan,
    used_groups,
)

# Published sizes: (encoder, with heads) for brightmart and for google.
PARAMETERS = {
    "tiny": (4_175_152, 4_295_186, 4_080_520, 4_142_594),
    "small": (4_873_984, 5_044_490, 4_742_272, 4_813_706),
    "base": (10_877_440, 11_492_234, 10_547_968, 10_669_322),
    "large": (17_009_664, 18_084_490, 16_548_352, 16_702_986),
    "xlarge": (58_577_920, 62_803_594, 57_589_248, 57_877_002),
    "xxlarge": (223_503_360, 240_322_186, 221_459_968, 222_013_962),
}


def random_inputs(config, *, batch=3, length=10, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(length // 2, length + 1, [batch, 1])
    mask = (np.arange(length) < lengths).astype(np.int32)
    return {
        features.INPUT_WORD_IDS: rng.integers(
            0, config.vocab_size, [batch, length], dtype=np.int32
        ),
        features.INPUT_MASK: mask,
        features.INPUT_TYPE_IDS: rng.integers(
            0, 2, [batch, length], dtype=np.int32
        ),
        features.MASKED_LM_POSITIONS: rng.integers(
            0, length // 2, [batch, 4], dtype=np.int32
        ),
    }


def scatter_weights(model, seed=1):
    """Gives every variable values large enough for errors to show."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign_add(rng.normal(0.0, 0.2, variable.shape))


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameter_counts(size):
    counts = []
    for suffix in ("", "_google"):
        config = AlbertConfig.from_name(f"albert_{size}_zh{suffix}")
        model = AlbertPretrainer(config)
        counts += [model.encoder.count_params(), model.count_params()]
        keras.backend.clear_session()
    assert tuple(counts) == PARAMETERS[size]


def test_factorization_saves_what_the_paper_says(tiny_config):
    factorized = AlbertEncoder(tiny_config).embeddings
    config = tiny_config
    assert (
        factorized.word_embeddings.shape.num_elements()
        + factorized.word_projection.shape.num_elements()
        == config.vocab_size * config.embedding_size
        + config.embedding_size * config.hidden_size
    )
    # At the size of base: 21128 x 768 becomes a sixth.
    base = AlbertConfig.from_name("albert_base_zh")
    whole = base.vocab_size * base.hidden_size
    parts = base.embedding_size * (base.vocab_size + base.hidden_size)
    assert 5.7 < whole / parts < 5.8


@pytest.mark.parametrize("ln_type", ["postln", "preln"])
def test_sharing_modes_count(ln_type):
    base = AlbertConfig.from_name("albert_base_zh").replace(ln_type=ln_type)
    attention = 4 * (768 * 768 + 768) + 2 * 768
    ffn = 2 * 768 * 3072 + 3072 + 768 + 2 * 768
    shared = 10_877_440
    expected = {
        "all": shared,
        "attention": shared + 11 * ffn,
        "ffn": shared + 11 * attention,
        "none": 88_844_032,
    }
    assert expected["none"] == shared + 11 * (attention + ffn)
    for sharing, count in expected.items():
        encoder = AlbertEncoder(base.replace(parameter_sharing=sharing))
        assert encoder.count_params() == count, sharing
        keras.backend.clear_session()


def test_shared_depth_is_free(tiny_config):
    counts = {
        AlbertEncoder(tiny_config.replace(num_hidden_layers=n)).count_params()
        for n in (1, 3, 24)
    }
    assert len(counts) == 1


def test_layer_plan_of_groups():
    config = AlbertConfig(
        vocab_size=10,
        layout="google",
        num_hidden_layers=4,
        num_hidden_groups=2,
        inner_group_num=2,
    )
    first, second = ((0, 0), (1, 1)), ((2, 2), (3, 3))
    assert layer_plan(config) == (first, first, second, second)
    more = config.replace(num_hidden_groups=12, inner_group_num=1)
    assert used_groups(more) == [0, 3, 6, 9]
    assert layer_plan(more) == (((0, 0),), ((1, 1),), ((2, 2),), ((3, 3),))
    uneven = more.replace(num_hidden_layers=6, num_hidden_groups=4)
    groups = [layer[0][0] for layer in layer_plan(uneven)]
    assert groups == [0, 0, 1, 2, 2, 3]  # 4 l / 6, cut off


def numpy_encoder(encoder, inputs):
    """ALBERT in NumPy, from the paper's equations, a head at a time."""
    config = encoder.config

    def norm(layer, x):
        mean = x.mean(-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
        normed = (x - mean) / np.sqrt(variance + 1e-12)
        return normed * layer.gamma.numpy() + layer.beta.numpy()

    def project(layer, x):
        return x @ layer.kernel.numpy() + layer.bias.numpy()

    def gelu(x):
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + np.tanh(inner))

    def attend(block, x, mask):
        query, key, value = (
            project(layer, x) for layer in (block.query, block.key, block.value)
        )
        size = config.hidden_size // config.num_attention_heads
        heads = []
        for head in range(config.num_attention_heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / np.sqrt(size)
            scores = scores - 10000.0 * (1 - mask)[None]
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            heads.append(weights @ value[:, part])
        return project(block.output_dense, np.concatenate(heads, -1))

    tables = encoder.embeddings
    outputs = []
    for ids, mask, types in zip(
        *(inputs[name] for name in features.ENCODER_INPUTS), strict=True
    ):
        x = tables.word_embeddings.numpy()[ids]
        if tables.word_projection is not None:
            x = x @ tables.word_projection.numpy()
        x = x + tables.token_type_embeddings.numpy()[types]
        x = x + tables.position_embeddings.numpy()[: len(ids)]
        x = norm(tables.layer_norm, x)
        if encoder.embedding_hidden_mapping_in is not None:
            x = project(encoder.embedding_hidden_mapping_in, x)
        for layer in encoder.plan:
            for a, f in layer:
                attention = encoder.attention_layers[a]
                ffn = encoder.feed_forward_layers[f]
                if config.ln_type == "preln":
                    y = norm(attention.layer_norm, x)
                    x = x + attend(attention, y, mask)
                    y = norm(ffn.layer_norm, x)
                    y = gelu(project(ffn.intermediate_dense, y))
                    x = x + project(ffn.output_dense, y)
                else:
                    x = x + attend(attention, x, mask)
                    x = norm(attention.layer_norm, x)
                    y = gelu(project(ffn.intermediate_dense, x))
                    x = x + project(ffn.output_dense, y)
                    x = norm(ffn.layer_norm, x)
        outputs.append(x)
    return np.stack(outputs)


every_kind_of_encoder = pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ln_type": "preln"},
        {"parameter_sharing": "attention"},
        {"parameter_sharing": "ffn"},
        {"parameter_sharing": "none", "ln_type": "preln"},
        {"layout": "google"},
        {"layout": "google", "embedding_size": 48},
        {"layout": "google", "num_hidden_groups": 2, "inner_group_num": 2},
    ],
    ids=str,
)


@every_kind_of_encoder
def test_encoder_equals_numpy(tiny_config, changes):
    encoder = AlbertEncoder(tiny_config.replace(**changes))
    scatter_weights(encoder)
    inputs = random_inputs(encoder.config)
    outputs = encoder(inputs)
    np.testing.assert_allclose(
        outputs["sequence_output"], numpy_encoder(encoder, inputs), atol=2e-5
    )
    assert len(outputs["encoder_outputs"]) == 3
    np.testing.assert_array_equal(
        outputs["encoder_outputs"][-1], outputs["sequence_output"]
    )
    np.testing.assert_array_equal(outputs["default"], outputs["pooled_output"])


@every_kind_of_encoder
def test_first_tokens_alone_are_those_of_a_whole_call(tiny_config, changes):
    encoder = AlbertEncoder(tiny_config.replace(**changes))
    scatter_weights(encoder)
    inputs = {
        name: tf.constant(array)
        for name, array in random_inputs(encoder.config).items()
    }
    found = {}
    for run in (encoder, encoder.of_first_tokens):
        with tf.GradientTape() as tape:
            outputs = run(inputs)
            first = outputs["sequence_output"][:, 0]
            score = tf.reduce_sum(first * outputs["pooled_output"])
        gradients = tape.gradient(score, encoder.trainable_variables)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        found[run] = [first, outputs["pooled_output"], *gradients]
    for whole, alone in zip(*found.values(), strict=True):
        scale = max(1.0, np.abs(whole).max())
        np.testing.assert_allclose(alone, whole, atol=2e-5 * scale)


def test_static_dynamic_and_jit_agree(tiny_config):
    model = AlbertPretrainer(tiny_config)
    inputs = random_inputs(tiny_config)
    eager = model(inputs)
    signature = {name: tf.TensorSpec([None, None], tf.int32) for name in inputs}
    dynamic = tf.function(lambda x: model(x), input_signature=[signature])(
        inputs
    )
    compiled = tf.function(lambda x: model(x), jit_compile=True)(inputs)
    for other in (dynamic, compiled):
        for name in ("sequence_output", "mlm_logits", "sop_logits"):
            np.testing.assert_allclose(eager[name], other[name], atol=2e-5)


def test_packed_row_equals_its_pairs_alone(tiny_config):
    """Two pairs in one row give what each gives in a row of its own."""
    model = AlbertPretrainer(tiny_config)
    scatter_weights(model)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 202, [1, 12], dtype=np.int32)
    packed = {
        features.INPUT_WORD_IDS: ids,
        features.INPUT_MASK: np.int32([[1] * 11 + [0]]),
        features.INPUT_TYPE_IDS: np.int32(
            [[0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0]]
        ),
        features.INPUT_PAIR_IDS: np.int32([[1] * 5 + [2] * 6 + [0]]),
        features.INPUT_POSITION_IDS: np.int32([[*range(5), *range(6), 0]]),
        features.CLS_POSITIONS: np.int32([[0, 5]]),
        features.MASKED_LM_POSITIONS: np.int32([[2, 8]]),
    }
    both = model(packed)
    for index, part in enumerate((slice(0, 5), slice(5, 11))):
        alone = model(
            {name: packed[name][:, part] for name in features.ENCODER_INPUTS}
            | {features.MASKED_LM_POSITIONS: np.int32([[2 + index]])}
        )
        for got, expected in (
            (both["sequence_output"][:, part], alone["sequence_output"]),
            (both["sop_logits"][:, index], alone["sop_logits"]),
            (both["mlm_logits"][:, index], alone["mlm_logits"][:, 0]),
        ):
            np.testing.assert_allclose(got, expected, atol=2e-5)


def test_sentence_order_is_two_scores_of_the_first_token(tiny_config):
    model = AlbertPretrainer(tiny_config)
    scatter_weights(model)
    outputs = model(random_inputs(tiny_config))
    first = outputs["sequence_output"][:, 0].numpy()
    pooler, head = model.encoder.pooler, model.sop_head
    pooled = np.tanh(first @ pooler.kernel.numpy() + pooler.bias.numpy())
    logits = pooled @ head.output_weights.numpy().T + head.output_bias.numpy()
    np.testing.assert_allclose(outputs["sop_logits"], logits, atol=1e-5)


def test_dropout_lives_in_training_only(tiny_config):
    encoder = AlbertEncoder(tiny_config.replace(hidden_dropout_prob=0.3))
    inputs = random_inputs(tiny_config)
    still = [encoder(inputs)["pooled_output"].numpy() for _ in range(2)]
    live = [
        encoder(inputs, training=True)["pooled_output"].numpy()
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*still)
    assert np.abs(live[0] - live[1]).max() > 1e-3


def test_outputs_stay_float32_under_mixed_precision(tiny_config):
    inputs = random_inputs(tiny_config)
    exact = AlbertPretrainer(tiny_config)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        mixed = AlbertPretrainer(tiny_config)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    mixed.set_weights(exact.get_weights())
    assert {v.dtype for v in mixed.variables} == {tf.float32}
    for name, tensor in mixed(inputs).items():
        for value in tensor if isinstance(tensor, list) else [tensor]:
            assert value.dtype == tf.float32, name
    gap = mixed(inputs)["sequence_output"] - exact(inputs)["sequence_output"]
    assert 0 < np.abs(gap).max() < 0.1


def test_model_is_rebuilt_from_its_config(tiny_config):
    config = tiny_config.replace(layout="google", inner_group_num=2)
    model = AlbertPretrainer(config)
    again = AlbertPretrainer.from_config(model.get_config())
    assert again.config == config
    assert again.count_params() == model.count_params()


def test_attention_bias_keeps_pairs_apart():
    bias = layers.attention_bias(
        tf.constant([[1, 1, 1, 0]]), tf.constant([[1, 1, 2, 0]])
    )
    seen = np.squeeze(bias.numpy()) == 0
    np.testing.assert_array_equal(
        seen[:3], [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
    )


def test_activations_are_the_named_ones():
    x = tf.linspace(-3.0, 3.0, 13)
    np.testing.assert_array_equal(layers.activation("relu")(x), tf.nn.relu(x))
    for name, approximate in (("gelu", True), ("gelu_erf", False)):
        expected = tf.nn.gelu(x, approximate=approximate)
        np.testing.assert_allclose(layers.activation(name)(x), expected)


def test_new_weights_are_as_spread_as_the_configuration_says(tiny_config):
    config = tiny_config.replace(initializer_range=0.3)
    assert layers.initializer(config).stddev == 0.3


def test_a_text_may_be_as_long_as_the_positions_and_no_longer(tiny_config):
    config = tiny_config.replace(max_position_embeddings=8)
    embeddings = layers.Embeddings(config)
    fits, longer = tf.zeros([1, 8], tf.int32), tf.zeros([1, 9], tf.int32)
    assert embeddings(fits, input_type_ids=fits).shape == [8, 48]
    with pytest.raises(UserError, match="at most 8 tokens.*Received: 9"):
        embeddings(longer, input_type_ids=longer)


def test_attention_is_spread_in_float32():
    scores = tf.cast(tf.linspace(-4.0, 4.0, 96)[None], tf.bfloat16)
    bias = tf.linspace(0.0, 1.0, 96)[None]
    np.testing.assert_allclose(
        tf.cast(layers.softmax(scores, bias), tf.float32),
        tf.nn.softmax(tf.cast(scores, tf.float32) + bias),
        rtol=2**-8,
    )


def test_each_token_of_the_vocabulary_has_a_bias(tiny_config):
    model = AlbertPretrainer(tiny_config)
    inputs = random_inputs(tiny_config)
    before = model(inputs)["mlm_logits"]
    bias = tf.range(202.0)
    model.mlm_head.output_bias.assign(bias)
    np.testing.assert_allclose(
        model(inputs)["mlm_logits"] - before,
        np.broadcast_to(bias, before.shape),
        atol=1e-4,
    )


def test_what_is_not_seen_scores_ten_thousand_less():
    bias = layers.attention_bias(
        tf.constant([[1, 1, 0]]), tf.constant([[1, 1, 1]])
    )
    # Padding is seen by nobody, of whatever pair it says it is.
    np.testing.assert_array_equal(np.squeeze(bias), [[0.0, 0.0, -10_000.0]] * 3)
