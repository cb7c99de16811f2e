import json
import re
import socket
import threading

import pytest

from proxy.cli.api_client import ApiClient, connect, local_url
from proxy.cli.failure import CommandFailed
from proxy.cli.main import main
from proxy.config.load import Loaded, load


def settings(**environ: str) -> Loaded:
    return load(None, environ, {})


def test_get_sends_the_key_and_the_parameters_and_returns_the_body(api):
    document = ApiClient(api.url, "k").get_json("/v1/traces", {"limit": "1", "model": "a b&c"})
    assert document == {"traces": [], "nextCursor": None}
    assert api.asked == [("/v1/traces", {"limit": "1", "model": "a b&c"}, "Bearer k")]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b"{}", "the proxy refuses the admin key; set SIDEGATE_ADMIN_KEY to the one it was started with"),
        (404, b'{"error": {"message": "No trace."}}', "the proxy answers 404: No trace."),
        (400, b'{"error": {"message": "a\\u001b[2Jb"}}', "the proxy answers 400: a?[2Jb"),
        (502, b"<html>", "the proxy answers 502: no explanation"),
        (500, b'{"error": "x"}', "the proxy answers 500: no explanation"),
        (302, b"", "the proxy answers 302: no explanation"),
    ],
)
def test_get_when_the_proxy_refuses_says_why_in_one_safe_line(api, status, body, message):
    api.refusal = (status, body)
    with pytest.raises(CommandFailed) as caught:
        ApiClient(api.url, "k").get("/v1/traces")
    assert str(caught.value) == message


def test_get_when_nobody_listens_names_the_address():
    with pytest.raises(CommandFailed, match=r"no answer from http://127\.0\.0\.1:1: Connection refused; is Sidegate"):
        ApiClient("http://127.0.0.1:1", "k").get("/")


def test_get_of_a_host_that_no_name_can_be_says_so():
    with pytest.raises(CommandFailed, match="no answer from http://"):
        ApiClient("http://" + "\u00e4" * 70 + ".example:1", "k").get("/")


@pytest.mark.parametrize(
    "words",
    [
        ["traces", "get", "\udcff"],
        ["traces", "tail", "--user", "\udcff"],
        ["traces", "export", "--user", "\udcff"],
        ["keys", "revoke", "\udcff"],
        ["orgs", "delete", "\udcff"],
        ["projects", "restore", "\udcff"],
        ["users", "remove", "\udcff"],
    ],
)
def test_an_argument_that_is_no_valid_text_is_judged_by_the_proxy(api, words, monkeypatch, capsys):
    monkeypatch.setenv("SIDEGATE_ADMIN_KEY", "k")
    api.refusal = (400, b'{"error": {"message": "Not a name."}}')
    assert main([*words, "--url", api.url]) == 1
    assert capsys.readouterr().err == "sidegate: the proxy answers 400: Not a name.\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[]", "the proxy does not answer with a JSON object; is it Sidegate?"),
        (b'{"message": "hello"}', "the answer lacks traces; is it Sidegate, and of this version?"),
        (b'{"traces": [{}]}', "the answer lacks nextCursor; is it Sidegate, and of this version?"),
    ],
)
def test_answer_of_another_program_is_told_in_one_line(api, body, message):
    api.refusal = (200, body)
    with pytest.raises(CommandFailed, match=f"^{re.escape(message)}$"):
        ApiClient(api.url, "key").get_all("/v1/traces", "traces", {})


def test_get_json_of_something_else_says_so(api):
    api.refusal = (200, b"<html>")
    with pytest.raises(CommandFailed, match="does not answer with JSON; is it Sidegate"):
        ApiClient(api.url, "k").get_json("/")


def test_get_ignores_proxies_of_the_environment(api, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert json.loads(ApiClient(api.url, "k").get("/v1/traces/x"))["id"] == "x"


WHOLE = {
    b"Content-Length: 0\r\n\r\n": b"",
    b"Content-Length: 3\r\n\r\nabc": b"abc",
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n": b"",
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n": b"abc",
}
BROKEN = [
    b"Content-Length: 4\r\n\r\nabc",
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n4\r\nabc",
]


def answering(answer: bytes) -> str:
    """Return the address of a server that answers once, with these headers and this body, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with listener, connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("answer", WHOLE, ids=repr)
def test_stream_when_the_answer_is_whole_then_it_yields_all_of_it(answer):
    assert b"".join(ApiClient(answering(answer), "k").stream("/", {})) == WHOLE[answer]


@pytest.mark.parametrize("answer", BROKEN, ids=repr)
def test_stream_when_the_answer_breaks_off_then_it_says_so(answer):
    with pytest.raises(CommandFailed, match=r"cut short|no complete answer"):
        list(ApiClient(answering(answer), "k").stream("/", {}))


def test_stream_when_nobody_listens_then_it_says_what_get_says():
    with pytest.raises(CommandFailed, match=r"^no answer from http://127.0.0.1:1: Connection refused; is Sidegate run"):
        list(ApiClient("http://127.0.0.1:1", "k").stream("/", {}))


@pytest.mark.parametrize(
    "url", ["", "h:80", "ftp://h", "http://", "http://h:x", "http://h/path", "http://h:0", "http://[::1"]
)
def test_connect_to_something_that_is_no_address_is_refused(url):
    with pytest.raises(CommandFailed, match="--url must be http://HOST:PORT"):
        ApiClient(url, "k")


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:81", "http://127.0.0.1:81"),
        ("[::]:81", "http://[::1]:81"),
        ("[fd00::1]:81", "http://[fd00::1]:81"),
        ("h.example:81", "http://h.example:81"),
    ],
)
def test_local_url_of_each_address_is_one_that_this_machine_reaches(listen, url):
    assert local_url(settings(SIDEGATE_LISTEN=listen)) == url


def test_connect_without_a_configured_key_reads_the_one_in_the_data_directory(api, tmp_path):
    (tmp_path / "admin.key").write_text("from-file\n")
    connect(f"{api.url}/v1/", settings(SIDEGATE_DATA_DIR=str(tmp_path))).get("/v1/traces/x")
    assert api.asked[0][2] == "Bearer from-file"


def test_connect_with_a_configured_key_prefers_it(api, tmp_path):
    (tmp_path / "admin.key").write_text("from-file\n")
    loaded = settings(SIDEGATE_DATA_DIR=str(tmp_path), SIDEGATE_ADMIN_KEY="configured")
    connect(api.url, loaded).get("/v1/traces/x")
    assert api.asked[0][2] == "Bearer configured"


def test_connect_to_another_machine_never_takes_the_key_of_this_one(tmp_path):
    (tmp_path / "admin.key").write_text("from-file\n")
    with pytest.raises(CommandFailed, match="the proxy on another machine needs its admin key; set SIDEGATE_ADMIN_KEY"):
        connect("http://h.example:80", settings(SIDEGATE_DATA_DIR=str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "message"), [(None, "there is no .*admin.key; name"), (b"\xff", "does not hold an admin")]
)
def test_connect_without_a_usable_key_says_what_to_do(tmp_path, content, message):
    if content is not None:
        (tmp_path / "admin.key").write_bytes(content)
    with pytest.raises(CommandFailed, match=message):
        connect("http://127.0.0.1:80", settings(SIDEGATE_DATA_DIR=str(tmp_path)))
