import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.main import main

SCRIPT = Path(sys.executable).with_name("sidegate")


def trace(number: int) -> dict[str, Any]:
    return {"id": f"trace-{number}", "createdAt": datetime.now(UTC).isoformat(), "outcome": "ok", "model": f"m{number}"}


@pytest.fixture(autouse=True)
def admin_key(monkeypatch):
    monkeypatch.setenv("SIDEGATE_ADMIN_KEY", "k")


def test_tail_lists_the_latest_traces_with_the_newest_last(api, capsys):
    api.traces = [trace(number) for number in range(30)]
    assert main(["traces", "tail", "--limit", "3", "--url", api.url]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["TIME", "TRACE", "OUTCOME"]
    assert [row.split()[1] for row in rows] == ["trace-27", "trace-28", "trace-29"]
    assert all(re.match(r"\d\d:\d\d:\d\d ", row) for row in rows)


def test_tail_of_more_than_a_page_follows_the_cursor(api, capsys):
    api.traces = [trace(number) for number in range(25)]
    api.page = 10
    assert main(["traces", "tail", "--limit", "22", "--json", "--url", api.url]) == 0
    ids = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert ids == [f"trace-{number}" for number in range(3, 25)]
    assert [query.get("cursor") for _, query, _ in api.asked] == [None, "10", "20"]


def test_tail_as_json_prints_every_digit_in_ascii_and_one_trace_per_line(api, capsys):
    given = '{"id": "x", "cost": 1234567890.123456789, "llmCalls": [{"cost": 0.000000001, "ok": true, "model": null}]}'
    other = '{"id": "y", "tags": ["\\u00fc"], "tokens": 3}'
    api.refusal = (200, f'{{"traces": [{given}, {other}], "nextCursor": null}}'.encode())
    assert main(["traces", "tail", "--json", "--url", api.url]) == 0
    assert capsys.readouterr().out.splitlines() == [other, given]


def test_tail_shows_what_each_trace_cost_and_how_long_it_took(api, capsys):
    api.traces = [trace(0) | {"totalCost": 0.0125, "totalDurationMs": 1234.5}]
    assert main(["traces", "tail", "--url", api.url]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[4:6] == ["0.012500", "1.2s"]


def test_tail_of_nothing_prints_only_the_heading(api, capsys):
    assert main(["traces", "tail", "--url", api.url]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_tail_passes_every_filter_on(api):
    words = "--project p --user u --conversation c --model m --type chat --outcome ok --status 200 --min-cost 0.5"
    times = ["--since", "2026-01-01T00:00:00+01:00", "--until", "15m"]
    assert main(["traces", "tail", *words.split(), *times, "--url", api.url]) == 0
    [(_, query, _)] = api.asked
    until = datetime.fromisoformat(query.pop("to"))
    assert timedelta(minutes=14) < datetime.now(UTC) - until < timedelta(minutes=16)
    assert query == {
        "projectId": "p",
        "userId": "u",
        "conversationId": "c",
        "model": "m",
        "requestType": "chat",
        "outcome": "ok",
        "status": "200",
        "minCost": "0.5",
        "from": "2025-12-31T23:00:00+00:00",
        "limit": "20",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--since", "yesterday"], "argument --since: must be ISO 8601 or an age like 15m"),
        (["--since", "999999d"], "argument --since: must be ISO 8601 or an age like 15m"),
        (["--since", "0001-01-01"], "argument --since: must be ISO 8601 or an age like 15m"),
        (["--until", "9999-12-31T23:59:59-12:00"], "argument --until: must be ISO 8601 or an age like 15m"),
        (["--limit", "0"], "argument --limit/-n: must be a number from 1 to 100000"),
        (["--limit", "x"], "argument --limit/-n: must be a number from 1 to 100000"),
    ],
)
def test_tail_with_a_wrong_option_is_wrong_usage(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["traces", "tail", *words])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"sidegate: {message}")


def test_get_shows_an_outline_or_the_document(api, capsys):
    assert main(["traces", "get", "a/b?c", "--url", api.url]) == 0
    assert api.asked[0][0] == "/v1/traces/a%2Fb%3Fc"
    assert capsys.readouterr().out.splitlines() == [
        "id: a%2Fb%3Fc",
        "outcome: ok",
        "llmCalls:",
        "  [0]:",
        "    cost: 0.5",
    ]
    assert main(["traces", "get", "x", "--json", "--url", api.url]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": "x", "outcome": "ok", "llmCalls": [{"cost": 0.5}]}


def test_get_of_an_unknown_trace_fails_with_what_the_proxy_says(api, capsys):
    api.refusal = (404, b'{"error": {"message": "No trace x."}}')
    assert main(["traces", "get", "x", "--url", api.url]) == 1
    assert capsys.readouterr().err == "sidegate: the proxy answers 404: No trace x.\n"


def test_tail_follow_prints_each_new_trace_once_also_late_ones_until_ctrl_c(api):
    api.traces = [trace(number) for number in range(5)]
    process = subprocess.Popen(
        [SCRIPT, "traces", "tail", "--follow", "--json", "--limit", "2", "--url", api.url],
        env={"PATH": os.environ["PATH"], "SIDEGATE_ADMIN_KEY": "k"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        seen = [json.loads(process.stdout.readline())["id"] for _ in range(2)]
        api.traces.append(trace(5))
        seen.append(json.loads(process.stdout.readline())["id"])
        api.traces.insert(4, trace(6))  # began before those already shown, ended after them
        seen.append(json.loads(process.stdout.readline())["id"])
    finally:
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=60)
    assert seen == ["trace-3", "trace-4", "trace-5", "trace-6"]
    assert (rest, stderr, process.returncode) == ("", "", 130)
    assert all("from" in query for path, query, _ in api.asked[2:])
