"""W3C trace context, against the examples and rules of its specification."""

import pytest

from proxy.trace.context import is_sampled, read, span_id, traceparent
from proxy.trace.record import trace_id

OWN = "01890a5d-ac96-774b-bcce-b302099a8057"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [(GOOD, True), (GOOD[:-2] + "00", False), (GOOD[:-2] + "03", True), ("cc" + GOOD[2:] + "-what-comes", True)],
)
def test_context_when_the_caller_has_one_then_its_trace_goes_on(header, sampled):
    context = read({b"traceparent": header.encode(), b"tracestate": b"a=1,b=2"}, OWN)
    assert context == (TRACE, PARENT, sampled, "a=1,b=2")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        GOOD.upper(),
        GOOD + "-more",
        GOOD + "x",
        "ff" + GOOD[2:],
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
    ],
)
def test_context_when_there_is_none_or_a_malformed_one_then_a_trace_of_our_own_begins(header):
    fields = {b"traceparent": header.encode(), b"tracestate": b"a=1"} if header else {}
    assert read(fields, OWN) == (OWN.replace("-", ""), None, False, "")


def test_span_ids_when_made_then_all_parts_of_all_requests_differ():
    ids = {span_id(trace_id(1_780_000_000_000), part) for _ in range(500) for part in range(8)}
    assert len(ids) == 4000
    assert all(len(one) == 16 and int(one, 16) for one in ids)
    assert span_id(OWN) == "bcceb302099a8057"


@pytest.mark.parametrize(
    ("sampler", "no_parent", "parent_yes", "parent_no"),
    [
        ("always_on", True, True, True),
        ("always_off", False, False, False),
        ("parentbased_always_on", True, True, False),
        ("parentbased_always_off", False, True, False),
    ],
)
def test_sampler_when_named_then_as_specified(sampler, no_parent, parent_yes, parent_no):
    headers = ({}, {b"traceparent": GOOD.encode()}, {b"traceparent": GOOD[:-2].encode() + b"00"})
    assert [is_sampled(read(fields, OWN), sampler, 1.0) for fields in headers] == [no_parent, parent_yes, parent_no]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_ratio_when_traces_are_many_then_their_share_and_alike_for_whoever_asks(share):
    contexts = [read({}, trace_id(1_780_000_000_000)) for _ in range(4000)]
    chosen = [is_sampled(context, "traceidratio", share) for context in contexts]
    assert abs(sum(chosen) / 4000 - share) < 0.04
    followers = [read({b"traceparent": traceparent(one, PARENT, sampled=False)}, OWN) for one in contexts]
    assert [is_sampled(one, "traceidratio", share) for one in followers] == chosen


def test_traceparent_when_written_then_it_is_read_the_same():
    context = read({b"traceparent": GOOD.encode()}, OWN)
    assert traceparent(context, PARENT, sampled=True) == GOOD.encode()
