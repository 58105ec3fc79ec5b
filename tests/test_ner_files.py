"""Files of named entities: columns in any scheme, JSON in any layout."""

import json

import pytest

from albert_tf2.errors import UserError
from albert_tf2.tasks import ner_files, registry
from albert_tf2.tasks.bio import Entity
from albert_tf2.tasks.reading import ReadingReport

TEXT = "叶老桂去浙商银行"
NAME, COMPANY = Entity(0, 3, "PER"), Entity(4, 8, "ORG")


def read(folder, content, name="ner", file="train.txt", split="train", **more):
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
        file = file.replace(".txt", ".jsonl")
    (folder / file).write_text(content, "utf-8")
    task = registry.create(name, **more)
    task.prepare(folder, on_error="fail")
    report = ReadingReport()
    return task.read(folder, split, report=report), report, task


def column(tags, text=TEXT, between=" "):
    return "".join(
        f"{c}{between}{tag}\n" for c, tag in zip(text, tags, strict=True)
    )


SCHEMES = {
    "BIO": "B-PER I-PER I-PER O B-ORG I-ORG I-ORG I-ORG",
    "BMES": "B-PER M-PER E-PER O B-ORG M-ORG M-ORG E-ORG",
    "BILOU": "B-PER I-PER L-PER O B-ORG I-ORG I-ORG L-ORG",
    "underscores": "B_PER I_PER I_PER O B_ORG I_ORG I_ORG I_ORG",
    "lower case": "b-PER i-PER i-PER o b-ORG i-ORG i-ORG i-ORG",
    "without B-": "I-PER I-PER I-PER O I-ORG I-ORG I-ORG I-ORG",
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("between", [" ", "\t", "   ", "\tNR\t"])
def test_schemes_of_tags(tmp_path, scheme, between):
    content = column(SCHEMES[scheme].split(), between=between)
    rows, _, task = read(tmp_path, content)
    assert rows[0].text == TEXT and rows[0].entities == (NAME, COMPANY)
    assert task.types == ("ORG", "PER")


def test_single_tags_and_neighbours(tmp_path):
    content = column(["S-A", "S-A", "U-A", "B-A", "E-A", "B-A", "I-B", "O"])
    rows, _, _ = read(tmp_path, content)
    assert rows[0].entities == (
        Entity(0, 1, "A"),
        Entity(1, 2, "A"),
        Entity(2, 3, "A"),
        Entity(3, 5, "A"),
        Entity(5, 6, "A"),
        Entity(6, 7, "B"),  # an I- of another type begins an entity
    )


@pytest.mark.parametrize("tag", ["PER", "X-PER", "B-", "B PER x", "PER-B", "0"])
def test_a_bad_tag_is_named_by_its_own_line(tmp_path, tag):
    tags = SCHEMES["BIO"].split()
    content = column(tags) + "\n" + column([*tags[:5], tag, *tags[6:]])
    with pytest.raises(UserError) as error:
        read(tmp_path, content)
    assert "train.txt, line 15: tag " in str(error.value)
    task = registry.create("ner", labels=("PER", "ORG"))
    report = ReadingReport()
    rows = task.read(tmp_path, "train", on_error="skip", report=report)
    assert len(rows) == 1 and "line 15" in report.bad[0]


def test_a_space_may_be_a_token(tmp_path):
    content = column(SCHEMES["BIO"].split()[:4], "叶老桂 ")
    content += "　 O\n\xa0 O\n好 O\n"
    rows, _, _ = read(tmp_path, content)
    assert rows[0].text == "叶老桂 　\xa0好" and rows[0].entities == (NAME,)


def test_docstart_lines_end_a_sentence(tmp_path):
    content = column(SCHEMES["BIO"].split())
    rows, _, _ = read(tmp_path, f"-DOCSTART- O\n\n{content}-DOCSTART- O\n")
    assert [row.text for row in rows] == [TEXT]


def test_latin_words_keep_a_space_and_single_letters_none(tmp_path):
    content = "John B-PER\nSmith I-PER\n在 O\nC O\nC O\nT O\nV O\n5 O\n"
    rows, _, _ = read(tmp_path, content)
    assert rows[0].text == "John Smith在CCTV5"
    assert rows[0].entities == (Entity(0, 10, "PER"),)


def test_places_in_words_are_taken_off(tmp_path):
    """Weibo NER as published: 科0 技1 全0 方1 位2."""
    places = "0 1 2 0 0 1 0 1".split()
    tokens = [c + p for c, p in zip(TEXT, places, strict=True)]
    tags = "B-PER.NAM I-PER.NAM I-PER.NAM O B-ORG.NAM I-ORG.NAM I-ORG.NAM "
    tags = f"{tags}I-ORG.NAM".split()
    content = "".join(
        f"{t}\t{tag}\n" for t, tag in zip(tokens, tags, strict=True)
    )
    rows, report, _ = read(
        tmp_path, content, "weibo", "weiboNER_2nd_conll.train"
    )
    assert rows[0].text == TEXT
    assert [e.type for e in rows[0].entities] == ["PER.NAM", "ORG.NAM"]
    assert "such as 叶0: the places are taken off" in report.told[0]


@pytest.mark.parametrize("other", ["2013 O", "a1 O", "甲2 O", "甲 O"])
def test_digits_that_count_nothing_are_text(tmp_path, other):
    content = f"叶0 B-PER\n老1 I-PER\n\n{other}\n"
    rows, report, _ = read(tmp_path, content)
    assert rows[0].text == "叶0老1" and not report.told


@pytest.mark.parametrize(
    "name, file",
    [
        ("msra", "msra_train_bio.txt"),
        ("msra", "msra_train_bio"),
        ("weibo", "weiboNER.conll.train"),
        ("resume", "train.char.bmes"),
        ("peoples_daily", "example.train"),
        ("bio", "train.conll"),
    ],
)
def test_published_names(tmp_path, name, file):
    rows, _, task = read(tmp_path, column(SCHEMES["BIO"].split()), name, file)
    assert rows[0].entities == (NAME, COMPANY)
    assert task.name == ("ner" if name == "bio" else name)


# --- JSON


def span(start, end, kind, surface=None, /, **names):
    keys = {"start": "start", "end": "end", "type": "type", "text": "text"}
    keys |= names
    found = {keys["start"]: start, keys["end"]: end, keys["type"]: kind}
    return {**found, keys["text"]: surface} if surface else found


LAYOUTS = {
    "cluener": {"label": {"PER": {"叶老桂": [[0, 2]]}, "ORG": {
        "浙商银行": [[4, 7]]}}},
    "doccano": {"label": [[0, 3, "PER"], [4, 8, "ORG"]]},
    "doccano labels": {"labels": [[0, 3, "PER"], [4, 8, "ORG"]]},
    "spans": {"entities": [span(0, 3, "PER"), span(4, 8, "ORG")]},
    "surfaces": {"entities": [span(0, 3, "PER", "叶老桂"),
                              span(4, 8, "ORG", "浙商银行")]},
    "cmeee": {"entities": [
        span(0, 2, "PER", "叶老桂", start="start_idx", end="end_idx",
             text="entity"),
        span(4, 7, "ORG", "浙商银行", start="start_idx", end="end_idx",
             text="entity")]},
    "label studio": {"label": [
        {"start": 0, "end": 3, "text": "叶老桂", "labels": ["PER"]},
        {"start": 4, "end": 8, "text": "浙商银行", "labels": ["ORG"]}]},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("as_list", [False, True])
def test_layouts_of_spans(tmp_path, layout, as_list):
    row = {"id": 7, "text": TEXT, **LAYOUTS[layout]}
    if as_list:
        rows, _, _ = read(tmp_path, json.dumps([row]), file="train.json")
    else:
        rows, _, _ = read(tmp_path, [row])
    assert rows[0].entities == (NAME, COMPANY) and rows[0].row_id == 7


def test_tokens_with_tags(tmp_path):
    row = {"tokens": list(TEXT), "ner_tags": SCHEMES["BMES"].split()}
    rows, _, _ = read(tmp_path, [row])
    assert rows[0].text == TEXT and rows[0].entities == (NAME, COMPANY)


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"tokens": ["甲"], "tags": [1]}, "must hold the tags' names"),
        ({"tokens": ["甲"], "tags": ["O", "O"]}, "1 tokens have 2 `tags`"),
        ({"tokens": [1], "tags": ["O"]}, "must be a list of strings"),
        (
            {"text": TEXT, "label": [[0, 3]]},
            "a span must be [start, end, type]",
        ),
        ({"text": TEXT, "label": [[0, 30, "A"]]}, "in a text of 8 characters"),
        ({"text": TEXT, "label": [[3, 3, "A"]]}, "does not stand at [3, 3]"),
        ({"text": TEXT, "label": [[-2, 3, "A"]]}, "does not stand at [-2, 3]"),
        ({"text": TEXT, "label": [[0, "3", "A"]]}, "whole number"),
        ({"text": TEXT, "label": [[0, 3, 5]]}, "must be a word. Received: 5"),
        ({"text": TEXT, "label": 5}, "`label` must be of type list"),
        ({"text": 5, "label": []}, "`text` must be of type str"),
        ({"label": []}, "field `text` is missing"),
        ({"text": TEXT}, "has no entities"),
        (5, "must hold an object"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, reason):
    good = {"text": TEXT, "label": [[0, 3, "PER"], [4, 8, "ORG"]]}
    with pytest.raises(UserError) as error:
        read(tmp_path, [good, good, good, row], labels=("PER", "ORG", "A"))
    assert "train.jsonl, line 4: " in str(error.value)
    assert reason in str(error.value)


def test_ends_that_nothing_tells_are_said(tmp_path):
    row = {"text": TEXT + "。", "label": [[0, 3, "PER"], [4, 8, "ORG"]]}
    rows, report, _ = read(tmp_path, [row])
    assert rows[0].entities == (NAME, COMPANY)
    assert "nothing tells whether the ends of spans count in" in report.told[0]
    # One character can only be [5, 5] where ends count in.
    row["label"] = [[0, 2, "PER"], [4, 7, "ORG"], [3, 3, "X"]]
    rows, report, _ = read(tmp_path, [row])
    assert rows[0].entities == (NAME, Entity(3, 4, "X"), COMPANY)
    assert not report.told


def test_unknown_types_of_test_rows_are_missed(tmp_path):
    good = {"text": TEXT, "label": [[0, 3, "PER"], [4, 8, "ORG"]]}
    other = {"text": TEXT, "label": [[0, 3, "新"], [4, 8, "ORG"]]}
    _, _, task = read(tmp_path, [good])
    (tmp_path / "dev.jsonl").write_text(json.dumps(other), "utf-8")
    with pytest.raises(UserError, match="type '新' is not one of ORG, PER"):
        task.read(tmp_path, "dev")
    (tmp_path / "dev.jsonl").rename(tmp_path / "test.jsonl")
    report = ReadingReport()
    rows = task.read(tmp_path, "test", report=report)
    assert report.notes == {
        "entities of type '新', which training lacks: counted as missed": 1
    }
    found = [{"entities": [{"start": 4, "end": 8, "type": "ORG"}]}]
    assert task.score(rows, found)["recall"] == 0.5


def test_bad_test_rows_stay(tmp_path):
    content = column(SCHEMES["BIO"].split())
    _, _, task = read(tmp_path, content)
    (tmp_path / "test.txt").write_text(f"{content}\n甲 ?\n乙 O\n", "utf-8")
    report = ReadingReport()
    rows = task.read(tmp_path, "test", on_error="skip", report=report)
    assert [row.text for row in rows] == [TEXT, "甲乙"]
    assert rows[1].entities is None and rows[1].row_id == 1


def test_overview_counts_entities(tmp_path):
    content = column(SCHEMES["BIO"].split())
    rows, _, task = read(tmp_path, f"{content}\n甲 O\n")
    assert task.overview(rows, [], []) == [
        "entities: 2 of 2 types: PER (1), ORG (1); 1 training rows have none"
    ]


def test_a_file_without_entities(tmp_path):
    with pytest.raises(UserError, match="holds no entity"):
        read(tmp_path, "甲 O\n乙 O\n")
    with pytest.raises(UserError, match="has no entities"):
        read(tmp_path, "甲\n乙\n")


@pytest.mark.parametrize("tag", ["b-per", "M_x-y", "E-A.B"])
def test_tags_keep_their_types(tag):
    assert ner_files.bio_tag(tag)[2:] == tag[2:]
