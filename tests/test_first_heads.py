"""Attention heads that know where to look: where they do, and when."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from small_records import write_set

from albert_tf2 import AlbertConfig, AlbertPretrainer, save_pretrained
from albert_tf2.errors import UserError
from albert_tf2.model import layers
from albert_tf2.pretraining import first_heads
from albert_tf2.pretraining.run import Run, train_and_evaluate
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.training.workers import Workers

TINY = AlbertConfig(
    vocab_size=400,
    embedding_size=128,
    hidden_size=312,
    num_hidden_layers=2,
    num_attention_heads=12,
    intermediate_size=64,
    max_position_embeddings=80,
    layout="google",
)
KINDS = {
    "google": {},
    "google, words as wide as layers": {"embedding_size": 312},
    "google, words wider": {"embedding_size": 512},
    "google, layers of their own": {"parameter_sharing": "none"},
    "brightmart": {"layout": "brightmart"},
    "brightmart, pre-LN": {"layout": "brightmart", "ln_type": "preln"},
    "few heads, more types": {"num_attention_heads": 4, "type_vocab_size": 3},
    "narrow layers": {"hidden_size": 96, "num_attention_heads": 6},
    "the smallest": {
        "hidden_size": 48,
        "num_attention_heads": 4,
        "embedding_size": 48,
    },
}


def untrained(**changes):
    model = AlbertPretrainer(TINY.replace(**changes))
    # As large as counted ones, and each like itself alone.
    table = model.encoder.embeddings.word_embeddings
    table.assign(tf.random.stateless_normal(table.shape, [1, 2], stddev=0.15))
    return model


def begin(model, seed=1, workers=None):
    first_heads.begin_with(
        model, seed=seed, workers=workers or Workers(), say=lambda _: None
    )
    return model


def attention(model, words, types):
    """Returns the attention of all layers: float32 [L, B, N, T, T]."""
    found = []
    softmax = layers.softmax
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            layers,
            "softmax",
            lambda *inputs: found.append(softmax(*inputs)) or found[-1],
        )
        inputs = {
            "input_word_ids": tf.constant(words, tf.int32),
            "input_type_ids": tf.constant(types, tf.int32),
            "input_mask": tf.ones(words.shape, tf.int32),
        }
        model.encoder(inputs, training=False)
    return np.stack([probs.numpy() for probs in found])


@pytest.mark.parametrize("kind", KINDS)
def test_heads_look_where_they_should(kind):
    model = begin(untrained(**KINDS[kind]))
    random = np.random.default_rng(2)
    half = np.stack([random.permutation(400)[:40] for _ in range(4)])
    order = random.permutation(40)
    # The other text has the same words in another order.
    words = np.concatenate([half, half[:, order]], axis=1)
    types = np.repeat([[0, 1]], 40, axis=1).repeat(4, axis=0)
    probs = attention(model, words, types)
    heads = model.config.num_attention_heads
    offsets = first_heads.offsets(heads)
    assert offsets[:2] == [-1, 1] and len(offsets) == 2 * (heads // 3)
    for head, offset in enumerate(offsets):
        inside = range(10, 70)
        looks = probs[:, :, head, inside].argmax(-1)
        # Words disturb it, since they lie in the same directions.
        assert (looks == np.array(inside) + offset).mean() > 0.6, offset
        share = np.diagonal(probs[:, :, head], offset, -2, -1).mean()
        assert 0.2 < share < 0.7, offset
    matching = first_heads.matching(heads)
    for head in range(len(offsets), len(offsets) + matching):
        twin = np.concatenate([40 + np.argsort(order), order])
        looks = probs[:, :, head].argmax(-1) == twin
        assert looks.mean() > 0.7  # of few numbers; in tiny nearly all
        own = np.diagonal(probs[:, :, head], 0, -2, -1)
        assert own.mean() < 0.05
        share = np.take_along_axis(
            probs[:, :, head], twin[None, None, :, None], axis=-1
        ).mean()
        assert 0.3 < share < 0.9
    for head in range(len(offsets) + matching, heads):
        assert probs[:, :, head].max() < 0.05  # of 80 tokens


def test_other_heads_and_types_keep_their_numbers():
    plain, model = untrained(type_vocab_size=3), untrained(type_vocab_size=3)
    for variable, other in zip(
        model.trainable_variables, plain.trainable_variables, strict=True
    ):
        variable.assign(other)
    begin(model)
    for name in ("query", "key"):
        one, other = (
            getattr(m.encoder.attention_layers[0], name).kernel.numpy()
            for m in (model, plain)
        )
        changed = (one != other).any(0).reshape(12, 26).all(1)
        assert changed.tolist() == 10 * [True] + 2 * [False]
        # Each of those that look at words compares them in its own way.
        words = one.reshape(312, 12, 26)[:, 8:10, :25]
        assert np.abs(words[:, 0] - words[:, 1]).mean() > 0.01
    types, before = (
        m.encoder.embeddings.token_type_embeddings.numpy()
        for m in (model, plain)
    )
    np.testing.assert_array_equal(types[2], before[2])
    assert (types[:2] != before[:2]).all()


def test_far_places_are_told_apart():
    """The longest wave is longer than a row, or places would come again."""
    omega = first_heads.frequencies(TINY)
    scores = np.cos(np.arange(1, 129)[:, None] * omega).mean(1)
    assert scores[0] > 0.6 and scores[12:].max() < 0.45


@pytest.mark.parametrize(
    ("heads", "offsets", "matching"),
    [
        (3, [-1, 1], 1),
        (4, [-1, 1], 1),
        (12, [-1, 1, -2, 2, -3, 3, -4, 4], 2),
        (16, [-1, 1, -2, 2, -3, 3, -4, 4, -5, 5], 2),
        (64, [sign * far for far in range(1, 9) for sign in (-1, 1)], 10),
    ],
)
def test_two_thirds_look_at_neighbours_none_too_far(heads, offsets, matching):
    assert first_heads.offsets(heads) == offsets
    assert first_heads.matching(heads) == matching
    assert len(offsets) + matching <= heads


@given(st.integers(-8, 8), st.integers(8, 400))
def test_a_rotation_leads_from_a_place_to_its_neighbour(offset, place):
    omega = first_heads.frequencies(TINY)
    assert len(omega) == 13 and omega.max() == pytest.approx(2 * np.pi / 3)

    def waves(t):
        return np.concatenate([np.cos(t * omega), np.sin(t * omega)])

    turned = waves(place) @ first_heads.rotation(offset, omega)
    np.testing.assert_allclose(turned, waves(place + offset), atol=1e-9)


def test_positions_and_texts_have_their_shares_of_an_embedding():
    """Where words are small, these are, or nothing would tell words."""
    for scale in (1.0, 0.01):
        model = untrained()
        embeddings = model.encoder.embeddings
        table = embeddings.word_embeddings
        # Rare words, which may be nearly all, begin with less.
        numbers = tf.concat([0.1 * table[:360], table[360:]], axis=0)
        table.assign(scale * numbers)
        begin(model)
        word = np.square(table.numpy()[360:]).sum(1).mean()
        places = np.square(embeddings.position_embeddings.numpy()).sum(1)
        texts = embeddings.token_type_embeddings.numpy()
        np.testing.assert_allclose(places, word, rtol=0.25)
        assert np.ptp(places) < 1e-5 * places.max()
        np.testing.assert_allclose(
            np.square(texts).sum(1), places[:2] * 0.02 / 0.49, rtol=1e-5
        )
        np.testing.assert_allclose(texts[0], -texts[1])


def test_what_enters_the_layers_is_as_large_as_what_leaves_them():
    model = begin(untrained())
    inputs = tf.random.stateless_normal([500, 128], [3, 4])
    hidden = model.encoder.embedding_hidden_mapping_in(inputs)
    assert np.std(hidden.numpy()) == pytest.approx(1.0, abs=0.05)


def test_the_seed_decides_and_the_first_worker_tells():
    def weights(seed, workers=None):
        model = begin(untrained(), seed, workers)
        return model.encoder.embeddings.position_embeddings.numpy()

    np.testing.assert_array_equal(weights(1), weights(1))
    assert np.abs(weights(1) - weights(2)).max() > 0.1

    class Second(Workers):
        def first(self, values):
            assert values.dtype == np.float32
            return np.full_like(values, 0.25)

    model = begin(untrained(), workers=Second())
    told = [
        variable.name.removeprefix("encoder/")
        for variable in model.trainable_variables
        if (variable.numpy() == 0.25).all()
    ]
    assert sorted(told) == [
        "attention_0/key/kernel:0",
        "attention_0/query/kernel:0",
        "embedding_hidden_mapping_in/kernel:0",
        "embeddings/position_embeddings:0",
        "embeddings/token_type_embeddings:0",
        "embeddings/word_embeddings:0",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 2},
        {"num_attention_heads": 39},  # 8 wide
        {"embedding_size": 47},
        {"hidden_size": 36, "num_attention_heads": 3},
        {"type_vocab_size": 1},
    ],
)
def test_a_model_without_room_is_refused(changes):
    config = TINY.replace(**changes)
    rule = "three heads or more, each at least 12 wide, words and layers at "
    with pytest.raises(UserError, match=rule + "least 48 wide.*leave the"):
        first_heads.frequencies(config)


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first_heads")
    write_set(folder / "records", [230, 230], held_out=4)
    TINY.replace(
        vocab_size=200,
        hidden_size=54,
        embedding_size=48,
        num_attention_heads=3,
        num_hidden_layers=1,
    ).to_json(folder / "model.json")
    return folder


def start(problem, workdir, init_checkpoint=None, **changes):
    settings = {"attention_heads": "constructed"} | changes
    recipe = PretrainRecipe(
        model=str(problem / "model.json"),
        optimizer="adamw",
        global_batch_size=4,
        max_seq_length=32,
        train_steps=2,
        **settings,
    )
    run = Run(recipe, str(problem / "records"), workdir, "one_device")
    run.start(init_checkpoint)
    return run


def test_a_run_begins_with_them_once(problem, tmp_path, capsys):
    run = start(problem, tmp_path / "run")
    said = "of 3 attention heads 2 begin at a token's neighbours, up to 1 away"
    assert said in capsys.readouterr().out
    plain = start(problem, tmp_path / "plain", attention_heads="random")
    changed = [
        variable.name.removeprefix("encoder/")
        for variable, other in zip(
            run.model.trainable_variables,
            plain.model.trainable_variables,
            strict=True,
        )
        if not np.array_equal(variable.numpy(), other.numpy())
    ]
    assert len(changed) == 6, changed
    run.train()
    capsys.readouterr()
    again = start(problem, tmp_path / "run")
    assert said not in capsys.readouterr().out
    for one, other in zip(
        run.model.trainable_variables,
        again.model.trainable_variables,
        strict=True,
    ):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    with pytest.raises(UserError, match="began from other weights"):
        start(problem, tmp_path / "run", attention_heads="random")


def test_a_model_without_room_is_told_before_time_is_spent(problem, tmp_path):
    small = problem / "small.json"
    config = AlbertConfig.from_json(problem / "model.json")
    config.replace(hidden_size=24).to_json(small)
    recipe = PretrainRecipe(
        model=str(small), attention_heads="constructed", budget="9d"
    )
    with pytest.raises(UserError, match="three heads or more"):
        train_and_evaluate(
            recipe, str(problem / "records"), tmp_path / "run", "one_device"
        )


def test_a_small_model_goes_on_without_its_checkpoint(problem, tmp_path):
    """What a run began from need not be named again."""
    small = problem / "narrow.json"
    config = AlbertConfig.from_json(problem / "model.json")
    config.replace(hidden_size=24).to_json(small)
    save_pretrained(
        AlbertPretrainer(AlbertConfig.from_json(small)), tmp_path / "start"
    )
    recipe = PretrainRecipe(
        model=str(small),
        attention_heads="constructed",
        optimizer="adamw",
        global_batch_size=4,
        max_seq_length=32,
        train_steps=1,
    )
    for begins, steps in ((tmp_path / "start", 1), (None, 2)):
        result = train_and_evaluate(
            dataclasses.replace(recipe, train_steps=steps),
            str(problem / "records"),
            tmp_path / "run",
            "one_device",
            init_checkpoint=begins,
            progress=False,
        )
        assert result.step == steps


def test_words_come_first(problem, tmp_path):
    """Positions are as loud as counted words, not as random ones."""
    run = start(problem, tmp_path / "run", word_vectors="counted")
    positions = run.model.encoder.embeddings.position_embeddings.numpy()
    assert np.square(positions).mean() ** 0.5 > 0.1


def test_a_checkpoint_brings_its_own_heads(problem, tmp_path, capsys):
    plain = start(problem, tmp_path / "plain", attention_heads="random", seed=5)
    save_pretrained(plain.model, tmp_path / "start")
    run = start(problem, tmp_path / "run", tmp_path / "start")
    said = capsys.readouterr().out
    assert "`attention_heads=constructed` is for new models: not here" in said
    for one, other in zip(
        plain.model.trainable_variables,
        run.model.trainable_variables,
        strict=True,
    ):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
