import json
from datetime import UTC, datetime, timedelta

import pytest

from proxy.cli.main import main
from tests.cli.conftest import FakeApi

RANGE = {"start": "2026-11-01T00:00:00Z", "end": "2026-11-03T00:00:00Z"}
USAGE = {
    "timeRange": RANGE,
    "totalRequests": 3,
    "totalTokens": {"input": 100, "output": 20, "total": 120},
    "totalCost": 0.123456789,
    "breakdown": {
        "byLayer": {"L0": {"requests": 3, "tokens": 120, "cost": 0.1, "avgDurationMs": 12.4, "successRate": 1.0}},
        "byModel": {
            "gpt\u001b[31m": {
                "requests": 3,
                "tokens": {"input": 100, "output": 20, "total": 120},
                "cost": 0.1,
                "avgDurationMs": 5,
                "errors": 0,
            }
        },
        "byDay": [{"date": "2026-11-01", "requests": 3, "tokens": 120, "cost": 0.1, "avgDurationMs": 9}],
    },
}
PERCENTILES = {"count": 1, "p50": 10.4, "p95": None, "p99": None}
ANSWERS = {
    "usage": ("/v1/analytics", USAGE, "3 requests, 100 input and 20 output tokens, $0.123456789"),
    "errors": (
        "/v1/analytics/error-rate",
        {
            "timeRange": RANGE,
            "totalRequests": 8,
            "errors": 2,
            "rejected": 1,
            "aborted": 1,
            "errorRate": 0.25,
            "byModel": {"m": {"requests": 1, "calls": 2, "errors": 1, "errorRate": 0.5}},
            "byDay": [],
        },
        "2 of 8 requests failed (25.00%)",
    ),
    "latency": (
        "/v1/analytics/latency",
        {
            "timeRange": RANGE,
            "durationMs": PERCENTILES,
            "firstByteMs": PERCENTILES,
            "byLayer": {},
            "byModel": {"m": {"durationMs": PERCENTILES, "firstByteMs": PERCENTILES}},
        },
        "requests      10       -",
    ),
    "expensive": (
        "/v1/analytics/top-expensive",
        {
            "timeRange": RANGE,
            "requests": [
                {"traceId": "t1", "cost": 0.5, "tokens": {"total": 9}, "calls": 2, "userId": None, "model": "m"}
            ],
        },
        "t1     0.500000       9      2     -      m",
    ),
    "users": (
        "/v1/analytics/users",
        {
            "timeRange": RANGE,
            "users": [{"userId": "alice", "requests": 1, "errors": 0, "tokens": {"total": 5}, "cost": 1}],
        },
        "alice         1       0       5  1.000000",
    ),
    "projects": (
        "/v1/analytics/projects",
        {
            "timeRange": RANGE,
            "projects": [{"projectId": "", "requests": 1, "errors": 0, "tokens": {"total": 5}, "cost": 1}],
        },
        "-               1       0       5  1.000000",
    ),
}


class AnalyticsApi(FakeApi):
    differences = 0

    def answer(self, path: str, query: dict[str, str]):
        if path.endswith(("/check", "/rebuild")):
            side = {"requests": 2, "tokens": 30, "cost": 0.5}
            return {
                "day": query["day"],
                "projects": [
                    {
                        "projectId": "shop",
                        "differences": self.differences,
                        "kept": side,
                        "counted": {**side, "tokens": 31},
                    }
                ],
            }
        return next(answer for known, answer, _ in ANSWERS.values() if known == path)


@pytest.fixture
def analytics_api(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIDEGATE_ADMIN_KEY", "k")
    fake = AnalyticsApi()
    yield fake
    fake.close()


@pytest.mark.parametrize("question", ANSWERS)
def test_each_question_has_a_table_and_json(question: str, analytics_api: AnalyticsApi, capsys) -> None:
    path, answer, said = ANSWERS[question]
    assert main(["analytics", question, "--project", "shop", "--since", "2026-11-01", "--url", analytics_api.url]) == 0
    printed = capsys.readouterr().out
    assert said in printed and "\x1b" not in printed
    assert analytics_api.asked == [(path, {"projectId": "shop", "startDate": "2026-11-01"}, "Bearer k")]
    assert main(["analytics", question, "--json", "--url", analytics_api.url]) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_a_day_goes_as_it_is_and_an_age_as_a_moment(analytics_api: AnalyticsApi) -> None:
    words = ["analytics", "usage", "--since", "7d", "--until", "2026-11-01T12:00:00+01:00", "--url", analytics_api.url]
    assert main(words) == 0
    [(_, query, _)] = analytics_api.asked
    assert query["endDate"] == "2026-11-01T11:00:00+00:00"
    age = datetime.now(UTC) - datetime.fromisoformat(query["startDate"])
    assert timedelta(days=7) <= age < timedelta(days=7, minutes=1)


@pytest.mark.parametrize("words", [["--since", "x"], ["--until", "9999-12-31T23:59:59-12:00"], ["--group-by", "year"]])
def test_wrong_usage_names_the_option_before_anything_is_asked(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["analytics", "usage", *words])
    assert capsys.readouterr().err.startswith(f"sidegate: argument {words[0]}: ")


def test_json_has_every_digit_of_the_amounts_as_the_proxy_wrote_it(analytics_api: AnalyticsApi, capsys) -> None:
    text = b'{"totalCost":0.000021750,"model":"\xc3\xa9"}'
    analytics_api.refusal = (200, text)
    assert main(["analytics", "usage", "--json", "--url", analytics_api.url]) == 0
    assert capsys.readouterr().out == '{"totalCost":0.000021750,"model":"\\u00e9"}\n'


def test_rebuild_of_days_before_all_calendars_is_wrong_usage(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["analytics", "rebuild", "--until", "0001-01-01"])
    assert capsys.readouterr().err.startswith("sidegate: argument --until: must be a day such as 2026-11-23")


def test_rebuild_goes_day_by_day_and_tells_what_differed(analytics_api: AnalyticsApi, capsys) -> None:
    words = ["analytics", "rebuild", "--since", "2026-11-01", "--until", "2026-11-03", "--url", analytics_api.url]
    assert main([*words, "--check"]) == 0
    assert "every sum matches its traces" in capsys.readouterr().out
    analytics_api.differences = 4
    assert main([*words, "--check"]) == 1
    assert "12 sums differ" in capsys.readouterr().out
    assert [query["day"] for _, query, _ in analytics_api.asked[:3]] == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert main([*words, "--project", "shop"]) == 0
    printed = capsys.readouterr().out
    assert "shop                     4 sums differ; requests 2 of 2, tokens 30 of 31" in printed
    assert "12 sums differed and were recomputed" in printed
    assert analytics_api.asked[-1][:2] == ("/v1/analytics/rebuild", {"day": "2026-11-03", "projectId": "shop"})
    assert main([*words, "--json"]) == 0
    assert [json.loads(line)["day"] for line in capsys.readouterr().out.splitlines()][-1] == "2026-11-03"


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--since", "x"], 2), (["--since", "2026-11-03", "--until", "2026-11-01"], 1)],
)
def test_rebuild_refuses_days_that_are_none(words: list[str], code: int, analytics_api: AnalyticsApi) -> None:
    try:
        assert main(["analytics", "rebuild", *words, "--url", analytics_api.url]) == code
    except SystemExit as end:
        assert end.code == code
