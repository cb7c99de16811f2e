from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.parameters import AMOUNT, EDGE, TIME, TRACE_ID, integer, one_of, parsed, read, text
from proxy.errors import InvalidRequest

KNOWN = {
    "from": TIME,
    "minCost": AMOUNT,
    "cursor": TRACE_ID,
    "limit": integer(1, 500),
    "outcome": one_of(("ok", "timeout")),
    "userId": text(8),
}
ID = "019e7044-8800-77cc-8d99-d8c5accf11fb"


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", {}),
        ("userId=&limit=", {}),
        ("from=2026-11-23", {"from": datetime(2026, 11, 23, tzinfo=UTC)}),
        ("from=2026-11-23T07:00:00Z", {"from": datetime(2026, 11, 23, 7, tzinfo=UTC)}),
        ("from=2026-11-23T09:00:00+02:00", {"from": datetime(2026, 11, 23, 7, tzinfo=UTC)}),
        ("from=2026-11-23T09:00:00%2B02:00", {"from": datetime(2026, 11, 23, 7, tzinfo=UTC)}),
        ("minCost=0.000000001", {"minCost": Decimal("0.000000001")}),
        (f"cursor={ID}&limit=500", {"cursor": UUID(ID), "limit": 500}),
        ("userId=%27%3B--%25_&outcome=ok", {"userId": "';--%_", "outcome": "ok"}),
        ("userId=%F0%9F%98%80+a", {"userId": "😀 a"}),
    ],
)
def test_right_parameters_are_typed(query: str, values: dict[str, object]) -> None:
    assert read(query, KNOWN) == values


@pytest.mark.parametrize(
    ("query", "param", "said"),
    [
        ("limi=3", "limi", "did you mean `limit`? Known parameters: "),
        ("zzz", "zzz", "Known parameters: cursor, from, limit, minCost, outcome, userId."),
        ("limit=0", "limit", "a whole number from 1 to 500"),
        ("limit=501", "limit", "a whole number"),
        ("limit=1e2", "limit", "a whole number"),
        ("limit=%D9%A3", "limit", "a whole number"),
        ("limit=" + "9" * 5000, "limit", "a whole number"),
        ("limit=1&limit=2", "limit", "given twice"),
        ("outcome=good", "outcome", "one of ok, timeout"),
        ("from=yesterday", "from", "ISO 8601"),
        ("minCost=NaN", "minCost", "an amount of dollars"),
        ("minCost=-1", "minCost", "an amount of dollars"),
        ("minCost=1e99", "minCost", "an amount of dollars"),
        ("minCost=x", "minCost", "an amount of dollars"),
        ("cursor=abc", "cursor", "UUID of version 7"),
        ("cursor=9f3c2f1e-1c5f-4a53-9d0a-1c5f4a539d0a", "cursor", "UUID of version 7"),
        ("cursor=ffffffff-ffff-7fff-bfff-ffffffffffff", "cursor", "UUID of version 7"),
        ("userId=123456789", "userId", "at most 8 characters"),
        ("userId=a%00b", "userId", "at most 8 characters"),
        ("userId=%ff", "userId", "at most 8 characters"),
        ("%00%0a%c3%a9" + "n" * 100, "??é" + "n" * 61 + "...", "Unknown parameter"),
    ],
)
def test_mistake_is_refused_with_its_name_and_what_is_allowed(query: str, param: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(query, KNOWN)
    assert (caught.value.http_status, caught.value.code) == (400, "invalid_parameter")
    assert caught.value.param == param
    assert said in caught.value.message


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read("limit=x&outcome=y&nope=1", KNOWN)
    for name in ("`limit`", "`outcome`", "`nope`"):
        assert name in caught.value.message
    assert caught.value.param == "limit"


def test_too_many_parameters_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        read("&".join(f"p{i}=1" for i in range(100)), KNOWN)


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_any_query_gives_values_or_a_printable_refusal(query: str) -> None:
    try:
        assert read(query, KNOWN).keys() <= KNOWN.keys()
    except InvalidRequest as refusal:
        assert refusal.message.isprintable()


def test_mistakes_when_there_are_many_then_the_first_are_told() -> None:
    given = [(f"unknown{number}", 1) for number in range(1000)]
    with pytest.raises(InvalidRequest) as caught:
        parsed(given, KNOWN, ("userId",), "member")
    assert caught.value.message.count("Unknown member") == 20
    assert "missing" not in caught.value.message


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00 01:00"]
)
def test_time_that_no_clock_in_utc_can_show_is_refused(moment: str) -> None:
    with pytest.raises(ValueError):
        TIME.parse(moment)
    with pytest.raises(ValueError):
        EDGE.parse(moment)


def test_mistake_where_nothing_is_known_is_told_so() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read("x=1", {})
    assert caught.value.message == "Unknown parameter `x`. There are no parameters here."
