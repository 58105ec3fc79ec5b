"""Archives from anywhere: unpacked whole, or refused before a byte."""

import gzip
import io
import shutil
import tarfile
import types
import zipfile

import pytest

from albert_tf2 import UserError
from albert_tf2.checkpoints import archives

FILES = {"albert/albert_config.json": b"{}", "albert/vocab.txt": b"[PAD]\n"}


def make_zip(path, entries=FILES, **options):
    with zipfile.ZipFile(path, "w", **options) as opened:
        for name, content in entries.items():
            opened.writestr(zipfile.ZipInfo(name), content)
    return path


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as opened:
        for info, content in members:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
            if content is not None:
                info.size = len(content)
            opened.addfile(info, io.BytesIO(content or b""))
    return path


def test_zip_and_tar(tmp_path):
    one = make_zip(tmp_path / "a.zip")
    two = make_tar(tmp_path / "a.tar.gz", FILES.items())
    for archive in (one, two):
        folder = tmp_path / f"{archive.name}-out"
        archives.unpack(archive, folder)
        found = {
            str(p.relative_to(folder)): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file()
        }
        assert found == FILES


OUTSIDE = [
    "../evil",
    "a/../../evil",
    "/evil",
    "..\\evil",
    "C:/evil",
    "a\\evil",
    "a/..",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_leave_the_folder(name, kind, tmp_path):
    entries = {"albert/good": b"x", name: b"owned"}
    inner = tmp_path / "deep" / "er"
    inner.mkdir(parents=True)
    if kind == "zip":
        archive = make_zip(inner / "a.zip", entries)
    else:
        archive = make_tar(inner / "a.tar.gz", entries.items())
    with pytest.raises(UserError, match="leaves its folder"):
        archives.unpack(archive, inner / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(
        ["deep", "er", archive.name]
    )


def link(kind, target):
    info = tarfile.TarInfo("albert/link")
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "info",
    [
        link(tarfile.SYMTYPE, "/etc"),
        link(tarfile.SYMTYPE, "vocab.txt"),
        link(tarfile.LNKTYPE, "../../secret"),
        link(tarfile.FIFOTYPE, ""),
        link(tarfile.CHRTYPE, ""),
    ],
    ids=["symlink out", "symlink in", "hard link", "pipe", "device"],
)
def test_tar_links_and_devices(info, tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", [(info, None)])
    with pytest.raises(UserError, match="a link or a device"):
        archives.unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_zip_symlink(tmp_path):
    info = zipfile.ZipInfo("albert/link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="a link or a device"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1 << 20)
    archive = make_zip(
        tmp_path / "a.zip",
        {"zeros": bytes(2 << 20)},
        compression=zipfile.ZIP_DEFLATED,
    )
    with pytest.raises(UserError, match="more than any model"):
        archives.unpack(archive, tmp_path / "out")


def test_too_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    archive = make_zip(tmp_path / "a.zip")
    with pytest.raises(UserError, match="declares 2 files"):
        archives.unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.95])
def test_truncated(kind, keep, tmp_path):
    entries = {"a/weights": bytes(range(256)) * 400, **FILES}
    if kind == "zip":
        archive = make_zip(tmp_path / "a.zip", entries)
    else:
        archive = make_tar(tmp_path / "a.tar.gz", entries.items())
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match="truncated|neither a zip nor a tar"):
        archives.unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_member(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"a": b"x" * 1000})
    content = bytearray(archive.read_bytes())
    content[500] ^= 1
    archive.write_bytes(bytes(content))
    with pytest.raises(UserError, match="truncated or damaged"):
        archives.unpack(archive, tmp_path / "out")


def test_a_size_that_lies(tmp_path):
    """A member that unpacks to more than it declares is cut, and noticed."""
    archive = make_zip(tmp_path / "a.zip", {"a": b"x" * 1000})
    content = archive.read_bytes()
    smaller = content.replace((1000).to_bytes(4, "little"), bytes([9, 0, 0, 0]))
    archive.write_bytes(smaller)
    with pytest.raises(UserError, match="truncated or damaged"):
        archives.unpack(archive, tmp_path / "out")


def test_an_error_page(tmp_path):
    (tmp_path / "a.zip").write_text("<html>404</html>")
    with pytest.raises(UserError, match="neither a zip nor a tar"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "out")


def test_what_does_not_fit_the_disk_is_not_unpacked(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip")
    usage = types.SimpleNamespace(free=7)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="needs 8 bytes unpacked"):
        archives.unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    "entries, reason",
    [
        ({"m/a": b"1", "m/a/b": b"2"}, "'m/a/b', which cannot be written"),
        ({"m/" + "x" * 300: b"1"}, "File name too long"),
        ({"m/" + "d/" * 3000 + "x": b"1"}, "which cannot be written"),
    ],
)
def test_names_that_no_disk_takes(entries, reason, tmp_path):
    archive = make_zip(tmp_path / "a.zip", entries)
    with pytest.raises(UserError, match=reason) as error:
        archives.unpack(archive, tmp_path / "out")
    assert str(archive) in str(error.value) and len(str(error.value)) < 500
    assert list(tmp_path.iterdir()) == [archive]


def test_a_header_may_not_ask_for_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_HEADER_BYTES", 20_000)
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("p")
        info.type, info.size = kind, 6 << 30
        path = tmp_path / "a.tar.gz"
        with gzip.open(path, "wb") as stream:
            stream.write(info.tobuf() + bytes(100_000))
        with pytest.raises(UserError, match="more than 20,000 bytes"):
            archives.unpack(path, tmp_path / "out")
    many = {f"m/{number}": b"" for number in range(1_000)}
    make_zip(tmp_path / "a.zip", many)
    with pytest.raises(UserError, match="more than 20,000 bytes"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "out")
