"""What the terminal shows of a record."""

import numpy as np
import pytest

from albert_tf2 import UserError, Vocabulary
from albert_tf2.data import (
    build_pretraining_data,
    inspect_records,
    records,
    workers,
)
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.records.record_set import CompactRecords
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import SPECIAL_TOKENS

TEXT = "使 用 语 言 模 型 来 预 测 al ##bert"
VOCABULARY = Vocabulary([*SPECIAL_TOKENS, *TEXT.split()])


def ids(text):
    return [VOCABULARY.ids[token] for token in text.split()]


def row_of(tokens, labels, **more):
    """A row as the input pipeline gives it; labels: place -> token."""
    found = {
        "input_word_ids": np.array(ids(tokens)),
        "input_mask": np.array([t != "[PAD]" for t in tokens.split()], int),
        "masked_lm_positions": np.array([*labels, 0]),
        "masked_lm_ids": np.array(ids(" ".join(labels.values())) + [0]),
        "masked_lm_weights": np.array([1.0] * len(labels) + [0.0]),
    }
    return found | {k: np.array(v) for k, v in more.items()}


def test_masks_words_and_order_are_marked():
    row = row_of(
        "[CLS] 使 型 [MASK] [MASK] [SEP] al ##bert [SEP] [PAD]",
        {2: "用", 3: "语", 4: "言", 7: "##bert"},
        sentence_order_labels=[1],
        word_starts=[0, 1, 0, 1, 0, 0, 1, 0, 0, 0],
    )
    lines = inspect_records.lines_of_row(row, VOCABULARY, colour=False)
    assert lines == [
        "pair 1, swapped: [CLS] 使{用→型}/«语»«言» [SEP] al{bert} [SEP]",
        "9 of 10 places filled, 4 to predict",
    ]
    coloured = inspect_records.lines_of_row(row, VOCABULARY, colour=True)
    assert "\033[41m«语»\033[0m" in coloured[0]


def test_each_pair_has_a_line():
    row = row_of(
        "[CLS] 使 [SEP] 用 [SEP] [CLS] 来 [SEP] 预 测 [SEP] [PAD]",
        {},
        sentence_order_labels=[0, 1],
        input_pair_ids=[1] * 5 + [2] * 6 + [0],
        word_starts=[0, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0],
    )
    assert inspect_records.lines_of_row(row, VOCABULARY, colour=False) == [
        "pair 1, in order: [CLS] 使 [SEP] 用 [SEP]",
        "pair 2, swapped: [CLS] 来 [SEP] 预/测 [SEP]",
        "11 of 12 places filled, 0 to predict",
    ]


@pytest.mark.parametrize("token_id", [-1, len(VOCABULARY)])
@pytest.mark.parametrize("where", ["input_word_ids", "masked_lm_ids"])
def test_another_vocabulary_is_told(token_id, where):
    row = row_of("[CLS] 使 [SEP]", {1: "用"}, sentence_order_labels=[0])
    row[where][1 if where == "input_word_ids" else 0] = token_id
    with pytest.raises(UserError, match=f"holds the id {token_id}: .*--vocab"):
        inspect_records.lines_of_row(row, VOCABULARY, colour=False)


def test_word_starts_follow_swapped_segments():
    stored = ids("使 用 语 言 模 型 来 预 测")
    starts = np.array([1, 0, 1, 0, 1, 0, 1, 1, 0], bool)
    data = records.compact_example(
        records.pack_tokens(np.array(stored), starts, "uint16").tobytes(),
        [2, 4, 1, 2],
    )
    record_set = CompactRecords(
        folder="",
        subset="train",
        paths=(),
        counts=(),
        sums=(),
        max_seq_length=20,
        max_pairs=2,
        vocab_size=len(VOCABULARY),
        text_settings=TextSettings(),
    )
    row = {
        "sentence_order_labels": np.array([1, 0]),
        "input_mask": np.ones(20, int),
    }
    found = inspect_records.word_starts_of_row(row, data, record_set)
    # [CLS] 语 言 模 型 [SEP] 使 用 [SEP] [CLS] 来 [SEP] 预 测 [SEP]
    expected = [0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0]
    np.testing.assert_array_equal(found, expected + [0] * 5)


@pytest.mark.parametrize("masking", ["dynamic", "static"])
def test_command_line(tmp_path, capsys, masking):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY.tokens), "utf-8")
    (tmp_path / "a.txt").write_text("使用ALBERT\n语言模型\n\n" * 9, "utf-8")
    plan = build_pretraining_data.make_plan(
        str(tmp_path / "a.txt"), str(tmp_path / "vocab.txt"),
        str(tmp_path / "out"),
        BuildConfig(max_seq_length=64, num_shards=1, eval_fraction=0,
                    masking=masking, segmenter="jieba", short_seq_prob=0),
    )  # fmt: skip
    build_pretraining_data.build(plan, workers.Workers(1, progress=False))
    assert inspect_records.main(
        ["--data_dir", str(tmp_path / "out"), "--num_records", "2"]
    ) == 0  # fmt: skip
    told = capsys.readouterr().out
    assert told.count("record ") == 2
    assert "[SEP]" in told and "\033" not in told
    # Compact rows know where words begin, and training swaps segments.
    assert ("语言/模型" in told or "/" in told) == (masking == "dynamic")
    with pytest.raises(UserError, match="no eval records"):
        inspect_records.main(
            ["--data_dir", str(tmp_path / "out"), "--subset", "eval"]
        )
    shard = tmp_path / "out" / "records-00000-of-00001.tfrecord"
    whole = shard.read_bytes()
    foreign = b"".join(records.frame([b"another program's"])) * 9
    damaged = [whole[:-9], whole[:40] + b"!" + whole[41:]]
    for data in [*damaged, foreign]:
        shard.write_bytes(data)
        with pytest.raises(UserError, match="builder with --verify|copy it"):
            inspect_records.main(
                ["--data_dir", str(tmp_path / "out"), "--num_records", "99"]
            )
    with pytest.raises(UserError, match="is not a folder"):
        inspect_records.main(["--data_dir", str(tmp_path / "absent")])
