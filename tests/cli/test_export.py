"""Exports against an API that answers like the proxy, and one that breaks off."""

import os
import socket
from threading import Thread

ROWS = b'"id"\r\n' + b'"0192"\r\n' * 20_000


class Raw:
    """A server that answers one connection with fixed bytes and hangs up; `asked` is the request line."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked = ""
        self._answer = answer
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self.asked = connection.recv(65_536).decode().partition(" HTTP")[0]
            connection.sendall(self._answer)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


def chunked(body: bytes, *, whole: bool = True) -> bytes:
    end = b"0\r\n\r\n" if whole else b""
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n%b" % (len(body), body, end)


def run(sidegate, answer: bytes, *words: str):
    server = Raw(answer)
    try:
        return sidegate(*words, "--url", server.url, SIDEGATE_ADMIN_KEY="k" * 16), server.asked
    finally:
        server.close()


def test_file_has_all_and_only_what_the_filters_ask_for(sidegate, tmp_path) -> None:
    words = ("traces", "export", "--user", "bob", "--output", "traces.csv")
    done, asked = run(sidegate, chunked(ROWS), *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "traces.csv").read_bytes() == ROWS
    assert asked == "GET /v1/traces?userId=bob&format=csv"
    assert [path.name for path in tmp_path.iterdir()] == ["traces.csv"]


def test_answer_goes_to_standard_output_without_a_file(sidegate) -> None:
    words = ("analytics", "export", "series", "--by", "layer", "--format", "jsonl")
    done, asked = run(sidegate, chunked(b'{"a":1}\n'), *words)
    assert (done.returncode, done.stdout) == (0, '{"a":1}\n')
    assert asked == "GET /v1/analytics/series?by=layer&format=jsonl"


def test_output_that_is_no_file_is_written_to_and_stays(sidegate, tmp_path) -> None:
    words = ("traces", "export", "--output")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    done, _ = run(sidegate, chunked(ROWS), *words, "pipe")
    reader.join(20)
    assert (done.returncode, done.stderr, got) == (0, "", [ROWS])
    assert pipe.is_fifo()
    done, _ = run(sidegate, chunked(ROWS), *words, "/dev/stdout")
    assert (done.returncode, done.stdout.encode()) == (0, ROWS)


def test_output_that_is_a_link_stays_one(sidegate, tmp_path) -> None:
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "latest.csv").symlink_to("old.csv")
    done, _ = run(sidegate, chunked(ROWS), "traces", "export", "--output", "latest.csv")
    assert done.returncode == 0
    assert (tmp_path / "latest.csv").is_symlink()
    assert (tmp_path / "old.csv").read_bytes() == ROWS


def test_broken_answer_fails_and_leaves_the_old_file(sidegate, tmp_path) -> None:
    (tmp_path / "old.csv").write_text("old")
    words = ("traces", "export", "-o", "old.csv")
    done, _ = run(sidegate, chunked(ROWS, whole=False), *words)
    assert done.returncode == 1 and "no complete answer" in done.stderr
    assert (tmp_path / "old.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]


def test_refusal_is_told(sidegate) -> None:
    body = b'{"error": {"message": "Unknown parameter `by`."}}'
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    done, _ = run(sidegate, answer, "analytics", "export", "users", "--by", "x")
    assert done.returncode == 1 and "Unknown parameter `by`." in done.stderr
