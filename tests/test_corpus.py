"""Files -> units -> documents: nothing lost, the same cuts everywhere."""

import bz2
import collections
import gzip
import lzma

import pytest

from albert_tf2 import UserError
from albert_tf2.data import corpus, formats, reading, units
from albert_tf2.data.read_config import ReadConfig

SIZE = 64  # bytes of a unit in these tests


def write(path, content):
    path.write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    return corpus.find_files(str(path))[0]


def contents(file):
    return [units.read_unit(unit) for unit in units.of_file(file, SIZE)]


def text_of(file, counts=None, **settings):
    return "".join(
        reading.read(
            unit,
            ReadConfig(**settings),
            collections.Counter() if counts is None else counts,
        )[0]
        for unit in units.of_file(file)
    )


BOOK = "".join(
    f"第{i}句。{'长' * (i % 7)}\n" + "\n" * (i % 4 == 0) for i in range(90)
)


def test_units_are_the_file_cut_at_blank_lines(tmp_path):
    file = write(tmp_path / "a.txt", BOOK)
    found = contents(file)
    assert b"".join(unit.data for unit in found) == BOOK.encode()
    assert sum(bool(unit.data) for unit in found) > 10
    offset = 0
    for unit in found:
        if unit.data:
            assert unit.offset == offset
        if unit.data and unit.offset and not unit.splits_document:
            before = BOOK.encode()[: unit.offset]
            assert before.endswith(b"\n\n")
        offset += len(unit.data)


def test_a_line_of_ideographic_spaces_is_blank(tmp_path):
    file = write(tmp_path / "a.txt", "很短的文章。\n\u3000\n" * 40)
    found = [unit for unit in contents(file) if unit.data]
    assert len(found) > 5
    assert not any(unit.splits_document for unit in found)


def test_a_long_document_is_split_at_a_line(tmp_path):
    file = write(tmp_path / "a.txt", "一句话而已。\n" * 40)
    found = [unit for unit in contents(file) if unit.data]
    assert all(unit.data.endswith(b"\n") for unit in found)
    assert [unit.splits_document for unit in found] == [False] + [True] * (
        len(found) - 1
    )
    assert len(found[-1].data) >= SIZE  # its rest is no unit of its own


def test_a_line_longer_than_units_stays_whole(tmp_path):
    line = "字" * 200 + "\n"
    file = write(tmp_path / "a.txt", "短。\n" + line + "短。\n\n完。\n")
    found = [unit.data for unit in contents(file) if unit.data]
    assert b"".join(found).decode().count("字") == 200
    assert any(line.encode() in data for data in found)


@pytest.mark.parametrize("extension", [".gz", ".zst", ".xz", ".bz2", ".GZ"])
def test_compressed_files_have_the_same_units(tmp_path, extension):
    plain = write(tmp_path / "a.txt", BOOK)
    pack = {".gz": gzip, ".xz": lzma, ".bz2": bz2}.get(extension.lower())
    pack = pack or pytest.importorskip("zstandard")
    data = pack.compress(BOOK.encode())
    (tmp_path / "b").mkdir()
    packed = write(tmp_path / "b" / f"a.txt{extension}", data)
    assert packed.name == plain.name == "a.txt"
    expected = [unit for unit in contents(plain) if unit.data]
    assert [unit for unit in contents(packed) if unit.data] == expected


def test_compressed_files_count_the_units_inside_a_line_too(tmp_path):
    """Each hands on what document it lies in: a gap would end it."""
    text = "一。\n" + "长" * 100 + "\n二。\n" * 2 + "长" * 60 + "\n三。\n"
    plain = write(tmp_path / "a.txt", text)
    (tmp_path / "b").mkdir()
    packed = write(tmp_path / "b" / "a.txt.gz", gzip.compress(text.encode()))
    expected = contents(plain)
    assert sum(not unit.data for unit in expected) > 3
    found = contents(packed)
    # Nothing stands behind the last unit with content.
    assert found == expected[: len(found)]
    assert not any(unit.data for unit in expected[len(found) :])


def test_damaged_compression_names_the_file(tmp_path):
    data = gzip.compress(BOOK.encode())
    file = write(tmp_path / "a.txt.gz", data[: len(data) // 2])
    with pytest.raises(UserError, match=r"a\.txt\.gz .*damaged"):
        list(units.of_file(file))


def test_documents_and_sentences():
    text = "甲。\r\n乙。\n \u3000\n\n丙。\n\t\n\n"
    assert list(reading.documents(text)) == [["甲。", "乙。"], ["丙。"]]
    assert list(reading.documents("")) == []


def test_wrong_bytes_are_named_or_skipped_and_counted(tmp_path):
    data = "好。\n".encode() + b"\xb5\xc4\n" + "完。\n".encode()
    file = write(tmp_path / "gbk.txt", data)
    with pytest.raises(UserError, match=r"gbk.txt, line 2, byte 7: 0xb5"):
        text_of(file)
    counts = collections.Counter()
    assert text_of(file, counts, on_error="skip") == "好。\n完。\n"
    assert counts["lines_not_utf8"] == 1


def test_one_line_of_another_encoding_is_not_the_file(tmp_path):
    wrong = "这一行是别的编码的文字，在这里。\n".encode("gb18030")
    good = "好的，这是一句话。\n".encode()
    file = write(tmp_path / "a.txt", good * 3 + wrong + good * 3)
    with pytest.raises(UserError, match=r"line 4, .*lines are UTF-8.*gb18030"):
        text_of(file)
    file = write(tmp_path / "b.txt", good * 3 + b"caf\xe9\n" + good * 3)
    with pytest.raises(UserError, match="are UTF-8: mend those that are not,"):
        text_of(file)


def test_the_line_of_a_wrong_byte_counts_from_the_file_start(tmp_path):
    lines = ["一句话。\n"] * 50
    lines[9::10] = ["\n"] * 5
    data = "".join(lines).encode() + b"\xff\n"
    file = write(tmp_path / "a.txt", data)
    with pytest.raises(UserError, match=rf"line 51, byte {len(data) - 2}:"):
        for unit in units.of_file(file, SIZE):
            reading.read(unit, ReadConfig(), collections.Counter())


def test_lines_are_counted_over_megabytes(tmp_path):
    """Lines are counted a megabyte at a time."""
    line = "一句话。\n".encode()
    number = (5 << 19) // len(line)
    data = line * number + b"\xff\n" + line
    file = write(tmp_path / "a.txt", data)
    with pytest.raises(
        UserError, match=f"line {number + 1}, byte {13 * number}:"
    ):
        text_of(file)
    for extra in (1 << 20, 1 << 21):  # where a block begins and ends
        assert units.line_number(file, extra) == data[:extra].count(b"\n") + 1


def test_very_many_blank_lines_are_one_border(tmp_path):
    """As many as a small compressed file may hold: what follows is quick."""
    data = "甲。\n".encode() + b"\n" * (3 << 20) + "乙。\n".encode()
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(data, 1))
    file = corpus.find_files(str(path))[0]
    counts = collections.Counter()
    text = text_of(file, counts)
    assert list(reading.documents(text)) == [["甲。"], ["乙。"]]
    assert len(text) < 30
    assert counts["bytes"] == len(data)


def test_byte_order_mark_and_nul(tmp_path):
    data = b"\xef\xbb\xbf" + "甲\0乙。\n".encode()
    counts = collections.Counter()
    assert text_of(write(tmp_path / "a.txt", data), counts) == "甲\0乙。\n"
    assert counts["nul_characters"] == 1
    bad = write(tmp_path / "b.txt", b"\xef\xbb\xbf\xff")
    with pytest.raises(UserError, match="line 1, byte 3"):
        text_of(bad)


def test_units_add_up_to_the_bytes_on_disk(tmp_path):
    plain = write(tmp_path / "a.txt", BOOK)
    packed = write(tmp_path / "b.txt.gz", gzip.compress(BOOK.encode()))
    for file in (plain, packed):
        done = sum(unit.progress for unit in units.of_file(file, SIZE))
        assert done == file.size


def test_empty_file_has_no_units(tmp_path):
    assert list(units.of_file(write(tmp_path / "a.txt", b""))) == []


def test_find_files(tmp_path):
    for name in ("b.txt", "a.txt", "sub/c.txt.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = corpus.find_files(
        [f"{tmp_path}/*.txt", f"{tmp_path}/**/*.gz,{tmp_path}/a.txt"]
    )
    assert [file.name for file in found] == ["a.txt", "b.txt", "sub/c.txt"]
    (tmp_path / "odd, [1].txt").write_bytes(b"x")
    assert len(corpus.find_files(f"{tmp_path}/odd, [1].txt")) == 1
    with pytest.raises(UserError, match="no file matches .*missing"):
        corpus.find_files(f"{tmp_path}/missing*")
    with pytest.raises(UserError, match="is a folder"):
        corpus.find_files(str(tmp_path))
    (tmp_path / "a.txt.gz").write_bytes(b"x")
    with pytest.raises(UserError, match="plain and compressed"):
        corpus.find_files([f"{tmp_path}/a.txt*"])


def test_a_file_of_two_names_is_read_once(tmp_path, capsys):
    for name in ("b.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "a.txt").symlink_to("b.txt")
    (tmp_path / "d.txt").hardlink_to(tmp_path / "c.txt")
    found = corpus.find_files(f"{tmp_path}/*.txt")
    assert [file.name for file in found] == ["b.txt", "c.txt"]
    told = capsys.readouterr().err
    assert "a.txt is " in told and "b.txt under another name" in told
    assert "(and 1 more such)" in told and told.count("\n") == 1
    assert (
        corpus.find_files([f"{tmp_path}/b.txt", f"file://{tmp_path}/b.txt"])[1:]
        == []
    )


def test_a_link_to_nothing_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").symlink_to("gone.txt")
    with pytest.raises(UserError, match="b.txt is a link to what is not"):
        corpus.find_files(f"{tmp_path}/*.txt")


@pytest.mark.parametrize("links", [1, 3])
def test_a_link_to_a_parent_reads_no_file_again(tmp_path, links):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "sub" / "b.txt").write_text("b")
    for number in range(links):
        (tmp_path / "sub" / f"loop{number}").symlink_to(tmp_path)
    found = corpus.find_files(f"{tmp_path}/**/*.txt")
    assert [file.name for file in found] == ["a.txt", "sub/b.txt"]


def test_relative_and_absolute_paths_mix(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    found = corpus.find_files(["a.txt", f"{tmp_path}/b.txt"])
    assert [file.name for file in found] == ["a.txt", "b.txt"]
    assert len(corpus.find_files(["a.txt", f"{tmp_path}/a.txt"])) == 1


def test_the_order_of_files_does_not_depend_on_compression(tmp_path):
    for folder, extension in (("plain", ""), ("packed", ".gz")):
        (tmp_path / folder).mkdir()
        for name in ("a", "a-b", "a.c"):
            (tmp_path / folder / f"{name}{extension}").write_bytes(b"x")
    plain, packed = (
        [file.name for file in corpus.find_files(f"{tmp_path}/{folder}/*")]
        for folder in ("plain", "packed")
    )
    assert plain == packed


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_LINE_BYTES", 3 * SIZE)
    file = write(tmp_path / "a.txt", "字" * 200)
    with pytest.raises(UserError, match="the line at byte 0 is longer"):
        contents(file)


def test_read_documents_goes_through_all_files(tmp_path):
    write(tmp_path / "a.txt", BOOK)
    write(tmp_path / "b.txt", "末。")
    files = corpus.find_files(f"{tmp_path}/*.txt")
    documents = list(reading.read_documents(files))
    assert documents[-1] == ["末。"]
    sentences = [s for document in documents for s in document]
    assert len(sentences) == 91
