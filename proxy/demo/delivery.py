"""How an answer leaves the demo upstream: whole or as a stream, well or with the fault that was asked for.

Rules of the file: a token is billed when its event was written; `completed` is set when nothing is missing. Broken
answers end the way a dying provider ends them: the connection closes in the middle of the body.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson
from aiohttp import web

from proxy.demo.call import Call, error_document
from proxy.demo.events import GARBAGE, Frame, event

STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
BROKEN_JSON = b'{"object": "broken", "choices": ['
FAILED = "The demo upstream failed, as this request asked for."


async def send_whole(call: Call, document: dict[str, Any], output_tokens: int) -> web.StreamResponse:
    """Send one JSON document; `output_tokens` is billed even if it breaks on the way."""
    fault = call.fault
    call.bill.output_tokens = output_tokens
    if fault.no_usage and "usage" in document:
        document = {**document, "usage": None}
    status, body = 200, orjson.dumps(document)
    if fault.error:
        status, body = 500, orjson.dumps(error_document(500, FAILED))
        call.bill.status = status
    elif fault.garbage:
        body = BROKEN_JSON
    elif fault.cut or fault.hang:
        return await _send_half(call, body)
    call.bill.completed = status == 200
    return web.Response(body=body, status=status, content_type="application/json", headers=call.headers())


async def send_stream(call: Call, frames: Iterable[Frame]) -> web.StreamResponse:
    """Send events, the terminator last, each after its delay; then break, if that is the fault."""
    fault = call.fault
    wanted = list(frames)
    if fault.no_done:
        wanted.pop()
    if fault.breaks_stream:
        del wanted[fault.after :]
    response = web.StreamResponse(headers=STREAM_HEADERS | call.headers())
    await response.prepare(call.request)
    for frame in wanted:
        await asyncio.sleep(fault.event_delay_s)
        await response.write(frame.data)
        call.bill.output_tokens += frame.tokens
    if fault.breaks_stream:
        await _break(call, response, len(wanted))
    else:
        call.bill.completed = not fault.no_done
    return response


async def _send_half(call: Call, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/json"} | call.headers())
    response.content_length = len(body)
    await response.prepare(call.request)
    await response.write(body[: len(body) // 2])
    await _break(call, response, 0)
    return response


async def _break(call: Call, response: web.StreamResponse, sent: int) -> None:
    if call.fault.cut:
        if call.request.transport is not None:
            call.request.transport.close()
    elif call.fault.hang:
        await asyncio.Event().wait()
    elif call.fault.error:
        await response.write(_error_event(call, sent).data)
    else:
        await response.write(GARBAGE.data)


def _error_event(call: Call, number: int) -> Frame:
    if call.bill.endpoint.endswith("/responses"):
        body = {"type": "error", "code": "server_error", "message": FAILED, "param": None, "sequence_number": number}
        return event(body, name="error")
    return event(error_document(500, FAILED))
