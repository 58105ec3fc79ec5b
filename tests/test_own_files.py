"""The user's own tables: what is read, what is said, what is refused."""

import json
import random

import numpy as np
import pytest

from albert_tf2 import finetune
from albert_tf2.errors import UserError
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.tasks import base, labels, registry
from albert_tf2.tasks.encoding import Example, Packed
from albert_tf2.tasks.reading import BadRow, ReadingReport
from albert_tf2.tasks.text_rows import TextRow

CHARACTERS = "今天天气很好我喜欢吃饭酒店房间干净服务态度差"


def texts(count, seed=0):
    """Draws texts that do not occur twice."""
    rng = random.Random(seed)
    return [
        "".join(rng.choice(CHARACTERS) for _ in range(10)) + str(i)
        for i in range(count)
    ]


def table(*columns, header=None, delimiter=",", end="\n"):
    """Writes columns side by side."""
    rows = [*([header] if header else []), *zip(*columns, strict=True)]
    return "".join(delimiter.join(map(str, row)) + end for row in rows)


TEXTS = texts(20)
OTHERS = texts(20, seed=1)
LABELS = ["好", "坏"] * 10


def read(folder, content, task="classification", split="train", **settings):
    """Writes and reads files; returns rows, report and task."""
    files = content if isinstance(content, dict) else {"train.csv": content}
    for name, text in files.items():
        data = text if isinstance(text, bytes) else text.encode()
        (folder / name).write_bytes(data)
    task = registry.create(task, **settings)
    task.prepare(folder, on_error="fail")
    report = ReadingReport()
    return task.read(folder, split, report=report), report, task


def refused(folder, content, task="classification", **settings):
    with pytest.raises(UserError) as error:
        read(folder, content, task, **settings)
    return str(error.value)


# --- headers


@pytest.mark.parametrize(
    "header",
    [
        ("content", "label"),
        ("review", "sentiment"),
        ("内容", "标签"),
        ("Text", "Class"),
        ("正文", "归类"),  # unknown: the second never comes again
        ('"评论"', "类别"),
        ("微博中文内容", "情感标签"),
        ("新闻标题", "一级分类"),
    ],
)
def test_a_header_is_no_row(tmp_path, header):
    rows, report, task = read(tmp_path, table(TEXTS, LABELS, header=header))
    assert [row.text_a for row in rows] == TEXTS
    assert task.labels == ("坏", "好")
    first, second = (name.strip('"') for name in header)
    assert report.told[0] == (
        f"columns between commas, a header, text_a = {first}, label = {second}"
    )


def test_a_guessed_header_is_told(tmp_path):
    content = table(TEXTS, LABELS, header=("话语", "归类"))
    _, report, _ = read(tmp_path, content)
    assert (
        "line 1 is taken for a header: '归类' stands there and never"
        in (report.told[1])
    )
    content = table(TEXTS, range(20), header=("话语", "几颗星"))
    rows, report, _ = read(tmp_path, content, "regression")
    assert len(rows) == 20 and "stands above numbers" in report.told[1]


def test_a_first_label_that_comes_again_is_no_header(tmp_path):
    labels = ["情感", "其他"] * 10  # names of labels, in other files
    rows, report, _ = read(tmp_path, table(TEXTS, labels))
    assert len(rows) == 20 and rows[0].label == "情感"
    assert "no header, text_a = column 1, label = column 2" in report.told[0]


@pytest.mark.parametrize(
    "header, columns, expected",
    [
        (("question", "answer", "label"), (0, 1, 2), (0, 1)),
        (("label", "question1", "question2"), (2, 0, 1), (0, 1)),
        (("id", "premise", "hypo", "label"), (3, 0, 1, 2), (0, 1)),
        (("query", "title", "相关"), (0, 1, 2), (0, 1)),
        (("问题", "答案", "标签"), (0, 1, 2), (0, 1)),
        (("s1", "s2", "score"), (0, 1, 2), (0, 1)),
    ],
)
def test_pairs_by_their_names(tmp_path, header, columns, expected):
    parts = [TEXTS, OTHERS, LABELS, list(range(20))]
    content = table(*(parts[i] for i in columns), header=header)
    rows, _, task = read(tmp_path, content)
    assert task.pairs
    first, second = (parts[i] for i in expected)
    assert [(row.text_a, row.text_b) for row in rows] == list(
        zip(first, second, strict=True)
    )
    assert [row.label for row in rows] == LABELS


def test_rows_that_repeat_the_header_are_left_out(tmp_path):
    content = table(TEXTS, LABELS, header=("content", "label"))
    rows, report, task = read(tmp_path, content + content)
    assert len(rows) == 40 and task.labels == ("坏", "好")
    assert report.dropped == {"rows that repeat the header left out": 1}


def test_other_files_follow_the_training_file(tmp_path):
    train = table(TEXTS, LABELS, header=("正文", "归类"))
    files = {
        "train.csv": train,
        # A class that occurs once, at the top, is no header there.
        "dev.csv": table(TEXTS[:4], ["坏", "好", "好", "好"]),
        "test.csv": table(TEXTS, header=("正文",)),
    }
    dev, _, _ = read(tmp_path, files, split="dev")
    assert [row.label for row in dev] == ["坏", "好", "好", "好"]
    rows, report, _ = read(tmp_path, files, split="test")
    assert [row.text_a for row in rows] == TEXTS
    assert report.told[0].endswith("one column, a header, text_a = 正文")


def test_a_test_file_may_name_its_columns_otherwise(tmp_path):
    files = {
        "train.csv": table(TEXTS, LABELS, header=("正文", "归类")),
        "test.jsonl": "".join(json.dumps({"text": t}) + "\n" for t in TEXTS),
    }
    rows, _, _ = read(tmp_path, files, split="test")
    assert [row.text_a for row in rows] == TEXTS


# --- columns


@pytest.mark.parametrize("delimiter", ["\t", ",", ";", "|", "||", "_!_"])
@pytest.mark.parametrize("first", [True, False])
def test_the_label_is_the_column_that_repeats(tmp_path, delimiter, first):
    columns = (LABELS, TEXTS) if first else (TEXTS, LABELS)
    rows, report, _ = read(tmp_path, table(*columns, delimiter=delimiter))
    assert [(row.text_a, row.label) for row in rows] == list(
        zip(TEXTS, LABELS, strict=True)
    )
    assert f"label = column {1 if first else 2}" in report.told[0]


def test_a_running_number_is_an_id(tmp_path):
    """ATEC: a number, two texts, a label, tabs, a BOM, under .csv."""
    content = table(
        range(1, 21), TEXTS, OTHERS, ["0", "1"] * 10, delimiter="\t"
    )
    rows, _, _ = read(tmp_path, b"\xef\xbb\xbf" + content.encode())
    assert rows[1] == TextRow("2", TEXTS[1], OTHERS[1], "1")


def test_names_given_by_place_or_by_the_header(tmp_path):
    content = table(LABELS, TEXTS, OTHERS, header=("a", "b", "c"))
    for columns in (
        ("label", "_", "text_a"),
        ("label", "", "text_a"),
        ("text_a=c", "label=a"),
    ):
        rows, report, _ = read(tmp_path, content, columns=columns)
        assert [row.text_a for row in rows] == OTHERS
        assert "not used: b (texts of 12 characters)" in report.told


def test_columns_that_contradict_the_header_are_told(tmp_path):
    content = table(TEXTS, LABELS, header=("content", "label"))
    labels = tuple(TEXTS)
    _, report, _ = read(
        tmp_path, content, columns=("label", "text_a"), labels=labels
    )
    assert report.told[1:] == [
        "`columns` makes content the label, though it is named as a text",
        "`columns` makes label the text_a, though it is named as a label",
    ]


def test_several_texts_are_joined_in_their_order(tmp_path):
    content = table(
        TEXTS, OTHERS, range(20), LABELS, header=("title", "content", "n", "y")
    )
    rows, report, task = read(tmp_path, content)
    assert rows[3].text_a == f"{TEXTS[3]} {OTHERS[3]}" and not task.pairs
    assert "text_a = title + content (joined by a space)" in report.told[0]
    columns = ("text_a=content", "text_a=title", "label=y")
    rows, _, _ = read(tmp_path, content, columns=columns)
    assert rows[3].text_a == f"{TEXTS[3]} {OTHERS[3]}"  # as the file has them
    columns = ("text_a=title", "text_b=content", "label=y")
    rows, _, _ = read(tmp_path, content, columns=columns)
    assert (rows[3].text_a, rows[3].text_b) == (TEXTS[3], OTHERS[3])


def test_a_text_that_is_not_used_is_told(tmp_path):
    content = table(
        TEXTS, LABELS, OTHERS, ["书"] * 20, header=("text", "label", "x", "z")
    )
    _, report, _ = read(tmp_path, content)
    assert report.told[1] == "not used: x (texts of 12 characters), z"


def test_two_columns_that_may_be_the_label(tmp_path):
    cats = ["书籍", "平板"] * 10
    content = table(cats, LABELS, TEXTS, header=("cat", "label", "review"))
    rows, report, _ = read(tmp_path, content)
    assert rows[0].label == "好"
    assert "label is taken for the label, not cat" in report.told


@pytest.mark.parametrize(
    "columns, reason",
    [
        (("text", "label"), "must be names of id, text_a, text_b, label"),
        (("_", "label"), "text_a among them"),
        (("text_a", "label", "id"), "names 3 columns, and the file has 2"),
        (("text_a=正文", "label=标签"), "no column is named `正文`"),
        (("text_a=content", "label"), "must be names of"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, columns, reason):
    content = table(TEXTS, LABELS, header=("content", "label"))
    assert reason in refused(tmp_path, content, columns=columns)


@pytest.mark.parametrize(
    "content, reason",
    [
        (table(TEXTS, OTHERS, TEXTS, LABELS), "which of them hold texts"),
        (table(TEXTS, OTHERS, LABELS, header=("甲", "乙", "类")), "hold texts"),
        (table(LABELS, TEXTS, list("甲乙") * 10), "which of them is the label"),
        (table(TEXTS), "no delimiter"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(tmp_path, content, reason):
    assert reason in refused(tmp_path, content)


# --- labels that cannot be meant so


@pytest.mark.parametrize("count", [3, 5, 20, 400])
def test_texts_are_no_labels(tmp_path, count):
    labels = (["1", "0"] * count)[:count]
    content = table(labels, texts(count), header=("label", "review"))
    message = refused(tmp_path, content, columns=("text_a", "label"))
    assert f"{count} different values in {count} rows" in message
    assert "--set 'columns=[label,text_a]'" in message
    rows, _, _ = read(tmp_path, content, columns=("label", "text_a"))
    assert [row.label for row in rows] == labels


def test_named_labels_may_occur_once(tmp_path):
    names = tuple(f"第{i}类" for i in range(20))
    rows, _, task = read(tmp_path, table(TEXTS, names), labels=names)
    assert task.labels == names and len(rows) == 20


def test_scores_are_no_classes(tmp_path):
    content = table(TEXTS, [i / 4 for i in range(20)], header=("text", "score"))
    assert "from 0.0 to 4.75: for scores take --task regression" in refused(
        tmp_path, content
    )
    content = table(TEXTS, [1.0, 0.0] * 10, header=("text", "label"))
    _, _, task = read(tmp_path, content)
    assert task.labels == ("0.0", "1.0")


def test_several_labels_are_no_class(tmp_path):
    labels = ["酒店", "价格", "酒店;价格", "服务;价格", "服务"] * 4
    message = refused(tmp_path, table(TEXTS, labels))
    assert "--task multi_label --set 'label_separator=;'" in message
    (tmp_path / "train.csv").unlink()
    lines = [
        json.dumps({"text": text, "label": ["甲"]}) + "\n" for text in TEXTS
    ]
    message = refused(tmp_path, {"train.jsonl": "".join(lines)})
    assert "is a list" in message and "multi_label" in message


def test_labels_with_a_sign_inside_are_classes(tmp_path):
    labels = ["体育/足球", "体育/篮球", "sport, other", "a b"] * 5
    _, _, task = read(tmp_path, table(TEXTS, labels, delimiter="\t"))
    assert len(task.labels) == 4


def test_one_label_is_not_enough(tmp_path):
    assert "found 1 different labels" in refused(
        tmp_path, table(TEXTS, ["1"] * 20)
    )


def test_no_label_at_all(tmp_path):
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    message = refused(tmp_path, {"train.jsonl": "".join(lines)})
    assert "no column of labels (a header, text_a = text)" in message


# --- test rows with other labels


def test_unknown_labels_of_test_rows_count_as_wrong(tmp_path):
    files = {
        "train.csv": table(TEXTS, LABELS),
        "test.csv": table(TEXTS, ["好", "新"] * 10),
    }
    rows, report, task = read(tmp_path, files, split="test")
    assert "10 rows have a label that training lacks ('新')" in report.told[1]
    figures = task.score(rows, [{"label": "好"}] * 20)
    assert figures["accuracy"] == 0.5 and figures["rows"] == 20
    assert task.target(rows[1]) is None


def test_dummy_labels_of_test_rows_are_none(tmp_path):
    files = {
        "train.csv": table(TEXTS, LABELS),
        "test.csv": table(TEXTS, ["-1"] * 20),
    }
    rows, report, task = read(tmp_path, files, split="test")
    assert "taken for unlabelled" in report.told[1]
    assert task.score(rows, [{"label": "好"}] * 20) == {}


@pytest.mark.parametrize(
    "train, test, expected",
    [
        ("甲\t乙\t0\n丙\t丁\t1\n", "戊\t己\n", ("戊", "己")),
        ("甲,0\n乙,1\n", "没有逗号\n另一行\n", ("没有逗号", None)),
        ("text,label\n甲,0\n乙,1\n", "text\n没有\n", ("没有", None)),
        ("label,text\n0,甲\n1,乙\n", "text\n没有\n", ("没有", None)),
        ("甲\t0\n乙\t1\n", "戊\t1\n", ("戊", None)),
    ],
)
def test_test_files_may_lack_labels(tmp_path, train, test, expected):
    files = {"train.csv": train, "test.csv": test}
    rows, _, _ = read(tmp_path, files, "csv", split="test")
    assert (rows[0].text_a, rows[0].text_b) == expected


# --- what is said before training


def test_overview_counts_labels_and_gives_a_baseline(tmp_path):
    train, _, task = read(tmp_path, table(TEXTS, ["好"] * 15 + ["坏"] * 5))
    assert task.overview(train, train[10:], []) == [
        "2 labels: 好 (15), 坏 (5)",
        "baseline: always '好': train accuracy 0.7500, dev accuracy 0.5000",
    ]


def test_overview_names_labels_without_a_row(tmp_path):
    content = table(TEXTS, LABELS)
    train, _, task = read(tmp_path, content, labels=("好", "坏", "中"))
    assert "no training row has 中" in task.overview(train, [], [])


# --- forms of files


def test_a_quoted_cell_may_hold_line_breaks(tmp_path):
    broken = [f'"{a}\n{b}, ""说"""' for a, b in zip(TEXTS, OTHERS, strict=True)]
    content = table(broken, LABELS, header=("text", "label"))
    rows, report, _ = read(tmp_path, content)
    assert [row.text_a for row in rows] == [
        f'{a}\n{b}, "说"' for a, b in zip(TEXTS, OTHERS, strict=True)
    ]
    assert "20 quoted cells hold line breaks" in report.told


def test_a_mark_that_never_closes_is_a_character(tmp_path):
    marked = [f'"{t}' if i % 7 == 3 else t for i, t in enumerate(TEXTS)]
    rows, _, _ = read(tmp_path, table(marked, LABELS))
    assert [row.text_a for row in rows] == marked
    inside = [f'"好"{t}' for t in TEXTS]
    rows, _, _ = read(tmp_path, table(inside, LABELS))
    assert [row.text_a for row in rows] == inside


def test_marks_between_tabs_are_characters_unless_csv_wrote_them(tmp_path):
    raw = [f'"{t}"' for t in TEXTS[:10]] + TEXTS[10:]
    rows, _, _ = read(tmp_path, table(raw, LABELS, delimiter="\t"))
    assert [row.text_a for row in rows] == raw
    written = [f'"{t}	""x"""' for t in TEXTS[:10]] + TEXTS[10:]
    rows, report, _ = read(tmp_path, table(written, LABELS, delimiter="\t"))
    assert rows[0].text_a == f'{TEXTS[0]}\t"x"'
    assert "columns between tabs, cells in quotes, no" in report.told[0]


def test_faults_are_named_by_the_line_they_begin_in(tmp_path):
    broken = [f'"{t}\n{t}"' for t in TEXTS]
    content = table(broken, LABELS) + "一个,两个,三个\n"
    assert "train.csv, line 41: expected 2 columns. Received: 3" in refused(
        tmp_path, content
    )


def test_a_named_delimiter(tmp_path):
    content = table(TEXTS, LABELS, delimiter="<>")
    rows, _, _ = read(tmp_path, content, delimiter="<>")
    assert [row.text_a for row in rows] == TEXTS
    rows, _, _ = read(
        tmp_path, table(TEXTS, LABELS, delimiter="\t"), delimiter="\\t"
    )
    assert [row.label for row in rows] == LABELS


@pytest.mark.parametrize("form", ["lines", "list", "parquet"])
def test_json_and_parquet(tmp_path, form):
    records = [
        {"id": f"r{i}", "content": text, "label": i % 2, "extra": None}
        for i, text in enumerate(TEXTS)
    ]
    if form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        path = tmp_path / "train.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(records), path)
        files = {}
    elif form == "lines":
        lines = [json.dumps(record) + "\n" for record in records]
        files = {"train.jsonl": "".join(lines)}
    else:
        files = {"train.json": json.dumps(records)}
    rows, _, task = read(tmp_path, files)
    assert rows[3] == TextRow("r3", TEXTS[3], None, "1")
    assert task.labels == ("0", "1")


@pytest.mark.parametrize(
    "line, reason",
    [
        ('{"text": 3, "label": "好"}', "a text must be a string. Received: 3"),
        ('{"text": "甲", "label": ["好"]}', "must be one class"),
        ('{"text": "甲"', "not valid JSON"),
        ("[1]", "must hold an object"),
        ('{"text": "甲", "label": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"text": ' + "[" * 100_000, "not valid JSON"),
        ('{"text": " ", "label": "好"}', "an empty text"),
        ('{"text": "甲"}', "field `label` is missing"),
    ],
)
def test_bad_json_lines_are_named(tmp_path, line, reason):
    lines = [
        json.dumps({"text": t, "label": la}) + "\n"
        for t, la in zip(TEXTS, LABELS, strict=True)
    ]
    content = "".join(lines) + line + "\n"
    # A list among the labels is told of the whole file.
    message = refused(tmp_path, {"train.jsonl": content}, labels=("好", "坏"))
    assert "train.jsonl, line 21: " in message and reason in message


def test_rows_that_share_no_keys_are_refused(tmp_path):
    lines = [json.dumps({f"k{i}": 1}) + "\n" for i in range(2000)]
    message = refused(tmp_path, {"train.jsonl": "".join(lines)})
    assert "over 1000 different keys" in message


def test_lines_of_any_length(tmp_path):
    long = ["长" * 200_000, *TEXTS[1:]]
    rows, _, _ = read(tmp_path, table(long, LABELS))
    assert len(rows[0].text_a) == 200_000


@pytest.mark.parametrize(
    "encoding, named",
    [
        ("gb18030", "GB18030"),
        ("gbk", "GB18030"),
        ("big5", "BIG5-HKSCS"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
    ],
)
def test_other_encodings_are_named(tmp_path, encoding, named):
    chinese = ["這家的飯菜不是很好" if "big5" in encoding else t for t in TEXTS]
    content = table(chinese, ["1", "0"] * 10).encode(encoding)
    message = refused(tmp_path, content)
    assert f"not UTF-8 but {named}; convert it first: iconv -f" in message


def test_a_damaged_byte_is_no_other_encoding(tmp_path):
    content = table([f"今天的天气{t}" for t in TEXTS], LABELS).encode()
    broken = content[:300] + b"\xff" + content[300:]
    assert "some bytes are not UTF-8, though the rest" in refused(
        tmp_path, broken
    )


def test_no_encoding_at_all(tmp_path):
    assert "nor an encoding of Chinese text" in refused(
        tmp_path, bytes(range(128, 256)) * 10
    )


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x1f\x8b\x08"])
def test_archives_are_refused(tmp_path, head):
    assert "save it as CSV" in refused(tmp_path, head + b"\0" * 99)


def test_an_empty_file(tmp_path):
    with pytest.raises(UserError):
        read(tmp_path, "")


# --- several labels


def several(folder, cells, **settings):
    content = table(TEXTS[: len(cells)], cells, delimiter="\t")
    return read(folder, content, "multi_label", **settings)


@pytest.mark.parametrize("separator", [",", "，", ";", "|", "、", "/", " "])
def test_a_separator_is_found_and_told(tmp_path, separator):
    cells = ["甲", "乙", "甲?乙", "乙?丙", "丙"] * 4
    cells = [cell.replace("?", separator) for cell in cells]
    rows, report, task = several(tmp_path, cells)
    assert task.labels == ("丙", "乙", "甲")
    assert rows[2].label == ("乙", "甲")
    assert f"labels are cut at {separator!r}" in report.told


def test_a_named_separator(tmp_path):
    cells = ["甲+乙", "乙+丙"] * 10
    rows, _, task = several(tmp_path, cells, label_separator="+")
    assert task.labels == ("丙", "乙", "甲") and rows[0].label == ("乙", "甲")


def test_lists_and_rows_without_a_label(tmp_path):
    lists = [["甲", "乙"], [], ["乙"], ["乙", "乙"]] * 5
    lines = [
        json.dumps({"text": t, "labels": labels}) + "\n"
        for t, labels in zip(TEXTS, lists, strict=True)
    ]
    rows, _, task = read(
        tmp_path, {"train.jsonl": "".join(lines)}, "multi_label"
    )
    assert [row.label for row in rows[:4]] == [
        ("乙", "甲"),
        (),
        ("乙",),
        ("乙",),
    ]
    assert task.target(rows[0]) == [1.0, 1.0]
    assert task.target(rows[1]) == [0.0, 0.0]
    assert task.overview(rows, [], [])[:2] == [
        "2 labels: 乙 (15), 甲 (5)",
        "5 training rows have several labels, 5 none",
    ]


def test_several_columns_of_labels(tmp_path):
    content = table(TEXTS, ["甲", "乙"] * 10, ["丙", ""] * 10, delimiter="\t")
    rows, _, _ = read(
        tmp_path, content, "multi_label", columns=("text_a", "label", "label")
    )
    assert [row.label for row in rows[:2]] == [("丙", "甲"), ("乙",)]


def test_unknown_labels_among_several_are_missed(tmp_path):
    files = {
        "train.csv": table(TEXTS, ["甲 乙", "乙"] * 10),
        "test.csv": table(TEXTS, ["甲 新", "乙"] * 10),
    }
    rows, report, task = read(tmp_path, files, "multi_label", split="test")
    assert sum(report.notes.values()) == 10
    right = [{"labels": ["甲"]}, {"labels": ["乙"]}] * 10
    assert task.score(rows, right)["micro_f1"] == pytest.approx(40 / 50)


# --- scores


def test_scores_are_learned_on_one_scale(tmp_path):
    scores = [i % 6 * 20 for i in range(20)]
    rows, _, task = read(tmp_path, table(TEXTS, scores), "regression")
    targets = [task.target(row) for row in rows]
    assert sum(targets) == pytest.approx(0, abs=1e-9)
    assert sum(t * t for t in targets) / 20 == pytest.approx(1)
    assert task.steps == (0, 20, 40, 60, 80, 100)
    again = registry.from_description(json.loads(json.dumps(task.describe())))
    assert again.target(rows[3]) == targets[3] and again.steps == task.steps


@pytest.mark.parametrize(
    "cell, reason",
    [
        ("nan", "a score must be a number. Received: 'nan'"),
        ("1e999", "a score must be finite"),
        ("三", "a score must be a number"),
        ("", "the score is missing"),
    ],
)
def test_bad_scores_are_named(tmp_path, cell, reason):
    content = table(TEXTS, [*range(19), cell], header=("text", "score"))
    message = refused(tmp_path, content, "regression")
    assert "line 21: " in message and reason in message


def test_a_score_is_preferred_where_scores_are_wanted(tmp_path):
    content = table(TEXTS, LABELS, range(20), header=("text", "label", "score"))
    rows, report, _ = read(tmp_path, content, "regression")
    assert rows[3].label == 3.0
    assert "score is taken for the label, not label" in report.told
    rows, _, _ = read(tmp_path, content)
    assert rows[3].label == LABELS[3]


def test_words_are_no_scores(tmp_path):
    content = table(TEXTS, LABELS, header=("text", "score"))
    assert "is no number in most rows" in refused(
        tmp_path, content, "regression"
    )
    content = table(TEXTS, ["3"] * 20, header=("text", "score"))
    assert "all scores are 3" in refused(tmp_path, content, "regression")
    with pytest.raises(UserError, match="`labels` has no meaning"):
        registry.create("regression", labels=("1",))


# --- answers, and what a run prints


def decoded(task, rows, logits):
    examples = [Example(i, (Packed([2], [0]),)) for i in range(len(rows))]
    values = [np.array(value, np.float32) for value in logits]
    return task.decode(rows, examples, values, base.Lengths())


def test_scores_come_back_in_their_own_unit(tmp_path):
    rows, _, task = read(tmp_path, table(TEXTS, [0, 100] * 10), "regression")
    first, second = decoded(task, rows[:2], [[-1.0], [0.25]])
    assert (first["score"], first["nearest"]) == (0.0, 0)
    assert (second["score"], second["nearest"]) == (62.5, 100)
    rows, _, task = read(tmp_path, table(TEXTS, [0.5, 1] * 10), "regression")
    assert "nearest" not in decoded(task, rows[:1], [[0.0]])[0]


def test_each_label_stands_where_its_probability_is_half(tmp_path):
    rows, _, task = several(tmp_path, ["甲 乙", "乙"] * 10)
    (answer,) = decoded(task, rows[:1], [[0.0, -2.0]])
    assert answer["labels"] == ["乙"]
    assert answer["probabilities"] == {"乙": 0.5, "甲": 0.119203}
    (answer,) = decoded(task, rows[:1], [[-1e4, 1e4]])
    assert answer["probabilities"] == {"乙": 0.0, "甲": 1.0}


def test_everything_is_said_before_training(tmp_path):
    content = table(TEXTS, LABELS, OTHERS, header=("content", "label", "reply"))
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text(content, "utf-8")
    said = []
    recipe = FinetuneRecipe(max_train_rows=10)
    task = registry.from_recipe("classification", recipe)
    finetune.read_data(task, tmp_path, recipe, say=said.append)
    columns = (
        "columns between commas, a header, text_a = content, label = label"
    )
    assert said[:3] == [
        "train: 10 rows of train.csv",
        f"  {columns}",
        "  not used: reply (texts of 12 characters)",
    ]
    assert said[3:5] == ["dev: 20 rows of dev.csv", f"  {columns}"]
    assert said[6] == "test: no file"
    assert said[7].startswith("2 labels: ")
    assert said[8].startswith("baseline: always '")


def test_files_that_are_not_read_are_told(tmp_path):
    content = table(TEXTS, LABELS)
    files = {"train.csv": content, "train.txt": content}
    _, report, task = read(tmp_path, files)
    assert report.told[0] == "not read, though they lie there: train.txt"
    task.use_file("train", tmp_path / "train.txt")
    report = ReadingReport()
    task.read(tmp_path, "train", report=report)
    assert not any("not read" in line for line in report.told)


def test_counts_stay_whole():
    assert base.figures_text({"accuracy": 0.5, "rows": 96}) == (
        "accuracy 0.5000  rows 96"
    )
    summary = finetune.summary({"dev": {"accuracy": 0.5, "rows": 96}})
    assert summary == "dev accuracy: 0.5000\ndev rows: 96"


@pytest.mark.parametrize("text", ["inf", "-inf", "1e999", "-1e999", "x"])
def test_a_score_is_a_finite_number(text):
    assert labels.score_of("-1e3") == -1000.0
    with pytest.raises(BadRow, match="a score must be"):
        labels.score_of(text)
