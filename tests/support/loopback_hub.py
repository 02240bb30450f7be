"""A small model hub on the loopback: what the real client library asks of huggingface.co, and what can go wrong there.

Like the hub it answers a large file (git LFS) with a redirect to another host, which must not see the token.
"""

import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin")


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()


@dataclass
class LoopbackHub:
    """One repository, `someone/model`, at COMMIT. Tests change the fields while it serves."""

    files: dict[str, bytes] = field(default_factory=dict)
    refuse: tuple[int, str | None, str | None] | None = None  # status, X-Error-Code, X-Error-Message
    gated: str | None = None  # the one token that may read the files
    changed: set[str] = field(default_factory=set)  # files sent with one bit turned
    broken: dict[str, int] = field(default_factory=dict)  # how often a file still breaks off half-way
    seen: list[str] = field(default_factory=list)  # "METHOD path" of each request
    ranges: list[str] = field(default_factory=list)  # Range headers
    tokens_at_storage: list[str] = field(default_factory=list)  # Authorization headers that reached the other host

    def __post_init__(self):
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(self)

            def do_HEAD(self):
                hub.answer(self)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def downloads(self) -> list[str]:
        """The files whose bytes were asked for."""
        return [line.rpartition("/")[2] for line in self.seen if line.startswith("GET") and "/api/" not in line]

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        path = unquote(url.path)
        self.seen.append(f"{request.command} {path}")
        if self.refuse is not None:
            status, code, message = self.refuse
            return _send(request, status, {"X-Error-Code": code, "X-Error-Message": message})
        if path.startswith("/storage/"):
            self.tokens_at_storage += request.headers.get_all("Authorization", [])
            return self._send_file(request, path.removeprefix("/storage/"))
        if path == f"/api/models/someone/model/tree/{COMMIT}":
            return _send(
                request,
                200,
                {"Content-Type": "application/json"},
                json.dumps(self._tree("recursive=true" in url.query.lower())).encode(),
            )
        prefix, _, rest = path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        if prefix != "/someone/model":
            return _send(request, 404, {"X-Error-Code": "RepoNotFound"})
        if revision not in (COMMIT, "main"):
            return _send(request, 404, {"X-Error-Code": "RevisionNotFound"})
        if self.gated is not None and request.headers.get("Authorization") != f"Bearer {self.gated}":
            return _send(request, 403 if "Authorization" in request.headers else 401, {"X-Error-Code": "GatedRepo"})
        if name not in self.files:
            return _send(request, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        if not name.endswith(LARGE):
            return self._send_file(request, name)
        data = self.files[name]
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"http://localhost:{self.server.server_port}/storage/{name}",
        }
        return _send(request, 302, headers)

    def _tree(self, recursive: bool) -> list[dict]:
        folders = {name.partition("/")[0] for name in self.files if "/" in name}
        entries = [{"type": "directory", "path": folder, "oid": git_sha1(folder.encode())} for folder in folders]
        for name, data in self.files.items():
            if "/" in name and not recursive:
                continue
            entry = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
            if name.endswith(LARGE):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        return entries

    def _send_file(self, request: http.server.BaseHTTPRequestHandler, name: str) -> None:
        data = self.files[name]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{git_sha1(data)}"', "Accept-Ranges": "bytes"}
        if name in self.changed:
            data = data[:-1] + bytes([data[-1] ^ 1])
        status, start = 200, 0
        if "Range" in request.headers:
            self.ranges.append(request.headers["Range"])
            start = int(request.headers["Range"].removeprefix("bytes=").partition("-")[0])
            status, headers["Content-Range"] = 206, f"bytes {start}-{len(data) - 1}/{len(data)}"
        body, sent = data[start:], None
        if request.command == "GET" and self.broken.get(name, 0) > 0:
            self.broken[name] -= 1
            sent = len(body) // 2
        _send(request, status, headers, body, sent)


def _send(request, status: int, headers: dict[str, str | None], body: bytes = b"", sent: int | None = None) -> None:
    """Answer a request; with `sent`, break off after so many bytes of the body."""
    request.send_response(status)
    for key, value in headers.items():
        if value is not None:
            request.send_header(key, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body[:sent])
