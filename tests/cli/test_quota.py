import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from proxy.cli.main import main

QUOTA = """{"userId":"alice","projectId":"shop","exists":true,"maxTokensDaily":1000000,"currentTokensToday":12345,\
"remainingTokens":987655,"heldTokens":5000,"burnedTokens":0,"maxCostDaily":1000000000.000000001,\
"currentCostToday":0.000000001,"remainingCost":1000000000.000000000,"heldCost":0.500000000,"burnedCost":0.000000000,\
"window":3,"windowStartedAt":"2026-11-23T00:00:00Z","resetAt":"2026-11-24T00:00:00Z","updatedAt":null}"""


class QuotaApi:
    """An API that answers everything with one body, and notes what it was asked."""

    def __init__(self) -> None:
        self.status, self.body = 200, QUOTA.encode()
        self.asked: list[tuple[str, str, dict[str, Any], str | None]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(dict(parse_qsl(urlsplit(self.path).query)))

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, given: dict[str, Any]) -> None:
                api.asked.append((self.command, urlsplit(self.path).path, given, self.headers["Authorization"]))
                self.send_response(api.status)
                self.send_header("Content-Length", str(len(api.body)))
                self.end_headers()
                self.wfile.write(api.body)

            def log_message(self, *_: Any) -> None:
                """Keep the test's output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def quota_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[QuotaApi]:
    monkeypatch.setenv("SIDEGATE_ADMIN_KEY", "k")
    fake = QuotaApi()
    yield fake
    fake.close()


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("get --user alice", ("GET", "status", {"userId": "alice", "projectId": "default-project"})),
        ("get --user alice --project shop", ("GET", "status", {"userId": "alice", "projectId": "shop"})),
        ("set --user a --max-tokens 0", ("POST", "update", {"maxTokensDaily": 0})),
        ("set --user a --max-tokens 0 --create-project", ("POST", "update", {"maxTokensDaily": 0})),
        ("set --user a --max-cost 12.50", ("POST", "update", {"maxCostDaily": "12.50"})),
        (
            "set --user a --project p --max-cost 0.000000001 --max-tokens 5",
            ("POST", "update", {"projectId": "p", "maxTokensDaily": 5, "maxCostDaily": "0.000000001"}),
        ),
        ("reset --user a --project p", ("POST", "reset", {"userId": "a", "projectId": "p"})),
    ],
)
def test_one_quota_is_asked_for_or_changed_by_user_and_project(quota_api, words, asked):
    assert main(["quota", *words.split(), "--json", "--url", quota_api.url]) == 0
    method, path, given = asked
    caller = {"userId": "a", "projectId": "default-project"}
    strict = {"createProject": "--create-project" in words} if path == "update" else {}
    assert quota_api.asked[-1] == (method, f"/v1/quota/{path}", {**caller, **given, **strict}, "Bearer k")
    assert [one[:2] for one in quota_api.asked[:-1]] == [("GET", "/v1/quota/status")] * (path == "update")


@pytest.mark.parametrize("words", [["get"], ["set", "--max-tokens", "1"], ["reset"]])
def test_one_quota_is_shown_exactly_as_a_table_or_as_it_came(quota_api, words, capsys):
    words = ["quota", *words, "--user", "alice", "--url", quota_api.url]
    assert main(words) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["alice", "in", "shop"],
        ["from", "2026-11-23T00:00:00Z", "to", "2026-11-24T00:00:00Z"],
        ["LIMIT", "USED", "REMAINING", "HELD", "BURNED"],
        ["tokens", "1000000", "12345", "987655", "5000", "0"],
        ["dollars", "1000000000.000000001", "0.000000001", "1000000000.000000000", "0.500000000", "0.000000000"],
    ]
    assert main([*words, "--json"]) == 0
    assert capsys.readouterr().out == f"{QUOTA}\n"


def test_caller_not_seen_yet_is_told_as_such(quota_api, capsys):
    quota_api.body = QUOTA.replace('"exists":true', '"exists":false').encode()
    assert main(["quota", "get", "--user", "alice", "--url", quota_api.url]) == 0
    assert capsys.readouterr().out.startswith("alice in shop; not seen yet\n")


def test_user_that_was_never_seen_is_named_when_a_limit_is_set(quota_api, capsys):
    words = ["quota", "set", "--user", "alcie", "--project", "shop", "--max-tokens", "5", "--url", quota_api.url]
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    quota_api.body = QUOTA.replace('"exists":true', '"exists":false').encode()
    assert main(words) == 0
    assert capsys.readouterr().err == "sidegate: alcie is new in shop\n"


def _quota(**changed: Any) -> dict[str, Any]:
    return {**json.loads(QUOTA), "maxCostDaily": 10.0, "currentCostToday": 0.25, **changed}


def test_top_lists_quotas_by_the_limit_that_is_nearer(quota_api, capsys):
    quotas = [
        _quota(userId="nothing", maxCostDaily=0.0),
        _quota(userId="money", currentCostToday=9.999),
        _quota(userId="tokens", currentTokensToday=987_654, projectId="p" * 30),
    ]
    quota_api.body = json.dumps({"quotas": quotas}).encode()
    assert main(["quota", "top", "--url", quota_api.url]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["USER", "PROJECT", "USED", "TOKENS", "OF", "COST", "$", "OF", "$"],
        ["nothing", "shop", "100%", "12345", "1000000", "0.250000", "0.00"],
        ["money", "shop", "99%", "12345", "1000000", "9.999000", "10.00"],
        ["tokens", "p" * 20, "98%", "987654", "1000000", "0.250000", "10.00"],
    ]
    assert quota_api.asked == [("GET", "/v1/quota/top", {"limit": "20"}, "Bearer k")]


def test_top_of_one_project_passes_its_filters_on_and_prints_the_answer(quota_api, capsys):
    quota_api.body = b'{"quotas":[]}'
    assert main(["quota", "top", "--project", "a b&c", "--limit", "3", "--json", "--url", quota_api.url]) == 0
    assert quota_api.asked == [("GET", "/v1/quota/top", {"projectId": "a b&c", "limit": "3"}, "Bearer k")]
    assert capsys.readouterr().out == '{"quotas":[]}\n'


def test_names_of_others_cannot_steer_the_terminal(quota_api, capsys):
    name = "\x9b2J\x1b[2J\x7f\u00e9\U0001f600"
    quota_api.body = json.dumps(_quota(userId=name), ensure_ascii=False).encode()
    words = ["quota", "get", "--user", "a", "--url", quota_api.url]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[0] == "?2J?[2J?\u00e9\U0001f600 in shop"
    assert main([*words, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii() and out.rstrip("\n").isprintable()
    assert json.loads(out)["userId"] == name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("get", "the following arguments are required: --user; see sidegate quota get --help"),
        ("set --user a", "give --max-tokens, --max-cost or both; see sidegate quota set --help"),
        ("set --user a --max-tokens -1", "argument --max-tokens: must be a whole number such as 1000000; see"),
        ("set --user a --max-tokens 1e3", "argument --max-tokens: must be a whole number such as 1000000; see"),
        ("set --user a --max-tokens \u0663", "argument --max-tokens: must be a whole number such as 1000000; see"),
        ("set --user a --max-cost 1e3", "argument --max-cost: must be dollars such as 12.50, with at most 9 digits"),
        ("set --user a --max-cost 0.0000000001", "argument --max-cost: must be dollars such as 12.50"),
        ("top --limit x", "argument --limit/-n: must be a whole number"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["quota", *words.split()])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"sidegate: {message}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b'{"error": {"message": "No quota."}}', "the proxy answers 404: No quota."),
        (401, b"{}", "the proxy refuses the admin key; set SIDEGATE_ADMIN_KEY to the one it was started with"),
        (200, b"<html>", "the proxy does not answer with JSON; is it Sidegate?"),
        (200, b"\xff\xfe\xff", "the proxy does not answer with JSON; is it Sidegate?"),
    ],
)
@pytest.mark.parametrize("words", ["get --json", "set --max-tokens 1", "reset --json", "top"])
def test_refusal_is_one_line_and_exit_code_1(quota_api, status, body, message, words, capsys):
    quota_api.status, quota_api.body = status, body
    user = [] if words == "top" else ["--user", "a"]
    assert main(["quota", *words.split(), *user, "--url", quota_api.url]) == 1
    assert capsys.readouterr() == ("", f"sidegate: {message}\n")


@pytest.mark.parametrize("words", ["get", "reset"])
def test_proxy_that_does_not_run_is_named(quota_api, words, capsys):
    assert main(["quota", words, "--user", "a", "--url", "http://127.0.0.1:1"]) == 1
    assert "no answer from http://127.0.0.1:1: Connection refused; is Sidegate" in capsys.readouterr().err
