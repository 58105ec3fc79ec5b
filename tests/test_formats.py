"""Published corpora, whatever their form, become the same documents."""

import collections
import csv
import gzip
import io
import json
import re

import pytest

from albert_tf2 import UserError
from albert_tf2.data import (
    build_pretraining_data,
    formats,
    reading,
    recognition,
    units,
    vocabulary,
    workers,
)
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.data.read_config import ReadConfig

ROWS = [
    (str(number), f"题目{number}", f'第{number}句。\n第二行，"引号"\n\n第三行')
    for number in range(40)
]
EXPECTED = [
    [title, *(line for line in content.split("\n") if line)]
    for _, title, content in ROWS
]
FIELDS = ("title", "content")


def as_json(ascii_only=False):
    return "".join(
        json.dumps(
            dict(zip(("id", *FIELDS), row, strict=True)),
            ensure_ascii=ascii_only,
        )
        + "\n"
        for row in ROWS
    ).encode()


def as_csv():
    stream = io.StringIO()
    csv.writer(stream).writerows([("id", *FIELDS), *ROWS])
    return stream.getvalue().encode("utf-8-sig")


def as_tsv():
    rows = [("id", *FIELDS), *((i, t, c.split("\n")[0]) for i, t, c in ROWS)]
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def documents_of(path, counts=None, **settings):
    """All documents of some files, read in units of 300 bytes."""
    settings.setdefault("text_field", FIELDS)
    config = ReadConfig(**settings)
    counts = collections.Counter() if counts is None else counts
    return [
        document
        for file in recognition.find(str(path), config)
        for unit in units.of_file(file, 300, on_error=config.on_error)
        for document in reading.documents(
            reading.read(unit, config, counts)[0] + "\n"
        )
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "wiki_00", "a.jsonl.gz"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_lines_of_json(tmp_path, name, ascii_only):
    data = as_json(ascii_only)
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert documents_of(path) == EXPECTED
    only = documents_of(path, text_field=("content",))
    assert only == [document[1:] for document in EXPECTED]
    turned = documents_of(path, text_field=("content", "title"))
    assert turned[3] == EXPECTED[3][1:] + EXPECTED[3][:1]


def test_tables(tmp_path):
    (tmp_path / "a.csv").write_bytes(as_csv())
    assert documents_of(tmp_path / "a.csv") == EXPECTED
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(as_csv()))
    assert documents_of(tmp_path / "a.csv.gz") == EXPECTED
    (tmp_path / "table").write_bytes(as_csv())
    assert documents_of(tmp_path / "table") == EXPECTED
    (tmp_path / "a.tsv").write_bytes(as_tsv())
    assert documents_of(tmp_path / "a.tsv") == [d[:2] for d in EXPECTED]
    (tmp_path / "b.tsv").write_bytes(as_tsv().replace(b"\n", b"\r\n"))
    assert documents_of(tmp_path / "b.tsv") == [d[:2] for d in EXPECTED]


def test_columns_by_number(tmp_path, capsys):
    (tmp_path / "a.csv").write_bytes(as_csv().partition(b"\n")[2])
    found = documents_of(tmp_path / "a.csv", text_field=("2", "3"))
    assert found == EXPECTED
    assert "no header: its first row is text too" in capsys.readouterr().err
    (tmp_path / "b.csv").write_bytes(as_csv())
    found = documents_of(tmp_path / "b.csv", text_field=("2", "3"))
    assert found == EXPECTED and not capsys.readouterr().err
    with pytest.raises(UserError, match="has 3 columns"):
        documents_of(tmp_path / "b.csv", text_field=("4",))
    with pytest.raises(UserError, match="a.csv has 3 columns: correct --text"):
        documents_of(tmp_path / "a.csv", text_field=("4",))


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    from pyarrow import parquet

    columns = list(zip(*ROWS, strict=True))
    table = pa.table(
        {
            "id": columns[0],
            "title": columns[1],
            "content": [text.split("\n") for text in columns[2]],  # a list
            "meta": [{"url": title} for title in columns[1]],
        }
    )
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path, row_group_size=7)
    assert documents_of(path) == EXPECTED
    assert documents_of(path, text_field=("meta.url",)) == [
        document[:1] for document in EXPECTED
    ]
    with pytest.raises(UserError, match="no field 'text', but id, title, con"):
        documents_of(path, text_field=("text",))
    with pytest.raises(UserError, match="a table with the columns id, title"):
        documents_of(path, text_field=())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        documents_of(path)


def test_objects_in_objects_and_lists(tmp_path):
    """The form of MNBVC: paragraphs are objects in a list."""
    objects = [
        {"文件名": "甲", "段落": [{"行号": 0, "内容": "一。"},
                              {"行号": 1, "内容": "二。"}]},
        {"文件名": "乙", "段落": []},
        {"文件名": "丙", "段落": [{"行号": 0, "内容": None}]},
        {"文件名": "丁", "段落": [{"行号": 0, "内容": "\ud83d半"}], "x": 1},
    ]  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, objects)), "utf-8")
    counts = collections.Counter()
    found = documents_of(path, counts, text_field=("段落.内容",))
    assert found == [["一。", "二。"], ["\ufffd半"]]
    assert counts["documents_empty"] == 2


@pytest.mark.parametrize(
    "line, problem",
    [
        (b'{"content": "a"', "not JSON"),
        (b'["content"]', "not a JSON object"),
        (b'{"other": 1, "more": 2}', "no field 'title', but other, more"),
        (b'{"content": {"a": 1}, "title": ""}', "holds an object, not text"),
        (b'{"content": true, "title": ""}', "holds true or false, not text"),
        (b'{"content": "\xb5"}', "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"content": ' + b"9" * 9000 + b"}", "not JSON"),
    ],
)
def test_wrong_lines_of_json(tmp_path, line, problem):
    lines = as_json().splitlines()
    lines.insert(20, line)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=rf"a.jsonl, line 21: .*{problem}"):
        documents_of(path)
    counts = collections.Counter()
    assert documents_of(path, counts, on_error="skip") == EXPECTED
    assert counts["lines_malformed"] == 1


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_wrong_line_is_not_looked_for_in_others(tmp_path, mark):
    good = '{"title": "一", "content": "{3"}\n\n'
    (tmp_path / "a.jsonl").write_text(mark + good * 6 + "{\n" + good, "utf-8")
    with pytest.raises(UserError, match="a.jsonl, line 13: not JSON"):
        documents_of(tmp_path / "a.jsonl")


def test_one_of_the_fields_may_be_missing(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"title": "题", "content": "文"}\n{"content": "独"}\n', "utf-8"
    )
    assert documents_of(tmp_path / "a.jsonl") == [["题", "文"], ["独"]]


@pytest.mark.parametrize(
    "row, problem",
    [
        ("7,只有两列", "2 columns, where others have 3"),
        ("7,一,二,三", "4 columns, where others have 3"),
        ('7,"坏"的,引号', "no row of a table"),
        ("7,\udcb5\udcc4,内容", "not UTF-8"),
    ],
)
def test_wrong_rows_of_tables(tmp_path, row, problem):
    lines = as_csv().decode("utf-8-sig").split("\r\n")
    lines.insert(11, row)
    path = tmp_path / "a.csv"
    path.write_bytes("\r\n".join(lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=rf"a.csv, line \d+: .*{problem}"):
        documents_of(path)
    counts = collections.Counter()
    assert documents_of(path, counts, on_error="skip") == EXPECTED
    assert counts["lines_malformed"] == 1


def test_a_tab_separated_quote_is_a_character(tmp_path):
    (tmp_path / "a.tsv").write_text(
        'title\tcontent\n"题\t他说"好\n二\t"文\n三\t文\n', "utf-8"
    )
    assert documents_of(tmp_path / "a.tsv") == [
        ['"题', '他说"好'], ["二", '"文'], ["三", "文"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "encoding", ["gb18030", "gbk", "big5", "utf-16", "utf-16-le", "utf-32"]
)
def test_encodings(tmp_path, encoding):
    text = "".join(f"第{i}句話。\n" + "\n" * (i % 5 == 0) for i in range(200))
    data = text.encode(encoding)
    (tmp_path / "a.txt").write_bytes(data)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(data))
    (tmp_path / "b.txt").write_text(text, "utf-8")
    expected = documents_of(tmp_path / "b.txt", text_field=())
    for name in ("a.txt", "a.txt.gz"):
        found = documents_of(tmp_path / name, text_field=(), encoding=encoding)
        assert found == expected
    if encoding.startswith("gb"):
        (tmp_path / "c.csv").write_bytes(
            as_csv().decode("utf-8-sig").encode(encoding)
        )
        assert documents_of(tmp_path / "c.csv", encoding=encoding) == EXPECTED
        (tmp_path / "c.jsonl").write_bytes(as_json().decode().encode(encoding))
        assert documents_of(tmp_path / "c.jsonl", encoding=encoding) == EXPECTED


def test_bytes_that_are_not_of_the_encoding(tmp_path):
    lines = ["好的，这是一句话。".encode("gb18030")] * 50
    lines[30] = b"\xff\xff"
    (tmp_path / "a.txt").write_bytes(b"\n".join(lines))
    settings = {"text_field": (), "encoding": "GB2312"}
    with pytest.raises(UserError, match="a.txt, line 31: this is not gb18030"):
        documents_of(tmp_path / "a.txt", **settings)
    counts = collections.Counter()
    found = documents_of(
        tmp_path / "a.txt", counts, on_error="skip", **settings
    )
    assert sum(map(len, found)) == 49 and counts["lines_not_utf8"] == 1


def test_encodings_have_one_name_each():
    assert ReadConfig(encoding="GBK").encoding == "gb18030"
    assert ReadConfig(encoding="UTF8").encoding == "utf-8"
    assert ReadConfig(encoding="utf-8-sig").encoding == "utf-8"
    for wrong in ("klingon", "hex", "rot13"):
        with pytest.raises(UserError, match="one that Python knows"):
            ReadConfig(encoding=wrong)


def test_the_tools_read_what_the_builder_reads(tmp_path, capsys):
    """One corpus in four forms: the same vocabulary, the same pairs."""
    (tmp_path / "a.jsonl").write_bytes(as_json())
    (tmp_path / "b.csv").write_bytes(as_csv())
    text = "".join("\n".join([*lines, "", ""]) for lines in EXPECTED)
    (tmp_path / "c.txt").write_text(text, "utf-8")
    found = []
    for name in ("a.jsonl", "b.csv", "c.txt"):
        fields = [] if name == "c.txt" else ["--json_field", *FIELDS]
        vocab_file = str(tmp_path / f"{name}.vocab")
        vocabulary.main(
            ["--input_file", f"{tmp_path}/{name}", "--output", vocab_file,
             "--vocab_size", "300", "--min_count", "1", *fields]
        )  # fmt: skip
        output_dir = str(tmp_path / f"{name}.out")
        build_pretraining_data.main(
            ["--input_file", f"{tmp_path}/{name}", "--vocab_file", vocab_file,
             "--output_dir", output_dir, "--segmenter", "none",
             "--max_seq_length", "32", "--num_workers", "1", *fields]
        )  # fmt: skip
        counts = json.loads(
            (tmp_path / f"{name}.out/manifest.json").read_text()
        )
        found.append(
            (
                (tmp_path / f"{name}.vocab").read_text("utf-8"),
                counts["counts"]["documents"],
                counts["counts"]["sentences"],
                counts["counts"]["tokens"],
            )
        )
    assert found[0] == found[1] == found[2]
    assert found[0][1:3] == (40, 160)


def test_any_number_of_workers_reads_the_same(tmp_path):
    (tmp_path / "vocab.txt").write_text(
        "\n".join([*"[PAD] [UNK] [CLS] [SEP] [MASK] 第 句 题 目 。".split()])
        + "\n",
        "utf-8",
    )
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.jsonl").write_bytes(as_json())
    (tmp_path / "corpus" / "b.csv").write_bytes(as_csv())
    built = []
    for count in (1, 3):
        plan = build_pretraining_data.make_plan(
            f"{tmp_path}/corpus/*", f"{tmp_path}/vocab.txt",
            f"{tmp_path}/out{count}",
            BuildConfig(text_field=FIELDS, unit_bytes=200, num_shards=3,
                        max_seq_length=32, segmenter="none"),
        )  # fmt: skip
        build_pretraining_data.build(
            plan, workers.Workers(count, progress=False)
        )
        folder = tmp_path / f"out{count}"
        built.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert built[0].keys() == built[1].keys()
    shards = [name for name in built[0] if "-of-" in name]
    assert all(built[0][name] == built[1][name] for name in shards)


def test_more_than_a_tenth_of_a_file_is_too_much_to_skip(tmp_path):
    (tmp_path / "vocab.txt").write_text(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n第\n句\n。\n", "utf-8"
    )
    good = "第句。第句。\n".encode()
    for bad, fits in ((900, True), (1300, False)):
        # Behind the sample that recognition looks at.
        data = good * 10_000 + b"\xb5\xc4\n" * bad
        (tmp_path / "a.txt").write_bytes(data)
        plan = build_pretraining_data.make_plan(
            f"{tmp_path}/a.txt", f"{tmp_path}/vocab.txt", f"{tmp_path}/{bad}",
            BuildConfig(on_error="skip", segmenter="none"),
        )  # fmt: skip
        pool = workers.Workers(1, progress=False)
        if fits:
            manifest = build_pretraining_data.build(plan, pool)
            assert manifest["counts"]["lines_not_utf8"] == bad
            continue
        with pytest.raises(UserError, match="1,300 of 11,300 lines"):
            build_pretraining_data.build(plan, pool)
        assert not (tmp_path / f"{bad}" / "manifest.json").exists()


def test_a_stream_gives_its_pieces_in_any_size():
    pieces = [b"", b"abc", b"", b"defgh", b"i"]
    for size in (1, 2, 4, 100):
        stream = io.BufferedReader(formats.Stream(iter(pieces)), 3)
        found = []
        while block := stream.read(size):
            found.append(block)
        assert b"".join(found) == b"abcdefghi"
        assert all(len(block) == size for block in found[:-1])


def test_no_word_of_a_json_key_becomes_a_token(tmp_path, capsys):
    """What happened before: hexadecimal digits and keys were learned."""
    (tmp_path / "a.jsonl").write_bytes(as_json(ascii_only=True))
    with pytest.raises(UserError, match=re.escape("--text_field content")):
        vocabulary.main(
            ["--input_file", f"{tmp_path}/a.jsonl", "--output",
             f"{tmp_path}/vocab.txt"]
        )  # fmt: skip
    assert not (tmp_path / "vocab.txt").exists()


@pytest.mark.parametrize("end", ["", "\r", "\u2028", "\x85"])
def test_sentences_are_split_when_asked(tmp_path, capsys, end):
    """One giant line; other line ends; objects of one line each."""
    document = end.join(f"这是第{i}句话。他说：“好！”" for i in range(200))
    (tmp_path / "a.txt").write_text(document, "utf-8", newline="")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"content": document}) + "\n", "utf-8"
    )
    tokens = sorted(set(document) - set(end))
    (tmp_path / "vocab.txt").write_text(
        "\n".join("[PAD] [UNK] [CLS] [SEP] [MASK]".split() + tokens) + "\n",
        "utf-8",
    )

    def build(name, **settings):
        plan = build_pretraining_data.make_plan(
            f"{tmp_path}/{name}", f"{tmp_path}/vocab.txt",
            f"{tmp_path}/out{len(list(tmp_path.iterdir()))}",
            BuildConfig(segmenter="none", max_seq_length=64, short_seq_prob=0,
                        **settings),
        )  # fmt: skip
        pool = workers.Workers(1, progress=False)
        return build_pretraining_data.build(plan, pool)["counts"]

    counts = build("a.txt")
    assert counts["sentences"] == 1 and counts["sentences_cut"] == 0
    assert counts["pairs_within_a_sentence"] == counts["pairs"] > 10
    assert counts["other_line_ends"] == (199 if end else 0)
    told = capsys.readouterr().err
    assert "pass --split_sentences true" in told
    assert ("199 line ends that are not LF" in told) == bool(end)
    for name, field in (("a.txt", ()), ("a.jsonl", ("content",))):
        counts = build(name, split_sentences=True, text_field=field)
        assert counts["sentences"] == 400
        assert counts["pairs_within_a_sentence"] == 0
        assert counts["documents"] == 1
        # The fields of an object are cut at CR in any case.
        assert counts["sentences_cut"] == (
            200 if field and end == "\r" else 399
        )
        assert "--split_sentences" not in capsys.readouterr().err
