"""Right and wrong by class, intervals, two runs beside each other."""

import json
import shutil

import numpy as np
import pytest
import task_samples as samples
from hypothesis import given, settings
from hypothesis import strategies as st

from albert_tf2 import UserError, compare, finetune
from albert_tf2.finetuning import report
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.tasks import outcomes, registry
from albert_tf2.tasks.outcomes import Outcome


def single(expected, found, probability=None, row=0):
    return Outcome(
        row, frozenset([(expected, "")]), frozenset([(found, "")]), probability
    )


LABELS = st.sampled_from("甲乙丙丁")
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=30)
SETS = st.frozensets(LABELS)


@settings(deadline=None)  # the first example loads scikit-learn
@given(PAIRS)
def test_single_labels_equal_scikit_learn(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    found = [single(*pair) for pair in pairs]
    gold, guess = zip(*pairs, strict=True)
    assert outcomes.micro_f1(found) == pytest.approx(
        metrics.accuracy_score(gold, guess)
    )
    expected = metrics.classification_report(
        gold, guess, output_dict=True, zero_division=0
    )
    table = outcomes.by_class(found)
    assert [row["f1"] for row in table] == sorted(row["f1"] for row in table)
    assert {row["class"] for row in table} == set(gold) | set(guess)
    for row in table:
        theirs = expected[row["class"]]
        assert row["rows"] == theirs["support"]
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"])
        )
    labels, counts = outcomes.confusion(found, "甲乙")
    assert labels[:2] == ["甲", "乙"]
    np.testing.assert_array_equal(
        counts, metrics.confusion_matrix(gold, guess, labels=labels)
    )


@settings(deadline=None)
@given(st.lists(st.tuples(SETS, SETS), min_size=1, max_size=20))
def test_several_labels_equal_the_tasks_own_figure(pairs):
    from albert_tf2.tasks.multi_label import multi_label_metrics

    found = [
        Outcome(0, frozenset((x, "") for x in a), frozenset((x, "") for x in b))
        for a, b in pairs
    ]
    wanted = multi_label_metrics(
        [(set(a), set(b)) for a, b in pairs], "甲乙丙丁"
    )
    assert outcomes.micro_f1(found) == pytest.approx(wanted["micro_f1"])
    right = sum(outcome.is_right for outcome in found) / len(found)
    assert right == pytest.approx(wanted["exact_match"])


def test_the_interval_is_that_of_a_loop_and_of_theory():
    rng = np.random.default_rng(3)
    right = rng.random(400) < 0.7
    found = [single("甲", "甲" if one else "乙") for one in right]
    low, high = outcomes.interval(found, seed=5)
    rng, means = np.random.default_rng(5), []
    for _ in range(outcomes.RESAMPLES):
        means.append(right[rng.integers(0, 400, 400)].mean())
    assert (low, high) == pytest.approx(
        tuple(np.quantile(means, [0.025, 0.975]))
    )
    error = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert (high - low) / 2 == pytest.approx(error, rel=0.1)
    assert outcomes.interval(found, seed=5) == (low, high)
    narrow = outcomes.interval(found, confidence=0.5)
    assert low < narrow[0] < right.mean() < narrow[1] < high


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 9))
def test_mcnemar_is_the_exact_binomial_test(first, second, both):
    stats = pytest.importorskip("scipy.stats")
    wrong = set(range(first)) | set(range(1_000, 1_000 + both))
    others = set(range(100, 100 + second)) | set(range(1_000, 1_000 + both))
    only_first, only_second, chance = outcomes.mcnemar(wrong, others)
    assert (only_first, only_second) == (first, second)
    wanted = 1.0
    if first + second:
        wanted = stats.binomtest(first, first + second).pvalue
    assert chance == pytest.approx(wanted, abs=1e-12)


def test_the_surest_errors_come_first():
    found = [
        single("甲", "乙", 0.6, row=0),
        single("甲", "甲", 0.9, row=1),
        single("甲", "丙", 0.8, row=2),
    ]
    assert [outcome.row for outcome in outcomes.errors(found)] == [2, 0]


def test_entities_are_counted_by_type():
    task = registry.create("ner", labels=["地名", "人名"])
    folder_row = samples_row("小明在北京", [(0, 2, "人名"), (3, 5, "地名")])
    answer = {
        "entities": [
            {"type": "人名", "start": 0, "end": 2, "probability": 0.9},
            {"type": "地名", "start": 2, "end": 5, "probability": 0.7},
        ]
    }
    (found,) = task.outcomes([folder_row], [answer])
    assert found.probability == 0.7
    assert not found.is_right
    table = {row["class"]: row for row in outcomes.by_class([found])}
    assert table["人名"]["f1"] == 1.0 and table["地名"]["f1"] == 0.0
    assert outcomes.micro_f1([found]) == pytest.approx(
        task.score([folder_row], [answer])["f1"]
    )


def samples_row(text, entities):
    from albert_tf2.tasks.bio import Entity
    from albert_tf2.tasks.ner_files import TaggedRow

    return TaggedRow(0, text, tuple(Entity(*entity) for entity in entities))


@pytest.mark.parametrize(
    "labels, fonts, shown",
    [
        (["no", "yes"], [], ["no", "yes"]),
        (["体育", "财经"], [], ["0", "1"]),
        (["体育", "财经"], ["SimHei"], ["体育", "财经"]),
    ],
)
def test_the_picture_has_labels_that_can_be_read(
    labels, fonts, shown, tmp_path, monkeypatch
):
    font_manager = pytest.importorskip("matplotlib.font_manager")
    from matplotlib.figure import Figure

    monkeypatch.setattr(font_manager, "get_font_names", lambda: fonts)
    drawn = []

    def look(figure, stream, **_):
        (axes,) = figure.axes
        drawn.extend(t.get_text() for t in axes.get_yticklabels())
        drawn.extend(t.get_text() for t in axes.texts)

    monkeypatch.setattr(Figure, "savefig", look)
    counts = np.array([[5, 1], [0, 3]])
    report.draw_confusion(labels, counts, tmp_path / "a.png")
    assert drawn == [*shown, "5", "1", "3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, checkpoint):
    """Two runs on the same rows, and one on others; and what they said."""
    folder = tmp_path_factory.mktemp("runs")
    task_name, said = "lcqmc", []
    samples.write_lcqmc(folder / "data")
    other = samples.write_lcqmc(folder / "other")
    lines = (other / "dev.txt").read_text("utf-8").splitlines()
    (other / "dev.txt").write_text("\n".join(lines[:-1]) + "\n", "utf-8")
    for name, data_dir, steps in [
        ("a", "data", 1),
        ("b", "data", 30),
        ("c", "other", 1),
    ]:
        recipe = FinetuneRecipe(
            max_seq_length=32,
            global_batch_size=4,
            learning_rate=3e-3,
            max_train_steps=steps,
        )
        task = registry.from_recipe(task_name, recipe)
        data = finetune.read_data(
            task, folder / data_dir, recipe, say=lambda line: None
        )
        finetune.fine_tune(
            task,
            data,
            init_checkpoint=str(checkpoint),
            recipe=recipe,
            workdir=folder / name,
            say=said.append,
        )
    return folder, said


def test_a_run_says_what_it_gets_wrong(runs):
    folder, said = runs
    results = json.loads((folder / "a" / "results.json").read_text())
    found, wrong = report.read(folder / "a", "dev")
    assert found["figure"] == "accuracy"
    assert found["value"] == pytest.approx(results["dev"]["accuracy"])
    assert found["low"] <= found["value"] <= found["high"]
    counts = np.array(found["confusion"]["counts"])
    assert counts.sum() == found["rows"] == results["dev"]["rows"]
    assert counts.sum() - np.trace(counts) == found["errors"] == len(wrong)
    lines = (folder / "a/report/dev_errors.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert {row["row"] for row in rows} == wrong
    assert rows and all(row["expected"] != row["found"] for row in rows)
    assert all(row["text_a"] and row["text_b"] for row in rows)
    surety = [row["probability"] for row in rows]
    assert surety == sorted(surety, reverse=True)
    picture = (folder / "a/report/dev_confusion.png").read_bytes()
    assert picture[1:4] == b"PNG"
    (line,) = [line for line in said if line.startswith("dev: ")][:1]
    assert "in 95 % of 1,000 resamples" in line and "worst class" in line


def test_two_runs_are_compared_on_the_same_rows(runs, capsys):
    folder, _ = runs
    compare.main([str(folder / "a"), str(folder / "b")])
    told = capsys.readouterr().out
    _, first = report.read(folder / "a", "dev")
    _, second = report.read(folder / "b", "dev")
    assert f"{len(first):,} rows wrong, {len(first - second)} of them" in told
    assert f"{len(second):,} rows wrong, {len(second - first)} of them" in told
    chance = outcomes.mcnemar(first, second)[2]
    assert f"McNemar p = {chance:.4g}: two equally good" in told
    with pytest.raises(UserError, match="were judged by other dev rows"):
        compare.main([str(folder / "a"), str(folder / "c")])
    (folder / "c" / "run.json").unlink()
    with pytest.raises(UserError, match="dev rows and .*: fine-tune both"):
        compare.main([str(folder / "a"), str(folder / "c")])


def test_a_folder_without_a_report_is_told(tmp_path, runs):
    folder, _ = runs
    with pytest.raises(UserError, match="is not a folder"):
        compare.main([str(tmp_path / "none"), str(folder / "a")])
    with pytest.raises(UserError, match="has no report of its dev rows"):
        compare.main([str(tmp_path), str(folder / "a")])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("dev.json", "{}", "dev.json: `figure` is damaged"),
        ("dev.json", "[]", "must hold an object"),
        ("dev_errors.jsonl", "{}", "line 1: `row` is damaged"),
        ("dev_errors.jsonl", '{"row": 0}\n{', "line 2: not valid JSON"),
    ],
)
def test_damaged_reports_are_told(runs, tmp_path, name, content, message):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0] / "a", copy)
    (copy / "report" / name).write_text(content)
    with pytest.raises(UserError, match=message):
        report.read(copy, "dev")
