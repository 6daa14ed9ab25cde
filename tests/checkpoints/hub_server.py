"""A server on the loopback that speaks enough of the Hub's API, and misbehaves when told to.

Small files are served by `resolve` itself, weights by a redirect to a "content network" on another
host name, as the Hub does: `X-Linked-Etag` and `X-Linked-Size` come with the redirect, and the
token must not follow it.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Kind = Literal["status", "truncate", "short", "reset", "corrupt", "ignore_range"]
LFS = (".safetensors", ".bin")


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose line (`GET /path`) matches."""

    kind: Kind
    match: str
    times: int = 10**9
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Served:
    """One request that was answered."""

    line: str
    range: str | None
    status: int
    n_bytes: int
    token: str | None


class FakeHub:
    """The server and what it holds. Use it as a context manager."""

    def __init__(self) -> None:
        self.refs: dict[str, dict[str, str]] = {}
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        self.sizes: dict[str, int] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[Served] = []
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            fake = hub

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def add(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        """Put files on a branch; the commit's name follows from what they hold."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, data in sorted(files.items()):
            digest.update(f"{repo} {name} {sha256(data)}".encode())
        commit = digest.hexdigest()
        self.refs.setdefault(repo, {})[branch] = commit
        self.commits[repo, commit] = files
        for name, data in files.items():
            if name.endswith(LFS):
                self.blobs[sha256(data)] = data
        return commit

    def misbehave(self, kind: Kind, match: str, **kwargs: Any) -> Fault:
        """Let matching requests go wrong."""
        fault = Fault(kind, match, **kwargs)
        self.faults.append(fault)
        return fault

    def behave(self) -> None:
        """No more faults."""
        self.faults.clear()

    def n_bytes(self, match: str = "") -> int:
        """Bytes of bodies sent in answer to matching requests."""
        return sum(one.n_bytes for one in self.log if re.search(match, one.line))

    def requests(self, match: str = "") -> list[Served]:
        """Matching requests."""
        return [one for one in self.log if re.search(match, one.line)]

    def fault(self, line: str) -> Fault | None:
        """The fault that this request meets, if any."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.match, line):
                    fault.times -= 1
                    return fault
        return None

    def __enter__(self) -> FakeHub:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def sha256(data: bytes) -> str:
    """Hash under which large files are listed."""
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """Hash under which small files are listed."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeHub

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.form = parse_qs(self.rfile.read(length).decode())
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.line = f"{self.command} {path}"
        self.now = self.fake.fault(self.line)
        if self.now is not None and self.now.kind == "status":
            self._send(self.now.status, b"", self.now.headers)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/refs", path):
            self._refs(match[1])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._info(match[1], match[2])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(tree|paths-info)/(.+)", path):
            self._tree(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/cdn/(\w+)", path):
            self._file(self.fake.blobs[match[1]], {"ETag": f'"{match[1]}"'})
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _refs(self, repo: str) -> None:
        if repo not in self.fake.refs:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in self.fake.refs[repo].items()
        ]
        self._json({"branches": branches, "converts": [], "tags": []})

    def _commit(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if repo not in self.fake.refs:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        commit = self.fake.refs[repo].get(revision, revision)
        if (repo, commit) not in self.fake.commits:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return None
        return commit, self.fake.commits[repo, commit]

    def _info(self, repo: str, revision: str) -> None:
        found = self._commit(repo, revision)
        if found is not None:
            siblings = [{"rfilename": name} for name in found[1]]
            self._json({"id": repo, "sha": found[0], "siblings": siblings})

    def _tree(self, repo: str, kind: str, revision: str) -> None:
        found = self._commit(repo, revision)
        if found is None:
            return
        entries = []
        for name, data in found[1].items():
            if kind == "paths-info" and name not in self.form["paths"]:
                continue
            size = self.fake.sizes.get(name, len(data))
            entry = {"type": "file", "path": name, "size": size, "oid": git_sha1(data)}
            if name.endswith(LFS):
                entry["lfs"] = {"oid": sha256(data), "size": size, "pointerSize": 130}
            entries.append(entry)
        self._json(entries)

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        found = self._commit(repo, revision)
        if found is None:
            return
        commit, files = found
        if name not in files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        elif name.endswith(LFS):
            content = sha256(files[name])
            headers = {
                "Location": f"http://localhost:{self.fake.port}/cdn/{content}",
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{content}"',
                "X-Linked-Size": str(len(files[name])),
            }
            self._send(302, b"", headers)
        else:
            etag = f'"{git_sha1(files[name])}"'
            self._file(files[name], {"ETag": etag, "X-Repo-Commit": commit})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, data: bytes, headers: dict[str, str]) -> None:
        kind = self.now.kind if self.now is not None else None
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        status, size = 200, len(data)
        headers = {**headers, "Accept-Ranges": "bytes"}
        if wanted is not None and kind != "ignore_range":
            start, stop = int(wanted[1]), min(size, int(wanted[2] or size) + 1)
            if start >= size:
                self._send(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            status, data = 206, data[start:stop]
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        if kind == "corrupt":
            data = bytes(byte ^ 0x5A for byte in data)
        if kind == "short":
            data = data[: len(data) // 2]
        self._send(status, data, headers, broken=kind)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, broken: str | None = None
    ) -> None:
        whole = len(body)
        body = b"" if self.command == "HEAD" else body
        if broken in ("truncate", "reset"):
            body = body[: len(body) // 2]
            self.close_connection = True
        with self.fake.lock:  # before the answer: a client that has it may look at the log
            token = self.headers.get("Authorization")
            asked = self.headers.get("Range")
            self.fake.log.append(Served(self.line, asked, status, len(body), token))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(whole))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if broken == "reset":  # close with RST instead of FIN
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
