"""Measure what reading costs: bodies, answers, events and headers of the usual shapes, without a socket.

The best of several rounds in a tight loop, in microseconds of CPU; in the real process, where caches are cold, the same
code costs about twice as much. Usage: python -m bench.wire_format
"""

import json
import time
from collections.abc import Callable

from proxy.config.schema import Limits, Prices
from proxy.exchange import Meter, Usage
from proxy.openai.deltas import StreamObserver
from proxy.openai.operations import check_target, match
from proxy.openai.request import parse_json
from proxy.openai.response import inspect
from proxy.openai.sse import Event, EventReader
from proxy.openai.sse_edit import EventEditor
from proxy.upstream import pricing
from proxy.upstream.headers import request_headers, response_headers

ROUNDS, LOOPS = 15, 2_000
_CHAT = "/v1/chat/completions"
_USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
    },
}  # fmt: skip
_REQUEST_HEADERS = [
    (b"Host", b"127.0.0.1:8080"), (b"Accept", b"application/json"), (b"Accept-Encoding", b"gzip, deflate"),
    (b"Connection", b"keep-alive"), (b"Content-Type", b"application/json"), (b"User-Agent", b"OpenAI/Python 2.8.0"),
    (b"X-Stainless-Lang", b"python"), (b"X-Stainless-Package-Version", b"2.8.0"), (b"X-Stainless-Async", b"false"),
    (b"x-stainless-retry-count", b"0"), (b"Authorization", b"Bearer client"), (b"Content-Length", b"300"),
]  # fmt: skip
_ANSWER_HEADERS = [
    (b"Date", b"Mon, 23 Nov 2026 07:00:00 GMT"), (b"Content-Type", b"application/json"), (b"Content-Length", b"580"),
    (b"Connection", b"keep-alive"), (b"openai-processing-ms", b"12"), (b"openai-version", b"2020-10-01"),
    (b"x-ratelimit-limit-requests", b"10000"), (b"x-ratelimit-remaining-requests", b"9999"),
    (b"x-ratelimit-reset-requests", b"6ms"), (b"x-request-id", b"req_0123456789"), (b"Server", b"cloudflare"),
    (b"CF-RAY", b"0123-FRA"),
]  # fmt: skip


def _body(turns: int) -> bytes:
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    for turn in range(turns - 1):
        role = "assistant" if turn % 2 else "user"
        messages.append({"role": role, "content": "Say hello to the world, please, and be brief about it."})
    return json.dumps(
        {"model": "gpt-4o-mini", "messages": messages, "temperature": 0.2}, separators=(",", ":")
    ).encode()


def _answer() -> bytes:
    message = {"role": "assistant", "content": "Hello! How can I assist you today?", "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    document = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1741569952, "model": "gpt-4o-2024-08-06"}
    return json.dumps(document | {"choices": [choice], "usage": _USAGE, "service_tier": "default"}).encode()


def _delta(usage: str) -> bytes:
    return (
        '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1741569952,"model":"gpt-4o-2024-08-06",'
        '"service_tier":"default","system_fingerprint":"fp_44709d6fcb",'
        '"choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}]' + usage + "}"
    ).encode()


def _subjects() -> dict[str, Callable[[], object]]:
    limits, operation = Limits(), match("POST", _CHAT, False)
    bodies = {turns: _body(turns) for turns in (2, 10)}
    answer, plain, forced = _answer(), _delta(""), _delta(',"usage":null')
    framed, framed_forced = b"data: " + plain + b"\n\n", b"data: " + forced + b"\n\n"
    observer = StreamObserver("chat", Meter())
    event, event_forced = Event(None, plain), Event(None, forced)
    reader, editor = EventReader(1 << 20), EventEditor(lambda event: event.data, 1 << 20)
    stripping = EventEditor(observer.observe_and_strip, 1 << 20)
    reader.feed(framed)
    prices = pricing.load(None, Prices())
    used = Usage(19, 10, cached_input_tokens=4)
    return {
        "parse_json, 2 messages": lambda: parse_json(bodies[2], operation, limits=limits, force_stream_usage=True),
        "parse_json, 10 messages": lambda: parse_json(bodies[10], operation, limits=limits, force_stream_usage=True),
        "inspect, chat answer": lambda: inspect("chat", answer, Meter()),
        "Meter() alone": Meter,
        "observe, chat delta": lambda: observer.observe(event),
        "observe_and_strip, chat delta": lambda: observer.observe_and_strip(event_forced),
        "EventReader.feed, one event": lambda: reader.feed(framed),
        "EventEditor.feed, one event": lambda: editor.feed(framed),
        "EventEditor.feed and observe_and_strip": lambda: stripping.feed(framed_forced),
        "request_headers, 12": lambda: request_headers(_REQUEST_HEADERS, authorization=b"Bearer provider", extra=()),
        "response_headers, 12": lambda: response_headers(_ANSWER_HEADERS, secrets=(b"provider",)),
        "check_target and match": lambda: match("POST", check_target(_CHAT), False),
        "PriceTable.price": lambda: prices.price("gpt-4o-2024-08-06", used),
    }


def _cost_us(subject: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(LOOPS):
            subject()
        best = min(best, time.process_time() - start)
    return best / LOOPS * 1e6


def main() -> None:
    """Print the cost of each."""
    nothing = _cost_us(lambda: None)
    for label, subject in _subjects().items():
        print(f"{label:40} {_cost_us(subject) - nothing:6.2f} us")


if __name__ == "__main__":
    main()
