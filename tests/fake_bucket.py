"""Google Cloud Storage on loopback, for TensorFlow's own gs:// client.

That client has its addresses built in, but it is libcurl: it asks a proxy and
trusts the certificates that the environment names. So this server is the
proxy, answers for *.googleapis.com under a certificate of its own, and keeps
the objects in memory. It speaks the few calls that TensorFlow makes.
"""

import contextlib
import http.server
import json
import re
import shutil
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest


class Bucket(http.server.ThreadingHTTPServer):
    """All buckets, as one dictionary of `bucket/object` to bytes."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.requests = 0
        self.certificate = _certificate(folder)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.certificate, folder / "key.pem")

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to find this bucket."""
        proxy = f"http://127.0.0.1:{self.server_port}"
        return {
            "https_proxy": proxy,
            "all_proxy": proxy,
            "no_proxy": "localhost",
            "NO_PROXY": "localhost",
            "CURL_CA_BUNDLE": str(self.certificate),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "NO_GCE_CHECK": "true",
            "GCS_RETRY_CONFIG_MAX_RETRIES": "2",
        }


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Bucket]:
    """Serves while the block runs; its certificate goes to `folder`."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl for a certificate")
    with Bucket(folder) as bucket:
        thread = threading.Thread(target=bucket.serve_forever, daemon=True)
        thread.start()
        try:
            yield bucket
        finally:
            bucket.shutdown()
            thread.join()


def _certificate(folder: Path) -> Path:
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem "
        "-out cert.pem -subj /CN=googleapis.com "
        "-addext subjectAltName=DNS:*.googleapis.com"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):
        pass

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(
            self.connection, server_side=True
        )
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)

    def do_GET(self):
        path, query = self._path()
        if path.startswith("/storage/v1/b/"):
            key = self._key(path)
            if key is None:
                self._list(re.match(r"/storage/v1/b/([^/]+)", path)[1], query)
            elif key.endswith("/"):
                self._answer({"name": key})
            elif key in self.server.objects:
                size = len(self.server.objects[key])
                self._answer(
                    {
                        "size": str(size),
                        "generation": "1",
                        "updated": "2026-01-02T03:04:05.678Z",
                    }
                )
            else:
                self._answer({}, 404)
            return
        self._content(urllib.parse.unquote(path[1:]))

    def do_POST(self):
        self._body()
        path, query = self._path()
        target = f"https://www.googleapis.com{self.path}"
        if path.startswith("/upload/"):
            self._answer({}, headers={"Location": f"{target}&session=1"})
            return
        source, _, goal = path.partition("/rewriteTo/b/")
        source = self._key(source)
        goal = urllib.parse.unquote(goal.replace("/o/", "/", 1))
        if source not in self.server.objects:
            self._answer({}, 404)
            return
        self.server.objects[goal] = self.server.objects[source]
        self._answer({"done": True})

    def do_PUT(self):
        path, query = self._path()
        bucket = re.match(r"/upload/storage/v1/b/([^/]+)/o", path)[1]
        self.server.objects[f"{bucket}/{query['name']}"] = self._body()
        self._answer({})

    def do_DELETE(self):
        path, _ = self._path()
        gone = self.server.objects.pop(self._key(path), None)
        self._answer({}, 404 if gone is None else 200)

    def _path(self) -> tuple[str, dict[str, str]]:
        self.server.requests += 1
        found = urllib.parse.urlsplit(self.path)
        return found.path, dict(urllib.parse.parse_qsl(found.query))

    def _key(self, path: str) -> str | None:
        """Returns `bucket/object` of an object's address."""
        found = re.fullmatch(r"/storage/v1/b/([^/]+)/o/(.+)", path)
        return found and f"{found[1]}/{urllib.parse.unquote(found[2])}"

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix = query.get("prefix", "")
        items, prefixes = [], set()
        for key in sorted(self.server.objects):
            name = key.removeprefix(f"{bucket}/")
            if name == key or not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if query.get("delimiter") and "/" in rest:
                prefixes.add(prefix + rest.partition("/")[0] + "/")
            else:
                items.append({"name": name, "size": "1", "generation": "1"})
        self._answer({"items": items, "prefixes": sorted(prefixes)})

    def _content(self, key: str) -> None:
        content = self.server.objects.get(key)
        if content is None:
            self._answer({}, 404)
            return
        found = re.fullmatch(
            r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")
        )
        begin, end = map(int, found.groups()) if found else (0, len(content))
        if begin >= len(content):
            self._answer({}, 416)
            return
        self._send(content[begin : end + 1], 206 if found else 200, {})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _answer(self, value, status=200, headers=None) -> None:
        self._send(json.dumps(value).encode(), status, headers or {})

    def _send(self, body: bytes, status: int, headers: dict) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
