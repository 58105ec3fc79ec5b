"""Files of questions: every layout, answers out of place, none at all."""

import json

import numpy as np
import pytest
from task_samples import squad, write_vocab

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, registry
from albert_tf2.tasks.reading import ReadingReport
from albert_tf2.tasks.reading_comprehension import NO_ANSWER
from albert_tf2.text.tokenization import Tokenizer

CONTEXT = "小明爱踢足球，他去学校上课。"
QUESTION, ANSWER = "小明爱踢什么", [("足球", 4)]
FLAT = {"id": "q1", "context": CONTEXT, "question": QUESTION}


def write(folder, content, name="dev.json"):
    if isinstance(content, list) and name.endswith(".jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, "utf-8")


def read(folder, content, task="cmrc2018", name="dev.json", **settings):
    write(folder, content, name)
    report = ReadingReport()
    task = registry.create(task)
    split = name.partition(".")[0]
    return task.read(folder, split, report=report, **settings), report


LAYOUTS = {
    "squad": squad((CONTEXT, [(QUESTION, ANSWER)])),
    "columns of answers": {
        "data": [{"paragraphs": [{"context": CONTEXT, "qas": [
            {**FLAT, "answers": {"text": ["足球"], "answer_start": [4]}}]}]}],
    },
    "one column": [{**FLAT, "answers": {"text": "足球", "answer_start": 4}}],
    "flat list": [{**FLAT, "answers": [{"text": "足球", "answer_start": 4}]}],
    "no start": [{**FLAT, "answers": {"text": ["足球"]}}],
    "plain": [{**FLAT, "answers": ["足球"]}],
    "one": [{**FLAT, "answer": "足球"}],
    "cmrc": [{"context_id": "D", "context_text": CONTEXT, "qas": [
        {"query_id": "q1", "query_text": QUESTION, "answers": ["足球"]}]}],
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("task", ["cmrc2018", "qa"])
def test_layouts(tmp_path, layout, task):
    rows, _ = read(tmp_path, LAYOUTS[layout], task)
    assert rows[0].answers == (("足球", 4),)
    assert (rows[0].question, rows[0].context) == (QUESTION, CONTEXT)


def test_a_question_per_line_as_datasets_writes_it(tmp_path):
    answers = {"text": ["足球", "踢足球"], "answer_start": [4, 3]}
    lines = [{**FLAT, "answers": answers}, {**FLAT, "id": "q2", "answers": []}]
    rows, _ = read(tmp_path, lines[:1], name="dev.jsonl", task="qa")
    assert rows[0].answers == (("足球", 4), ("踢足球", 3))
    # `to_json` writes lines under .json too.
    text = "".join(json.dumps(line) + "\n" for line in lines[:1])
    rows, _ = read(tmp_path, text)
    assert rows[0].answers == (("足球", 4), ("踢足球", 3))


@pytest.mark.parametrize(
    "document, reason",
    [
        ("12", "has no list `data`, nor is it a list"),
        ("null", "has no list `data`"),
        ('{"data": 5}', "has no list `data`"),
        ('{"data": [5]}', "article 1: not a JSON object"),
        ('{"data": [{"paragraphs": 5}]}', "a paragraph must be a JSON object"),
        ('{"data": [{"paragraphs": [{"context": "甲"}]}]}', "a list `qas`"),
        ('[{"paragraphs": [{"context": "甲", "qas": [5]}]}]', "question must"),
        ('[{"paragraphs": [{"context": 5, "qas": [{"question": "q", "answers"'
         ': []}]}]}]', "`context` must be of type str"),
        ('[{"title": "t"}]', "article 1: not in the SQuAD layout"),
        ('{"data": [', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)  # fmt: skip
def test_bad_documents(tmp_path, document, reason):
    with pytest.raises(UserError) as error:
        read(tmp_path, document)
    assert "dev.json" in str(error.value) and reason in str(error.value)


@pytest.mark.parametrize(
    "answers, reason",
    [
        ([None], "an answer must have `text`"),
        ([5], "an answer must have `text`"),
        ({"text": 5}, "must hold a list `text`"),
        (
            {"text": ["a", "b"], "answer_start": [1]},
            "holds 2 texts and 1 starts",
        ),
        ({"answer_start": [1]}, "must hold a list `text`"),
        (5, "`answers` must be a list. Received: 5"),
        ([{"text": None}], "`text` must be of type str"),
        ([{"text": " "}], "question q1: holds no answer"),
        ([], "question q1: holds no answer"),
        (None, "question q1: field `answers` is missing"),
    ],
)
def test_bad_answers_are_named_once(tmp_path, answers, reason):
    document = squad((CONTEXT, [(QUESTION, ANSWER)]))
    question = document["data"][0]["paragraphs"][0]["qas"][0]
    question.update(id="q1", answers=answers)
    with pytest.raises(UserError) as error:
        read(tmp_path, document)
    assert reason in str(error.value)
    assert str(error.value).count("question q1") == 1
    rows, report = read(tmp_path, document, name="test.json", on_error="skip")
    assert len(rows) == 1 and rows[0].answers is None


@pytest.mark.parametrize("start", ["4", None, 4.0, True, 99, -1])
def test_a_start_that_is_wrong_is_looked_for(tmp_path, start):
    answers = [{"text": "足球", "answer_start": start}]
    rows, report = read(tmp_path, [{**FLAT, "answers": answers}])
    assert rows[0].answers == (("足球", 4),) and sum(report.notes.values()) == 1


# --- questions without an answer in their text


UNANSWERABLE = [
    {**FLAT, "answers": [{"text": "足球", "answer_start": 4}]},
    {**FLAT, "id": "q2", "question": "他去哪里", "answers": [],
     "is_impossible": True},
    {**FLAT, "id": "q3", "answers": {"text": [], "answer_start": []}},
]  # fmt: skip


def prepared(folder):
    write(folder, UNANSWERABLE, "train.jsonl")
    write(folder, UNANSWERABLE, "dev.jsonl")
    task = registry.create("qa")
    task.prepare(folder, on_error="fail")
    return task


def test_unanswerable_questions_are_read_and_travel(tmp_path):
    task = prepared(tmp_path)
    rows = task.read(tmp_path, "dev")
    assert [row.answers for row in rows] == [(("足球", 4),), (), ()]
    again = registry.from_description(json.loads(json.dumps(task.describe())))
    assert again.has_unanswerable
    assert task.overview(rows, rows, [])[0].endswith(
        "2 have none in their text"
    )
    assert "never answering: dev f1 0.6667" in task.overview(rows, rows, [])[1]
    write(tmp_path, UNANSWERABLE[:1], "train.jsonl")
    task.prepare(tmp_path, on_error="fail")
    assert not task.has_unanswerable


def test_empty_answers_all_over_a_test_file_hide_them(tmp_path):
    hidden = [
        {**row, "answers": [], "is_impossible": False} for row in UNANSWERABLE
    ]
    rows, _ = read(tmp_path, hidden, "qa", "test.jsonl")
    assert [row.answers for row in rows] == [None] * 3


@pytest.mark.parametrize("sure", [0.5, -0.5])
def test_no_answer_is_a_span_at_cls(tmp_path, sure):
    task = prepared(tmp_path)
    tokenizer = Tokenizer(write_vocab(tmp_path))
    lengths = base.Lengths(max_seq_length=16, max_query_length=6, doc_stride=4)
    rows = task.read(tmp_path, "dev")
    examples = task.encode(rows, tokenizer, lengths, training=True)
    assert {example.row for example in examples} == {0, 1, 2}
    labels = {example.label for example in examples if example.row}
    assert labels == {NO_ANSWER}
    # Of all windows the one that is least sure of "no answer" decides.
    logits = []
    for example in examples:
        values = np.zeros([example.length, 2])
        first = example.origin.window.start == 0
        values[0] = 3 if not first else 1 + sure / 2
        values[example.origin.first_token, 0] = 1
        values[example.origin.first_token + 1, 1] = 1
        logits.append(values)
    predictions = task.decode(rows, examples, logits, lengths)
    for prediction in predictions:
        assert (prediction["answer"] == "") == (sure > 0)
        (none,) = [b for b in prediction["n_best"] if b["start"] == -1]
        assert none["score"] == pytest.approx(2 + sure)
    assert sum(b["probability"] for b in prediction["n_best"]) == (
        pytest.approx(1, abs=1e-4)
    )
    figures = task.score(rows, predictions)
    assert figures["unanswerable_accuracy"] == float(sure > 0)


def test_answers_stay_within_the_text_without_such_questions(tmp_path):
    task = registry.create("cmrc2018")
    tokenizer = Tokenizer(write_vocab(tmp_path))
    rows, _ = read(tmp_path, UNANSWERABLE[:1])
    lengths = base.Lengths(max_seq_length=32)
    examples = task.encode(rows, tokenizer, lengths)
    logits = [np.zeros([example.length, 2]) for example in examples]
    logits[0][0] = 9
    (prediction,) = task.decode(rows, examples, logits, lengths)
    assert prediction["answer"] and prediction["start"] >= 0
