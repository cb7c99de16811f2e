import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamFailed
from proxy.exchange import Usage
from proxy.routing.peek import PeekedReply, can_be_heard, can_be_peeked
from tests.relay.peers import JSON, STREAM, Reply, cuts

GOOD = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
ERROR = b'data: {"error":{"code":"server_error"}}\n\n'
REST = b"data: [DONE]\n\n"


async def everything(reply) -> bytes:
    pieces = []
    while piece := await reply.read():
        pieces.append(piece)
    return b"".join(pieces)


BEGINNINGS = {
    "text": (GOOD, True),
    "comment first": (b": ping\n\n" + GOOD, True),
    "error": (ERROR, False),
    "error behind a comment": (b": ping\r\n\r\n" + ERROR, False),
    "error by name": (b'event: error\ndata: {"message":"no"}\n\n', False),
    "failed response": (b'event: response.failed\ndata: {"type":"response.failed"}\n\n', False),
    "error type": (b'data: {"type":"error","code":"x"}\n\n', False),
    "error is null": (b'data: {"type":"response.created","error":null}\n\n', True),
    "not JSON": (b"data: hello\n\n", True),
    "done at once": (b"data: [DONE]\n\n", True),
    "nothing": (b"", False),
    "comments alone": (b": ping\n\n", False),
    "error without its blank line": (ERROR[:-2], False),
}


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS.keys())
@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_stream_when_it_begins_then_its_first_event_says_how(beginning, size):
    sent, good = beginning
    peeked = PeekedReply(Reply(cuts(sent, range(0, len(sent), size)), (STREAM,)))
    assert await peeked.begins_well(5) is good
    assert await everything(peeked) == sent


@given(st.sets(st.integers(0, 200)))
def test_stream_when_peeked_then_no_byte_is_lost_however_it_came(places):
    sent = b": ping\n\n" + GOOD + GOOD + REST

    async def check() -> None:
        peeked = PeekedReply(Reply(cuts(sent, places), (STREAM,)))
        assert await peeked.begins_well(5)
        assert await everything(peeked) == sent

    asyncio.run(check())


async def test_stream_when_its_first_event_is_late_then_it_is_let_go_and_nothing_is_lost():
    arrives = asyncio.Event()
    inner = Reply([b"data: ", arrives, GOOD[6:], REST], (STREAM,))
    peeked = PeekedReply(inner)
    assert await peeked.begins_well(0.02)
    assert not peeked.complete
    arrives.set()
    assert await everything(peeked) == GOOD + REST
    peeked.close()
    assert inner.closed


async def test_stream_when_closed_while_it_is_waited_for_then_no_task_is_left():
    peeked = PeekedReply(Reply([asyncio.Event()], (STREAM,)))
    assert await peeked.begins_well(0.01)
    peeked.close()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_stream_when_cut_before_its_first_event_then_that_is_an_error():
    peeked = PeekedReply(Reply([b"data: ", UpstreamFailed("cut")], (STREAM,)))
    with pytest.raises(UpstreamFailed):
        await peeked.begins_well(5)


async def test_stream_that_begins_with_too_much_is_let_go():
    sent = b": " + b"x" * 70_000 + b"\n\n" + ERROR
    peeked = PeekedReply(Reply([sent[:66_000], sent[66_000:]], (STREAM,)))
    assert await peeked.begins_well(5)
    assert await everything(peeked) == sent


@pytest.mark.parametrize(
    ("headers", "status", "expected"),
    [
        ((STREAM,), 200, True),
        ((STREAM,), 500, False),
        ((JSON,), 200, False),
        ((STREAM, (b"Content-Encoding", b"gzip")), 200, False),
        ((STREAM, (b"Content-Encoding", b"identity")), 200, True),
        ((STREAM, (b"Content-Encoding", b"none")), 200, True),
    ],
)
def test_answer_that_is_no_readable_stream_is_not_peeked(headers, status, expected):
    assert can_be_peeked(Reply([], headers, status=status)) is expected


FIGURES = b'"usage":{"prompt_tokens":7,"completion_tokens":5}}'
FAILED = b'{"error":{"code":"server_error"},' + FIGURES


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        pytest.param(FAILED, Usage(7, 5), id="figures"),
        pytest.param(b'{"error":{"code":"server_error"}}', None, id="none"),
        pytest.param(b"<html>", None, id="no JSON"),
        pytest.param(FAILED[:-1] + b" " * 20_000 + b"}", None, id="too long"),
        pytest.param(b"", None, id="nothing"),
    ],
)
@pytest.mark.parametrize("size", [7, 4096])
async def test_error_when_heard_then_its_figures_are_known_and_no_byte_is_lost(sent, told, size):
    heard = PeekedReply(Reply(cuts(sent, range(0, len(sent), size)), (JSON,), status=503))
    await heard.hear(5)
    assert (None if heard.told is None else heard.told.usage) == told
    assert await everything(heard) == sent


async def test_error_when_it_is_late_or_cut_then_nobody_waits_for_it_and_who_reads_on_gets_it():
    arrives = asyncio.Event()
    heard = PeekedReply(Reply([FAILED[:9], arrives, FAILED[9:]], (JSON,), status=503))
    await heard.hear(0.02)
    assert heard.told is None
    arrives.set()
    assert await everything(heard) == FAILED
    heard = PeekedReply(Reply([FAILED[:9], UpstreamFailed("cut")], (JSON,), status=503))
    await heard.hear(5)
    assert (heard.told, await heard.read()) == (None, FAILED[:9])


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        pytest.param(b"data: " + FAILED + b"\n\n", Usage(7, 5), id="chat"),
        pytest.param(b'data: {"type":"response.failed","response":{' + FIGURES + b"}\n\n", Usage(7, 5), id="response"),
        pytest.param(ERROR, None, id="none"),
    ],
)
async def test_stream_when_it_begins_with_an_error_then_its_figures_are_known(sent, told):
    peeked = PeekedReply(Reply([sent], (STREAM,)))
    assert not await peeked.begins_well(5)
    assert (None if peeked.told is None else peeked.told.usage) == told


def test_answer_that_is_no_readable_document_is_not_heard():
    gzip = (b"Content-Encoding", b"gzip")
    assert [can_be_heard(Reply([], headers)) for headers in ((JSON,), (STREAM,), (JSON, gzip))] == [True, False, False]
