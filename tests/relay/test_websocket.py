import asyncio

import pytest

from proxy.errors import ClientDisconnected, UpstreamFailed
from proxy.exchange import Message
from proxy.relay.websocket import relay_websocket
from tests.relay.peers import Socket

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


async def relayed(client, provider):
    log = []
    client._on_send = provider._on_send = lambda message: log.append(message.kind)
    try:
        await relay_websocket(client, provider, lambda text: log.append(f"saw {text}"), lambda: log.append("closed"))
    finally:
        assert tasks() == set()
    return log


async def test_messages_when_the_client_sends_them_then_the_provider_gets_them_in_order_and_unseen():
    client, provider = Socket(*TALK, CLOSE), Socket()
    log = await relayed(client, provider)
    assert provider.sent == [*TALK, CLOSE]
    assert client.sent == []
    assert log == ["text", "binary", "ping", "pong", "text", "closed", "close"]


async def test_messages_when_the_provider_sends_them_then_text_is_seen_before_the_client_gets_it():
    client, provider = Socket(), Socket(*TALK, CLOSE)
    log = await relayed(client, provider)
    assert client.sent == [*TALK, CLOSE]
    assert log == ['saw {"type":"a"}', "text", "binary", "ping", "pong", "saw ", "text", "closed", "close"]


@pytest.mark.parametrize(
    "close", [CLOSE, Message("close"), Message("close", "", 1001), Message("close", "ä", 4999)], ids=str
)
async def test_close_when_it_comes_from_a_side_then_the_other_gets_the_same(close):
    for ends in ((Socket(close), Socket()), (Socket(), Socket(close))):
        await relayed(*ends)
        assert [socket.sent for socket in ends].count([close]) == 1


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
