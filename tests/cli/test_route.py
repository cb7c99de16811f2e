import json
from collections.abc import Iterator

import pytest

from proxy.cli.main import main
from tests.cli.test_quota import QuotaApi

EXPLAINED = {
    "layer": "L0", "model": "gpt-5-nano", "upstream": "default", "reason": "default_layer", "complexity": "low",
    "candidates": [{"upstream": "default", "model": "gpt-5-nano", "layer": "L0", "maxCost": None}],
    "rejected": [{"upstream": "default", "model": "evil\u001b[2J", "layer": "L3", "why": "above_max_layer"}],
    "estimate": {"maxCost": 0.0012}, "quota": {"leftCost": None, "allows": True},
    "answer": {"autoEscalate": False, "crossCheck": True},
    "policy": {
        "version": "3f2a", "scanned": True, "action": "redact", "unscanned": [{"place": "", "reason": "nested"}],
        "findings": [
            {"rule": "email", "category": "pii", "severity": "low", "action": "redact", "place": "messages[0].content"}
        ],
    },
}  # fmt: skip
UPSTREAMS = {
    "upstreams": [
        {"upstream": "a", "credential": 0, "state": "open", "inFlight": 2, "eligibleInSeconds": 4.2},
        {"upstream": "b", "credential": 0, "state": "closed", "inFlight": 0, "eligibleInSeconds": 0.0},
    ]
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[QuotaApi]:
    monkeypatch.setenv("SIDEGATE_ADMIN_KEY", "k")
    fake = QuotaApi()
    yield fake
    fake.close()


def test_explain_sends_the_file_and_prints_decision_and_what_was_passed_over(api, tmp_path, capsys):
    api.body = json.dumps(EXPLAINED).encode()
    file = tmp_path / "request.json"
    file.write_text('{"model": "auto"}')
    assert main(["route", "explain", str(file), "--url", api.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "gpt-5-nano at default: default_layer"
    assert "0.001200000 dollars" in lines[1]
    assert lines[2] == ("policy: redact; email (low: redact) in messages[0].content; a part cannot be scanned (nested)")
    assert lines[3] == "the answer: is reviewed by a second model"
    assert "above_max_layer" in lines[5]
    assert "\x1b" not in "".join(lines)
    assert api.asked == [("POST", "/v1/route", {"model": "auto"}, "Bearer k")]


def test_explain_where_prompts_are_not_scanned_says_so(api, tmp_path, capsys):
    policy = {"version": "3f2a", "scanned": False, "action": "allow", "findings": [], "unscanned": []}
    api.body = json.dumps(EXPLAINED | {"policy": policy}).encode()
    file = tmp_path / "request.json"
    file.write_text('{"model": "auto"}')
    assert main(["route", "explain", str(file), "--url", api.url]) == 0
    assert "policy: prompts are not scanned" in capsys.readouterr().out


def test_explain_of_what_is_no_json_fails_before_anything_is_asked(api, tmp_path, capsys):
    file = tmp_path / "request.json"
    file.write_text("{")
    assert main(["route", "explain", str(file), "--url", api.url]) == 1
    assert "is not JSON" in capsys.readouterr().err
    assert api.asked == []


def test_upstreams_prints_a_line_per_credential(api, capsys):
    api.body = json.dumps(UPSTREAMS).encode()
    assert main(["route", "upstreams", "--url", api.url]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [["a", "0", "open", "2", "4s"], ["b", "0", "closed", "0", "-"]]


@pytest.mark.parametrize("words", [["explain", "-"], ["upstreams"]])
def test_answer_as_json_is_the_answer_of_the_api(api, words, capsys, monkeypatch):
    document = EXPLAINED if words[0] == "explain" else UPSTREAMS
    exact = "1234567890.123456789"  # more than a float holds
    api.body = json.dumps({**document, "amount": 0.5}).replace("0.5", exact).encode()
    monkeypatch.setattr("sys.stdin.read", lambda: "{}", raising=False)
    assert main(["route", *words, "--json", "--url", api.url]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == {**document, "amount": float(exact)}
    assert exact in printed
