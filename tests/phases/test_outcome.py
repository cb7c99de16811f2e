import pytest

from proxy import errors
from proxy.exchange import Attempt, Candidate, Exchange, Inbound, Operation
from proxy.phases.outcome import outcome_of

OPERATION = Operation("chat.completions.create", "chat", "json", "chat", billable=True)


def exchange(
    *,
    error=None,
    attempts=0,
    status=None,
    headers_at=None,
    terminated=False,
    stream_error=None,
    cut=False,
    withheld=False,
):
    inbound = Inbound("POST", "/v1/x", "/v1/x", (), {}, OPERATION, None, None, True)
    x = Exchange("id", 0, 0.0, inbound, error=error)
    for index in range(attempts):
        attempt = Attempt(index, Candidate("u", "m"), 0.0, status=status, headers_at=headers_at)
        attempt.meter.terminated = terminated
        attempt.meter.stream_error = stream_error
        attempt.meter.cut = cut
        attempt.meter.withheld = withheld
        x.attempts.append(attempt)
    return x


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        ({"attempts": 1, "status": 200, "terminated": True}, "ok"),
        ({"attempts": 1, "status": 200}, "truncated"),
        ({"attempts": 1, "status": 429, "terminated": True}, "upstream_error"),
        ({"attempts": 1, "status": 200, "terminated": True, "stream_error": "server_error"}, "upstream_error"),
        ({"attempts": 1}, "upstream_error"),
        ({"attempts": 1, "status": 200, "cut": True}, "quota_cut"),
        ({"attempts": 1, "status": 200, "withheld": True}, "policy_cut"),
        ({"error": errors.PolicyViolation("no"), "attempts": 1, "status": 200, "headers_at": 1.0}, "policy_cut"),
        ({"error": errors.PolicyViolation("no")}, "rejected"),
        ({"error": errors.ClientDisconnected("gone"), "attempts": 1, "status": 200, "cut": True}, "client_abort"),
        ({"error": errors.InvalidRequest("no")}, "rejected"),
        ({"error": errors.JournalUnavailable("no")}, "rejected"),
        ({"error": errors.ShuttingDown("no")}, "rejected"),
        ({"error": errors.ShuttingDown("no"), "attempts": 1, "status": 200}, "drain_abort"),
        ({"error": errors.Overloaded("no")}, "rejected"),
        ({"error": errors.Overloaded("no"), "attempts": 1}, "overload_abort"),
        ({"error": errors.ClientDisconnected("gone")}, "client_abort"),
        ({"error": errors.UpstreamFailed("no"), "attempts": 1}, "upstream_failed"),
        ({"error": errors.UpstreamFailed("cut"), "attempts": 1, "status": 200, "headers_at": 1.0}, "truncated"),
        ({"error": errors.UpstreamTimeout("slow"), "attempts": 1, "headers_at": 1.0}, "timeout"),
        ({"error": errors.NoUpstreamAvailable("busy"), "attempts": 1}, "upstream_failed"),
        ({"error": errors.InternalError("bug"), "attempts": 1}, "internal_error"),
        ({}, "internal_error"),
    ],
)
def test_outcome_when_an_exchange_ended_then_one_word_says_how(facts, outcome):
    assert outcome_of(exchange(**facts)) == outcome
