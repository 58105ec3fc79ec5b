"""Tasks by name: published files as they are found, and tasks of one's own."""

import importlib.metadata
import json
import re
from pathlib import Path

import pytest
import task_samples as samples

from albert_tf2 import finetune
from albert_tf2.errors import UserError
from albert_tf2.tasks import base, registry
from albert_tf2.tasks.classification import Classification
from albert_tf2.tasks.reading import ReadingReport

DOCS = Path(__file__).parents[1] / "docs" / "finetuning.md"
PAIRS = samples.PAIRS


def read(folder, name, files, split="train"):
    for file, content in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8-sig")
    task = registry.create(name)
    task.prepare(folder, on_error="fail")
    report = ReadingReport()
    return task.read(folder, split, report=report), report


def rows(header=None, delimiter="\t", numbered=False, pairs=PAIRS):
    lines = [delimiter.join(header)] if header else []
    for number, pair in enumerate(pairs, 1):
        cells = [str(number), *pair] if numbered else pair
        lines.append(delimiter.join(cells))
    return "".join(line + "\n" for line in lines)


PAIR_FILES = {
    "lcqmc": {"train.tsv": rows(("text_a", "text_b", "label"))},
    "lcqmc without header": {"train.txt": rows()},
    "bq": {"train.csv": rows(("sentence1", "sentence2", "label"), ",")},
    "bq without header": {"train.tsv": rows()},
    "bq label first": {
        "train.csv": rows(
            ("label", "question1", "question2"),
            pairs=[(c, a, b) for a, b, c in PAIRS],
        )
    },
    "atec": {
        "atec_nlp_sim_train.csv": rows(numbered=True, pairs=PAIRS[:4]),
        "atec_nlp_sim_train_add.csv": rows(numbered=True, pairs=PAIRS[4:]),
    },
    "pawsx": {
        "translated_train.tsv": rows(
            ("id", "sentence1", "sentence2", "label"), numbered=True
        )
    },
    "pawsx in one folder": {"zh/translated_train.tsv": rows(numbered=True)},
}


@pytest.mark.parametrize("case", PAIR_FILES)
def test_published_pairs(tmp_path, case):
    found, _ = read(tmp_path, case.split()[0], PAIR_FILES[case])
    assert [(r.text_a, r.text_b, r.label) for r in found] == PAIRS


def test_a_pair_with_a_cell_too_many_is_named(tmp_path):
    with pytest.raises(UserError, match="line 9: expected .* 5 columns"):
        read(tmp_path, "bq", {"train.tsv": rows() + "甲\t乙\t丙\t丁\t1\n"})


REVIEWS = [("1", '房间"好"，很干净'), ("0", "服务差"), ("1", "不错")]
REVIEW_FILES = {
    "label and text": rows(("label", "text_a"), pairs=REVIEWS),
    "with an id": rows(("qid", "label", "text_a"), "\t", True, REVIEWS),
    "ChineseNlpCorpus": rows(("label", "review"), ",", pairs=REVIEWS),
    "no header": rows(pairs=REVIEWS),
    "label last": rows(pairs=[(b, a) for a, b in REVIEWS]),
}


@pytest.mark.parametrize("case", REVIEW_FILES)
def test_chnsenticorp(tmp_path, case):
    found, _ = read(tmp_path, "chnsenticorp", {"train.tsv": REVIEW_FILES[case]})
    assert [(row.label, row.text_a) for row in found] == REVIEWS


@pytest.mark.parametrize(
    "name", ["afqmc", "tnews", "iflytek", "ocnli", "csl", "wsc", "chid"]
)
@pytest.mark.parametrize(
    "split, file",
    [
        ("train", "train_few_all.json"),
        ("train", "train_0.json"),
        ("dev", "dev_few_all.json"),
        ("test", "test_public.json"),
        ("test", "test1.1.json"),
    ],
)
def test_the_family_of_clue_has_one_set_of_names(tmp_path, name, split, file):
    (tmp_path / file).touch()
    assert registry.create(name).find(tmp_path, split) == [str(tmp_path / file)]


def test_wsc_of_fewclue_has_labels_in_its_public_test_file(tmp_path):
    row = {
        "text": "小明说他去了",
        "target": {"span1_text": "小明", "span1_index": 0,
                   "span2_text": "他", "span2_index": 3},
        "idx": 0,
        "label": "true",
    }  # fmt: skip
    content = json.dumps(row) + "\n"
    found, _ = read(tmp_path, "wsc", {"test_public.json": content}, "test")
    assert found[0].label == "true"


def test_dummy_labels_of_published_test_files_are_told(tmp_path):
    lines = [
        {"id": i, "sentence": "甲", "label": label}
        for i, label in enumerate(["100", "-1", "-1"])
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    found, report = read(tmp_path, "tnews", {"test.json": content}, "test")
    assert [row.label for row in found] == ["100", None, None]
    assert sum(report.notes.values()) == 2


def test_nli_labels_stand_in_the_order_of_clue():
    for name in ("cmnli", "ocnli", "xnli"):
        assert registry.create(name).labels == (
            "contradiction",
            "entailment",
            "neutral",
        )


def test_old_names_lead_to_the_new_ones():
    assert registry.create("csv").name == "classification"
    assert registry.create("bio").name == "ner"
    for name in ("csv", "multi_label", "regression", "chnsenticorp"):
        assert registry.recipe_name(name) == "classification"
    assert registry.recipe_name("msra") == "ner"
    assert registry.recipe_name("bq") == "lcqmc"
    assert registry.recipe_name("tnews") == "tnews"


def test_a_misspelled_name():
    with pytest.raises(UserError, match="did you mean `multi_label`"):
        registry.create("multilabel")


# --- a task of one's own, as the documentation shows it


def documented():
    """Runs the example of docs/finetuning.md, as a module of a user's."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.S)
    (code,) = [block for block in blocks if "class Poems" in block]
    module = {"__name__": "poems"}
    exec(compile(code, str(DOCS), "exec"), module)
    return module["Poems"]


@pytest.fixture
def poems(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    verses = "床前明月光｜李白\n国破山河在｜杜甫\n" * 4
    for split in ("train", "dev"):
        (tmp_path / f"{split}.poems").write_text(verses, "utf-8")
    return tmp_path


def test_a_task_of_ones_own_trains_and_predicts(poems):
    from albert_tf2.predict import Predictor

    documented()
    (poems / "test.poems").write_text("床前明月光\n", "utf-8")
    task = registry.create("poems")
    with pytest.raises(UserError, match="test.poems, line 1: no ｜ between"):
        task.read(poems, "test")
    (poems / "test.poems").unlink()
    vocab_file = samples.write_vocab(poems)
    config = poems / "albert_config.json"
    samples.small_config(vocab_file).to_json(config)
    command = (
        f"--task poems --data_dir {poems} --init_checkpoint config:{config} "
        f"--vocab_file {vocab_file} --workdir {poems / 'run'} "
        "--set max_train_steps=2 --set max_seq_length=16 --set "
        "global_batch_size=4 --strategy one_device"
    )
    assert finetune.main(command.split()) == 0
    (answer,) = Predictor(poems / "run").classify(["床前明月光"])
    assert answer["label"] in ("李白", "杜甫")


def test_a_package_may_bring_tasks_along(poems, monkeypatch):
    poems_class = documented()
    del registry._MAKERS["poems"]

    class Entry:
        name = "poems"

        def load(self):
            return poems_class

    def entry_points(group):
        return [Entry()] if group == "albert_tf2.tasks" else []

    with pytest.raises(UserError, match="no task is named `poems`"):
        registry.create("poems")
    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    task = registry.create("poems", labels=("李白", "杜甫", "王维"))
    assert task.kind == base.CLASSIFICATION and len(task.labels) == 3
    again = registry.from_description(json.loads(json.dumps(task.describe())))
    assert again.labels == task.labels


@pytest.mark.parametrize("name", ["lcqmc", "csv", "two words", ""])
def test_names_that_cannot_be_registered(poems, name):
    poems_class = documented()
    with pytest.raises(UserError):
        registry.register(name, poems_class)
    registry.register("poems", poems_class)  # the same once more
    with pytest.raises(UserError, match="there is a task `poems` already"):
        registry.register("poems", Classification)


def test_a_short_row_is_shown_as_it_is_asked():
    """What `Predictor` takes, of the first row that is short enough."""
    from albert_tf2.tasks.choice_files import ChoiceRow
    from albert_tf2.tasks.ner_files import TaggedRow
    from albert_tf2.tasks.question_files import QuestionRow
    from albert_tf2.tasks.text_rows import TextRow

    long = "长" * 1_000
    for rows, expected in (
        ([], []),
        ([TextRow(0, "甲", None, "1")], ["甲"]),
        ([TextRow(0, long, "乙"), TextRow(1, "甲", "乙")], ["甲", "乙"]),
        ([TextRow(0, long)], [long[: base.MOST_EXAMPLE]]),
        ([TaggedRow(0, "甲")], ["甲"]),
        ([QuestionRow("0", "问", "文")], ["问", "文"]),
        ([ChoiceRow(0, "文", "问", ("甲", "乙"))], ["文", "问", ["甲", "乙"]]),
    ):
        assert base.example_of(rows) == expected


@pytest.mark.parametrize(
    "value, kind, each",
    [
        (float("nan"), float, None),
        (float("inf"), float, None),
        ("1.0", float, None),
        (["a", "a"], list, str),
        (["a", 1], list, str),
        (None, list, str),
    ],
)
def test_what_a_description_cannot_hold_is_damage(value, kind, each):
    assert base.taken({"x": 1.5}, "x", float) == 1.5
    assert base.taken({"x": ["a", "b"]}, "x", list, each=str) == ("a", "b")
    with pytest.raises(UserError, match="`x` is damaged"):
        base.taken({"x": value}, "x", kind, each=each)
