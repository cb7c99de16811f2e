import json

import pytest

from proxy.errors import InvalidRequest, Overloaded, ShuttingDown
from proxy.ingress import own_answers as own
from tests.ingress.wire import request, serving


@pytest.mark.parametrize(("error", "kept"), [(InvalidRequest("no"), True), (ShuttingDown("later"), False)])
async def test_refusal_when_sent_then_it_has_an_id_and_only_the_end_of_the_process_ends_the_connection(error, kept):
    async def refusing(asked):
        return await own.refuse(asked, error, ((b"Allow", b"GET"),))

    async with serving(refusing) as server, server.client() as client:
        await client.say(request("/"))
        answer = await client.answer()
        assert json.loads(answer.body)["error"]["message"] == error.message
        assert answer.value(b"x-request-id") == answer.value(b"x-sidegate-trace-id") != b""
        assert (answer.value(b"allow"), answer.value(b"server")) == (b"GET", b"sidegate")
        assert answer.value(b"connection") == (None if kept else b"close")


def test_raw_answer_when_made_then_it_is_whole_and_last():
    head, _, body = own.raw_answer(Overloaded("busy", retry_after_s=1.0)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Connection: close" in head
    assert b"Content-Length: %d" % len(body) in head
    assert json.loads(body)["error"]["message"] == "busy"
