"""The console script as a process in an environment that holds nothing but what a test gives it, and an API to ask."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.fakes import warm

Run = Callable[..., subprocess.CompletedProcess[str]]


def bare_environment(**extra: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error", **extra}


@pytest.fixture
def sidegate(tmp_path) -> Run:
    """Run `sidegate` in an empty directory; keywords are the environment."""

    def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return warm.run(words, bare_environment(**environ), tmp_path)

    return run


class FakeApi:
    """An API that answers `GET /v1/traces` from a list, as the proxy does, and notes what it was asked."""

    def __init__(self) -> None:
        self.traces: list[dict[str, Any]] = []
        self.asked: list[tuple[str, dict[str, str], str | None]] = []
        self.bodies: list[dict[str, Any]] = []
        self.lines: list[tuple[str, str, str | None]] = []
        self.refusal: tuple[int, bytes] | None = None
        self.page = 500
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = dict(parse_qsl(parts.query))
                api.asked.append((parts.path, query, self.headers["Authorization"]))
                status, body = api.refusal or (200, json.dumps(api.answer(parts.path, query)).encode())
                self.send_response(status)
                self.send_header("ETag", '"v1"')
                api.lines.append((self.command, parts.path, self.headers["If-Match"]))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                if length := int(self.headers["Content-Length"] or 0):
                    api.bodies.append(json.loads(self.rfile.read(length)))
                self.do_GET()

            do_PUT = do_PATCH = do_DELETE = do_POST

            def log_message(self, *_: Any) -> None:
                """Keep the test's output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        if path != "/v1/traces":
            return {"id": path.rsplit("/", 1)[1], "outcome": "ok", "llmCalls": [{"cost": 0.5}]}
        start = int(query.get("cursor", 0))
        end = start + min(int(query["limit"]), self.page)
        newest_first = self.traces[::-1]
        return {"traces": newest_first[start:end], "nextCursor": str(end) if end < len(newest_first) else None}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.close()
