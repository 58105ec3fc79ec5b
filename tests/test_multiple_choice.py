"""Multiple choice: C3 and ChID files, blanks, one-to-one answers."""

import itertools
import json

import numpy as np
import pytest
from task_samples import C3, IDIOMS, write_c3, write_chid, write_vocab

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, registry
from albert_tf2.tasks.multiple_choice import assign
from albert_tf2.text.tokenization import Tokenizer

LENGTHS = base.Lengths(max_seq_length=24)


def test_c3_reads_both_parts_of_a_split(tmp_path):
    task = registry.create("c3")
    write_c3(tmp_path)
    rows = task.read(tmp_path, "train")
    assert len(rows) == 6  # m-train and d-train
    assert rows[1].choices == ("吃饭", "踢足球", "上课")
    assert [row.label for row in rows[:3]] == [0, 1, 0]
    test_rows = task.read(tmp_path, "test")
    assert [row.row_id for row in test_rows] == [0, 1, 2]
    assert all(row.label is None for row in test_rows)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"answer": "没有"}, "answer '没有' is none of the choices"),
        ({"choice": ["很好"]}, "has 1 choices"),
        ({"choice": "很好"}, "`choice` must be of type list"),
    ],
)
def test_c3_bad_questions(tmp_path, change, reason):
    documents = json.loads(json.dumps(C3))
    documents[0][1][1].update(change)
    path = tmp_path / "m-dev.json"
    path.write_text(json.dumps(documents), "utf-8")
    with pytest.raises(UserError) as error:
        registry.create("c3").read(tmp_path, "dev")
    assert f"{path}, document 1, question 2: " in str(error.value)
    assert reason in str(error.value)


def test_c3_sequences(tmp_path):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    task = registry.create("c3")
    rows = task.read(write_c3(tmp_path), "dev")
    example = task.encode(rows, tokenizer, LENGTHS)[0]
    assert len(example.sequences) == 2
    tokens = tokenizer.ids_to_tokens(example.sequences[0].ids)
    assert tokens[-4:] == ["[SEP]", "很", "好", "[SEP]"]
    assert tokens.count("[SEP]") == 3
    assert len(tokens) == LENGTHS.max_seq_length
    # Right logits give the right choice; a missing one never wins.
    logits = [np.eye(4)[row.label] for row in rows]
    examples = task.encode(rows, tokenizer, LENGTHS)
    predictions = task.decode(rows, examples, logits, LENGTHS)
    assert task.score(rows, predictions)["accuracy"] == 1.0
    assert predictions[1]["choice"] == "踢足球"
    assert len(predictions[1]["probabilities"]) == 3


def test_chid_rows(tmp_path):
    task = registry.create("chid")
    rows = task.read(write_chid(tmp_path), "dev")
    assert [row.row_id for row in rows] == [f"#idiom00000{i}#" for i in "1234"]
    assert [row.label for row in rows] == [0, 1, 2, 3]
    assert [row.group for row in rows] == [0, 0, 0, 1]
    test_rows = task.read(tmp_path, "test")
    assert [row.label for row in test_rows] == [None] * 4
    answers = json.loads((tmp_path / "dev_answer.json").read_text())
    del answers["#idiom000003#"]
    (tmp_path / "dev_answer.json").write_text(json.dumps(answers))
    with pytest.raises(UserError, match="line 1: blank #idiom000003# is not"):
        task.read(tmp_path, "dev")


def test_chid_text_is_cut_around_the_blank(tmp_path):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    task = registry.create("chid")
    rows = task.read(write_chid(tmp_path), "dev")
    example = task.encode(rows, tokenizer, base.Lengths(max_seq_length=16))[2]
    assert len(example.sequences) == 10
    tokens = tokenizer.ids_to_tokens(example.sequences[0].ids)
    text = "家 公 司 [UNK] ， 小 明 [MASK] 。"
    assert " ".join(tokens) == f"[CLS] 守 株 待 兔 [SEP] {text} [SEP]"


@pytest.mark.parametrize("seed", range(5))
def test_assign_against_all_permutations(seed):
    scores = np.random.default_rng(seed).normal(size=[3, 5])
    scores[:, 2] += 2  # everybody's favourite
    best = max(
        itertools.permutations(range(5), 3),
        key=lambda p: sum(scores[i, c] for i, c in enumerate(p)),
    )
    assert assign(scores) == list(best)


def test_assign_with_more_blanks_than_candidates():
    scores = np.eye(3)[[0, 1, 1, 2]]
    assert assign(scores) == [0, 1, 1, 2]


def test_as_many_blanks_as_candidates_differ_too():
    assert assign(np.array([[0.0, -1.0], [0.0, -5.0]])) == [1, 0]


def test_chid_answers_differ_within_a_row(tmp_path):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    task = registry.create("chid")
    rows = task.read(write_chid(tmp_path), "dev")
    examples = task.encode(rows, tokenizer, LENGTHS)
    # All blanks like candidate 0 best, then their own.
    logits = [np.eye(10)[0] * 3 + np.eye(10)[row.label] * 2 for row in rows]
    predictions = task.decode(rows, examples, logits, LENGTHS)
    assert [p["label"] for p in predictions] == [0, 1, 2, 0]
    assert predictions[0]["choice"] == IDIOMS[0]
