import timeit

import pytest

from proxy.api.routes import Api
from proxy.config import schema
from proxy.db.pool import Database
from tests.fakes.own_api import own_api

SETTINGS = schema.Database()


@pytest.fixture(scope="module")
def api() -> Api:
    database = Database(SETTINGS)
    return own_api(database)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/models",
        "/v1",
        "/v1/",
        "/",
        "/traces",
        "/v2/traces",
        "/xyztraces",
        "/v1/tracesx",
        "/v1/traces/",
        "/v1/traces//",
        "/v1/traces/a/b",
        "/v1/Traces",
        "/v1/traces/ingest",
        "/v1/quota",
        "/v1/quota/",
        "/v1/quota/status/a",
        "/v1/quotas/status",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_path_of_the_provider_is_not_ours(api: Api, method: str, path: str) -> None:
    assert api.match(method, path) is None


def test_path_of_ours_leads_to_its_handler_with_its_arguments(api: Api) -> None:
    search, one = api.match("GET", "/v1/traces"), api.match("GET", "/v1/traces/abc")
    assert search is not None and search.endpoint is not None and search.arguments == {}
    assert one is not None and one.endpoint is not None and one.arguments == {"traceId": "abc"}
    assert (search.endpoint.path, one.endpoint.path) == ("/v1/traces", "/v1/traces/{traceId}")
    assert {search.endpoint.permission, one.endpoint.permission} == {"traces:read"}


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("GET", "/v1/quota/status", "quota:read"),
        ("GET", "/v1/quota/top", "quota:read"),
        ("POST", "/v1/quota/update", "quota:write"),
        ("POST", "/v1/quota/reset", "quota:write"),
    ],
)
def test_what_changes_a_quota_needs_another_permission_than_reading_it(
    api: Api, method: str, path: str, permission: str
) -> None:
    route = api.match(method, path)
    assert route is not None and route.endpoint is not None
    assert route.endpoint.permission == permission


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/v1/traces", "GET"),
        ("/v1/traces/abc", "GET"),
        ("/v1/quota/status", "GET"),
        ("/v1/quota/top", "GET"),
        ("/v1/quota/update", "POST"),
        ("/v1/quota/reset", "POST"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE", "OPTIONS", "get"])
def test_wrong_method_on_a_path_of_ours_stays_here(api: Api, method: str, path: str, right: str) -> None:
    route = api.match(method, path)
    assert route is not None and (route.endpoint is None) == (method != right)
    assert route.allowed == (right,)


def test_match_of_a_foreign_path_costs_next_to_nothing(api: Api) -> None:
    rounds = 20_000
    best = min(timeit.repeat(lambda: api.match("POST", "/v1/chat/completions"), number=rounds, repeat=5))
    assert best / rounds < 5e-6  # 0.3 microseconds on an idle machine
