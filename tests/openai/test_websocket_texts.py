"""Large texts of websockets are decoded and encoded off the event loop."""

import threading

import pytest

from proxy.event_loop.off_loop import LARGE_BODY_BYTES
from proxy.nouns.peers import Message
from proxy.openai import websocket_texts
from proxy.openai.websocket_texts import in_bytes, text_of

LARGE = "жизнь" * LARGE_BODY_BYTES


@pytest.mark.parametrize("text", ["", "жизнь", LARGE], ids=["empty", "small", "large"])
async def test_text_is_the_same_there_and_back(text: str) -> None:
    message = await in_bytes(Message("text", text))
    assert message.kind == "text"
    data = message.data if isinstance(message.data, bytes) else message.data.encode()
    assert data == text.encode()
    assert await text_of(data) == text


@pytest.mark.parametrize("message", [Message("binary", b"a" * 999_999), Message("ping", b"a"), Message("close", "b")])
async def test_what_is_no_text_stays(message: Message) -> None:
    assert await in_bytes(message) is message


async def test_text_when_it_is_large_then_a_thread_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def noted(work):
        return lambda value: threads.append(threading.current_thread() is threading.main_thread()) or work(value)

    monkeypatch.setattr(websocket_texts, "decoded", noted(websocket_texts.decoded))
    monkeypatch.setattr(websocket_texts, "encoded", noted(websocket_texts.encoded))
    message = await in_bytes(Message("text", LARGE))
    assert await text_of(message.data) == LARGE
    assert threads == [False, False]


async def test_text_when_it_is_not_utf8_then_it_is_refused() -> None:
    for data in (b"\xff", b"a" * 999_999 + b"\xff"):
        with pytest.raises(UnicodeDecodeError):
            await text_of(data)
