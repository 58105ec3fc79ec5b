"""Files of C3 and ChID in all their layouts; bad rows by name."""

import json

import pytest
from task_samples import IDIOMS

from albert_tf2.errors import UserError
from albert_tf2.tasks import registry
from albert_tf2.tasks.choice_files import ChoiceRow
from albert_tf2.tasks.reading import ReadingReport


def read(folder, content, task, name, **settings):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, "utf-8")
    split = "test" if "test" in name else "dev"
    report = ReadingReport()
    return registry.create(task).read(folder, split, report=report, **settings)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


# --- C3


QUESTION = {
    "question": "天气如何？",
    "choice": ["很好", "很坏"],
    "answer": "很好",
}
FLAT = {**QUESTION, "id": "q", "context": ["今天天气很好。", "晚上也是。"]}
EXPECTED = ("今天天气很好。\n晚上也是。", "天气如何？", ("很好", "很坏"), 0)


@pytest.mark.parametrize(
    "content",
    [
        [[FLAT["context"], [QUESTION], "d1"]],
        [[FLAT["context"], [QUESTION]]],
        [FLAT],
        lines(FLAT),
        lines({**FLAT, "context": EXPECTED[0]}),
        lines({**FLAT, "answer": 0}),
        lines({**FLAT, "choice": None, "options": FLAT["choice"]}).replace(
            '"choice": null, ', ""
        ),
    ],
)
def test_c3_layouts(tmp_path, content):
    (row,) = read(tmp_path, content, "c3", "dev.json")
    assert (row.context, row.question, row.choices, row.label) == EXPECTED


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"choice": 2}, "`choice` must be of type list. Received: 2"),
        ({"choice": [1, 2]}, "must be a list of strings"),
        ({"choice": ["很好", None]}, "must be a list of strings"),
        ({"choice": list("甲乙丙丁戊")}, "has 5 choices, and C3 has 2 to 4"),
        ({"answer": 2}, "answer 2 is none of the choices"),
        ({"answer": True}, "answer True is none"),
        ({"answer": None}, "answer None is none"),
        ({"question": 5}, "`question` must be of type str"),
    ],
)
def test_c3_bad_questions(tmp_path, change, reason):
    content = [[["今天"], [QUESTION, {**QUESTION, **change}], "d"]]
    with pytest.raises(UserError) as error:
        read(tmp_path, content, "c3", "dev.json")
    assert "dev.json, document 1, question 2: " in str(error.value)
    assert reason in str(error.value)
    rows = read(tmp_path, content, "c3", "test.json", on_error="skip")
    assert len(rows) == 2


@pytest.mark.parametrize(
    "content, reason",
    [
        ("12", "must hold a list of JSON. Received: a number"),
        ("[5]", "document 1: must be [[lines], [questions], id]"),
        ('[["甲", [], "d"]]', "document 1: must be"),
        ('[[[5], [], "d"]]', "document 1: must be"),
        ('[[["甲"], [5], "d"]]', "question 1: a question must be"),
        (
            '[{"question": "甲", "choice": ["a", "b"], "answer": "a"}]',
            "context",
        ),
    ],
)
def test_c3_bad_documents(tmp_path, content, reason):
    with pytest.raises(UserError) as error:
        read(tmp_path, content, "c3", "dev.json")
    assert reason in str(error.value)


def test_overview_counts_choices(tmp_path):
    more = {"question": "甲", "choice": ["a", "b", "c"], "answer": "c"}
    content = [[["今天"], [QUESTION, QUESTION, more], "d"]]
    rows = read(tmp_path, content, "c3", "dev.json")
    assert registry.create("c3").overview(rows, rows, []) == [
        "questions: 2 choices (2), 3 choices (1)",
        "baseline: always choice 1: train accuracy 0.6667, dev accuracy 0.6667",
    ]


# --- ChID


PASSAGE = "他#idiom000001#，那家公司#idiom000002#。"
TAGS = ("#idiom000001#", "#idiom000002#")


def test_chid_in_clue(tmp_path):
    row = {"candidates": IDIOMS, "content": [PASSAGE]}
    (tmp_path / "dev_answer.json").write_text(
        json.dumps({TAGS[0]: 3, TAGS[1]: 0})
    )
    rows = read(tmp_path, lines(row), "chid", "dev.json")
    assert rows == [
        ChoiceRow(tag, PASSAGE, tag, tuple(IDIOMS), label, 0)
        for tag, label in zip(TAGS, (3, 0), strict=True)
    ]


def test_chid_in_fewclue(tmp_path):
    rows = [
        {
            "id": i,
            "candidates": IDIOMS[:7],
            "content": f"他#idiom#{i}",
            "answer": i,
        }
        for i in (1, 0)
    ]
    found = read(tmp_path, lines(*rows), "chid", "dev_few_all.json")
    assert [(row.row_id, row.label) for row in found] == [(1, 1), (0, 0)]
    assert found[0].question == "#idiom#" and len(found[0].choices) == 7
    assert len({row.group for row in found}) == 2
    for row in rows:
        del row["answer"]
    found = read(tmp_path, lines(*rows), "chid", "test.json")
    assert [(row.row_id, row.label) for row in found] == [(1, None), (0, None)]


def test_chid_as_its_authors_and_as_datasets_have_it(tmp_path):
    row = {"content": PASSAGE, "candidates": [IDIOMS[:4], IDIOMS[4:8]],
           "groundTruth": [IDIOMS[2], IDIOMS[4]], "realCount": 2}  # fmt: skip
    rows = read(tmp_path, lines(row), "chid", "dev_data.txt")
    assert [row.label for row in rows] == [2, 0]
    assert rows[1].choices == tuple(IDIOMS[4:8])
    # Each blank has candidates of its own: they need not differ.
    assert rows[0].group != rows[1].group
    row = {"candidates": IDIOMS, "content": [PASSAGE], "answers": {
        "text": [IDIOMS[3], IDIOMS[1]], "candidate_id": [3, 1]}}  # fmt: skip
    rows = read(tmp_path, lines(row), "chid", "dev.json")
    assert [row.label for row in rows] == [3, 1]
    assert rows[0].group == rows[1].group


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"candidates": IDIOMS[:1]}, "has 1 candidates"),
        ({"candidates": IDIOMS * 2}, "has 20 candidates, and ChID has 2 to 10"),
        ({"candidates": [*IDIOMS[:6], 7]}, "must be a list of strings"),
        ({"candidates": [IDIOMS[:4]] * 2}, "has 2 candidates for 1 blanks"),
        ({"content": 5}, "must be a text or a list of texts"),
        ({"content": [5]}, "must be a text or a list of texts"),
        ({"content": "他"}, "has no blank"),
        ({"content": "他#idiom#和#idiom#"}, "answers for 2 blanks"),
        ({"answer": 7}, "answer 7 is not in 0..6"),
        ({"answer": "1"}, "answer '1' is not in 0..6"),
        ({"answer": True}, "answer True is not in"),
        ({"answer": None}, "blank #idiom# is not in the file of answers"),
    ],
)
def test_chid_bad_rows(tmp_path, change, reason):
    row = {
        "id": 1,
        "candidates": IDIOMS[:7],
        "content": "他#idiom#",
        "answer": 1,
    }
    with pytest.raises(UserError) as error:
        read(tmp_path, lines(row, {**row, **change}), "chid", "dev.json")
    assert "dev.json, line 2: " in str(error.value)
    assert reason in str(error.value)


def test_chid_without_answers(tmp_path):
    row = {"candidates": IDIOMS, "content": [PASSAGE]}
    with pytest.raises(UserError) as error:
        read(tmp_path, lines(row), "chid", "dev.json")
    assert "dev_answer.json does not lie beside it" in str(error.value)
    (tmp_path / "dev_answer.json").write_text("[]")
    with pytest.raises(UserError, match="must hold an object"):
        read(tmp_path, lines(row), "chid", "dev.json")
