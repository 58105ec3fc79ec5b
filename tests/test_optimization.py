"""LAMB and AdamW against NumPy and against the originals' own updates."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2 import AlbertConfig, features
from albert_tf2.errors import UserError
from albert_tf2.keras_api import keras
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.recipes import FinetuneRecipe, PretrainRecipe
from albert_tf2.training import optimization, precision
from albert_tf2.training.precision import Update, scales_loss, unwrapped

SHAPES = {
    "dense/kernel": (3, 4),
    "dense/bias": (4,),
    "LayerNorm/gamma": (4,),
    "embeddings": (5, 2),
}


def has_decay(name):
    return not ("bias" in name or "LayerNorm" in name)


def lamb_of_the_paper(
    weights,
    gradients,
    *,
    rate,
    decay,
    adapts,
    betas=(0.9, 0.999),
    epsilon=1e-6,
):
    """Algorithm 2 of 1904.00962, in float64; phi is the identity."""
    m = {name: np.zeros_like(value) for name, value in weights.items()}
    v = {name: np.zeros_like(value) for name, value in weights.items()}
    b1, b2 = betas
    for step, gradient in enumerate(gradients, start=1):
        for name, g in gradient.items():
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g**2
            r = (m[name] / (1 - b1**step)) / (
                np.sqrt(v[name] / (1 - b2**step)) + epsilon
            )
            if has_decay(name):
                r += decay * weights[name]
            ratio = 1.0
            norms = np.linalg.norm(weights[name]), np.linalg.norm(r)
            if adapts(name) and min(norms) > 0:
                ratio = norms[0] / norms[1]
            weights[name] = weights[name] - rate * ratio * r
    return weights


def adamw_of_the_paper(
    weights, gradients, *, rate, decay, betas, epsilon, corrects
):
    """Algorithm 2 of 1711.05101; epsilon beside the uncorrected root of v."""
    m = {name: np.zeros_like(value) for name, value in weights.items()}
    v = {name: np.zeros_like(value) for name, value in weights.items()}
    b1, b2 = betas
    for step, gradient in enumerate(gradients, start=1):
        scale = np.sqrt(1 - b2**step) / (1 - b1**step) if corrects else 1.0
        for name, g in gradient.items():
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g**2
            if has_decay(name):
                weights[name] = weights[name] * (1 - rate * decay)
            change = m[name] / (np.sqrt(v[name]) + epsilon)
            weights[name] = weights[name] - rate * scale * change
    return weights


def random_problem(steps=10):
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=s) for name, s in SHAPES.items()}
    weights["dense/bias"][:] = 0  # as biases start: no norm, no ratio
    gradients = [
        {name: rng.normal(size=s) for name, s in SHAPES.items()}
        for _ in range(steps)
    ]
    return weights, gradients


@pytest.mark.parametrize("adaptation", ["paper", "google"])
def test_lamb_is_the_papers_over_ten_steps(adaptation):
    weights, gradients = random_problem()
    variables = {
        name: tf.Variable(value.astype(np.float32), name=name)
        for name, value in weights.items()
    }
    optimizer = optimization.create_optimizer(
        "lamb", 0.02, lamb_adaptation=adaptation, weight_decay=0.1
    )
    for gradient in gradients:
        optimizer.apply_gradients(
            (tf.constant(gradient[name], tf.float32), variable)
            for name, variable in variables.items()
        )
    expected = lamb_of_the_paper(
        weights,
        gradients,
        rate=0.02,
        decay=0.1,
        adapts=lambda name: adaptation == "paper" or has_decay(name),
    )
    for name, variable in variables.items():
        np.testing.assert_allclose(
            variable, expected[name], atol=2e-6, err_msg=name
        )


def apply_all(optimizer, weights, gradients):
    """Applies the gradients of some steps; returns the new weights."""
    variables = {
        name: tf.Variable(value.astype(np.float32), name=name)
        for name, value in weights.items()
    }
    for gradient in gradients:
        optimizer.apply_gradients(
            (tf.constant(gradient[name], tf.float32), variable)
            for name, variable in variables.items()
        )
    return {name: variable.numpy() for name, variable in variables.items()}


# Each far from its default, and large enough to be seen.
SETTINGS = [
    {"beta_1": 0.5},
    {"beta_2": 0.7},
    {"epsilon": 0.3},
    {"weight_decay": 0.4},
    {},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_every_setting_has_its_effect(name, changes):
    weights, gradients = random_problem(6)
    # Gradients of any size are used as they are: clipping is the step's.
    gradients = [
        {key: g * 30.0**number for key, g in gradient.items()}
        for number, gradient in enumerate(gradients)
    ]
    settings = dict(beta_1=0.9, beta_2=0.999, epsilon=1e-6, weight_decay=0.01)
    settings |= changes
    optimizer = optimization.create_optimizer(name, 0.02, **settings)
    found = apply_all(optimizer, weights, gradients)
    shared = dict(
        rate=0.02,
        decay=settings["weight_decay"],
        betas=(settings["beta_1"], settings["beta_2"]),
        epsilon=settings["epsilon"],
    )
    if name == "lamb":
        expected = lamb_of_the_paper(
            weights, gradients, adapts=lambda _: True, **shared
        )
    else:
        expected = adamw_of_the_paper(
            weights, gradients, corrects=True, **shared
        )
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], atol=1e-5, err_msg=key)


def test_adamw_without_correction_is_adam_with_decay_alone():
    weights, gradients = random_problem(4)
    optimizer = optimization.create_optimizer(
        "adamw", 0.02, weight_decay=0.3, bias_correction=False
    )
    found = apply_all(optimizer, weights, gradients)
    expected = adamw_of_the_paper(
        weights,
        gradients,
        rate=0.02,
        decay=0.3,
        betas=(0.9, 0.999),
        epsilon=1e-6,
        corrects=False,
    )
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], atol=2e-5, err_msg=key)


def test_adamw_takes_sparse_gradients():
    variable = tf.Variable(tf.ones([3, 2]), name="embeddings")
    optimizer = optimization.create_optimizer("adamw", 0.1, weight_decay=0.5)
    gradient = tf.IndexedSlices(tf.fill([1, 2], 0.3), [1])
    optimizer.apply_gradients([(gradient, variable)])
    np.testing.assert_allclose(
        variable, [[0.95] * 2, [0.85] * 2, [0.95] * 2], atol=1e-4
    )


def test_the_precision_is_that_of_the_block_alone():
    with precision.model_precision("mixed_bfloat16"):
        inside = keras.layers.Dense(1).compute_dtype
    assert inside == "bfloat16"
    assert keras.layers.Dense(1).compute_dtype == "float32"


def test_adamw_needs_nothing_beyond_the_core(monkeypatch):
    monkeypatch.setitem(sys.modules, "official", None)
    monkeypatch.setitem(sys.modules, "official.modeling", None)
    for name in [n for n in sys.modules if n.startswith("official.")]:
        monkeypatch.setitem(sys.modules, name, None)
    weights, gradients = random_problem(1)
    apply_all(optimization.create_optimizer("adamw", 1e-3), weights, gradients)
    if not tf.__version__.startswith("2.15."):
        with pytest.raises(UserError, match="LAMB comes with"):
            optimization.create_optimizer("lamb", 1e-3)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("recipe_class", [PretrainRecipe, FinetuneRecipe])
@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_a_recipes_optimizer_has_its_fields(name, recipe_class, precision):
    settings = dict(beta_1=0.5, beta_2=0.7, epsilon=0.3, weight_decay=0.4)
    settings |= dict(lamb_adaptation="google", bias_correction=False)
    recipe = recipe_class(optimizer=name, precision=precision, **settings)
    weights, gradients = random_problem(3)
    variables = [
        tf.Variable(value.astype(np.float32), name=key)
        for key, value in weights.items()
    ]
    optimizer = optimization.recipe_optimizer(recipe, 0.02, variables)
    assert len(unwrapped(optimizer).variables()) == 1 + 2 * len(variables)
    assert scales_loss(optimizer) is (precision == "mixed_float16")
    for gradient in gradients:
        values = [tf.constant(g, tf.float32) for g in gradient.values()]
        unwrapped(optimizer).apply_gradients(
            zip(values, variables, strict=True)
        )
    plain = optimization.create_optimizer(name, 0.02, **settings)
    expected = apply_all(plain, weights, gradients)
    for variable, value in zip(variables, expected.values(), strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("fuses", [False, True])
@pytest.mark.parametrize("clip_norm", [0.5, 3.0, 100.0])
def test_an_update_clips_once_by_the_global_norm(clip_norm, fuses):
    """Gradient descent shows what reaches the optimizer: w - 1.0 * g."""
    variables = [tf.Variable([0.0, 0.0]), tf.Variable([[0.0]])]
    update = Update(
        keras.optimizers.legacy.SGD(1.0),
        variables,
        clip_norm=clip_norm,
        fuses=fuses,
    )
    norm = update([tf.constant([3.0, 4.0]), tf.constant([[12.0]])])
    assert float(norm) == pytest.approx(13.0)
    share = min(1.0, clip_norm / 13.0)
    np.testing.assert_allclose(
        variables[0], [-3 * share, -4 * share], rtol=1e-5
    )
    np.testing.assert_allclose(variables[1], [[-12 * share]], rtol=1e-5)


def test_a_step_that_overflows_is_skipped_and_the_scale_halved():
    variable = tf.Variable([1.0])
    optimizer = optimization.create_optimizer(
        "adamw", 0.1, precision="mixed_float16"
    )
    update = Update(optimizer, [variable])
    loss = update.scaled(tf.constant(2.0))
    scale = float(loss) / 2
    assert scale == float(optimizer.loss_scale) > 1
    assert not np.isfinite(float(update([tf.constant([np.inf])])))
    assert float(variable[0]) == 1.0
    assert float(optimizer.loss_scale) == scale / 2
    update.scaled(loss)
    norm = update([tf.constant([0.25 * scale / 2])])
    assert float(norm) == pytest.approx(0.25)
    assert float(variable[0]) < 1.0


def test_adamw_decays_apart_from_the_moments():
    variable = tf.Variable([[1.0, -2.0]], name="dense/kernel")
    bias = tf.Variable([1.0, -2.0], name="dense/bias")
    optimizer = optimization.create_optimizer("adamw", 0.1, weight_decay=0.5)
    pairs = [(tf.constant([[0.3, 0.3]]), variable)]
    optimizer.apply_gradients([*pairs, (tf.constant([0.3, 0.3]), bias)])
    # The first step of Adam is rate * sign(g); decay is rate * 0.5 * w.
    np.testing.assert_allclose(
        variable, [[1 - 0.1 - 0.05, -2 - 0.1 + 0.1]], atol=3e-5
    )
    np.testing.assert_allclose(bias, [0.9, -2.1], atol=3e-5)


def test_which_variables_decay_and_adapt_is_printed(tiny_config):
    variables = AlbertPretrainer(tiny_config).trainable_variables
    names = [variable.name.removesuffix(":0") for variable in variables]
    without = {name for name in names if not optimization.decays(name)}
    kinds = {name.split("/")[-1] for name in without}
    assert kinds == {"bias", "beta", "gamma", "output_bias"}
    with_decay = {name.split("/")[-1] for name in set(names) - without}
    assert with_decay == {
        "kernel",
        "word_embeddings",
        "word_embeddings_2",
        "token_type_embeddings",
        "position_embeddings",
        "output_weights",
    }
    for name, adaptation, adapting in (
        ("lamb", "paper", len(names)),
        ("lamb", "google", len(names) - len(without)),
        ("adamw", "paper", 0),
    ):
        table = optimization.describe_variables(variables, name, adaptation)
        rows = [line.split()[-2:] for line in table.splitlines()[1:]]
        assert sum(adapts == "yes" for _, adapts in rows) == adapting
        assert sum(d == "no" for d, _ in rows) == len(without)


golden_folder = [
    ("brightmart_postln_toy", "lamb", "paper"),
    ("google_toy", "lamb", "google"),
    ("google_toy", "adamw", "paper"),
]


def golden_batch(golden):
    return {
        **{
            name: tf.constant(golden[key])
            for key, name in features.CLASSIC_TO_BATCH.items()
        },
        features.SENTENCE_ORDER_WEIGHTS: tf.ones([4, 1]),
    }


@pytest.mark.parametrize("layout, name, adaptation", golden_folder)
def test_six_steps_are_the_originals(golden_folder, layout, name, adaptation):
    """Without bias correction our updates are the TensorFlow 1 programs'."""
    from albert_tf2 import load_pretrained
    from albert_tf2.checkpoints import names
    from albert_tf2.pretraining.step import METRICS, PretrainStep

    folder = golden_folder / "optimizer" / f"{layout}_{name}"
    golden = np.load(folder / "golden_optim.npz")
    model = load_pretrained(golden_folder / "pretraining" / layout)
    schedule = optimization.WarmupLinearDecay(
        float(golden["init_lr"]),
        train_steps=int(golden["num_train_steps"]),
        warmup_steps=int(golden["num_warmup_steps"]),
    )
    rates = golden["learning_rate_each_step"]
    np.testing.assert_allclose(
        [schedule(step) for step in range(6)], rates, atol=1e-9
    )
    optimizer = optimization.create_optimizer(
        name, schedule, lamb_adaptation=adaptation, bias_correction=False
    )
    step = PretrainStep(model, optimizer, clip_norm=1.0)
    batch = golden_batch(golden)
    by_name = names.variables_by_name(model)
    for number, loss in enumerate(golden["losses_before_each_step"], start=1):
        row = dict(zip(METRICS, step(batch).numpy(), strict=True))
        np.testing.assert_allclose(row["loss"], loss, atol=1e-4)
        if number in (2, 6):
            for key in golden.files:
                # Softmax ignores what all keys share: the true gradient of
                # their bias is 0, and LAMB scales up what rounding leaves.
                if "key/bias" in key:
                    continue
                if key.startswith(f"after{number}:"):
                    np.testing.assert_allclose(
                        by_name[key.split(":")[1]],
                        golden[key],
                        atol=2e-4,
                        err_msg=key,
                    )


def test_the_originals_without_correction_are_not_the_papers(golden_folder):
    """How far apart the two rules are on the golden problem, as a figure."""
    golden = np.load(
        golden_folder / "optimizer/google_toy_lamb/golden_optim.npz"
    )
    weights, gradients = random_problem(6)
    found = {}
    for correction in (True, False):
        variable = tf.Variable(
            weights["dense/kernel"].astype(np.float32), name="dense/kernel"
        )
        optimizer = optimization.create_optimizer(
            "lamb", float(golden["init_lr"]), bias_correction=correction
        )
        for gradient in gradients:
            value = tf.constant(gradient["dense/kernel"], tf.float32)
            optimizer.apply_gradients([(value, variable)])
        found[correction] = variable.numpy()
    # The trust ratio cancels the correction but for what decay adds.
    apart = np.abs(found[True] - found[False]).max()
    assert 1e-6 < apart < 1e-2


def test_schedule_warms_up_decays_and_scales():
    scale = tf.Variable(1.0)
    schedule = optimization.WarmupLinearDecay(
        1.0, train_steps=100, warmup_steps=10, scale=scale
    )
    found = [float(schedule(step)) for step in (0, 5, 9, 10, 50, 100, 200)]
    np.testing.assert_allclose(found, [0, 0.5, 0.9, 0.9, 0.5, 0, 0], atol=1e-6)
    scale.assign(0.5)
    assert float(schedule(50)) == pytest.approx(0.25)
    restored = optimization.WarmupLinearDecay(**schedule.get_config())
    assert float(restored(50)) == pytest.approx(0.5)
    assert "10 steps" in schedule.describe()
    for warmup_steps in (100, 3125):
        short = optimization.WarmupLinearDecay(
            1.0, train_steps=100, warmup_steps=warmup_steps
        )
        assert short.warmup_steps == 10  # else it would never reach its rate


def test_the_rate_ends_where_it_should():
    schedule = optimization.WarmupLinearDecay(
        1.0, train_steps=100, warmup_steps=10, end_learning_rate=0.2
    )
    found = [float(schedule(step)) for step in (5, 10, 50, 100, 200)]
    np.testing.assert_allclose(found, [0.5, 0.92, 0.6, 0.2, 0.2], atol=1e-6)
    restored = optimization.WarmupLinearDecay(**schedule.get_config())
    assert float(restored(100)) == pytest.approx(0.2)


def test_rates_scale_with_the_square_root_of_the_batch():
    rate = optimization.scaled_learning_rate
    assert rate(1e-3, 4096, 1024) == pytest.approx(2e-3)
    assert rate(1e-3, 4096, None) == 1e-3


@pytest.mark.parametrize("corrects", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_trust_ratios_are_those_of_the_last_update(decay, corrects):
    variables = [
        tf.Variable([[3.0, 4.0]], name="dense/kernel"),
        tf.Variable([3.0, 4.0], name="dense/bias"),
    ]
    optimizer = optimization.create_optimizer(
        "lamb", 0.0, weight_decay=decay, bias_correction=corrects
    )
    optimizer.apply_gradients(
        [
            (tf.constant([[0.2, -0.7]]), variables[0]),
            (tf.constant([0.2, -0.7]), variables[1]),
        ]
    )
    ratios = optimization.trust_ratios(
        optimizer, variables, weight_decay=decay, bias_correction=corrects
    )
    # After one step u = m_hat / sqrt(v_hat) = sign(g), uncorrected
    # 0.1 / sqrt(0.001) times as long; what decays adds its own.
    update = np.array([1.0, -1.0]) * (1 if corrects else 0.1 / 0.001**0.5)
    for variable, own in zip(variables, (decay, 0.0), strict=True):
        expected = 5 / np.linalg.norm(update + own * np.array([3.0, 4.0]))
        name = variable.name.removesuffix(":0")
        assert float(ratios[name]) == pytest.approx(expected, rel=1e-3)


def test_wrong_names_are_told():
    with pytest.raises(UserError, match="optimizer='sgd'"):
        optimization.create_optimizer("sgd", 0.1)
    with pytest.raises(UserError, match="lamb_adaptation='none'"):
        optimization.create_optimizer("lamb", 0.1, lamb_adaptation="none")


def test_released_sizes_have_no_surprising_variable():
    model = AlbertPretrainer(AlbertConfig.from_name("albert_tiny_zh_google"))
    flags = {
        v.name.split("/", 1)[1]: optimization.decays(v.name)
        for v in model.trainable_variables
    }
    assert flags["embedding_hidden_mapping_in/kernel:0"]
    assert not flags["embedding_hidden_mapping_in/bias:0"]
    assert not flags["transform/LayerNorm/gamma:0"]
