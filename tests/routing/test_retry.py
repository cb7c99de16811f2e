import pytest

from proxy import errors
from proxy.config.routing import Routing
from proxy.routing.retry import Budget, Failure, Standing, again, cooling_s, of_error, of_status

STATUSES = {
    200: None, 201: None, 301: None, 400: None, 409: None, 413: None, 422: None, 401: "refused", 402: "refused",
    403: "refused", 404: "not_found", 408: "gateway", 429: "rate_limited", 500: "server_error", 501: "server_error",
    502: "gateway", 503: "overloaded", 504: "gateway", 529: "overloaded", 599: "server_error",
}  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_status_of_every_class_means_one_thing(status, kind):
    failure = of_status(status, {})
    assert (failure and failure.kind) == kind


@pytest.mark.parametrize(
    ("error", "sent", "kind"),
    [
        (errors.UpstreamFailed("x", sent=False), False, "unsent"),
        (errors.UpstreamTimeout("x", sent=False), False, "unsent"),
        (errors.UpstreamFailed("x", sent=False), True, "ambiguous"),
        (errors.UpstreamFailed("x"), False, "ambiguous"),
        (errors.NoUpstreamAvailable("x"), False, "busy"),
        (errors.Overloaded("x"), False, "busy"),
        (errors.InvalidRequest("x"), True, None),
    ],
)
def test_error_before_and_after_the_first_byte_are_two_things(error, sent, kind):
    failure = of_error(error, sent=sent)
    assert (failure and failure.kind) == kind


@pytest.mark.parametrize(
    ("fields", "wait_s"),
    [
        ({}, None),
        ({b"retry-after": b"3"}, 3),
        ({b"retry-after": b"1.5"}, 1.5),
        ({b"retry-after": b"9", b"retry-after-ms": b"250"}, 0.25),
        ({b"retry-after": b"Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({b"retry-after": b"-1"}, None),
        ({b"x-ratelimit-reset-requests": b"1s", b"x-ratelimit-reset-tokens": b"6m0s"}, 360),
        ({b"x-ratelimit-reset-tokens": b"6m0s", b"x-ratelimit-remaining-tokens": b"5"}, None),
        ({b"x-ratelimit-reset-requests": b"17ms", b"x-ratelimit-remaining-requests": b"0"}, 0.017),
        ({b"x-ratelimit-reset-requests": b"1h2m3s"}, 3723),
        ({b"x-ratelimit-reset-requests": b"12"}, 12),
        ({b"x-ratelimit-reset-requests": b"soon"}, None),
        ({b"x-ratelimit-reset-requests": b""}, None),
    ],
)
def test_wait_that_an_answer_asks_for_is_read_from_the_most_exact_header(fields, wait_s):
    assert of_status(429, fields).wait_s == wait_s


def test_limit_is_of_the_model_where_headers_tell_it():
    told = {b"x-ratelimit-remaining-tokens": b"0", b"retry-after": b"1"}
    assert of_status(429, told).of_model
    assert not of_status(429, {b"retry-after": b"1"}).of_model
    assert not of_status(503, told).of_model


@pytest.mark.parametrize(("wait_s", "cooling"), [(None, 5), (0.2, 0.2), (3600, 3600), (1e9, 86_400)])
def test_cooling_follows_the_wait_within_a_day(wait_s, cooling):
    assert cooling_s(Failure("rate_limited", wait_s)) == cooling


def standing(**facts) -> Standing:
    usual = {"attempts": 1, "is_late": False, "has_other": False, "retried": False, "has_budget": True}
    return Standing(**{**usual, **facts})


KINDS = (
    "unsent",
    "rate_limited",
    "overloaded",
    "busy",
    "gateway",
    "server_error",
    "refused",
    "not_found",
    "stream_error",
)


@pytest.mark.parametrize("kind", KINDS)
def test_failure_when_somewhere_else_is_left_then_fallback(kind):
    assert again(Failure(kind), standing(has_other=True, has_budget=False), Routing()) == "fallback"


@pytest.mark.parametrize(
    ("failure", "step"),
    [
        (Failure("unsent"), "retry"),
        (Failure("rate_limited", 2.0), "retry"),
        (Failure("rate_limited", 2.1), "give_up"),
        (Failure("rate_limited"), "give_up"),
        (Failure("overloaded", 0.5), "retry"),
        (Failure("overloaded"), "give_up"),
        *((Failure(kind), "give_up") for kind in KINDS[3:]),
    ],
)
def test_failure_when_nothing_else_is_left_then_the_same_place_only_where_it_is_safe(failure, step):
    assert again(failure, standing(), Routing()) == step
    assert again(failure, standing(retried=True), Routing()) == "give_up"
    assert again(failure, standing(has_budget=False), Routing()) == "give_up"


@pytest.mark.parametrize("has_other", [True, False])
def test_ambiguous_failure_is_repeated_only_where_that_is_configured(has_other):
    failure, where = Failure("ambiguous"), standing(has_other=has_other)
    assert again(failure, where, Routing()) == "give_up"
    assert again(failure, where, Routing(retry_ambiguous=True)) == ("fallback" if has_other else "retry")


@pytest.mark.parametrize("facts", [{"attempts": 3}, {"is_late": True}])
def test_failure_at_the_limit_of_attempts_or_time_is_the_last(facts):
    assert again(Failure("unsent"), standing(has_other=True, **facts), Routing()) == "give_up"


def test_budget_lets_half_of_its_stock_go_and_a_tenth_of_what_succeeds():
    budget, spent = Budget(10), 0
    while budget.has_some:
        budget.spend()
        spent += 1
    assert spent == 5
    for _ in range(1000):
        if budget.has_some:
            budget.spend()
            spent += 1
        budget.earn()
    assert spent <= 5 + 101
