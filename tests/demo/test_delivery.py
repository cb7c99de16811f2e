"""Delivery: whole, streamed, broken at the wanted place, billed for what was sent."""

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest

CHAT = "chat/completions"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "x"}]},
    "completions": {"prompt": "x"},
    "responses": {"input": "x"},
}
TERMINATORS = {CHAT: b"data: [DONE]", "completions": b"data: [DONE]", "responses": b"event: response.completed"}


def body(path: str, fault: str, stream: bool = True) -> dict[str, Any]:
    return {"model": f"demo-small!delay_ms=0,{fault}", "stream": stream, **BODIES[path]}


async def read_broken(answer: aiohttp.ClientResponse) -> bytes:
    """Read to the cut; fail if the body ends well."""
    received = bytearray()
    with pytest.raises(aiohttp.ClientPayloadError):
        async for chunk in answer.content.iter_any():
            received += chunk
    return bytes(received)


async def last_bill(base_url: str, http: aiohttp.ClientSession) -> dict[str, Any]:
    """Wait until the one request of the test is billed."""
    for _ in range(500):
        async with http.get(base_url.replace("/v1", "/demo/ledger")) as answer:
            rows = (await answer.json())["requests"]
        if rows:
            return dict(rows[-1])
        await asyncio.sleep(0.01)
    raise AssertionError("never billed")


@pytest.mark.parametrize("path", BODIES)
async def test_stream_when_well_then_ends_with_its_terminator(
    base_url: str, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.post(f"{base_url}/{path}", json=body(path, "")) as answer:
        assert answer.content_type == "text/event-stream"
        events = (await answer.read()).split(b"\n\n")
    assert events[-1] == b""
    assert events[-2].startswith(TERMINATORS[path])
    bill = await last_bill(base_url, http)
    assert bill["completed"]
    assert bill["output_tokens"] > 10


@pytest.mark.parametrize("path", BODIES)
async def test_stream_when_no_done_then_clean_end_without_terminator(
    base_url: str, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.post(f"{base_url}/{path}", json=body(path, "no_done")) as answer:
        assert TERMINATORS[path] not in await answer.read()
    assert not (await last_bill(base_url, http))["completed"]


@pytest.mark.parametrize("path", BODIES)
async def test_stream_when_cut_then_exactly_the_wanted_events_are_sent_and_billed(
    base_url: str, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.post(f"{base_url}/{path}", json=body(path, "after=6,cut")) as answer:
        received = await read_broken(answer)
    assert received.count(b"\n\n") == 6
    bill = await last_bill(base_url, http)
    assert not bill["completed"]
    assert 1 <= bill["output_tokens"] <= 6


async def test_stream_when_error_then_event_in_the_shape_of_its_api(base_url: str, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{base_url}/{CHAT}", json=body(CHAT, "after=1,error")) as answer:
        last = (await answer.read()).strip().split(b"\n\n")[-1]
    assert orjson.loads(last.removeprefix(b"data: "))["error"]["type"] == "server_error"
    async with http.post(f"{base_url}/responses", json=body("responses", "after=2,error")) as answer:
        last = (await answer.read()).strip().split(b"\n\n")[-1]
    assert last.startswith(b"event: error\n")
    assert orjson.loads(last.partition(b"data: ")[2])["sequence_number"] == 2


async def test_stream_when_garbage_then_no_json(base_url: str, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{base_url}/{CHAT}", json=body(CHAT, "after=1,garbage")) as answer:
        last = (await answer.read()).strip().split(b"\n\n")[-1]
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(last.removeprefix(b"data: "))


async def test_stream_when_it_hangs_and_the_client_leaves_then_billed_so_far(
    base_url: str, http: aiohttp.ClientSession
) -> None:
    answer = await http.post(f"{base_url}/{CHAT}", json=body(CHAT, "after=4,hang"))
    received = b""
    while received.count(b"\n\n") < 4:
        received += await answer.content.readany()
    answer.close()
    bill = await last_bill(base_url, http)
    assert (bill["output_tokens"], bill["completed"]) == (3, False)


async def test_stream_when_delayed_then_events_come_one_by_one(base_url: str, http: aiohttp.ClientSession) -> None:
    wanted = {"model": "m!delay_ms=20", "stream": True, "max_tokens": 3, **BODIES[CHAT]}
    async with http.post(f"{base_url}/{CHAT}", json=wanted) as answer:
        chunks = [chunk async for chunk in answer.content.iter_any()]
    assert len(chunks) >= 4


@pytest.mark.parametrize("fault", ["cut", "garbage", "error", "no_usage"])
async def test_whole_when_broken_then_as_wanted(base_url: str, http: aiohttp.ClientSession, fault: str) -> None:
    async with http.post(f"{base_url}/{CHAT}", json=body(CHAT, fault, stream=False)) as answer:
        if fault == "cut":
            received = await read_broken(answer)
            assert 0 < len(received) < int(answer.headers["content-length"])
        elif fault == "garbage":
            with pytest.raises(orjson.JSONDecodeError):
                orjson.loads(await answer.read())
        elif fault == "error":
            assert answer.status == 500
        else:
            assert (await answer.json())["usage"] is None
    bill = await last_bill(base_url, http)
    assert bill["output_tokens"] > 10
    assert bill["completed"] == (fault in {"garbage", "no_usage"})
