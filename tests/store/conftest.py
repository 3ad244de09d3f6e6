"""A server on the loopback that can misbehave, and an empty home for every test."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edgeinfer.store import http


@dataclass
class Server:
    """Files to serve, how to misbehave, and what was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # path -> body
    headers: dict[str, dict[str, str]] = field(default_factory=dict)  # path -> extra headers
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)  # answers to the next requests of a body
    cuts: list[int] = field(default_factory=list)  # bytes after which the next bodies break off
    seconds: float = 0.0  # that each chunk takes
    redirects: dict[str, str] = field(default_factory=dict)  # path -> address
    sent: int = 0  # bytes of bodies
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    def gets(self, path: str) -> list[str | None]:
        """The Range headers of the GETs of a path."""
        return [
            wanted for method, asked, wanted in self.requests if (method, asked) == ("GET", path)
        ]


@pytest.fixture
def server() -> Iterator[Server]:
    """Serves on the loopback until the test ends."""
    shared = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            wanted = self.headers.get("Range")
            shared.requests.append((self.command, path, wanted))
            shared.authorizations.append(self.headers.get("Authorization"))
            if path in shared.redirects:
                self.send_response(302)
                self.send_header("Location", shared.redirects[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = shared.files.get(path)
            if content is None or (body and shared.statuses):
                self.send_response(404 if content is None else shared.statuses.pop(0))
                for name, value in shared.headers.get(path, {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, stop = 0, len(content)
            if wanted and shared.ranges:
                first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
                start, stop = int(first), min(stop, int(last) + 1) if last else stop
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
            else:
                self.send_response(200)
            for name, value in shared.headers.get(path, {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if not body:
                return
            cut = shared.cuts.pop(0) if shared.cuts and len(content) > 1000 else None
            end = stop if cut is None else min(stop, start + cut)
            try:
                for at in range(start, end, 65536):
                    self.wfile.write(content[at : min(at + 65536, end)])
                    shared.sent += min(at + 65536, end) - at
                    time.sleep(shared.seconds)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            if cut is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        shared.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        yield shared
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home, no patience, and no setting of the machine's own."""
    for name in (
        "HF_HUB_OFFLINE", "EDGEINFER_OFFLINE", "PIP_CERT", "PIP_INDEX_URL", "OLLAMA_MODELS",
        "HF_TOKEN", "HF_HUB_CACHE", "HF_ENDPOINT",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path / "home" / "edgeinfer"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home" / "huggingface"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(http, "_FIRST_WAIT_SECONDS", 0.001)
    return tmp_path / "home"
