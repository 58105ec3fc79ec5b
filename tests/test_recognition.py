"""What a file is, is found out and told before anything is built."""

import json
import random
from collections import Counter

import pytest

from albert_tf2 import UserError
from albert_tf2.data import borders, probing, recognition
from albert_tf2.data.corpus import CorpusFile
from albert_tf2.data.read_config import ReadConfig

TEXT = "".join(
    f"这是第{i}句话，用来看看文件像什么。\n" + "\n" * (i % 5 == 0)
    for i in range(300)
)


def find(path, **settings):
    return recognition.find(str(path), ReadConfig(**settings))[0]


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        "",
        "\n\n",
        "只有一行",
        # Verses: one ASCII comma in every line.
        "".join(
            f"{chr(a)}前明月{chr(a + 9)},疑是{chr(a + 50)}上霜\n"
            for a in range(0x4E00, 0x4E80)
        ),
        # Talk between quotes; lines of a menu.
        '"你好，吃了吗？"\n"吃了。"\n' * 20,
        "".join(
            f"{chr(a)}天天气好|明天{chr(a + 90)}\n"
            for a in range(0x4E00, 0x4E40)
        ),
        # Foot notes and wiki text.
        "[1]\n[2]\n[3]\n" * 20,
        "[1] 参考文献，第三页。\n[2] 又一个。\n" * 20,
        "{{信息框|名字=甲}}\n正文在这里。\n" * 20,
        "\t缩进的一行\n\t又一行\n" * 20,
        # Some JSON among the sentences of a text about it.
        TEXT + '{"a": 1}\n' * 20,
        "标题,内容\n",  # too few rows to tell
    ],
)
def test_text_is_text(tmp_path, content):
    (tmp_path / "a.txt").write_text(content, "utf-8")
    assert find(tmp_path / "a.txt").format == "text"


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("a.txt", '{"title": "春", "content": "春天来了，花开了。"}\n' * 30,
         "lines of JSON with the keys title, content: .*_field content"),
        ("a.csv", "label,review\n" + "1,很好，很快\n0,不好\n" * 20,
         "a table with the columns label, review: .*--text_field review"),
        ("a.txt", "label,review\n" + '1,"很好,很快"\n0,不好\n' * 20,
         "a table with the columns label, review: .*--text_field review"),
        ("a.txt", "标签\t内容\n" + "正\t很好，很快\n负\t不好\n" * 20,
         "a table with the columns 标签, 内容: .*--text_field 内容"),
        ("a.txt", "很好，很快\t1\n不好\t0\n" * 20,
         "a table without a header: .*--text_field 1"),
        ("a.txt", "好的，很快,3\n不好,2\n" * 20,
         "a table without a header: .*--text_field 1"),
        ("a.json", json.dumps([{"content": "春天"}] * 9, indent=1),
         r"one JSON value over many lines \(keys content\): .*jq -c"),
        ("a.json", json.dumps([{"content": "春天"}] * 9),
         r"one JSON value over many lines \(keys content\): .*jq -c"),
        ("a.txt", (json.dumps("春天来了，花开了。") + "\n") * 9,
         "lines of JSON that are no objects: .*jq -c '{text: .}' "),
        ("a.txt", '["春天", "春天来了，花开了。"]\n' * 9,
         "lines of JSON that are no objects: .*jq -c '{text: .}' "),
        ("a.txt", "label;review\n" + "1;很好，很快\n0;不好\n" * 20,
         "a table with the columns label, review, divided by ';': .*tabs"),
        ("a.csv", "label;review\n" + "1;很好，很快\n0;不好\n" * 20,
         "a table with the columns label, review, divided by ';': .*tabs"),
        ("a.txt", "很好，很快|1\n不好|0\n" * 20,
         "a table without a header, divided by '|': .*tabs"),
        ("a.csv", "review\n" + "很好，很快\n不好\n" * 20,
         "a table that begins review: .*--text_field review"),
        ("a.csv", "很好，很快\n不好\n" * 20,
         "a table that begins 很好，很快: .*--text_field 1"),
    ],
)  # fmt: skip
def test_objects_and_rows_are_not_read_as_text(tmp_path, name, content, told):
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(UserError, match=told):
        find(tmp_path / name)
    found = find(tmp_path / name, input_format="text")
    assert found.format == "text" and not found.fields


@pytest.mark.parametrize("begin", ["[", " [", "  ["])
def test_json_on_one_long_line_is_not_read_as_text(tmp_path, begin):
    """Wherever the sample ends: it may be within a character."""
    one = '{"content": "%s"},' % ("春天来了" * 50)
    content = begin + one * 200 + "{}]"
    (tmp_path / "a.txt").write_text(content, "utf-8")
    with pytest.raises(UserError, match="one JSON value over many lines"):
        find(tmp_path / "a.txt")


def test_some_broken_lines_do_not_make_another_format(tmp_path):
    lines = '{"content": "春天来了，花开了。"}\n' * 6 + '{"content": "春\n'
    (tmp_path / "a.jsonl").write_text(lines * 9, "utf-8")
    with pytest.raises(UserError, match="lines of JSON with the keys content"):
        find(tmp_path / "a.jsonl")
    found = find(tmp_path / "a.jsonl", text_field=("content",))
    assert found.format == "jsonl"


def test_text_has_no_fields(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    with pytest.raises(UserError, match="a.txt is plain text and has no fie"):
        find(tmp_path / "a.txt", text_field=("content",))
    (tmp_path / "a.jsonl").write_text('{"text": "一"}\n' * 9, "utf-8")
    with pytest.raises(UserError, match="no field 'content', but text: corr"):
        find(tmp_path / "a.jsonl", text_field=("content",))
    (tmp_path / "a.csv").write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(UserError, match="no field 'c', but a, b: correct"):
        find(tmp_path / "a.csv", text_field=("c",))


@pytest.mark.parametrize(
    "begin, told",
    [
        (b"\x1f\x8b\x08", "a gzip file: give it the ending .gz"),
        (b"PAR1", "a Parquet file"),
        (b"PK\x03\x04", "a zip archive"),
        (b"%PDF-1.4", "a PDF"),
        (b"\xfd7zXZ\x00", "an xz file"),
    ],
)
def test_files_that_hold_no_text(tmp_path, begin, told):
    noise = random.Random(1).randbytes(5000)
    (tmp_path / "a.txt").write_bytes(begin + noise)
    with pytest.raises(UserError, match=rf"a.txt is {told}"):
        find(tmp_path / "a.txt")


@pytest.mark.parametrize("on_error", ["fail", "skip"])
@pytest.mark.parametrize("encoding", ["gb18030", "big5", "utf-16"])
def test_another_encoding_is_named(tmp_path, encoding, on_error):
    text = TEXT.replace("这", "這").replace("话", "話").replace("来", "來")
    text = text.replace("么", "麼") if encoding == "big5" else TEXT
    data = text.encode(encoding, "ignore")
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError) as error:
        find(tmp_path / "a.txt", on_error=on_error)
    told = str(error.value)
    assert f"it is probably {encoding}: pass --encoding {encoding}" in told
    assert f"iconv -f {encoding.upper()} -t UTF-8 " in told
    assert find(tmp_path / "a.txt", encoding=encoding).encoding == encoding
    with pytest.raises(UserError, match="is not .*: correct --encoding"):
        find(tmp_path / "a.txt", encoding="ascii")


def test_one_wrong_byte_is_not_another_encoding(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT.encode() + b"\xb5\n")
    assert find(tmp_path / "a.txt").encoding == "utf-8"


def test_a_character_at_the_end_of_the_sample_is_no_error(tmp_path):
    for shift in range(3):
        content = b"x" * shift + "字".encode() * probing.SAMPLE_BYTES
        (tmp_path / "a.txt").write_bytes(content)
        assert find(tmp_path / "a.txt").format == "text"


def test_real_corpora_are_text(shared):
    folder = shared / "datasets"
    files = recognition.find(
        [f"{folder}/corpus/**/*.txt", f"{folder}/corpus_large/**/*.zst"],
        ReadConfig(),
    )
    assert len(files) > 15
    assert {file.format for file in files} == {"text"}
    for name, told in (
        ("lcqmc/dev.txt", "text_a, text_b, label"),
        ("thucnews_titles/dev.txt", "without a header"),
        ("tnews_fewclue/dev_few_all.json", "--text_field sentence"),
        ("cluener/train.json", "--text_field text"),
    ):
        with pytest.raises(UserError, match=told):
            recognition.find(f"{folder}/{name}", ReadConfig())


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "utf-16-le"])
def test_the_encoding_of_real_text_is_guessed(shared, encoding):
    for name in ("news_cctv.txt", "novels_pd.txt", "tech_lctt.txt"):
        text = (shared / "datasets" / "corpus" / name).read_text("utf-8")
        for size in (300, 20_000):
            sample = text[2000 : 2000 + size].encode(encoding, "ignore")
            assert probing.likely_encoding(sample) == encoding
    assert probing.likely_encoding(random.Random(2).randbytes(9999)) is None


FILE = CorpusFile("a.txt", "a.txt", 1)


def told_about(file=FILE, **counts):
    figures = [counts.get(name, 0) for name in borders.COUNTED]
    totals = Counter({"documents": 5000, "eval_documents": 50, **counts})
    return borders.notes([file], {0: figures}, totals, 0.01)


GOOD = {"documents": 100, "sentences": 900, "tokens": 20_000, "pairs": 80,
        "one_sentence_documents": 5, "pairs_within_a_sentence": 2}  # fmt: skip


def test_a_good_corpus_is_not_talked_about():
    assert told_about(**GOOD) == []
    assert told_about() == []  # an empty file


def test_borders_everywhere():
    counts = GOOD | {"documents": 600, "sentences": 600, "pairs": 631,
                     "one_sentence_documents": 600, "tokens": 9000,
                     "pairs_within_a_sentence": 631}  # fmt: skip
    (told,) = told_about(**counts)
    assert "631 of 631 pairs are cut inside a sentence: blank lines" in told
    (most,) = told_about(**counts | {"one_sentence_documents": 560})
    assert most == told  # nine of ten are enough
    (told,) = told_about(**counts | {"tokens": 600 * 400})
    assert "of 400 tokens on average" in told
    assert "pass --split_sentences true" in told
    (told,) = told_about(FILE._replace(format="jsonl"), **counts)
    assert "each document is one line" in told


@pytest.mark.parametrize("sentences", [2, 30, 600])
def test_borders_nowhere(sentences):
    counts = {"documents": 1, "sentences": sentences, "tokens": sentences * 20}
    (told, held_out) = told_about(**counts, eval_documents=0)
    assert f"no blank line, so its {sentences} sentences count as one" in told
    assert "none of the 1 documents is held out" in held_out
    # One document per file, and many files.
    assert told_about(**counts | {"documents": 1}, eval_documents=1)[1:] == []


def test_one_document_per_file_is_a_corpus_too():
    figures = dict.fromkeys(borders.COUNTED, 0)
    figures |= {"documents": 1, "sentences": 30, "tokens": 600}
    many = range(50)
    totals = Counter({"documents": 50, "eval_documents": 1})
    counts_of = {number: list(figures.values()) for number in many}
    assert borders.notes([FILE] * 50, counts_of, totals, 0.01) == []
    figures["sentences"] = 2000
    counts_of = {number: list(figures.values()) for number in many}
    (told,) = borders.notes([FILE] * 50, counts_of, totals, 0.01)
    assert told.endswith("(and 49 more files)")


def test_one_giant_line_and_other_line_ends():
    counts = {"documents": 1, "sentences": 1, "tokens": 70_265, "pairs": 140,
              "pairs_within_a_sentence": 140}  # fmt: skip
    (told,) = told_about(**counts)
    assert "sentences have 70,265 tokens on average, and 140 of 140" in told
    (told,) = told_about(**counts, other_line_ends=30)
    assert "30 line ends that are not LF (CR alone, U+2028" in told
    assert "pass --split_sentences true" in told
