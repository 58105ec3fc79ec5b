"""Files and folders are whole or not there."""

import resource

import pytest

from albert_tf2 import command_line, files
from albert_tf2.errors import UserError


def test_atomic_file_appears_whole(tmp_path):
    path = tmp_path / "deep" / "name.txt"
    with files.atomic_file(path) as stream:
        stream.write("字\n")
        assert not path.exists()
    assert path.read_bytes() == "字\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_failed_file_leaves_the_old_one(tmp_path):
    path = tmp_path / "name.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_file(path) as stream:
        stream.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_one_sentence(tmp_path):
    path = tmp_path / "name.txt"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match="could not be written"):
            with files.atomic_file(path) as stream:
                stream.write("x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unusable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        with files.atomic_file(tmp_path / "file" / "name.txt"):
            pass


def test_atomic_directory(tmp_path):
    path = tmp_path / "folder"
    with files.atomic_directory(path) as temporary:
        (temporary / "a").write_text("1")
        assert not path.exists()
    with pytest.raises(UserError, match="already exists"):
        with files.atomic_directory(path):
            pass
    with pytest.raises(RuntimeError):
        with files.atomic_directory(path, overwrite=True) as temporary:
            (temporary / "a").write_text("2")
            raise RuntimeError
    assert (path / "a").read_text() == "1"
    with files.atomic_directory(path, overwrite=True) as temporary:
        (temporary / "b").write_text("3")
    assert [entry.name for entry in path.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_readable_and_errors_name_the_file(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"字": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "字": 1\n}\n'
    assert files.read_json(path) == {"字": 1}
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match=r"x\.json is not UTF-8 \(byte 7\)"):
        files.read_json(path)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no"), 2, "error: no\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (None, 0, ""),
    ],
)
def test_exit_codes(error, code, line, capsys):
    def main(argv):
        if error:
            raise error

    with pytest.raises(SystemExit) as caught:
        command_line.run(main)
    assert caught.value.code == code
    assert capsys.readouterr().err == line
