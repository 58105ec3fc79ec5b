"""Downloads from a server that cuts, changes its mind, or is not there."""

import http.server
import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from albert_tf2 import AlbertConfig, UserError, paths
from albert_tf2.checkpoints import download

CONTENT = bytes(range(256)) * 2000  # half a megabyte


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, as badly as it is told to."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag = '"one"'
        self.cut_after = None  # bytes per answer, then the line breaks
        self.cuts_left = 0
        self.ranges = True
        self.status = 200
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/models/albert.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        same = self.headers.get("If-Range") in (None, server.etag)
        if wanted and server.ranges and same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        if server.cut_after and server.cuts_left > 0:
            server.cuts_left -= 1
            body = body[: server.cut_after]
            self.close_connection = True
        self.wfile.write(body)


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALBERT_TF2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fetch(server, path):
    download.download(server.url, path, retry_seconds=0.0)
    return path.read_bytes()


def test_one_go(server, tmp_path):
    assert fetch(server, tmp_path / "a.zip") == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_resumes_after_each_cut(server, tmp_path):
    server.cut_after, server.cuts_left = 60_000, 6  # each brings something
    assert fetch(server, tmp_path / "a.zip") == CONTENT
    begins = [f"bytes={60_000 * cut}-" for cut in range(1, 7)]
    assert server.requests == [None, *begins]


def test_a_weak_etag_continues_nothing(server, tmp_path):
    """It promises the same meaning, not the same bytes."""
    server.etag = 'W/"one"'
    server.cut_after, server.cuts_left = 100_000, 2
    assert fetch(server, tmp_path / "a.zip") == CONTENT
    assert server.requests == [None, None, None]


def test_resumes_in_another_process_run(server, tmp_path):
    """A part that an earlier run left is continued, not fetched again."""
    server.cut_after, server.cuts_left = 1, 100
    with pytest.raises(UserError, match="could not be fetched"):
        server.cut_after = 200_000
        server.ranges = False  # no progress: gives up
        fetch(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip.part").stat().st_size == 200_000
    server.ranges, server.cuts_left = True, 0
    server.requests.clear()
    assert fetch(server, tmp_path / "a.zip") == CONTENT
    assert server.requests == ["bytes=200000-"]


def test_file_changed_between_cuts(server, tmp_path):
    server.cut_after, server.cuts_left = 100_000, 100
    server.ranges = False
    with pytest.raises(UserError):
        fetch(server, tmp_path / "a.zip")
    server.content, server.etag = CONTENT[::-1], '"two"'
    server.cuts_left, server.ranges = 0, True
    assert fetch(server, tmp_path / "a.zip") == CONTENT[::-1]


def test_server_without_ranges_or_etag(server, tmp_path):
    server.ranges, server.etag = False, None
    server.cut_after, server.cuts_left = 100_000, 2
    assert fetch(server, tmp_path / "a.zip") == CONTENT


def test_part_that_was_complete(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    paths.write_json(tmp_path / "a.zip.part.json", {"validator": server.etag})
    assert fetch(server, tmp_path / "a.zip") == CONTENT


def test_not_found_is_not_tried_again(server, tmp_path):
    server.status = 404
    with pytest.raises(UserError, match="Not Found"):
        fetch(server, tmp_path / "a.zip")
    assert len(server.requests) == 1


def test_offline_message_says_which_file_goes_where(tmp_path):
    target = tmp_path / "a.zip"
    url = "http://127.0.0.1:9/albert.zip"  # nobody listens on "discard"
    with pytest.raises(UserError) as error:
        download.download(url, target, retry_seconds=0.0)
    assert url in str(error.value)
    assert f"put the file at {target}" in str(error.value)


@pytest.fixture
def model_zip(tmp_path):
    archive = tmp_path / "albert.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        config = AlbertConfig.from_name("albert_tiny_zh").to_dict()
        opened.writestr("albert/albert_config.json", json.dumps(config))
        opened.writestr("albert/model.ckpt.index", b"")
    return archive.read_bytes()


def test_url_to_folder_once(server, model_zip, cache):
    server.content = model_zip
    folder = download.local_path(server.url)
    assert (folder / "albert" / "albert_config.json").is_file()
    assert download.local_path(server.url) == folder
    assert len(server.requests) == 1
    assert cache in folder.parents


def test_put_there_by_hand(server, model_zip, cache, monkeypatch):
    """The offline remedy works: no request is made."""
    released = download.Released(server.url, "albert_tiny_zh")
    monkeypatch.setitem(download.MODELS, "albert_tiny_zh", released)
    (cache / "albert_tiny_zh").mkdir(parents=True)
    (cache / "albert_tiny_zh" / "albert.zip").write_bytes(model_zip)
    folder = download.local_path("albert_tiny_zh")
    assert (folder / "albert" / "albert_config.json").is_file()
    assert server.requests == []


def test_checksum_of_the_first_download_is_kept(server, model_zip, cache):
    server.content = model_zip
    folder = download.local_path(server.url).parent
    record = paths.read_json(folder / "albert.zip.json")
    assert record["sha256"] == paths.sha256(folder / "albert.zip")
    assert record["url"] == server.url
    # The publisher puts another file there; the cache was cleaned by hand.
    (folder / "albert.zip").unlink()
    shutil.rmtree(folder / "unpacked")
    server.content = model_zip + b"x"
    server.etag = '"two"'
    with pytest.raises(UserError, match="the first download had"):
        download.local_path(server.url)
    assert [p.name for p in folder.iterdir()] == ["albert.zip.json"]


def archive_of(**files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for name, text in files.items():
            opened.writestr(name.replace("__", "."), text)
    return content.getvalue()


TINY = AlbertConfig.from_name("albert_tiny_zh").to_dict()
SMALL = AlbertConfig.from_name("albert_small_zh_google").to_dict()
IMPOSTORS = {
    "an error page": (b"<html>please log in</html>", "neither a zip"),
    "half an archive": (archive_of(a="x" * 999)[:-30], "neither a zip"),
    "no model": (archive_of(readme__txt="hello"), "holds no checkpoint"),
    "another model": (
        archive_of(
            model__ckpt__index="", albert_config__json=json.dumps(SMALL)
        ),
        "`hidden_size` 384, and the model of this name has 312",
    ),
    "another vocabulary": (
        archive_of(
            model__ckpt__index="",
            albert_config__json=json.dumps(TINY | {"vocab_size": 99}),
        ),
        "`vocab_size` 99, and the model of this name has 21128",
    ),
}


@pytest.mark.parametrize("content, reason", IMPOSTORS.values(), ids=IMPOSTORS)
def test_nothing_is_kept_of_what_is_no_model(
    server, model_zip, cache, monkeypatch, content, reason
):
    released = download.Released(server.url, "albert_tiny_zh")
    monkeypatch.setitem(download.MODELS, "albert_tiny_zh", released)
    server.content = content
    with pytest.raises(UserError, match="was removed again") as error:
        download.local_path("albert_tiny_zh")
    assert reason in str(error.value) and server.url in str(error.value)
    here = cache / "albert_tiny_zh"
    assert [*here.iterdir()] == []
    # The page is gone, and so the next try succeeds.
    server.content, server.etag = model_zip, '"two"'
    assert download.local_path("albert_tiny_zh") == here / "unpacked"


def test_what_a_user_put_there_stays(server, cache, monkeypatch):
    released = download.Released(server.url, "albert_tiny_zh")
    monkeypatch.setitem(download.MODELS, "albert_tiny_zh", released)
    here = cache / "albert_tiny_zh"
    here.mkdir(parents=True)
    (here / "albert.zip").write_bytes(b"half of it")
    with pytest.raises(UserError, match="neither a zip"):
        download.local_path("albert_tiny_zh")
    assert (here / "albert.zip").read_bytes() == b"half of it"
    assert not (here / "albert.zip.json").exists()
    assert server.requests == []


def test_a_mirror_has_the_archives_under_their_names(
    server, model_zip, cache, monkeypatch, tmp_path
):
    server.content = model_zip
    mirror = server.url.removesuffix("/albert.zip")
    monkeypatch.setenv("ALBERT_TF2_MIRROR", f"{mirror}/")
    folder = download.local_path("albert_tiny_zh")
    record = paths.read_json(folder.with_name("albert_tiny.zip.json"))
    assert record["url"] == f"{mirror}/albert_tiny.zip"
    # A folder of this machine will do.
    (tmp_path / "albert_large_zh.zip").write_bytes(model_zip)
    monkeypatch.setenv("ALBERT_TF2_MIRROR", f"file://{tmp_path}")
    with pytest.raises(UserError, match="`hidden_size` 312, and"):
        download.local_path("albert_large_zh")
    monkeypatch.setenv("ALBERT_TF2_MIRROR", "mirror.example")
    with pytest.raises(UserError, match="'mirror.example'"):
        download.local_path("albert_base_zh")


FETCH = (
    "import sys; from albert_tf2.checkpoints import download;"
    "print(download.local_path(sys.argv[1]))"
)


def test_two_processes_fetch_once(server, model_zip):
    server.content = model_zip
    server.cut_after, server.cuts_left = 20, 1  # slow the first one down
    command = [sys.executable, "-c", FETCH, server.url]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(folders) == 1
    assert server.requests.count(None) == 1


def test_a_lock_file_left_behind_blocks_nobody(server, model_zip, cache):
    server.content = model_zip
    folder = cache / download._key_of_url(server.url)
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    assert download.local_path(server.url).is_dir()


def test_what_exists_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("albert_tiny_zh").mkdir()
    assert download.local_path("albert_tiny_zh") == Path("albert_tiny_zh")


def test_addresses_that_are_no_archives():
    with pytest.raises(UserError, match="not the address of an archive"):
        download.local_path("http://127.0.0.1:9/model.exe")


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("ALBERT_TF2_CACHE", "/somewhere")
    assert download.cache_folder() == Path("/somewhere")
    monkeypatch.delenv("ALBERT_TF2_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setattr(sys, "platform", "linux")
    assert download.cache_folder() == Path("/cache/albert_tf2")


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALBERT_TF2_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set ALBERT_TF2_CACHE"):
        download.local_path("http://127.0.0.1:9/albert.zip")


def test_every_released_model_is_there():
    """albert_zh's README has nine archives, Google's four Chinese ones."""
    urls = {released.url for released in download.MODELS.values()}
    assert {url.rsplit("/", 1)[-1] for url in urls} == {
        "albert_tiny.zip",
        "albert_tiny_489k.zip",
        "albert_tiny_zh_google.zip",
        "albert_small_zh_google.zip",
        "albert_base_zh.zip",
        "albert_base_zh_additional_36k_steps.zip",
        "albert_large_zh.zip",
        "albert_xlarge_zh_177k.zip",
        "albert_xlarge_zh_183k.zip",
        "albert_base_zh.tar.gz",
        "albert_large_zh.tar.gz",
        "albert_xlarge_zh.tar.gz",
        "albert_xxlarge_zh.tar.gz",
    }
    for released in download.MODELS.values():
        google = "_google" in released.config
        layout = AlbertConfig.from_name(released.config).layout
        assert layout == ("google" if google else "brightmart")
