import io
import json
import logging

import pytest

from proxy import logs
from proxy.errors import UpstreamFailed
from proxy.exchange import Exchange, Inbound, Operation

CHAT = Operation("chat.completions.create", "chat", "json", "chat", billable=True)


@pytest.fixture
def lines():
    """Configure logging as the process does and collect what it writes."""
    root, raises = logging.getLogger(), logging.raiseExceptions
    before = (root.handlers[:], root.level)
    logs.configure("info")
    stream = io.StringIO()
    root.handlers[0].setStream(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], root.level = before
    logging.raiseExceptions = raises


def test_line_when_logged_then_it_is_one_json_object_with_the_extra_fields(lines):
    logging.getLogger("sidegate").info("listening", extra={"data": "127.0.0.1:1"})
    (line,) = lines()
    assert (line["event"], line["data"], line["level"]) == ("listening", "127.0.0.1:1", "info")
    assert line["time"].endswith("Z")


def test_line_when_text_tries_to_break_out_then_it_stays_one_ascii_line(lines):
    logging.getLogger("sidegate").info("a\nb\u2028c\x1b[31m\U0001f600", extra={"agent": 'x"\r\n{"level":"error"}'})
    (line,) = lines()
    assert line["event"] == "a\nb\u2028c\x1b[31m\U0001f600"


@pytest.mark.parametrize(("value", "written"), [("var/\udcff", "var/\udcff"), (1 << 70, 1 << 70)])
def test_line_when_a_value_is_none_that_utf8_or_64_bits_hold_then_it_is_written_all_the_same(lines, value, written):
    logging.getLogger("sidegate").error("cannot start", extra={"reason": value})
    assert [line["reason"] for line in lines()] == [written]


def test_line_when_an_exception_is_logged_then_its_text_stays_out(lines):
    try:
        raise ValueError("Bearer sk-secret")
    except ValueError:
        logging.getLogger("sidegate").exception("failed")
    (line,) = lines()
    assert line["error"] == "ValueError"
    assert "sk-secret" not in json.dumps(line)
    assert "test_logs.py" in line["where"][-1]


def test_line_when_a_library_would_quote_its_input_then_it_is_silent(lines):
    logging.getLogger("aiohttp.server").error("Invalid header: Authorization: Bearer sk-secret")
    logging.getLogger("asyncio").error("transport: sk-secret")
    assert lines() == []


@pytest.mark.parametrize(
    ("which", "outcome", "status", "written"),
    [
        ("none", "internal_error", 500, False),
        ("errors", "ok", 200, False),
        ("errors", "upstream_error", 429, False),
        ("errors", "upstream_error", 503, True),
        ("errors", "truncated", 200, True),
        ("all", "ok", 200, True),
    ],
)
def test_request_when_finished_then_the_setting_decides_whether_it_is_logged(lines, which, outcome, status, written):
    x = Exchange("trace-1", 0, 1.0, Inbound("POST", "/v1/x?key=sk-secret", "/v1/x", (), {}, CHAT, None, None, True))
    x.error = UpstreamFailed("cut") if outcome == "truncated" else None
    x.outcome, x.ended, x.delivery.status = outcome, 1.5, status
    logs.log_request(x, which)
    found = lines()
    assert bool(found) is written
    if written:
        assert (found[0]["trace"], found[0]["ms"], found[0]["status"]) == ("trace-1", 500.0, status)
        assert "sk-secret" not in json.dumps(found)
