"""Counted word vectors: what is counted, and that a run begins with it."""

import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small_records import TOKENS, classic, example, write_set

from albert_tf2 import AlbertConfig, features, save_pretrained
from albert_tf2.errors import UserError
from albert_tf2.pretraining import word_vectors
from albert_tf2.pretraining.run import Run
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.records import pipeline
from albert_tf2.records.record_set import open_records
from albert_tf2.training.run_log import read_rows
from albert_tf2.training.workers import Workers

SMALL = {
    "vocab_size": len(TOKENS),
    "embedding_size": 6,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "max_position_embeddings": 32,
}


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(st.data(), SHAPES)
def test_neighbours_are_those_of_a_loop_over_each_row(data, shape):
    block, pairs = (
        data.draw(
            arrays.arrays(np.int64, shape, elements=st.integers(least, 5))
        )
        for least in (-1, 4)
    )
    ids = np.array([1, 3, 4])
    expected = np.zeros((3, 3))
    for row, pair in zip(block.tolist(), pairs.tolist(), strict=True):
        for one in range(len(row)):
            for other in range(one + 1, min(one + 6, len(row))):
                couple = [row[one], row[other]]
                if set(couple) <= {1, 3, 4} and pair[one] == pair[other]:
                    first, second = (ids.tolist().index(t) for t in couple)
                    expected[first, second] += 1 / (other - one)
                    expected[second, first] += 1 / (other - one)
    found = word_vectors.count_neighbours(
        [(block[:1], pairs[:1]), (block[1:], pairs[1:])], ids, 6
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_association_is_the_formula_of_the_papers():
    counts = np.array([[0, 8, 1], [8, 2, 0], [1, 0, 0]], np.float32)
    sums = counts.sum(0)
    flat = sums**0.75 / (sums**0.75).sum()

    def ratio(one, two):
        found = counts[one, two] / sums[one] / flat[two]
        return math.log(found) if found > 1 else 0.0

    expected = [
        [(ratio(one, two) + ratio(two, one)) / 2 for two in range(3)]
        for one in range(3)
    ]
    found = word_vectors.association(counts.copy())
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0, 1] > 0 and found[0, 0] == 0


def test_a_token_without_neighbours_has_no_association():
    counts = np.array([[0, 3, 0], [3, 1, 0], [0, 0, 0]], np.float32)
    found = word_vectors.association(counts)
    assert np.isfinite(found).all() and not found[2].any()


@pytest.mark.parametrize(("size", "width"), [(90, 4), (90, 20), (10, 20)])
def test_the_strongest_directions_are_those_of_an_exact_search(size, width):
    random = np.random.default_rng(5)
    parts = random.standard_normal((size, 8)) * 2.0 ** -np.arange(8)
    # A direction of opposites is none of likeness.
    against = random.standard_normal((size, 1))
    matrix = (parts @ parts.T - against @ against.T).astype(np.float32)
    values, vectors = np.linalg.eigh(matrix)
    kept = np.maximum(values, 0) * (np.arange(size) >= size - width)
    found = word_vectors.strongest_directions(matrix, width, seed=1)
    assert found.shape == (size, width) and found.dtype == np.float32
    np.testing.assert_allclose(
        found @ found.T, (vectors * kept) @ vectors.T, atol=1e-3
    )
    # Rotated: unlike before, no element tells most of it.
    share = (found**2).sum(0) / (found**2).sum()
    assert kept.max() / kept.sum() > 0.6 > share.max()


def test_there_may_be_fewer_tokens_than_directions():
    matrix = np.eye(3, dtype=np.float32)
    found = word_vectors.strongest_directions(matrix, 5, seed=1)
    np.testing.assert_allclose(found @ found.T, matrix, atol=1e-5)


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    """Records of 200 tokens of which half come 20 times, and a model."""
    folder = tmp_path_factory.mktemp("word_vectors")
    write_set(folder / "records", [230, 230], held_out=4)
    write_set(folder / "classic", [4, 4], kind=classic)
    write_set(folder / "few", [2, 2])
    AlbertConfig(**SMALL).to_json(folder / "model.json")
    return folder


def begin(problem, workdir, records="records", start=None, **changes):
    settings = {"word_vectors": "counted", "train_steps": 2} | changes
    recipe = PretrainRecipe(
        model=str(problem / "model.json"),
        optimizer="adamw",
        global_batch_size=4,
        max_seq_length=32,
        **settings,
    )
    run = Run(recipe, str(problem / records), workdir, "one_device")
    run.start(start)
    return run


def weights_of(run):
    return [variable.numpy() for variable in run.model.trainable_variables]


def table_of(run):
    return run.model.encoder.embeddings.word_embeddings.numpy()


def test_a_run_begins_with_them(problem, tmp_path, capsys):
    run = begin(problem, tmp_path / "run")
    records = open_records(str(problem / "records"))
    tokens = np.concatenate(
        [block[block >= 0] for block, _ in word_vectors._blocks(records)]
    )
    often = np.bincount(tokens, minlength=200) >= word_vectors.LEAST_COUNT
    assert 20 < often.sum() < 180
    ids, vectors = word_vectors.counted_vectors(
        records, 6, seed=run.recipe.seed
    )
    np.testing.assert_array_equal(ids, np.flatnonzero(often))
    np.testing.assert_allclose((vectors**2).sum(1), 6, rtol=1e-5)
    untrained = begin(problem, tmp_path / "other", word_vectors="random")
    table, first = map(table_of, (run, untrained))
    np.testing.assert_allclose(table[ids], 0.15 * vectors, rtol=1e-5)
    np.testing.assert_array_equal(table[~often], first[~often])
    np.testing.assert_allclose(
        run.model.mlm_head.output_bias.numpy(),
        pipeline.unigram_log_probs(run.records, run.masker, 200),
        rtol=1e-6,
    )
    said = capsys.readouterr().out
    assert "counting neighbours in 460 records" in said
    assert f"{len(ids)} of 200 tokens begin with what was counted" in said
    # Nothing else is another.
    changed = [
        not np.array_equal(*pair)
        for pair in zip(weights_of(run), weights_of(untrained), strict=True)
    ]
    assert sum(changed) == 2


def test_the_seed_rotates_them(problem):
    records = open_records(str(problem / "records"))
    one, same, other = (
        word_vectors.counted_vectors(records, 6, seed=seed)[1]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
    # Not exactly: the directions of words drawn by chance are close rivals.
    likeness = np.corrcoef((one @ one.T).flat, (other @ other.T).flat)
    assert likeness[0, 1] > 0.9


def test_rows_end_and_their_pairs_are_apart(problem):
    records = open_records(str(problem / "few"))
    for block, pairs in word_vectors._blocks(records):
        assert (block == -1).any(axis=1).all() and (block[:, 0] >= 5).all()
        for raw, row, numbers in zip(
            tf.data.TFRecordDataset(list(records.paths)).batch(1),
            block,
            pairs,
            strict=True,
        ):
            tokens, _, lengths = (x[0].numpy() for x in records.parse(raw))
            assert row[row >= 0].tolist() == tokens[: lengths.sum()].tolist()
            sizes = lengths.reshape(-1, 2).sum(1)
            expected = np.repeat(np.arange(len(sizes)), sizes)
            assert numbers[: len(expected)].tolist() == expected.tolist()


def test_the_most_frequent_tokens_of_the_first_rows_count(problem, monkeypatch):
    records = open_records(str(problem / "records"))
    monkeypatch.setattr(word_vectors, "_ROWS", 50)
    monkeypatch.setattr(word_vectors, "LEAST_COUNT", 2)
    tokens = np.concatenate(
        [block[block >= 0] for block, _ in word_vectors._blocks(records)]
    )
    assert 300 < len(tokens) < 1_000
    monkeypatch.setattr(word_vectors, "_MOST", 10)
    ids, _ = word_vectors.counted_vectors(records, 6, seed=1)
    counts = np.bincount(tokens, minlength=200)
    assert len(ids) == 10 and (np.diff(ids) > 0).all()
    assert counts[ids].min() >= np.sort(counts)[-10]


def test_a_token_that_nobody_stands_near_keeps_its_random_vector(tmp_path):
    """Its row would be zeros, or a division by nothing."""
    random = np.random.default_rng(3)

    def row(_):
        others = random.permutation(np.arange(10, 190))
        # Alone within five places; token 9 beside token 8, again and again.
        return example_of(np.concatenate([[7], others[:9], [8, 9]]))

    write_set(tmp_path / "records", [30], kind=row)
    records = open_records(str(tmp_path / "records"))
    ids, vectors = word_vectors.counted_vectors(records, 4, seed=1)
    assert ids.tolist() == [8, 9]
    np.testing.assert_allclose((vectors**2).sum(1), 4, rtol=1e-5)

    def alone(_):
        return example_of(np.array([7, *random.permutation(180)[:9] + 10]))

    write_set(tmp_path / "alone", [30], kind=alone)
    alone_records = open_records(str(tmp_path / "alone"))
    assert not len(word_vectors.counted_vectors(alone_records, 4, seed=1)[0])


def test_a_damaged_record_is_named(problem, tmp_path):
    shutil.copytree(problem / "records", tmp_path / "records")
    shard = tmp_path / "records" / "train-1.tfrecord"
    content = bytearray(shard.read_bytes())
    content[40] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read .corrupted record"):
        begin(problem, tmp_path / "run", tmp_path / "records")


def test_a_resumed_run_does_not_begin_again(problem, tmp_path, capsys):
    run = begin(problem, tmp_path / "run")
    run.train()
    trained = weights_of(run)
    capsys.readouterr()
    again = begin(problem, tmp_path / "run")
    assert "counting" not in capsys.readouterr().out
    for one, other in zip(trained, weights_of(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(read_rows(tmp_path / "run" / "evaluation.jsonl")) == 2
    with pytest.raises(UserError, match="began from other weights"):
        begin(problem, tmp_path / "run", word_vectors="random")


def test_little_text_leaves_random_vectors(problem, tmp_path, capsys):
    few, untrained = (
        begin(problem, tmp_path / kind, "few", word_vectors=kind)
        for kind in ("counted", "random")
    )
    assert "0 of 200 tokens begin with what was" in capsys.readouterr().out
    np.testing.assert_array_equal(*map(table_of, (few, untrained)))
    assert few.model.mlm_head.output_bias.numpy().std() > 0.01


def test_masked_records_cannot_be_counted(problem, tmp_path):
    with pytest.raises(UserError, match="masked: build them with --masking"):
        begin(problem, tmp_path / "run", "classic")


def test_a_checkpoint_brings_its_own_words(problem, tmp_path, capsys):
    start = begin(problem, tmp_path / "first", word_vectors="random", seed=5)
    save_pretrained(start.model, tmp_path / "start")
    run = begin(problem, tmp_path / "run", start=tmp_path / "start")
    said = capsys.readouterr().out
    assert "`word_vectors=counted` is for new models: not here" in said
    np.testing.assert_array_equal(*map(table_of, (start, run)))


def test_all_workers_take_the_first_ones_numbers():
    mine, his = np.float32([1, 2]), np.float32([3, 4.5])
    assert Workers().first(mine) is mine
    workers = Workers()
    workers.count = 2
    workers._strategy = type("Strategy", (), {"num_replicas_in_sync": 4})
    # Two replicas each; the other worker brings what it has to.
    workers.index = 1
    workers._add = lambda value: 2 * (value + his)
    np.testing.assert_array_equal(workers.first(mine), his)
    workers.index = 0
    workers._add = lambda value: 2 * value
    np.testing.assert_array_equal(workers.first(mine), mine)


def test_words_that_stand_alike_are_alike(tmp_path):
    """Sentences of two kinds of words, each kind among its own."""
    random = np.random.default_rng(3)

    def row(_):
        kind = random.integers(2)
        tokens = random.integers(10, 40, 20) + 60 * kind
        return example_of(tokens)

    write_set(tmp_path / "records", [200], kind=row)
    ids, vectors = word_vectors.counted_vectors(
        open_records(str(tmp_path / "records")), 4, seed=1
    )
    alike = vectors @ vectors.T / 4
    same = (ids[:, None] > 50) == (ids[None, :] > 50)
    assert alike[same].mean() > alike[~same].mean() + 0.5


def example_of(tokens):
    raw = (tokens | 1 << 15).astype("<u2").tobytes()
    lengths = [len(tokens) // 2, len(tokens) - len(tokens) // 2]
    fields = {features.TOKENS: [raw], features.SEGMENT_LENGTHS: lengths}
    return example(fields), tokens
