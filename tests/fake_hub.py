"""A stand-in for Hugging Face's hub: what its library asks, from a folder."""

import base64
import hashlib
import http.server
import json
import threading
import urllib.parse
from contextlib import contextmanager

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_this_test"


class Hub(http.server.ThreadingHTTPServer):
    """Repositories are dicts of file name -> bytes.

    Attributes:
        repositories: By `owner/name`.
        private: The names of those that were created as private ones.
        messages: Of the commits.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = {}
        self.private = set()
        self.messages = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running():
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _answer(self, body, status=200, **headers):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, code):
        self._answer({"error": "not found"}, 404, X_Error_Code=code)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        about = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        files = self.server.repositories.get("/".join(parts[:2]))
        if files is None:
            self._missing("RepoNotFound")
        elif about and parts[2:3] == ["tree"]:
            self._answer(
                [
                    {"type": "file", "path": name, "size": len(content),
                     "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
            )  # fmt: skip
        elif about:
            if parts[2:] and parts[3] not in ("main", COMMIT):
                self._missing("RevisionNotFound")
                return
            siblings = [{"rfilename": name} for name in files]
            self._answer(
                {"id": "/".join(parts[:2]), "sha": COMMIT, "private": False,
                 "siblings": siblings, "tags": [], "downloads": 0}
            )  # fmt: skip
        else:  # owner/name/resolve/revision/file
            content = files.get("/".join(parts[4:]))
            if content is None:
                self._missing("EntryNotFound")
                return
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self._answer(content, X_Repo_Commit=COMMIT, ETag=etag)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer({"error": "you may not write here"}, 403)
            return
        path = urllib.parse.urlsplit(self.path).path
        if path == "/api/repos/create":
            asked = json.loads(body)
            owner = asked.get("organization", "me")
            name = f"{owner}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            if asked.get("private") or asked.get("visibility") == "private":
                self.server.private.add(name)
            self._answer({"url": f"{self.server.url}/{name}", "id": name})
        elif path.endswith("/preupload/main"):
            self._answer(
                {"files": [
                    {"path": file["path"], "uploadMode": "regular",
                     "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]}
            )  # fmt: skip
        elif path.endswith("/commit/main"):
            name = "/".join(path.split("/")[3:5])
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "header":
                    self.server.messages.append(value["summary"])
                else:
                    content = base64.b64decode(value["content"])
                    self.server.repositories[name][value["path"]] = content
            self._answer(
                {"success": True, "commitOid": COMMIT,
                 "commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}"}
            )  # fmt: skip
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        else:
            self._answer({"error": f"no {path} here"}, 404)
