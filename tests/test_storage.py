"""Local paths, and URIs through pyarrow, behave alike."""

import pytest

from albert_tf2 import UserError
from albert_tf2.data import build_pretraining_data, corpus, storage, workers
from albert_tf2.data.build_config import BuildConfig


@pytest.fixture(params=["local", "uri"])
def folder(request, tmp_path):
    """The same folder as a path and as a `file://` URI."""
    if request.param == "uri":
        pytest.importorskip("pyarrow")
        return f"file://{tmp_path}"
    return str(tmp_path)


def test_write_read_list_remove(folder):
    path = storage.join(folder, "sub", "a.bin")
    assert not storage.exists(path)
    assert storage.names(storage.join(folder, "sub")) == []
    storage.make_folder(storage.join(folder, "sub"))
    for content in (b"first", b"second"):  # the second replaces the first
        with storage.atomic_binary(path) as stream:
            stream.write(content)
    assert storage.size(path) == 6
    with storage.open_binary(path) as stream:
        stream.seek(3)
        assert stream.read() == b"ond"
    storage.write_json(storage.join(folder, "sub", "b.json"), {"的": 1})
    assert storage.read_json(storage.join(folder, "sub", "b.json")) == {"的": 1}
    assert storage.names(storage.join(folder, "sub")) == ["a.bin", "b.json"]
    storage.remove_folder(storage.join(folder, "sub"))
    storage.remove_folder(storage.join(folder, "sub"))
    assert not storage.exists(path)


def test_a_file_in_the_way_of_a_folder_is_told(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UserError, match="file/sub cannot be created"):
        storage.make_folder(storage.join(folder, "file", "sub"))


def test_a_failed_write_leaves_nothing(folder):
    path = storage.join(folder, "a.bin")
    with pytest.raises(KeyError), storage.atomic_binary(path) as stream:
        stream.write(b"half")
        raise KeyError
    assert storage.names(folder) == []


def test_temporary_files_of_a_killed_process_are_removed(folder, tmp_path):
    (tmp_path / "a.bin.123.tmp").write_bytes(b"half")
    (tmp_path / "a.bin").write_bytes(b"whole")
    storage.remove_temporary_files(folder)
    assert storage.names(folder) == ["a.bin"]


def test_globs(folder, tmp_path):
    for name in ("b.txt", "a.txt", "c.dat", "sub/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [
        path.removeprefix(folder) for path in storage.find(f"{folder}/*.txt")
    ]
    assert names == ["/a.txt", "/b.txt"]
    assert storage.find(f"{folder}/a.txt") == [f"{folder}/a.txt"]
    assert storage.find(f"{folder}/z*.txt") == []
    assert storage.find(f"{folder}/sub/*.txt") == [f"{folder}/sub/d.txt"]
    with pytest.raises(FileNotFoundError):
        storage.size(storage.join(folder, "absent"))


def test_unknown_schemes_are_told():
    pytest.importorskip("pyarrow")
    with pytest.raises(UserError, match="cannot be reached"):
        storage.exists("nowhere://bucket/file")


def test_a_build_through_uris_has_the_same_bytes(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "vocab.txt").write_text(
        "\n".join("[PAD] [UNK] [CLS] [SEP] [MASK] 的 一 是 。".split()), "utf-8"
    )
    (tmp_path / "in").mkdir()
    text = "的一是。\n一的是。\n\n" * 500
    (tmp_path / "in" / "a.txt").write_text(text, "utf-8")
    config = BuildConfig(
        max_seq_length=64, segmenter="none", num_shards=2, unit_bytes=3000
    )
    found = []
    for root in (str(tmp_path), f"file://{tmp_path}"):
        output_dir = f"{root}/out{len(found)}"
        plan = build_pretraining_data.make_plan(
            f"{root}/in/*.txt", str(tmp_path / "vocab.txt"), output_dir, config
        )
        assert [file.name for file in plan.files] == ["a.txt"]
        manifest = build_pretraining_data.build(
            plan, workers.Workers(1, progress=False)
        )
        found.append(manifest["shards"])
        pool = workers.Workers(1, progress=False)
        assert "intact" in build_pretraining_data.verify(output_dir, pool)
    assert found[0] == found[1]
    assert corpus.find_files(f"file://{tmp_path}/in/a.txt")[0].size
