from typing import get_args

import pytest

from proxy.errors import InternalError
from proxy.exchange import Outcome
from proxy.trace.failure import call_error, error_info, unexplained
from tests.trace.exchanges import begun, finished


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_outcome_that_is_not_well_explains_itself_without_an_error(outcome: Outcome) -> None:
    said = unexplained(outcome)
    # A rejection always carries the ProxyError that rejected it.
    assert (said is None) == (outcome in ("ok", "rejected"))
    assert said is None or (said["code"] == outcome and said["message"])


def test_exchange_without_outcome_or_error_is_an_internal_error() -> None:
    info = error_info(begun())
    assert info is not None
    assert (info["code"], info["source"]) == ("internal_error", "sidegate")


def test_error_event_of_the_provider_names_its_code() -> None:
    x = finished()
    x.outcome = "upstream_error"
    x.attempts[0].meter.stream_error = "server_overloaded" + "x" * 900
    info, call = error_info(x), call_error(x.attempts[0])
    assert info is not None and call is not None
    assert info["code"] == call["code"] == ("server_overloaded" + "x" * 900)[:256]
    assert info["source"] == "upstream"


@pytest.mark.parametrize(("events", "said"), [(0, "answered with an error"), (3, "error into its stream")])
def test_error_of_the_provider_is_said_to_be_in_a_stream_only_if_there_was_one(events: int, said: str) -> None:
    x = finished()
    x.attempts[0].meter.stream_error, x.attempts[0].meter.events = "unknown_url", events
    call = call_error(x.attempts[0])
    assert call is not None and said in call["message"]


def test_message_of_an_error_is_bounded() -> None:
    x = finished()
    x.error = InternalError("m" * 5000)
    info = error_info(x)
    assert info is not None and len(info["message"]) == 1024


def test_attempt_that_went_well_has_no_error() -> None:
    assert call_error(finished().attempts[0]) is None
