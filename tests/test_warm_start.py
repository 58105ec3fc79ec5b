"""Weights of another run: taken where they mean the same, else refused."""

import numpy as np
import pytest
from small_records import TOKENS, write_set

from albert_tf2 import (
    AlbertConfig,
    Tokenizer,
    UserError,
    Vocabulary,
    load_pretrained,
    save_pretrained,
)
from albert_tf2.checkpoints import names, read_weights, weights
from albert_tf2.checkpoints.warm_start import TOKEN_TABLES, warm_start
from albert_tf2.finetuning import encoders
from albert_tf2.hub_export.encoder import export_encoder
from albert_tf2.keras_api import keras
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.pretraining.run import train_and_evaluate
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.text.vocabulary_change import Change, pieces

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# id 7 and 8 are free; 5, 6 are 糖 and 尿, 9 to 11 pieces of Latin words.
OLD = [*SPECIALS, "糖", "尿", "[unused1]", "[unused2]", "co", "##vid", "##o"]
CONFIG = AlbertConfig(
    vocab_size=len(OLD),
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
)


def write_vocab(path, tokens):
    path.write_text("".join(f"{token}\n" for token in tokens), "utf-8")
    return path


def model_of(seed, **changes):
    keras.utils.set_random_seed(seed)
    model = AlbertPretrainer(CONFIG.replace(**changes))
    bias = model.mlm_head.output_bias  # zeros, in which no mistake shows
    bias.assign(np.random.default_rng(seed).normal(size=bias.shape))
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    vocab_file = write_vocab(folder / "vocab.txt", OLD)
    return save_pretrained(model_of(0), folder / "old", vocab_file=vocab_file)


def start(source, tokens, *, grow=False, **changes):
    """Returns the model as it was, as it is now, and what was said."""
    vocabulary = Vocabulary(tokens) if tokens else None
    size = {"vocab_size": len(tokens)} if tokens else {}
    model = model_of(1, **size | changes)
    table = names.variables_by_name(model)
    before = {name: table[name].numpy() for name in table}
    said = []
    warm_start(model, source, vocabulary=vocabulary, grow=grow, say=said.append)
    now = {name: table[name].numpy() for name in table}
    return before, now, "\n".join(said)


def test_the_same_model_is_taken_whole(checkpoint):
    _, now, said = start(checkpoint, OLD)
    expected = read_weights(checkpoint).arrays
    assert set(now) == set(expected) and not said
    for name, value in expected.items():
        np.testing.assert_array_equal(now[name], value, name)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 4},
        {"num_hidden_layers": 5},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_erf"},
        {"ln_type": "preln"},
        {"hidden_size": 32},
        {"layout": "google"},
        {"parameter_sharing": "ffn"},
        {"max_position_embeddings": 64},
    ],
)
def test_another_model_is_refused_though_its_shapes_may_fit(
    checkpoint, changes
):
    ((name, value),) = changes.items()
    there = getattr(CONFIG, name)
    with pytest.raises(UserError) as error:
        start(checkpoint, OLD, **changes)
    assert f"`{name}` is {there!r} there and {value!r} here" in str(error.value)
    assert "take the configuration that came with it" in str(error.value)


def test_every_difference_is_named_at_once(checkpoint):
    with pytest.raises(UserError, match="`num_hidden_layers`.*`ln_type`"):
        start(checkpoint, OLD, num_hidden_layers=5, ln_type="preln")


def test_how_a_model_is_trained_may_differ(checkpoint):
    _, _, said = start(
        checkpoint, OLD, hidden_dropout_prob=0.1, hidden_act="gelu_new"
    )
    assert "`hidden_dropout_prob` was 0.0 in" in said
    assert "is 0.1 from now on" in said and "hidden_act" not in said


def test_a_permuted_vocabulary_is_refused_by_its_first_id(checkpoint):
    other = [*OLD[:5], "尿", "糖", *OLD[7:]]
    with pytest.raises(UserError) as error:
        start(checkpoint, other)
    assert "id 5 is '尿' in the records and '糖' in the checkpoint" in str(
        error.value
    )


def test_a_word_is_not_given_up_for_a_free_slot(checkpoint):
    other = [*OLD[:6], "[unused9]", *OLD[7:]]
    with pytest.raises(UserError, match="id 6 is '.unused9.' in the records"):
        start(checkpoint, other)


@pytest.mark.parametrize("grow", [False, True])
def test_a_shorter_vocabulary_is_refused(checkpoint, grow):
    with pytest.raises(UserError, match="id 11 is not there in the records"):
        start(checkpoint, OLD[:-1], grow=grow)


def check_rows(now, expected):
    """Compares the rows of the tables, the others having been taken whole."""
    for name in TOKEN_TABLES:
        assert len(now[name]) == len(expected[name])
        for token_id, row in enumerate(expected[name]):
            np.testing.assert_allclose(
                now[name][token_id],
                row,
                atol=1e-7,
                err_msg=f"{name} {token_id}",
            )


def test_new_words_in_free_slots_begin_as_the_mean_of_their_pieces(checkpoint):
    tokens = [*OLD[:7], "糖尿", "covid", *OLD[9:]]
    _, now, said = start(checkpoint, tokens)
    expected = dict(read_weights(checkpoint).arrays)
    for name in TOKEN_TABLES:
        old = expected[name]
        expected[name] = old.copy()
        expected[name][7] = (old[5] + old[6]) / 2  # 糖 尿
        expected[name][8] = (old[9] + old[10]) / 2  # co ##vid
    check_rows(now, expected)
    assert "2 new words in free slots" in said
    assert "糖尿 (7), covid (8)" in said
    before, now, said = start(checkpoint, [*OLD[:7], "𠮷", *OLD[8:]])
    for name in TOKEN_TABLES:  # not what the free slot happened to hold
        np.testing.assert_array_equal(now[name][7], before[name][7])
    assert "1 of them begin at random" in said


def test_a_longer_vocabulary_wants_to_be_asked_for(checkpoint):
    with pytest.raises(UserError, match="--set grow_vocabulary=true") as error:
        start(checkpoint, [*OLD, "糖尿"])
    assert "13 tokens" in str(error.value) and "the first 12 of" in str(
        error.value
    )


def test_a_grown_table_keeps_its_rows_and_adds_means(checkpoint):
    tokens = [*OLD[:7], "尿糖糖", *OLD[8:], "糖病", "𠮷", "##尿"]
    before, now, said = start(checkpoint, tokens, grow=True)
    old = read_weights(checkpoint).arrays
    for name in TOKEN_TABLES:
        # 糖病: of 病 nothing is known; of 𠮷 nothing at all.
        new = [old[name][5], before[name][13], old[name][6]]
        expected = [*old[name], *new]
        expected[7] = (old[name][6] + 2 * old[name][5]) / 3
        check_rows(
            {n: now[name] for n in TOKEN_TABLES},
            dict.fromkeys(TOKEN_TABLES, expected),
        )
    for name in set(old) - set(TOKEN_TABLES):
        np.testing.assert_array_equal(now[name], old[name], name)
    assert "3 new words behind the last token" in said
    assert "1 new words in free slots" in said
    assert "1 of them begin at random" in said and "𠮷 (13)" in said


def test_growing_does_not_excuse_other_words(checkpoint):
    with pytest.raises(UserError, match="id 5 is '病' in the records"):
        start(checkpoint, [*OLD[:5], "病", *OLD[6:], "糖尿"], grow=True)


def test_what_cannot_be_compared_is_said(checkpoint, tmp_path):
    alone = save_pretrained(model_of(0), tmp_path / "alone")
    _, _, said = start(alone, OLD)
    assert "no vocab.txt lies beside" in said and "alone, so it could" in said
    _, _, said = start(checkpoint, None)
    assert "no vocab.txt lies beside the records, so it could not" in said
    with pytest.raises(UserError, match="put the one that came with it"):
        start(alone, [*OLD, "糖尿"], grow=True)


def test_a_vocabulary_that_is_not_the_checkpoints_is_refused(tmp_path):
    vocab_file = write_vocab(tmp_path / "vocab.txt", OLD[:-1])
    wrong = save_pretrained(
        model_of(0), tmp_path / "wrong", vocab_file=vocab_file
    )
    with pytest.raises(UserError, match="has 11 tokens, but the model's"):
        start(wrong, OLD)


def named(checkpoint, tmp_path, tokens):
    """Fine-tuning's way in: weights, and the vocabulary of --vocab_file."""
    vocab_file = write_vocab(tmp_path / "named.txt", tokens)
    said = []
    loaded = encoders.load_encoder(
        str(checkpoint), vocab_file=str(vocab_file), say=said.append
    )
    assert loaded.tokenizer.vocabulary.tokens == tuple(tokens)
    return loaded.encoder.embeddings.word_embeddings.numpy(), "\n".join(said)


def test_a_named_vocabulary_is_compared_with_the_checkpoints(
    checkpoint, tmp_path
):
    old = read_weights(checkpoint).arrays[TOKEN_TABLES[0]]
    table, said = named(checkpoint, tmp_path, OLD)
    np.testing.assert_array_equal(table, old)
    assert not said
    table, said = named(checkpoint, tmp_path, [*OLD[:7], "糖尿", *OLD[8:]])
    np.testing.assert_allclose(table[7], (old[5] + old[6]) / 2, atol=1e-7)
    np.testing.assert_array_equal(table[8:], old[8:])
    assert "1 new words in free slots" in said
    with pytest.raises(UserError, match="id 5 is '尿' in .*named.txt"):
        named(checkpoint, tmp_path, [*OLD[:5], "尿", "糖", *OLD[7:]])
    with pytest.raises(UserError, match="has 13 tokens") as error:
        named(checkpoint, tmp_path, [*OLD, "糖尿"])
    # Fine-tuning grows no table, so it does not name that way out.
    assert "grow_vocabulary" not in str(error.value)
    alone = save_pretrained(model_of(0), tmp_path / "alone")
    _, said = named(alone, tmp_path, OLD)
    assert "no vocab.txt lies beside" in said


def test_predicting_takes_no_other_vocabulary(checkpoint, tmp_path):
    model = load_pretrained(checkpoint)
    vocab_file = write_vocab(tmp_path / "new.txt", [*OLD[:7], "糖尿", *OLD[8:]])
    with pytest.raises(UserError, match="id 7 is '糖尿' in .*new.txt"):
        weights.tokenizer_of(model, "the model", vocab_file)
    same = write_vocab(tmp_path / "same.txt", OLD)
    assert weights.tokenizer_of(model, "the model", same)


def test_a_saved_model_takes_no_other_vocabulary(tmp_path):
    vocab_file = write_vocab(tmp_path / "vocab.txt", OLD)
    export_encoder(model_of(0), Tokenizer(vocab_file), tmp_path / "hub")
    other = write_vocab(tmp_path / "new.txt", [*OLD[:7], "糖尿", *OLD[8:]])
    with pytest.raises(UserError, match="id 7 is '糖尿' in .*new.txt"):
        encoders.load_encoder(str(tmp_path / "hub"), vocab_file=str(other))


def test_changes_of_a_vocabulary():
    old, new = Vocabulary(OLD), Vocabulary([*OLD[:7], "病", *OLD[8:], "x"])
    assert Change.between(old, old) == (None, {}, {})
    assert Change.between(old, new) == (None, {7: "病"}, {12: "x"})
    assert Change.between(new, old).first_other == 7
    # A free slot under another number is as free as before.
    renamed = Vocabulary([*OLD[:7], "[unused7]", *OLD[8:]])
    assert Change.between(old, renamed) == (None, {}, {})


def test_pieces_of_words():
    found = {
        "糖尿": [5, 6],
        "covid": [9, 10],
        "##covid": [9, 10],
        "病糖": [5],
        "zoo": [11, 11],  # z is unknown, the o is not
        "病": [],
        "[unused99]": [],
    }
    signs = ["[", "]", "#", "##n", "u"]  # letters of markup are no pieces
    vocabulary = Vocabulary([*OLD, *signs])
    assert pieces({w: w for w in found}, vocabulary) == found


def test_pre_training_compares_before_it_writes(checkpoint, tmp_path):
    """The whole way: records of another vocabulary of the same size."""
    write_set(tmp_path / "records", [9], held_out=2)
    config = AlbertConfig(**{**CONFIG.to_dict(), "vocab_size": 200})
    config.to_json(tmp_path / "config.json")
    other = [*TOKENS[:-2], TOKENS[-1], TOKENS[-2]]
    model = save_pretrained(
        AlbertPretrainer(config),
        tmp_path / "model",
        vocab_file=write_vocab(tmp_path / "vocab.txt", other),
    )
    recipe = PretrainRecipe(
        model=str(tmp_path / "config.json"),
        train_steps=1,
        global_batch_size=2,
        max_seq_length=32,
        shuffle_buffer=8,
    )
    with pytest.raises(UserError, match="id 198 is"):
        train_and_evaluate(
            recipe,
            tmp_path / "records",
            tmp_path / "run",
            "one_device",
            init_checkpoint=model,
            progress=False,
        )
    assert not list((tmp_path / "run").glob("*"))
