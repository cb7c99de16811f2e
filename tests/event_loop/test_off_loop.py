"""What is large or slow keeps no event loop: it is read and scanned in a thread, or others get their turn between."""

import asyncio
import gc
import json
import threading
from collections.abc import Sequence

import pytest

from proxy.config.schema import Config
from proxy.event_loop import off_loop as module
from proxy.event_loop.fair_threads import MAIN, give_way
from proxy.event_loop.off_loop import (
    LARGE_ANSWER_BYTES,
    LARGE_BYTES,
    MODERATE_ANSWER_BYTES,
    Turns,
    decoded_off_loop,
    off_loop,
)
from proxy.exchange import Message, Meter
from proxy.nouns.scanners import ScannedText
from proxy.openai.deltas import StreamObserver
from proxy.relay.relay import relay
from proxy.relay.websocket import SessionLimit, SessionScan, relay_websocket
from tests.fakes.scanner import FakeChannel, FakeScanner, Piece
from tests.relay.peers import JSON, STREAM, Allowed, Client, Reply, Socket, announced, answer_to

TEXT = (b"Content-Type", b"text/plain")
PASSING = (b"Content-Type", b"text/html")
"""Of unknown length."""
CONFIG = Config()


async def test_apart_when_done_then_its_result_comes_from_another_thread() -> None:
    assert await off_loop(threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize(("pieces", "is_large"), [([b"a"], False), ([b"a", b"b"], False), ([bytes(300_000)] * 5, True)])
async def test_pieces_when_joined_then_a_thread_does_it_only_if_they_are_many(pieces, is_large, monkeypatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(module, "give_way", lambda: threads.append(threading.get_ident()))
    whole, given = b"".join(pieces), [*pieces]
    assert await module.joined(given) == whole
    assert bool(threads) == is_large
    assert threading.get_ident() not in threads
    assert bool(given) != is_large


async def test_apart_when_it_fails_then_its_error_escapes() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await off_loop(lambda: int("x"))


async def test_apart_when_many_long_texts_are_at_work_then_a_short_one_is_done_before_them() -> None:
    may_end = threading.Event()

    def long_work() -> None:
        while not may_end.is_set():
            give_way()

    long = [asyncio.create_task(off_loop(long_work)) for _ in range(12)]
    await asyncio.sleep(0.05)
    await asyncio.wait_for(off_loop(lambda: None), 10)
    may_end.set()
    await asyncio.gather(*long)


async def test_apart_when_all_its_threads_wait_then_others_have_threads() -> None:
    may_end = threading.Event()
    waiting = [asyncio.create_task(off_loop(lambda: may_end.wait(10))) for _ in range(40)]
    await asyncio.wait_for(asyncio.to_thread(lambda: None), 10)
    may_end.set()
    assert all(await asyncio.gather(*waiting))


async def test_apart_when_a_thread_is_needed_then_the_event_loop_does_not_start_it() -> None:
    started: list[bool] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        started.append(threading.get_ident() == MAIN)
        start(thread)

    threads = module._Threads()
    await threads.do(lambda: None)
    begun = [threading.Event() for _ in range(6)]
    may_end = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", noted)
        waiting = []
        for event in begun:
            waiting.append(threads.do(lambda event=event: (event.set(), may_end.wait(10))))  # type: ignore[misc]
            while not event.is_set():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
        may_end.set()
        await asyncio.gather(*waiting)
    assert started and not any(started)


@pytest.mark.parametrize("fails", [False, True])
async def test_apart_when_cancelled_again_and_again_then_its_end_is_waited_for(fails: bool) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        may_end.wait(10)
        ended.append(1)
        assert not fails

    task = asyncio.create_task(off_loop(work))
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1]


async def test_decoding_when_done_apart_then_no_collection_looks_at_all_objects_meanwhile() -> None:
    before = gc.get_threshold()
    assert (await decoded_off_loop(gc.get_threshold))[2] > before[2]
    assert gc.get_threshold()[:2] == before[:2]
    assert gc.get_threshold()[2] < 1 << 20


async def test_turns_when_the_work_is_interrupted_then_only_the_work_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    turns = Turns()
    for _ in range(3):
        turns.begin()
        now[0] += 0.0015
        is_over = turns.is_over
        turns.end()
        now[0] += 100
    assert is_over
    turns.begin()
    await turns.give()
    assert not turns.is_over


class NotedChannel(FakeChannel):
    def __init__(self, scanner: "Noted") -> None:
        super().__init__(scanner.edits)
        self._scanner = scanner

    def pieces(self, delta: str, final: bool = False) -> list[Piece]:
        if delta:
            self._scanner.note()
        return super().pieces(delta, final)


class Noted(FakeScanner):
    """A scanner that notes where it is used."""

    def __init__(self, *, edits: bool = True) -> None:
        super().__init__(edits)
        self.used: set[str] = set()

    def channel(self, kind: str = "text") -> FakeChannel:
        return NotedChannel(self)

    def whole(self, text: str, kind: str = "text") -> ScannedText:
        self.note()
        return super().whole(text, kind)

    def is_clean(self, texts: Sequence[str]) -> bool:
        self.note()
        return super().is_clean(texts)

    def note(self) -> None:
        self.used.add("loop" if threading.get_ident() == MAIN else "thread")


def event(text: str) -> bytes:
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


DONE = b"data: [DONE]\n\n"
SMALL, LARGE = "a few words", "many words, " * 400
STREAMS = {
    "small": ([event(SMALL), DONE], "loop"),
    "large": ([event(LARGE), DONE], "thread"),
    "large, in pieces": ([event(LARGE)[at : at + 100] for at in range(0, len(event(LARGE)), 100)] + [DONE], "thread"),
    "large, without its end": ([event(LARGE)[:-2]], "thread"),
}


@pytest.mark.parametrize("edits", [True, False], ids=["editing", "noting"])
@pytest.mark.parametrize(("steps", "where"), STREAMS.values(), ids=STREAMS.keys())
async def test_stream_when_an_event_is_large_then_it_is_scanned_in_a_thread(
    steps: list[bytes], where: str, edits: bool
) -> None:
    client, scanner = Client(), Noted(edits=edits)
    answer = answer_to(client, Reply(steps, (STREAM,)), scanner=scanner, allowance=Allowed(1 << 30) if edits else None)
    await relay(answer, client, CONFIG)
    assert client.body == b"".join(steps)
    assert scanner.used == {where}
    assert answer.attempt.meter.output_text_bytes in (len(SMALL), len(LARGE))


@pytest.mark.parametrize("edits", [True, False], ids=["editing", "noting"])
async def test_stream_when_many_events_have_come_then_others_get_their_turn_between_them(
    monkeypatch: pytest.MonkeyPatch, edits: bool
) -> None:
    monkeypatch.setattr(module, "_TURN_S", 0.0)
    turns, relayed = 0, asyncio.Event()

    async def other() -> None:
        nonlocal turns
        while not relayed.is_set():
            turns += 1
            await asyncio.sleep(0)

    class Reader(Client):
        async def write(self, data: bytes) -> None:
            self.pieces.append(data)  # without a turn for anybody

    client, steps = Reader(), [event(SMALL)] * 50 + [DONE]
    answer = answer_to(client, Reply(steps, (STREAM,), at_once=True), scanner=Noted(edits=edits))
    beside = asyncio.create_task(other())
    await relay(answer, client, CONFIG)
    relayed.set()
    await beside
    assert client.body == b"".join(steps)
    assert turns > (50 if edits else 0)


@pytest.mark.parametrize(
    ("kind", "text", "where"),
    [
        (JSON, "a" * 10, {"loop"}),
        (JSON, "a" * LARGE_ANSWER_BYTES, {"loop"}),
        (JSON, "psst" * LARGE_ANSWER_BYTES, {"loop", "thread"}),
        (JSON, "a" * MODERATE_ANSWER_BYTES, {"thread"}),
        (TEXT, "psst" * (LARGE_ANSWER_BYTES // 4), {"loop"}),
        (TEXT, "psst" * LARGE_ANSWER_BYTES, {"loop", "thread"}),
        (TEXT, "a" * (MODERATE_ANSWER_BYTES + 1), {"thread"}),
        (PASSING, "a" * LARGE_BYTES, {"loop"}),
        (PASSING, "a" * (LARGE_BYTES + 1), {"thread"}),
    ],
)
async def test_answer_when_large_then_it_is_scanned_in_a_thread(
    kind: tuple[bytes, bytes], text: str, where: set[str]
) -> None:
    body = text.encode() if kind is not JSON else json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    client, scanner = Client(), Noted()
    reply = Reply([body], (kind, *([] if kind is PASSING else [announced(body)])))
    await relay(answer_to(client, reply, scanner=scanner), client, CONFIG)
    assert client.body == body
    assert scanner.used == where
    assert scanner.characters in (0, len(text))


@pytest.mark.parametrize(("text", "where"), [(SMALL, "loop"), (LARGE, "thread")])
async def test_websocket_when_a_message_is_large_then_it_is_scanned_in_a_thread(text: str, where: str) -> None:
    message = Message("text", json.dumps({"type": "response.output_text.done", "text": text}))
    client, provider, meter, scanner = Socket(), Socket(message, Message("close", "", 1000)), Meter(), Noted()
    scan = SessionScan(meter, scanner, "realtime", lambda: None)
    observer = StreamObserver("realtime", meter)
    await relay_websocket(client, provider, observer.observe_message, lambda: None, scan=scan)
    assert client.sent[0] == message
    assert scanner.used == {where}


@pytest.mark.parametrize("limited", [False, True])
async def test_websocket_when_a_message_is_only_metered_then_a_very_large_one_in_a_thread(limited: bool) -> None:
    used: list[bool] = []
    texts = ["{}", json.dumps({"type": "response.output_text.delta", "delta": "a" * 70_000})]
    provider = Socket(*(Message("text", text) for text in texts), Message("close", "", 1000))
    limit = SessionLimit(Meter(), Allowed(1 << 30), lambda: None) if limited else None

    def observe(_text: str) -> None:
        used.append(threading.get_ident() == MAIN)

    await relay_websocket(Socket(), provider, observe, lambda: None, limit)
    assert used == [True, False]
