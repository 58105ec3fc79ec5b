"""Reading comprehension: files, windows, n-best, the official figures."""

import itertools
import json

import numpy as np
import pytest
from task_samples import QUESTIONS, squad, write_cmrc, write_vocab

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, registry, span_metrics
from albert_tf2.tasks.question_files import QuestionRow
from albert_tf2.tasks.reading import ReadingReport
from albert_tf2.tasks.reading_comprehension import NO_ANSWER
from albert_tf2.text.tokenization import Tokenizer

TASK = registry.create("cmrc2018")


def write(path, document):
    path.write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    return path.parent


def perfect_logits(examples):
    logits = []
    for example in examples:
        values = np.zeros([example.length, 2])
        if example.label != NO_ANSWER:
            values[example.label[0], 0] = values[example.label[1], 1] = 9
        logits.append(values)
    return logits


@pytest.mark.parametrize(
    "gold, predicted, f1, em",
    [
        ("足球", "足球", 1.0, 1.0),
        ("《战国无双》", "战国无双", 1.0, 1.0),  # signs do not count
        ("ABC公司", "abc公司", 1.0, 1.0),
        ("光荣和公司", "光荣", 2 * 2 / (5 + 2), 0.0),
        ("甲乙丙丁", "甲丁乙丙", 2 * 2 / 8, 0.0),  # a run, not a bag
        ("1998年", "1999年", 2 * 1 / 4, 0.0),  # a number is one segment
        ("3.5 million dollars", "3.5 million", 2 * 2 / 5, 0.0),
        ("甲", "乙", 0.0, 0.0),
        ("甲", "", 0.0, 0.0),
    ],
)
def test_official_rules(gold, predicted, f1, em):
    assert span_metrics.f1(["没有", gold], predicted) == pytest.approx(f1)
    assert span_metrics.exact_match(["没有", gold], predicted) == em


@pytest.mark.parametrize("seed", range(5))
def test_longest_common_run_against_all_runs(seed):
    rng = np.random.default_rng(seed)
    a, b = (list(map(int, rng.integers(0, 3, n))) for n in (9, 7))
    runs = {
        tuple(a[i:j]) for i, j in itertools.combinations(range(len(a) + 1), 2)
    }
    longest = max(
        (
            j - i
            for i, j in itertools.combinations(range(len(b) + 1), 2)
            if tuple(b[i:j]) in runs
        ),
        default=0,
    )
    assert span_metrics.longest_common_run(a, b) == longest


def test_both_layouts_give_the_same_rows(tmp_path):
    old = [
        {
            "context_id": paragraph["id"],
            "context_text": paragraph["context"],
            "qas": [
                {
                    "query_id": qa["id"],
                    "query_text": qa["question"],
                    "answers": [a["text"] for a in qa["answers"]],
                }
                for qa in paragraph["qas"]
            ],
        }
        for article in QUESTIONS["data"]
        for paragraph in article["paragraphs"]
    ]
    (tmp_path / "old").mkdir()
    write(tmp_path / "old" / "cmrc2018_dev.json", old)
    new = TASK.read(write_cmrc(tmp_path / "new"), "dev")
    assert TASK.read(tmp_path / "old", "dev") == new
    assert new[1].answers == (("学校", 9),)


def test_misplaced_answers_are_found_again_or_counted(tmp_path):
    document = squad(
        (
            "他说足球，小明爱踢足球。",
            [("甲", [("足球", 8)]), ("乙", [("篮球", -1)])],
        )
    )
    report = ReadingReport()
    rows = TASK.read(
        write(tmp_path / "dev.json", document), "dev", report=report
    )
    assert rows[0].answers == (("足球", 9),)  # the nearer of two places
    assert rows[1].answers == (("篮球", -1),)
    assert sum(report.notes.values()) == 3
    tokenizer = Tokenizer(write_vocab(tmp_path))
    lengths = base.Lengths(max_seq_length=32)
    trained = TASK.encode(rows, tokenizer, lengths, training=True)
    assert {example.row for example in trained} == {0}
    # ... but all questions are answered and scored.
    assert {e.row for e in TASK.encode(rows, tokenizer, lengths)} == {0, 1}


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"answers": []}, "holds no answer"),
        ({"question": None}, "`question` must be of type str"),
        ({"answers": [{"answer_start": 1}]}, "field `text` is missing"),
    ],
)
def test_bad_questions_are_named(tmp_path, change, reason):
    document = squad(("小明爱踢足球", [("甲", [("足球", 4)])]))
    document["data"][0]["paragraphs"][0]["qas"][0].update(change)
    folder = write(tmp_path / "dev.json", document)
    with pytest.raises(UserError) as error:
        TASK.read(folder, "dev")
    assert "dev.json, article 1, question P0_Q0: " in str(error.value)
    assert reason in str(error.value)


def test_not_a_squad_file(tmp_path):
    with pytest.raises(UserError, match="is it a SQuAD file"):
        TASK.read(write(tmp_path / "dev.json", {"rows": []}), "dev")
    with pytest.raises(UserError, match="article 1: not in the SQuAD"):
        TASK.read(write(tmp_path / "dev.json", [{"text": ""}]), "dev")


@pytest.mark.parametrize("max_seq_length, stride", [(64, 9), (20, 5), (16, 2)])
def test_windows_find_the_answer(tmp_path, max_seq_length, stride):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    rows = TASK.read(write_cmrc(tmp_path), "dev")
    lengths = base.Lengths(
        max_seq_length=max_seq_length,
        max_query_length=6,
        doc_stride=stride,
        n_best=3,
    )
    examples = TASK.encode(rows, tokenizer, lengths)
    assert all(e.length <= max_seq_length for e in examples)
    if max_seq_length < 20:
        assert len(examples) > len(rows)
    predictions = TASK.decode(rows, examples, perfect_logits(examples), lengths)
    assert [p["answer"] for p in predictions] == [
        "足球",
        "学校",
        "北京",
        "很好",
    ]
    assert TASK.score(rows, predictions) == {
        "f1": 1.0, "em": 1.0, "average": 1.0, "rows": 4,
    }  # fmt: skip
    best = predictions[0]["n_best"]
    assert len(best) == 3
    assert best[0]["probability"] > 0.5
    assert len({(b["start"], b["end"]) for b in best}) == 3


def test_of_a_span_in_two_windows_the_better_score_stands(tmp_path):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    rows = TASK.read(write_cmrc(tmp_path), "dev")[:1]
    lengths = base.Lengths(
        max_seq_length=18, max_query_length=6, doc_stride=3, n_best=3
    )
    examples = TASK.encode(rows, tokenizer, lengths)
    assert len(examples) > 1
    place = rows[0].answers[0][1]
    for better in (0, 1):
        logits = []
        for number, example in enumerate(examples):
            values = np.zeros([example.length, 2])
            token = example.origin.first_token + place
            token -= example.origin.window.start
            if number < 2 and token + 1 < example.length - 1:
                values[token, 0] = values[token + 1, 1] = 5 + (number == better)
            logits.append(values)
        (prediction,) = TASK.decode(rows, examples, logits, lengths)
        assert prediction["answer"] == "足球"
        best = prediction["n_best"]
        assert best[0]["score"] == 12.0
        assert [b["score"] for b in best] == sorted(
            (b["score"] for b in best), reverse=True
        )
        scores = np.array([b["score"] for b in best])
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(
            [b["probability"] for b in best], expected, atol=1e-6
        )


def test_a_window_that_cuts_the_answer_has_none(tmp_path):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    document = squad(("今天天气很好。", [("天气", [("天气很好", 2)])]))
    rows = TASK.read(write(tmp_path / "dev.json", document), "dev")
    lengths = base.Lengths(max_seq_length=9, doc_stride=1)
    examples = TASK.encode(rows, tokenizer, lengths, training=True)
    windows = [(e.origin.window.start, e.origin.window.end) for e in examples]
    assert windows == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert [e.label for e in examples] == [
        NO_ANSWER,
        NO_ANSWER,
        (4, 7),
        NO_ANSWER,
    ]


def test_a_long_question_is_cut(tmp_path):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    document = squad(("今天天气很好。", [("今天天气如何" * 9, [("很好", 4)])]))
    rows = TASK.read(write(tmp_path / "dev.json", document), "dev")
    lengths = base.Lengths(max_seq_length=24, max_query_length=5)
    (example,) = TASK.encode(rows, tokenizer, lengths)
    tokens = tokenizer.ids_to_tokens(example.sequences[0].ids)
    assert (
        tokens
        == "[CLS] 今 天 天 气 如 [SEP] 今 天 天 气 很 好 。 [SEP]".split()
    )


@pytest.mark.parametrize(
    "sign", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
)
def test_each_sign_of_the_official_list_is_passed_over(sign):
    assert span_metrics.exact_match([f"足{sign}球"], "足球") == 1.0
    assert span_metrics.segments(f"足{sign}球") == ["足", "球"]


@pytest.mark.parametrize("sign", "….,()%'\"‘—【】")
def test_no_other_sign_is(sign):
    assert span_metrics.exact_match([f"足{sign}球"], "足球") == 0.0


@pytest.mark.parametrize("max_seq_length", [5, 6, 16, 64, 128])
@pytest.mark.parametrize("max_query_length", [1, 64, 1000])
def test_a_long_question_leaves_half_to_the_text(
    tmp_path, max_seq_length, max_query_length
):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    row = QuestionRow("1", "小" * 300, "明爱踢足球" * 9)
    lengths = base.Lengths(
        max_seq_length=max_seq_length, max_query_length=max_query_length
    )
    examples = TASK.encode([row], tokenizer, lengths)
    room = min(max_query_length, (max_seq_length - 3) // 2)
    assert {e.origin.first_token for e in examples} == {room + 2}
    assert all(e.length <= max_seq_length for e in examples)
    seen = set()
    for example in examples:
        seen |= set(
            range(example.origin.window.start, example.origin.window.end)
        )
    assert seen == set(range(45))


def test_spans_against_all_pairs(tmp_path):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    rows = TASK.read(write_cmrc(tmp_path), "dev")[:1]
    lengths = base.Lengths(max_seq_length=64, max_answer_length=3, n_best=1)
    (example,) = TASK.encode(rows, tokenizer, lengths)
    logits = np.random.default_rng(0).normal(size=[example.length, 2])
    first = example.origin.first_token
    offsets = example.origin.offsets
    pairs = [
        (i, j)
        for i in range(len(offsets))
        for j in range(i, min(i + 3, len(offsets)))
    ]
    i, j = max(
        pairs, key=lambda p: logits[first + p[0], 0] + logits[first + p[1], 1]
    )
    (prediction,) = TASK.decode(rows, [example], [logits], lengths)
    assert (
        prediction["answer"] == rows[0].context[offsets[i][0] : offsets[j][1]]
    )


def test_real_files(shared):
    report = ReadingReport()
    rows = TASK.read(shared / "datasets" / "cmrc2018", "dev", report=report)
    assert len(rows) == 3219
    # As counted by others: 200 answers out of place, 193 of them nowhere.
    assert sorted(report.notes.values()) == [7, 193]
