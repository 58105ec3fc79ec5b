"""What `predict` reads: lines by number, pairs, blanks, ids of JSON Lines."""

import gc
import json

import pytest

from albert_tf2.errors import UserError
from albert_tf2.prediction import input_files
from albert_tf2.prediction.input_files import Entry


def read(folder, content, pairs, name="in.txt"):
    path = folder / name
    path.write_text(content, "utf-8")
    return list(input_files.from_file(str(path), pairs))


def test_single_texts_keep_their_lines(tmp_path):
    entries = read(tmp_path, "\ufeff甲\n\n  \n乙\u2028丙\n", False)
    assert entries == [
        Entry(0, "甲"),
        Entry(1, None),
        Entry(2, None),
        Entry(3, "乙\u2028丙"),
    ]
    assert entries[0].shown("a", "b") == {"text": "甲"}
    assert entries[1].shown("a", "b") == {"text": ""}


def test_no_entry_of_a_file_is_kept(tmp_path):
    """Each walk reads the file; a part of it can be held alone."""
    path = tmp_path / "in.txt"
    path.write_text("甲\n" * 500, "utf-8")
    entries = input_files.from_file(str(path), False)
    assert len(entries) == 500

    def held():
        return sum(type(o) is Entry for o in gc.get_objects())

    # Now and then: to look at all objects of a long test run takes long.
    before = held()
    for entry in entries:
        if entry.entry_id % 100 == 99:
            assert held() <= before + 2
    assert [one.entry_id for one in entries] == list(range(500))


@pytest.mark.parametrize("change", ["甲\n", "甲\n乙\n丙\n丁\n"])
def test_a_file_that_changes_meanwhile_is_told(change, tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("甲\n乙\n", "utf-8")
    entries = input_files.from_file(str(path), False)
    path.write_text(change, "utf-8")
    with pytest.raises(UserError, match="changed while it was read"):
        list(entries)


def test_pairs(tmp_path):
    entries = read(tmp_path, "甲\t乙\n丙\t丁\t戊\n", True)
    assert entries == [Entry(0, "甲", "乙"), Entry(1, "丙", "丁\t戊")]
    assert entries[0].asked == ("甲", "乙")
    assert entries[0].shown("a", "b") == {"a": "甲", "b": "乙"}


@pytest.mark.parametrize(
    "content, pairs, reason",
    [
        (
            "甲\t乙\n丙\n",
            True,
            "in.txt, line 2 holds '丙': this model takes two",
        ),
        ("甲\t乙\n丙\t \n", True, "in.txt, line 2 holds '丙\\t '"),
        ("甲\n乙\t丙\n", False, "in.txt, line 2 holds a tab"),
        ("", False, "in.txt is empty"),
    ],
)
def test_lines_that_do_not_fit_are_named(tmp_path, content, pairs, reason):
    with pytest.raises(UserError) as error:
        read(tmp_path, content, pairs)
    assert reason in str(error.value)


def test_a_blank_line_is_blank_whatever_the_model_takes(tmp_path):
    for pairs in (True, False, None):
        entries = read(tmp_path, "\n \t \n", pairs)
        assert entries == [Entry(0, None), Entry(1, None)]


def test_where_nothing_is_known_both_are_taken(tmp_path):
    entries = read(tmp_path, "甲\n乙\t丙\n", None)
    assert entries == [Entry(0, "甲"), Entry(1, "乙", "丙")]


@pytest.mark.parametrize(
    "record, pairs, expected",
    [
        ({"id": "x", "text": "甲"}, False, Entry("x", "甲")),
        ({"content": "甲"}, False, Entry(0, "甲")),
        ({"title": "甲", "content": "乙"}, False, Entry(0, "甲 乙")),
        ({"idx": 3, "s1": "甲", "s2": "乙"}, True, Entry(3, "甲", "乙")),
        ({"question": "问", "context": "文"}, True, Entry(0, "问", "文")),
        ({"question": "问", "answer": "答"}, True, Entry(0, "问", "答")),
        ({"id": 1, "text": " "}, False, Entry(1, None)),
        ({"id": 1, "text_a": "", "text_b": " "}, True, Entry(1, None)),
        ({"label": "1", "sentence1": "甲", "sentence2": "乙"}, None,
         Entry(0, "甲", "乙")),
    ],
)  # fmt: skip
def test_json_lines_keep_their_ids(tmp_path, record, pairs, expected):
    entries = read(tmp_path, json.dumps(record), pairs, "in.jsonl")
    assert entries == [expected]


@pytest.mark.parametrize(
    "line, pairs, reason",
    [
        ('{"text": 5}', False, "line 1: a text must be a string"),
        ('{"id": 5}', False, "line 1: holds no text"),
        ('{"text": "甲"}', True, "line 1: this model takes two texts"),
        ("[1]", False, "line 1: the line must hold an object"),
        ('{"text_a": "甲", "text_b": ""}', True, "line 1: this model takes"),
        ('{"text": "\\ud800"}', False, "line 1 holds half a character"),
        ('{"id": "\\ud800", "text": "甲"}', None, "line 1 holds half a ch"),
    ],
)
def test_bad_json_lines(tmp_path, line, pairs, reason):
    with pytest.raises(UserError) as error:
        read(tmp_path, line, pairs, "in.jsonl")
    assert reason in str(error.value)


def test_arguments():
    assert input_files.from_arguments(["甲", "乙"], True) == [
        Entry(0, "甲", "乙")
    ]
    assert input_files.from_arguments(["甲", "乙"], False) == [
        Entry(0, "甲"),
        Entry(1, "乙"),
    ]
    assert input_files.from_arguments(["甲\t乙", "丙\t丁"], True) == [
        Entry(0, "甲", "乙"),
        Entry(1, "丙", "丁"),
    ]
    with pytest.raises(UserError, match="text 2 holds '丙'"):
        input_files.from_arguments(["甲\t乙", "丙"], True)
    with pytest.raises(UserError, match="text 1 holds half a character"):
        input_files.from_arguments(["\udcff"], False)


def test_what_a_model_is_tuned_for_is_known_before_it_loads(tmp_path):
    assert input_files.description(str(tmp_path)) == {}
    assert input_files.description("https://tfhub.dev/x/1") == {}
    (tmp_path / "model").mkdir()
    facts = {"task": "lcqmc", "pairs": True}
    (tmp_path / "model" / "task.json").write_text(json.dumps(facts))
    assert input_files.description(str(tmp_path)) == facts
    assert input_files.description(str(tmp_path / "model")) == facts
