"""Records to batches: order, resume, sharing among workers, evaluation."""

import collections
import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from small_records import LENGTH, TOKENS, classic, compact, write_set

from albert_tf2 import features
from albert_tf2.data import records
from albert_tf2.errors import UserError
from albert_tf2.records import pipeline
from albert_tf2.records.masking import Masker
from albert_tf2.records.record_set import open_records
from albert_tf2.text.tokenization import Vocabulary
from albert_tf2.training import distribution


def masker():
    return Masker(
        Vocabulary(TOKENS), max_seq_length=LENGTH, max_predictions_per_seq=4
    )


def training(folder, **changes):
    arguments = {"global_batch_size": 4, "seed": 3, "shuffle_buffer": 6}
    return pipeline.training_dataset(
        open_records(folder), masker(), **(arguments | changes)
    )


def restored_tokens(batch):
    """The stored tokens of each row, whatever order was drawn."""
    rows = []
    for row in range(len(batch["input_word_ids"])):
        ids = batch["input_word_ids"][row].copy()
        count = int(batch["masked_lm_weights"][row].sum())
        ids[batch["masked_lm_positions"][row, :count]] = batch["masked_lm_ids"][
            row, :count
        ]
        rows.append(tuple(sorted(ids[ids > 4])))
    return rows


def take(dataset, count):
    return list(dataset.take(count).as_numpy_iterator())


def same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert set(batch) == set(other)
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name], name)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_no_thread_of_autotuning_outlives_a_run(tmp_path, split):
    """It may sleep for a minute before it sees that it is to end."""
    write_set(tmp_path, [5, 4], held_out=3)

    def make(share):
        if split == "train":
            return training(tmp_path, **share)
        held_out = open_records(tmp_path, "eval")
        return pipeline.evaluation_dataset(
            held_out, masker(), batch_size=2, seed=3, **share
        )

    one_cpu = tf.distribute.OneDeviceStrategy("/cpu:0")
    batches = distribution.distributed(one_cpu, make)
    assert batches.options().autotune.enabled is False


def test_every_epoch_has_every_record_once_in_another_order(tmp_path):
    contents = write_set(tmp_path, [5, 4, 3, 4])  # 16 records: 4 batches
    batches = take(training(tmp_path), 12)
    rows = [row for batch in batches for row in restored_tokens(batch)]
    expected = collections.Counter(
        tuple(sorted(tokens)) for tokens in contents["train"]
    )
    epochs = [rows[i : i + 16] for i in (0, 16, 32)]
    for epoch in epochs:
        assert collections.Counter(epoch) == expected
    assert epochs[0] != epochs[1] != epochs[2]
    # Masks are fresh in every epoch, too.
    assert len({b["masked_lm_positions"].tobytes() for b in batches}) == 12


@pytest.mark.parametrize("start_step", [1, 3, 4, 5, 7, 23, 1000])
def test_a_resumed_order_equals_an_uninterrupted_one(tmp_path, start_step):
    write_set(tmp_path, [5, 4, 3, 4, 2])
    through = take(training(tmp_path), start_step + 6)[start_step:]
    same(through, take(training(tmp_path, start_step=start_step), 6))


def test_a_run_that_resumes_at_a_window_reads_no_other(tmp_path):
    write_set(tmp_path, [5, 4, 3, 4, 2])
    windows = pipeline._Windows(open_records(tmp_path), 3, 10)
    assert windows.per_window == 2
    first = int(windows.counts[windows.order(0).numpy()[:2]].sum())
    assert windows.locate(first - 1) == (0, first - 1)
    assert windows.locate(first) == (1, 0)


def test_another_seed_gives_another_order(tmp_path):
    write_set(tmp_path, [5, 4, 3, 4])
    first = restored_tokens(take(training(tmp_path), 1)[0])
    assert first != restored_tokens(take(training(tmp_path, seed=4), 1)[0])


def test_shuffling_mixes_shards_within_a_window(tmp_path):
    contents = write_set(tmp_path, [20, 20, 20, 20])
    origin = {
        tuple(sorted(t)): i // 20 for i, t in enumerate(contents["train"])
    }
    dataset = training(tmp_path, global_batch_size=20, shuffle_buffer=40)
    batches = [restored_tokens(batch) for batch in take(dataset, 4)]
    shards = [{origin[row] for row in batch} for batch in batches]
    assert all(len(found) == 2 for found in shards)


def test_shards_and_windows_are_in_another_order_in_each_epoch(tmp_path):
    contents = write_set(tmp_path / "four", [4, 4, 4, 4])
    origin = {tuple(sorted(t)): i // 4 for i, t in enumerate(contents["train"])}
    # A window is a shard here, and a batch a window.
    dataset = training(tmp_path / "four", shuffle_buffer=4)
    shards = [origin[restored_tokens(b)[0]] for b in take(dataset, 12)]
    assert len({tuple(shards[i : i + 4]) for i in (0, 4, 8)}) > 1
    write_set(tmp_path / "one", [8])
    dataset = training(tmp_path / "one", global_batch_size=8)
    epochs = [tuple(restored_tokens(batch)) for batch in take(dataset, 3)]
    assert len(set(epochs)) == 3


def test_workers_and_replicas_share_one_global_batch(tmp_path):
    write_set(tmp_path, [5, 4, 3, 4])
    whole = take(training(tmp_path, start_step=2), 5)
    halves = [
        take(training(tmp_path, start_step=2, workers=2, worker=i), 5)
        for i in (0, 1)
    ]
    quarters = take(training(tmp_path, start_step=2, replicas=4), 20)
    for step, batch in enumerate(whole):
        for name, value in batch.items():
            parts = [half[step][name] for half in halves]
            np.testing.assert_array_equal(np.concatenate(parts), value)
            parts = [b[name] for b in quarters[4 * step : 4 * step + 4]]
            np.testing.assert_array_equal(np.concatenate(parts), value)


@pytest.mark.parametrize("kind", [compact, classic])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 8])
def test_evaluation_covers_every_record_once(tmp_path, kind, batch_size):
    contents = write_set(tmp_path, [4], kind=kind)
    record_set = open_records(tmp_path, "eval")

    def evaluation(**sharing):
        return take(
            pipeline.evaluation_dataset(
                record_set, masker(), batch_size=batch_size, seed=1, **sharing
            ),
            -1,
        )

    def ids(some):
        return [row for b in some for row in b["input_word_ids"].tolist()]

    batches = evaluation()
    assert {len(b["input_word_ids"]) for b in batches} == {batch_size}
    weighted = np.concatenate(
        [b["sentence_order_weights"].max(1) for b in batches]
    )
    assert weighted.sum() == 5
    masked = np.concatenate([b["masked_lm_weights"].sum(1) for b in batches])
    assert (weighted[masked > 0] == 1).all() and (masked > 0).sum() >= 3
    if kind is compact:
        rows = [row for batch in batches for row in restored_tokens(batch)][:5]
        assert rows == [tuple(sorted(t)) for t in contents["eval"]]
    same(batches, evaluation())
    if batch_size % 2 == 0:
        halves = [evaluation(workers=2, worker=i) for i in (0, 1)]
        assert len(halves[0]) == len(halves[1]) == len(batches)
        apart = [row for half in halves for row in ids(half)]
        assert sorted(apart) == sorted(ids(batches))


def test_masks_of_evaluation_do_not_depend_on_its_batch_size(tmp_path):
    write_set(tmp_path, [4], held_out=6)
    record_set = open_records(tmp_path, "eval")
    by_size = []
    for size in (2, 3):
        batches = pipeline.evaluation_dataset(
            record_set, masker(), batch_size=size, seed=1
        )
        by_size.append(
            np.concatenate([b["masked_lm_positions"] for b in batches])
        )
    np.testing.assert_array_equal(*by_size)


def test_classic_records_become_the_same_inputs(tmp_path):
    contents = write_set(tmp_path, [4], kind=classic)
    (batch,) = take(training(tmp_path, seed=0), 1)
    assert set(batch) == {
        *features.ENCODER_INPUTS,
        features.MASKED_LM_POSITIONS,
        *features.LABELS,
    }
    assert {tuple(row) for row in batch["input_word_ids"]} == set(
        contents["train"]
    )
    assert batch["input_type_ids"].sum() == 4 * 12
    np.testing.assert_array_equal(batch["masked_lm_ids"][0], [11, 12, 0])
    np.testing.assert_array_equal(batch["sentence_order_labels"], [[1]] * 4)


def test_classic_records_of_the_builder_are_read_in_blocks_too(tmp_path):
    write_set(tmp_path, [70, 3], kind=classic)
    record_set = open_records(tmp_path)
    assert [len(starts) for starts in record_set.starts] == [4, 2]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(": 70", ": 71"))
    with pytest.raises(UserError, match="holds 70 records, .* says 71: run"):
        open_records(tmp_path)


def test_folders_of_other_programs_are_counted(tmp_path):
    write_set(tmp_path, [4, 3], kind=classic)
    (tmp_path / "manifest.json").unlink()
    record_set = open_records(tmp_path)
    assert record_set.kind == "classic" and record_set.counts == (4, 3)
    assert record_set.max_seq_length == LENGTH
    assert record_set.max_predictions_per_seq == 3
    assert open_records(tmp_path, "eval").records == 5


def test_wide_tokens_of_large_vocabularies(tmp_path):
    rng = np.random.default_rng(0)
    record, tokens = compact(rng, wide=True)
    write_set(tmp_path, [1])
    record_set = open_records(tmp_path)
    record_set = dataclasses.replace(record_set, vocab_size=40_000)
    ids, starts, lengths = record_set.parse(tf.constant([record]))
    np.testing.assert_array_equal(ids[0, : len(tokens)], tokens)
    assert 0 < starts.numpy().sum() < len(tokens)
    assert lengths.numpy().sum() == len(tokens)


@pytest.mark.parametrize("size", [1 << 15, (1 << 15) + 1])
def test_the_reader_knows_the_border_of_the_writer(tmp_path, size):
    """15 bits are left for an id while a vocabulary has 2^15 tokens."""
    tokens, begins = np.array([size - 1, 7, 8]), np.array([True, True, False])
    dtype = records.token_dtype(size)
    assert dtype == ("uint16" if size == 1 << 15 else "uint32")
    packed = records.pack_tokens(tokens, begins, dtype)
    write_set(tmp_path, [1])
    record_set = dataclasses.replace(open_records(tmp_path), vocab_size=size)
    ids, starts, _ = record_set.parse(
        tf.constant([records.compact_example(packed.tobytes(), [1, 2])])
    )
    np.testing.assert_array_equal(ids[0, :3], tokens)
    np.testing.assert_array_equal(starts[0, :3], begins)


def test_unigram_frequencies_are_those_of_the_tokens(tmp_path):
    contents = write_set(tmp_path, [5, 3])
    found = pipeline.unigram_log_probs(open_records(tmp_path), masker(), 200)
    counts = collections.Counter(t for row in contents["train"] for t in row)
    total = sum(counts.values()) + 200
    np.testing.assert_allclose(
        found, np.log([(counts[i] + 1) / total for i in range(200)])
    )


def test_unigram_frequencies_are_those_of_the_labels_asked_for(tmp_path):
    """albert_zh spells a label `##` behind the first of its word."""
    write_set(tmp_path, [40, 40])
    record_set = open_records(tmp_path)
    characters = TOKENS[5:102]
    vocabulary = TOKENS[:5] + characters + [f"##{c}" for c in characters]
    vocabulary.append("[unused1]")
    asking = Masker(
        Vocabulary(vocabulary),
        max_seq_length=LENGTH,
        max_predictions_per_seq=4,
        label_style="albert_zh",
    )
    counts = np.ones(200)
    strings = tf.data.TFRecordDataset(list(record_set.paths))
    for row in strings.batch(1).as_numpy_iterator():
        tokens, starts, lengths = record_set.parse(row)
        # The first token of a segment begins a word, whatever is stored.
        first = np.cumsum(lengths[0]) - lengths[0]
        for place in range(int(np.sum(lengths))):
            token = int(tokens[0, place])
            begins = starts[0, place] or place in first
            is_character = 5 <= token < 102
            counts[token + 97 * (is_character and not begins)] += 1
    found = pipeline.unigram_log_probs(record_set, asking, 200)
    np.testing.assert_allclose(np.exp(found), counts / counts.sum())
    assert counts[102:199].sum() > 1.5 * counts[5:102].sum()


def test_unigram_frequencies_of_classic_rows_leave_padding_out(tmp_path):
    """`classic` writes the labels 11 and 12, and a third place unused."""
    write_set(tmp_path, [6], kind=classic)
    record_set = open_records(tmp_path)
    found = np.exp(pipeline.unigram_log_probs(record_set, None, 200))
    assert found[11] == found[12] == pytest.approx(7 / 212)
    assert found[0] == pytest.approx(1 / 212)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="build_pretraining_data"):
        open_records(tmp_path / "none")
    with pytest.raises(UserError, match="manifest.json"):
        open_records(tmp_path)
    write_set(tmp_path, [5])
    with pytest.raises(UserError, match="divisible"):
        training(tmp_path, replicas=3)
    (tmp_path / "train-0.tfrecord").unlink()
    with pytest.raises(UserError, match="train-0.tfrecord is missing"):
        open_records(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="manifest.json is damaged"):
        open_records(tmp_path)


@pytest.mark.parametrize(
    "place, value",
    [
        (("vocab_sha256",), True),
        (("vocab_size",), "200"),
        (("max_seq_length",), True),
        (("shards", 0, "records"), 5.0),
        (("shards", 0, "name"), None),
        (("identity", "config", "do_lower_case"), 1),
    ],
)
def test_a_manifest_of_wrong_kinds_is_damaged(tmp_path, place, value):
    write_set(tmp_path, [5])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    owner = manifest
    for part in place[:-1]:
        owner = owner[part]
    owner[place[-1]] = value
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"damaged.*{place[-1]}"):
        open_records(tmp_path)


@pytest.mark.parametrize(
    "left", ["records-00001-of-00003.tfrecord", "eval-00000-of-00001.tfrecord"]
)
def test_an_unfinished_set_is_not_trained_on(tmp_path, left):
    """Static masking leaves files that look like those of another program."""
    write_set(tmp_path, [3, 2], kind=classic)
    (tmp_path / "manifest.json").unlink()
    assert open_records(tmp_path).records == 5
    (tmp_path / "train-0.tfrecord").rename(tmp_path / left)
    for subset in ("train", "eval"):
        with pytest.raises(UserError, match=rf"no manifest.json, but {left}"):
            open_records(tmp_path, subset)


def test_a_build_that_wrote_no_shard_yet_is_told(tmp_path):
    (tmp_path / ".parts").mkdir()
    with pytest.raises(UserError, match="the build is not finished"):
        open_records(tmp_path)


def test_files_being_written_are_no_shards(tmp_path):
    write_set(tmp_path, [3, 2], kind=classic)
    (tmp_path / "manifest.json").unlink()
    whole = (tmp_path / "train-0.tfrecord").read_bytes()
    for name in (
        ".train-2.tfrecord.0123.albert-tmp",
        "train-2.tfrecord.17.tmp",
        "_train-2.tfrecord",
    ):
        (tmp_path / name).write_bytes(whole)
    assert open_records(tmp_path).counts == (3, 2)
