import asyncio
import json

import pytest

from proxy.errors import ClientDisconnected, UpstreamFailed
from proxy.exchange import Message, Meter
from proxy.openai.deltas import StreamObserver
from proxy.relay import websocket
from proxy.relay.websocket import SessionLimit, SessionScan, relay_websocket
from tests.fakes.scanner import MASK, SECRET, FakeScanner
from tests.relay.peers import Allowed, Socket

CLOSE = Message("close", "bye", 1000)
ABRUPT = Message("close", abrupt=True)
TALK = (
    Message("text", '{"type":"a"}'),
    Message("binary", b"\x00\xff"),
    Message("ping", b"1"),
    Message("pong", b"2"),
    Message("text", ""),
)


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("websocket")}


def once(log, event):
    """Return a function that notes an event the first time."""
    return lambda: None if event in log else log.append(event)


async def relayed(client, provider):
    log = []
    client._on_send = lambda message: log.append(f"client {message.kind}")
    provider._on_send = lambda message: log.append(message.kind)
    try:
        await relay_websocket(client, provider, lambda text: log.append(f"saw {text}"), once(log, "closed"))
    finally:
        assert tasks() == set()
    return log


async def test_messages_when_the_client_sends_them_then_the_provider_gets_them_in_order_and_unseen():
    client, provider = Socket(*TALK, CLOSE), Socket()
    log = await relayed(client, provider)
    assert provider.sent == [*TALK, CLOSE]
    assert client.sent == [CLOSE]
    assert log == ["text", "binary", "ping", "pong", "text", "close", "closed", "client close"]


async def test_messages_when_the_provider_sends_them_then_text_is_seen_before_the_client_gets_it():
    client, provider = Socket(), Socket(*TALK, CLOSE)
    log = await relayed(client, provider)
    assert client.sent == [*TALK, CLOSE]
    sent = ["client binary", "client ping", "client pong", "saw ", "client text", "closed", "client close", "close"]
    assert log == ['saw {"type":"a"}', "client text", *sent]


@pytest.mark.parametrize(
    "close", [CLOSE, Message("close"), Message("close", "", 1001), Message("close", "ä", 4999)], ids=str
)
async def test_close_when_it_comes_from_a_side_then_the_other_gets_the_same(close):
    for ends in ((Socket(close), Socket()), (Socket(), Socket(close))):
        await relayed(*ends)
        assert [socket.sent for socket in ends] == [[close], [close]]


LATE = Message("text", '{"type":"late"}')
ANSWER = Message("close", "all said", 4001)


async def test_close_when_the_client_sends_it_then_what_the_provider_still_says_arrives_and_counts():
    client, provider = Socket(TALK[0], CLOSE), Socket(LATE, TALK[1], ANSWER, waits=True)
    log = await relayed(client, provider)
    assert (client.sent, provider.sent) == ([LATE, TALK[1], ANSWER], [TALK[0], CLOSE])
    assert log[2:] == ['saw {"type":"late"}', "client text", "client binary", "closed", "client close"]


async def test_close_when_the_provider_sends_it_then_what_the_client_still_says_arrives():
    client, provider = Socket(LATE, ANSWER, waits=True), Socket(CLOSE)
    await relayed(client, provider)
    assert (client.sent, provider.sent) == ([CLOSE], [LATE, ANSWER])


@pytest.mark.parametrize(
    "end",
    [
        pytest.param([], id="is silent"),
        pytest.param([ABRUPT], id="is lost"),
        pytest.param([UpstreamFailed("frame refused")], id="breaks the protocol"),
    ],
)
@pytest.mark.parametrize("first", ["client", "provider"])
async def test_close_when_the_other_side_does_not_answer_then_it_is_answered_for(monkeypatch, end, first):
    monkeypatch.setattr(websocket, "_ANSWER_WAIT_S", 0.05)
    closing, other = Socket(CLOSE), Socket(*end, waits=True, answers=False)
    log = await relayed(*((closing, other) if first == "client" else (other, closing)))
    assert (closing.sent, other.sent) == ([CLOSE], [CLOSE])
    assert log.index("closed") < log.index("client close")


async def test_close_when_the_client_leaves_before_the_answer_then_the_session_has_still_ended_well():
    log = []
    client, provider = Socket(CLOSE), Socket(answers=False)
    work = asyncio.create_task(relay_websocket(client, provider, lambda _text: None, once(log, "closed")))
    while not provider.sent:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert (log, tasks()) == (["closed"], set())


async def test_close_when_relaying_fails_unexpectedly_after_it_then_the_error_escapes():
    with pytest.raises(ZeroDivisionError):
        await relayed(Socket(CLOSE), Socket(ZeroDivisionError(), waits=True))


async def test_side_when_lost_without_a_close_frame_then_it_is_an_error_and_no_close_is_made_up():
    client, provider = Socket(ABRUPT), Socket()
    with pytest.raises(ClientDisconnected):
        await relayed(client, provider)
    assert provider.sent == []
    client, provider = Socket(), Socket(TALK[0], ABRUPT)
    with pytest.raises(UpstreamFailed):
        await relayed(client, provider)
    assert client.sent == [TALK[0]]


async def test_side_when_reading_it_fails_then_the_error_escapes_and_both_pumps_end():
    with pytest.raises(UpstreamFailed):
        await relayed(Socket(), Socket(UpstreamFailed("frame refused")))


async def test_side_when_it_is_gone_while_it_is_written_to_then_the_error_escapes():
    def gone(_message):
        raise ClientDisconnected("gone")

    client, provider = Socket(), Socket(TALK[0])
    client._on_send = gone
    with pytest.raises(ClientDisconnected):
        await relay_websocket(client, provider, lambda _text: None, lambda: None)
    assert tasks() == set()


async def test_relay_when_cancelled_then_no_task_is_left():
    work = asyncio.create_task(relay_websocket(Socket(), Socket(), lambda _text: None, lambda: None))
    await asyncio.sleep(0.01)
    assert len(tasks()) == 2
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert tasks() == set()


def said(text):
    return Message("text", json.dumps({"type": "response.output_text.delta", "delta": text}))


TURN_OVER = Message("text", '{"type":"response.done","response":{"usage":{"input_tokens":7,"output_tokens":300}}}')


async def bounded(client, provider, allowance):
    """Relay a session that `allowance` bounds; return its meter and what happened in which order."""
    meter, log = Meter(), []
    client._on_send = lambda message: log.append(("client", message))
    provider._on_send = lambda message: log.append(("provider", message))
    limit = SessionLimit(meter, allowance, lambda: log.append(("seal", None)))
    observer = StreamObserver("realtime", meter)
    try:
        await relay_websocket(
            client, provider, observer.observe_message, lambda: once(log, ("closed", meter.cut))(), limit
        )
    finally:
        assert tasks() == set()
    return meter, log


async def test_session_when_always_covered_then_it_is_relayed_as_without_a_limit():
    client, provider = Socket(), Socket(*TALK, said("ab"), CLOSE)
    meter, log = await bounded(client, provider, Allowed(2))
    assert client.sent == [*TALK, said("ab"), CLOSE]
    assert (meter.cut, meter.output_text_bytes) == (False, 2)
    assert log[-3:] == [("closed", False), ("client", CLOSE), ("provider", CLOSE)]
    client, provider = Socket(*TALK, CLOSE), Socket()
    await bounded(client, provider, Allowed(0))
    assert provider.sent == [*TALK, CLOSE]


async def test_session_when_its_allowance_is_used_up_then_the_client_learns_why_and_both_sides_are_closed():
    client, provider = Socket(), Socket(said("ab"), said("cd"), said("ef"), said("gh"))
    allowance = Allowed(2, 2)
    meter, log = await bounded(client, provider, allowance)
    *passed, why, end = client.sent
    assert passed == [said("ab"), said("cd")]
    assert json.loads(why.data)["error"]["code"] == "insufficient_quota"
    assert end == Message("close", "insufficient_quota", 1008)
    assert provider.sent == [Message("close", "", 1000)]
    assert [who for who, _ in log[2:]] == ["seal", "provider", "client", "closed", "client"]
    assert (meter.cut, meter.terminated, allowance.asked) == (True, False, [4, 6])


async def test_session_when_the_figures_of_a_turn_use_it_up_then_they_still_leave():
    class Answered(Allowed):
        def covers(self, meter):
            return meter.usage is None

    client, provider = Socket(), Socket(said("ab"), TURN_OVER, said("cd"))
    await bounded(client, provider, Answered(9))
    assert client.sent[:2] == [said("ab"), TURN_OVER]
    assert [message.kind for message in client.sent[2:]] == ["text", "close"]


@pytest.mark.parametrize("gone", [UpstreamFailed("gone"), TimeoutError()], ids=["gone", "does not read"])
async def test_session_when_the_provider_cannot_be_told_then_the_client_still_is(gone):
    class Gone(Socket):
        async def send(self, message):
            raise gone

    client = Socket()
    await bounded(client, Gone(said("ab")), Allowed(0))
    assert [message.kind for message in client.sent] == ["text", "close"]


async def test_session_when_it_has_ended_then_the_client_reaches_the_provider_no_more(monkeypatch):
    monkeypatch.setattr(websocket, "_ANSWER_WAIT_S", 0.05)
    wait = asyncio.Event()

    class Chatty(Socket):
        async def receive(self):
            await wait.wait()
            await asyncio.sleep(0)
            return TALK[1]

    class Closing(Socket):
        async def send(self, message):
            wait.set()
            for _ in range(5):
                await asyncio.sleep(0)
            await super().send(message)

    client, provider = Chatty(), Closing(said("ab"))
    await bounded(client, provider, Allowed(0))
    assert provider.sent == [Message("close", "", 1000)]
    assert [message.kind for message in client.sent] == ["text", "close"]


def delta(text: str) -> Message:
    event = {"type": "response.output_text.delta", "response_id": "r", "output_index": 0, "delta": text}
    return Message("text", json.dumps(event, ensure_ascii=False))


DONE = Message("text", '{"type":"response.output_text.done","response_id":"r","output_index":0,"text":"-"}')


async def scanned(scanner, *messages, limit=None, client_says=()):
    client, provider, log, meter = Socket(*client_says), Socket(*messages), [], Meter()
    observer = StreamObserver("realtime", meter)
    scan = SessionScan(meter, scanner, "realtime", lambda: log.append("sealed"))
    await relay_websocket(client, provider, observer.observe_message, once(log, "closed"), limit, scan=scan)
    return client, provider, meter, log


async def test_session_when_nothing_matches_then_messages_leave_as_they_came_and_in_order():
    binary, ping = Message("binary", b"x"), Message("ping", b"1")
    talk = [delta("the KEY"), binary, delta("board \ud83d"), Message("text", "no json"), DONE, CLOSE]
    scanner = FakeScanner()
    client, _, meter, log = await scanned(scanner, *talk, ping)
    assert client.sent == talk
    assert (meter.events, log, scanner.unread) == (4, ["closed"], [("message", "binary")])


async def test_session_when_a_secret_comes_in_pieces_then_it_is_masked_and_pings_do_not_wait():
    ping = Message("ping", b"1")
    client, _, _, _ = await scanned(FakeScanner(), delta("a KEY-12"), ping, delta("345678 é"), CLOSE)
    assert client.sent == [ping, delta("a " + MASK), delta(" é"), CLOSE]


async def test_session_when_it_ends_with_text_held_then_that_leaves_before_the_close():
    client, _, _, _ = await scanned(FakeScanner(), delta("a KEY-12"), CLOSE)
    assert client.sent == [delta("a KEY-12"), CLOSE]


@pytest.mark.parametrize("kind", ["ping", "pong"])
@pytest.mark.parametrize(
    ("payload", "sent"),
    [
        (b"", b""),
        (b"\xff\x00clean", b"\xff\x00clean"),
        (f"a {SECRET}".encode() + b"\xff", f"a {MASK}".encode() + b"\xff"),
    ],
    ids=["empty", "clean", "secret"],
)
async def test_session_when_a_ping_carries_something_then_it_is_scanned_and_does_not_wait(kind, payload, sent):
    scanner = FakeScanner()
    client, _, _, _ = await scanned(scanner, delta("a KEY-12"), Message(kind, payload), delta("345678"), CLOSE)
    assert client.sent == [Message(kind, sent), delta("a " + MASK), delta(""), CLOSE]
    assert scanner.seen[:-1] == ([("comment", "key")] if sent != payload else [])


async def test_session_when_the_reason_of_a_close_has_a_secret_then_it_is_masked_and_fits_a_frame(monkeypatch):
    monkeypatch.setattr("tests.fakes.scanner.MASK", "é" * 40)
    for reason, sent in ((f"bye {SECRET}", "bye " + "é" * 40), ("x" * 111 + SECRET, "x" * 111 + "é" * 6)):
        client, _, _, _ = await scanned(FakeScanner(), delta("a KEY-12"), Message("close", reason, 4000))
        assert client.sent == [delta("a KEY-12"), Message("close", sent, 4000)]


@pytest.mark.parametrize("frame", [Message("ping", b"BOOM"), Message("close", "BOOM", 4000)], ids=["ping", "close"])
async def test_session_when_a_control_frame_is_forbidden_then_the_session_ends_with_our_reason(frame):
    client, provider, meter, _ = await scanned(FakeScanner(), delta("a"), frame)
    assert client.sent[0] == delta("a")
    assert json.loads(client.sent[1].data)["error"]["code"] == "policy_violation"
    assert client.sent[2:] == [Message("close", "policy_violation", 1008)]
    assert meter.withheld and provider.sent == [Message("close", "", 1000)]


async def test_session_when_the_provider_is_lost_then_what_is_not_decided_never_leaves():
    client, provider = Socket(), Socket(delta("a KEY-12"), ABRUPT)
    scan = SessionScan(Meter(), FakeScanner(), "realtime", lambda: None)
    with pytest.raises(UpstreamFailed):
        await relay_websocket(client, provider, lambda _: None, lambda: None, scan=scan)
    assert client.sent == [delta("a ")]


@pytest.mark.parametrize("limited", [False, True])
async def test_session_when_something_is_blocked_then_it_ends_with_the_reason(limited):
    limit = SessionLimit(Meter(), Allowed(1 << 30), lambda: None) if limited else None
    client, provider, meter, log = await scanned(FakeScanner(), delta("a BO"), delta("OM b"), delta("c"), limit=limit)
    said, error, close = client.sent
    assert (said, json.loads(error.data)["error"]["code"]) == (delta("a "), "policy_violation")
    assert (close.kind, close.data, close.code) == ("close", "policy_violation", 1008)
    assert provider.sent == [Message("close", "", 1000)]
    assert (meter.withheld, log) == (True, ["sealed", "closed"])


@pytest.mark.parametrize("end", [CLOSE, Message("binary", b"x")], ids=["close", "binary"])
async def test_session_when_its_end_is_forbidden_then_the_reason_is_told(end):
    scanner = FakeScanner(unscannable="deny")
    client, _, meter, _ = await scanned(scanner, delta("a K"), Message("binary", b"x"), end)
    assert client.sent[0] == delta("a ")
    assert json.loads(client.sent[1].data)["error"]["code"] == "answer_not_scannable"
    assert meter.withheld
