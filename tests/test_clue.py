"""CLUE submissions: names, order, counts, labels, the zip."""

import datetime
import json
import types
import zipfile
from pathlib import Path

import pytest
import task_samples as samples

from albert_tf2 import clue_submission
from albert_tf2.errors import UserError
from albert_tf2.tasks import clue, registry


def test_file_names():
    names = {task: clue.file_name(task) for task in clue.SUBMITTED}
    assert names["ocnli"] == "ocnli_50k_predict.json"
    assert names["wsc"] == "cluewsc11_predict.json"
    assert names["cmrc2018"] == "cmrc2018_predict.json"
    assert names["chid"] == "chid11_predict.json"
    assert clue.file_name("tnews", "1.0") == "tnews10_predict.json"
    assert clue.file_name("c3", "1.0") == "c310_predict.json"
    with pytest.raises(UserError, match="CLUE has no task `lcqmc`"):
        clue.file_name("lcqmc")


@pytest.fixture
def tnews(tmp_path):
    """A folder of test rows, and right predictions for them."""
    folder = tmp_path / "tnews"
    rows = [{"id": 5 - i, "sentence": f"第{i}条"} for i in range(3)]
    samples.write_lines(folder / "test1.1.json", rows)
    predictions = [
        {"id": row["id"], "label": "100", "probability": 0.5} for row in rows
    ]
    return folder, predictions


def submit(tmp_path, name, folder, predictions, **settings):
    path = samples.write_lines(tmp_path / "p" / f"{name}.jsonl", predictions)
    written = clue.write_submission(
        {name: (path, folder)},
        tmp_path / "out",
        team="albert",
        date=datetime.date(2026, 1, 2),
        **{"any_size": True, **settings},
    )
    return Path(written)


def test_lines_keep_the_order_of_the_test_file(tmp_path, tnews):
    path = submit(tmp_path, "tnews", *tnews)
    assert path.name == "submit_albert_20260102.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["tnews11_predict.json"]
        inside = archive.read("tnews11_predict.json")
    assert inside == (path.parent / "tnews11_predict.json").read_bytes()
    assert [json.loads(line) for line in inside.decode().splitlines()] == [
        {"id": n, "label": "100"} for n in (5, 4, 3)
    ]


@pytest.mark.parametrize(
    "break_it, reason",
    [
        (lambda p: p.pop(), "2 predictions for 3 test rows"),
        (lambda p: p.reverse(), "the order must be that of the test file"),
        (lambda p: p[1].update(id=0), "has id 0, and the test row 4"),
        (lambda p: p[1].update(label=3), "never class indices"),
        (lambda p: p[1].update(label="105"), "label '105' is not one of"),
    ],
)
def test_what_would_score_nothing_is_refused(tmp_path, tnews, break_it, reason):
    folder, predictions = tnews
    break_it(predictions)
    with pytest.raises(UserError, match=reason):
        submit(tmp_path, "tnews", folder, predictions)
    assert not (tmp_path / "out").exists()


def test_rows_of_the_official_files():
    """As CLUE publishes them; WSC alone differs between the versions."""
    rows = {task: counts["1.1"] for task, counts in clue.TEST_ROWS.items()}
    assert rows == {
        "afqmc": 3861, "tnews": 10000, "iflytek": 2600, "cmnli": 13880,
        "ocnli": 3000, "wsc": 2574, "csl": 3000, "cluener": 1345,
    }  # fmt: skip
    changed = {t for t, n in clue.TEST_ROWS.items() if n["1.0"] != n["1.1"]}
    assert changed == {"wsc"} and clue.TEST_ROWS["wsc"]["1.0"] == 290


def wsc_rows(folder, name, count):
    row = {
        "text": "小明说他去了",
        "target": {"span1_text": "小明", "span1_index": 0,
                   "span2_text": "他", "span2_index": 3},
    }  # fmt: skip
    samples.write_lines(folder / name, [{**row, "id": i} for i in range(count)])
    return [{"id": i, "label": "true"} for i in range(count)]


def test_wsc_is_answered_from_the_file_that_finetune_reads(tmp_path):
    folder = tmp_path / "wsc"
    predictions = wsc_rows(folder, "test_public.json", 3)
    path = submit(tmp_path, "wsc", folder, predictions)
    assert (path.parent / "cluewsc11_predict.json").is_file()


def test_each_version_has_its_own_test_file(tmp_path):
    folder = tmp_path / "wsc"
    predictions = wsc_rows(folder, "test1.0.json", 3)
    with pytest.raises(UserError, match="no test file of task wsc"):
        submit(tmp_path, "wsc", folder, predictions)
    wsc_rows(folder, "test.json", 4)
    wsc_rows(folder, "test1.1.json", 5)
    for version, count in (("1.0", 3), ("1.1", 5)):
        task, rows = clue.read_test_rows("wsc", folder, version)
        assert len(rows) == count
    with pytest.raises(UserError, match="has 290 rows, this one 3"):
        submit(
            tmp_path, "wsc", folder, predictions, version="1.0", any_size=False
        )


def test_another_versions_test_file_is_refused(tmp_path, tnews):
    with pytest.raises(UserError, match="has 10000 rows, this one 3"):
        submit(tmp_path, "tnews", *tnews, any_size=False)


def test_another_label_set_is_refused(tmp_path, tnews):
    samples.write_lines(
        tnews[0] / "labels.json", [{"label": "0"}, {"label": "1"}]
    )
    with pytest.raises(UserError, match="is not the label set"):
        submit(tmp_path, "tnews", *tnews)


def test_bad_test_rows_still_have_their_line(tmp_path, tnews):
    folder, predictions = tnews
    rows = (folder / "test1.1.json").read_text("utf-8").splitlines()
    rows[1] = '{"id": 4}'
    (folder / "test1.1.json").write_text("\n".join(rows), "utf-8")
    submit(tmp_path, "tnews", folder, predictions)


def test_cmrc_is_one_object(tmp_path):
    folder = samples.write_cmrc(tmp_path / "cmrc")
    answers = {"P0_Q0": "足球", "P0_Q1": "学校", "P1_Q0": "北京", "P2_Q0": "好"}
    predictions = [{"id": k, "answer": v} for k, v in answers.items()]
    path = submit(tmp_path, "cmrc2018", folder, predictions)
    written = (path.parent / "cmrc2018_predict.json").read_text("utf-8")
    assert json.loads(written) == answers
    predictions[0]["answer"] = "篮球"
    with pytest.raises(UserError, match="does not stand in the text"):
        clue.write_submission(
            {
                "cmrc2018": (
                    samples.write_lines(tmp_path / "x.jsonl", predictions),
                    folder,
                )
            },
            tmp_path / "other",
            team="albert",
        )


def test_chid_tags_map_to_integers_that_differ(tmp_path):
    folder = samples.write_chid(tmp_path / "chid")
    predictions = [
        {"id": f"#idiom{i:06d}#", "label": label}
        for i, label in enumerate([3, 4, 5, 3], 1)
    ]
    path = submit(tmp_path, "chid", folder, predictions)
    written = json.loads((path.parent / "chid11_predict.json").read_text())
    assert written["#idiom000002#"] == 4
    predictions[1]["label"] = 3
    with pytest.raises(UserError, match="chose the same idiom"):
        submit(tmp_path, "chid", folder, predictions)


def test_c3_choices(tmp_path):
    folder = samples.write_c3(tmp_path / "c3")
    predictions = [{"id": i, "label": 1} for i in range(3)]
    path = submit(tmp_path, "c3", folder, predictions)
    text = (path.parent / "c311_predict.json").read_text()
    assert text.splitlines()[0] == '{"id": 0, "label": 1}'
    predictions[0]["label"] = 2  # the first question has two choices
    with pytest.raises(UserError, match=r"choice 2 is not in 0\.\.1"):
        submit(tmp_path, "c3", folder, predictions)


def test_cluener_counts_the_last_character_in(tmp_path):
    folder = samples.write_cluener(tmp_path / "ner")
    entity = {"type": "company", "text": "浙商银行", "start": 0, "end": 4}
    predictions = [
        {"id": 0, "entities": [entity]},
        *({"id": i, "entities": []} for i in (1, 2, 3)),
    ]
    path = submit(tmp_path, "cluener", folder, predictions)
    first = (path.parent / "cluener_predict.json").read_text("utf-8")
    assert json.loads(first.splitlines()[0])["label"] == {
        "company": {"浙商银行": [[0, 3]]}
    }
    entity["end"] = 5
    with pytest.raises(UserError, match="does not stand at 0:5"):
        submit(tmp_path, "cluener", folder, predictions)


def test_command_line(tmp_path, tnews, capsys):
    folder, predictions = tnews
    path = samples.write_lines(tmp_path / "test.jsonl", predictions)
    argv = [
        "--team", "albert", "--output_dir", str(tmp_path / "out"),
        "--any_size", "--add", "tnews", str(path), str(folder),
    ]  # fmt: skip
    assert clue_submission.main(argv) == 0
    assert "submit_albert_" in capsys.readouterr().out
    with pytest.raises(UserError, match="already exists"):
        clue_submission.main(argv)
    with pytest.raises(UserError, match="twice"):
        clue_submission.main([*argv, "--add", "tnews", str(path), str(folder)])


@pytest.mark.parametrize("label", [True, 2, -1, "0"])
def test_a_choice_is_the_number_of_one(tmp_path, label):
    task = registry.create("c3")
    row = types.SimpleNamespace(row_id=7, choices=("是", "否"))
    clue.check(task, [row], [{"id": 7, "label": 1}])
    with pytest.raises(UserError, match="is not in 0..1"):
        clue.check(task, [row], [{"id": 7, "label": label}])
