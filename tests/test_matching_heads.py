"""Heads that begin at the same word in the other text: where, and when."""

import dataclasses

import numpy as np
import pytest
import task_samples as samples
import tensorflow as tf
from test_first_heads import KINDS, TINY, attention
from test_first_heads import untrained as with_words

from albert_tf2 import finetune
from albert_tf2.errors import Preempted, UserError
from albert_tf2.finetuning import matching_heads, regularizers
from albert_tf2.finetuning.run import Run
from albert_tf2.model import layers
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.tasks import registry
from albert_tf2.tasks.encoding import Example, Packed
from albert_tf2.text.tokenization import Vocabulary
from albert_tf2.training.workers import Workers

VOCABULARY = Vocabulary(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + [f"w{i}" for i in range(395)]
)


def untrained(**changes):
    """Returns a model whose texts and places differ as its words do."""
    model = with_words(**changes)
    embeddings = model.encoder.embeddings
    table = embeddings.token_type_embeddings
    table.assign(tf.random.stateless_normal(table.shape, [3, 4], stddev=0.15))
    # Places lie in ten directions and are louder than words there.
    table = embeddings.position_embeddings
    rows, width = table.shape
    waves = tf.random.stateless_normal([rows, 10], [5, 6])
    waves = tf.nn.l2_normalize(waves, 1)
    table.assign(waves @ tf.random.stateless_normal([10, width], [7, 8]) / 3)
    return model


def pairs(count=300, length=12, shared=12, seed=3):
    """Returns pairs whose texts share their first words, in another order."""
    random = np.random.default_rng(seed)
    cls, sep = VOCABULARY.cls_id, VOCABULARY.sep_id
    examples = []
    for row in range(count):
        words = 5 + random.permutation(395)[: 2 * length - shared]
        others = random.permutation([*words[:shared], *words[length:]])
        ids = [cls, *words[:length], sep, *others, sep]
        types = [0] * (length + 2) + [1] * (length + 1)
        packed = Packed([int(id) for id in ids], types)
        examples.append(Example(row, (packed,), 1))
    return examples


def begin(model, heads=2, examples=None, said=None, workers=None):
    matching_heads.begin(
        model.encoder,
        heads,
        pairs() if examples is None else examples,
        vocabulary=VOCABULARY,
        seed=1,
        workers=workers or Workers(),
        say=(said if said is not None else []).append,
    )
    return model


def first_layer(model, examples):
    """Returns the first layer's attention, [B, N, T, T], and the words."""
    words = np.array([example.sequences[0].ids for example in examples])
    types = np.array([example.sequences[0].type_ids for example in examples])
    return attention(model, words, types)[0], words


def twins(words, length=12):
    """Returns for each token of the texts where its equal is: [B, 2 * L]."""
    first, second = words[:, 1 : length + 1], words[:, length + 2 : -1]
    same = first[:, :, None] == second[:, None]
    return np.concatenate(
        [length + 2 + same.argmax(2), 1 + same.argmax(1)], axis=1
    )


@pytest.mark.parametrize("kind", KINDS)
def test_they_look_at_the_same_word_in_the_other_text(kind):
    model = untrained(**KINDS[kind])
    plain = untrained(**KINDS[kind])
    for one, other in zip(
        plain.trainable_variables, model.trainable_variables, strict=True
    ):
        # Trained models' biases and scales are no zeros and ones.
        if "LayerNorm" in one.name or "bias" in one.name:
            noise = tf.random.stateless_normal(one.shape, [5, 6], stddev=0.2)
            other.assign_add(noise)
        one.assign(other)
    said = []
    begin(model, said=said)
    chosen = matching_heads.least(plain.encoder.attention_layers[0], 2)
    names = ", ".join(str(head + 1) for head in chosen)
    assert said[0].startswith(f"attention heads {names} of ")
    asked = pairs(20, seed=4)
    probs, words = first_layer(model, asked)
    before, _ = first_layer(plain, asked)
    of_texts = np.r_[1:13, 14:26]
    for head in range(model.config.num_attention_heads):
        found, meant = probs[:, head, of_texts], twins(words)
        if head not in chosen:
            np.testing.assert_allclose(probs[:, head], before[:, head], atol=0)
            continue
        # Of random words, some are by chance more alike than a word itself.
        assert (found.argmax(-1) == meant).mean() > 0.6
        share = np.take_along_axis(found, meant[..., None], axis=-1)
        assert share.mean() > 0.55
        # Hardly any look stays in its own text.
        assert found[:, :12, 1:13].sum(-1).mean() < 0.1
        assert found[:, 12:, 14:26].sum(-1).mean() < 0.1


def test_a_head_says_whether_it_has_found_the_word():
    """The difference is about as long as a token, in one direction."""
    model = untrained()
    # All others are silent, so what is added to a token is what these say.
    value = model.encoder.attention_layers[0].value.kernel
    value.assign(tf.zeros_like(value))
    asked = pairs(50, shared=6, seed=4)
    begin(model, heads=1)
    words = np.array([example.sequences[0].ids for example in asked])
    types = np.array([example.sequences[0].type_ids for example in asked])
    added = []
    block = model.encoder.attention_layers[0]
    whole = block.output_dense.call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            block.output_dense,
            "call",
            lambda rows: added.append(whole(rows)) or added[-1],
        )
        patch.setattr(layers.fusion, "are_enabled", lambda: False)
        inputs = {
            "input_word_ids": tf.constant(words, tf.int32),
            "input_type_ids": tf.constant(types, tf.int32),
            "input_mask": tf.ones(words.shape, tf.int32),
        }
        model.encoder(inputs, training=False)
    said = added[0].numpy().reshape([50, 27, 312])[:, 1:13]
    there, missing = said[:, :6].mean((0, 1)), said[:, 6:].mean((0, 1))
    hidden = matching_heads.first_inputs(
        model.encoder, list(range(5, 400)), [3]
    )
    length = np.linalg.norm(hidden, axis=-1).mean()
    told = np.linalg.norm(there - missing) / length
    assert 0.35 * matching_heads.LOUDNESS < told < matching_heads.LOUDNESS
    sizes = np.linalg.svd(said.reshape([-1, 312]), compute_uv=False)
    assert sizes[1] < 1e-3 * sizes[0]
    # As much in either direction: a word that is there, and one that is not.
    assert there @ missing < 0


def test_each_of_them_compares_words_in_its_own_directions():
    model = untrained()
    block = model.encoder.attention_layers[0]
    chosen = matching_heads.least(block, 3)
    begin(model, heads=3)
    kernel = block.query.kernel.numpy()
    some = [kernel[:, 26 * head : 26 * head + 24] for head in chosen]
    for one in range(3):
        for other in range(one):
            assert np.abs(some[one] - some[other]).mean() > 0.01


def test_more_heads_than_directions_begin_with_the_first_ones_again():
    """The better half of 128 numbers are 64; nine heads want 216."""
    model = untrained(embedding_size=128)
    chosen = matching_heads.least(model.encoder.attention_layers[0], 9)
    begin(model, heads=9)
    probs, words = first_layer(model, pairs(20, seed=4))
    for head in chosen:
        looks = probs[:, head, 1:13].argmax(-1)
        assert (looks == twins(words)[:, :12]).mean() > 0.8


def applied(look, inputs):
    return inputs @ look.kernel + look.bias


def test_scores_are_as_large_as_they_are_meant_to_be():
    """Of words that are normally distributed: a loop over what it says."""
    random = np.random.default_rng(0)
    words = random.normal(size=[500, 10]) @ random.normal(size=[10, 24])
    around = random.normal(size=[2, 24])
    places = 0.1 * random.normal(size=[2, 24])
    text = np.array([-1.0, 1.0])[:, None] * random.normal(size=24)
    inputs, marks = (
        3 + rows + places[:, None] + text[:, None, None]
        for rows in (words, around)
    )
    weights = random.uniform(1, 2, 500)
    (query,), (key,), found = matching_heads.looks(
        inputs, marks, weights, 1, 10, np.random.default_rng(1)
    )
    scores = {name: [] for name in ("own", "other", "different", "nowhere")}
    for word in range(500):
        asks = applied(query, inputs[0, 0, word])
        for name, answers in (
            ("own", inputs[0, 1, word]),
            ("other", inputs[1, 1, word]),
            ("different", inputs[1, 1, (word + 1) % 500]),
            ("nowhere", marks[1, 1, word % 2]),
        ):
            scores[name].append(asks @ applied(key, answers) / 10**0.5)
        assert applied(found, inputs[0, 0, word]) == pytest.approx(1, abs=0.2)
    assert applied(found, marks[1, 1]) == pytest.approx(0, abs=0.1)
    share = weights / weights.sum()
    equal, nowhere = matching_heads.EQUAL, matching_heads.NOWHERE
    text = matching_heads.OTHER_TEXT
    for name, meant in (
        ("own", equal - text),
        ("other", equal + text),
        ("different", text),
        ("nowhere", nowhere + text),
    ):
        assert share @ scores[name] == pytest.approx(meant, abs=0.6), name
    assert np.std(scores["nowhere"]) < 0.2


def test_frequent_words_are_told_apart_best():
    """Directions are those in which words differ that come often."""
    random = np.random.default_rng(0)
    words = np.zeros([200, 16])
    words[:100, :4] = random.normal(size=[100, 4])
    words[100:, 4:8] = random.normal(size=[100, 4])
    noise = 0.3 * random.normal(size=[2, 3, 200, 16])
    for often in (slice(0, 100), slice(100, 200)):
        weights = np.full(200, 0.2)
        weights[often] = 1.0
        around = 0.1 * random.normal(size=[2, 3, 2, 16])
        (query,), _, _ = matching_heads.looks(
            words + noise, around, weights, 1, 6, random
        )
        sizes = np.square(query[0][:, :4]).sum(1)
        seen = slice(0, 4) if often.start == 0 else slice(4, 8)
        assert sizes[seen].sum() > 0.8 * sizes[:8].sum()


def test_the_heads_that_add_least_give_way():
    model = untrained()
    block = model.encoder.attention_layers[0]
    kernel, outputs = block.value.kernel, block.output_dense.kernel
    scales = np.repeat([3, 1, 3, 3, 1, 3, 3, 3, 3, 3, 3, 3], 26)
    kernel.assign(kernel * scales)
    assert matching_heads.least(block, 2) == [1, 4]
    outputs.assign(outputs * np.repeat([1] * 7 + [0.1] + [1] * 4, 26)[:, None])
    assert matching_heads.least(block, 1) == [7]


def test_layers_of_their_own_change_the_first_alone():
    model = untrained(parameter_sharing="none")
    before = [v.numpy() for v in model.encoder.attention_layers[1].variables]
    begin(model)
    for old, new in zip(
        before, model.encoder.attention_layers[1].variables, strict=True
    ):
        np.testing.assert_array_equal(old, new.numpy())


def test_workers_take_the_first_ones_numbers():
    class Second(Workers):
        def first(self, array):
            assert array.dtype == np.float32
            return np.full_like(array, 7)

    model = begin(untrained(), workers=Second())
    block = model.encoder.attention_layers[0]
    for dense in (block.query, block.key, block.value, block.output_dense):
        for variable in dense.variables:
            assert (variable.numpy() == 7).all()


def test_blocks_after_the_first_keep_their_numbers():
    """A layer of two blocks: the second reads what the first returns."""
    model = untrained(inner_group_num=2, parameter_sharing="all")
    second = model.encoder.attention_layers[1]
    before = [variable.numpy() for variable in second.variables]
    begin(model)
    for old, new in zip(before, second.variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_single_texts_are_refused():
    single = [Example(0, (Packed([0, 5, 6, 1], [0] * 4),), 1) for _ in range(3)]
    with pytest.raises(UserError, match="rows are single texts"):
        matching_heads.check_pairs(single)
    matching_heads.check_pairs(pairs(2))


def test_rows_without_words_are_refused():
    """[UNK] is no word: two of them may be different ones."""
    unknown = [Example(0, (Packed([2, 1, 1, 3, 1, 5, 3], [0] * 4 + [1] * 3),))]
    with pytest.raises(UserError, match="have fewer than two"):
        begin(untrained(), examples=unknown)


def test_sentence_vectors_are_refused():
    task = registry.create("sentence_vectors")
    recipe = FinetuneRecipe(matching_heads=2)
    with pytest.raises(UserError, match="reads each text by itself"):
        regularizers.check(task, recipe, TINY)


@pytest.mark.parametrize(
    "changes, heads",
    [
        ({}, 13),
        ({"hidden_size": 48, "num_attention_heads": 8}, 1),
        ({"type_vocab_size": 1}, 1),
    ],
)
def test_models_without_room_are_refused(changes, heads):
    model = untrained(**changes)
    with pytest.raises(UserError, match=f"`matching_heads={heads}` needs"):
        matching_heads.check(model.encoder, heads)
    matching_heads.check(untrained().encoder, 12)


def test_texts_that_nothing_tells_apart_are_refused():
    model = untrained()
    table = model.encoder.embeddings.token_type_embeddings
    table.assign(tf.ones_like(table))
    with pytest.raises(UserError, match="which are equal in this model"):
        matching_heads.check(model.encoder, 2)


def test_hub_encoders_are_refused():
    with pytest.raises(UserError, match="a hub encoder keeps inside"):
        matching_heads.check(tf.keras.layers.Dense(2), 1)


# A run begins with them once, whatever becomes of it.


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Returns what runs a small task in a folder: lines, and results."""
    folder = tmp_path_factory.mktemp("matching")
    files = samples.write_lcqmc(folder / "lcqmc")
    vocab = samples.write_vocab(folder)
    config = folder / "model.json"
    size = len(vocab.read_text("utf-8").splitlines())
    TINY.replace(vocab_size=size, num_hidden_layers=1).to_json(config)
    recipe = FinetuneRecipe(
        optimizer="adamw",
        max_seq_length=32,
        max_train_steps=4,
        num_train_epochs=9.0,
        global_batch_size=4,
        checkpoint_every=2,
        matching_heads=2,
    )
    reviews = samples.write_reviews(folder / "reviews")

    def run(name, task="lcqmc", **changes):
        said = []
        task = registry.create(task)
        data = finetune.read_data(
            task, files if task.name == "lcqmc" else reviews, recipe, say=str
        )
        results = finetune.fine_tune(
            task,
            data,
            init_checkpoint=f"config:{config}",
            recipe=dataclasses.replace(recipe, **changes),
            workdir=folder / name,
            vocab_file=vocab,
            say=said.append,
        )
        return said, results

    return run


def test_a_run_that_goes_on_does_not_begin_anew(tuned, monkeypatch):
    whole, figures = tuned("whole")
    assert sum("begin anew" in line for line in whole) == 1
    steps = Run.run_steps

    def interrupted(self, batches, step, count):
        if step >= 2:
            raise Preempted("enough")
        return steps(self, batches, step, count)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "run_steps", interrupted)
        with pytest.raises(Preempted):
            tuned("parts")
    said, resumed = tuned("parts")
    assert any("resuming" in line for line in said)
    assert not any("begin anew" in line for line in said)
    assert resumed["test"] == figures["test"]
    with pytest.raises(UserError, match="matching_heads"):
        tuned("whole", matching_heads=1)


def test_a_task_of_single_texts_is_refused(tuned):
    with pytest.raises(UserError, match="rows are single texts"):
        tuned("single", task="multi_label")
