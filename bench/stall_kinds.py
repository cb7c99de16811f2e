"""What may keep an event loop: bodies, uploads, answers, streams and websocket messages of up to 8 MB.

The worst that a client or a provider can think of: one long text, base64, words of random letters, beginnings of
secrets and of card numbers, nothing but addresses, a hundred thousand messages, and JSON of as many elements as
`limits.json_structurals` takes.
"""

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from bench.policy_stream import CODE, PROSE
from proxy.policy import rules

SIZE: Final = 8_000_000
_BASE64: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_MEDIUM: Final = "Bearer token=kJ3hD8sLq0ZxV5nB2mT7yR4wP9cF6gA1"
_HEAD: Final = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}],"metadata":'
_MESSAGE: Final = {"role": "user", "content": "How do I change the password of a user whose mail is gone?"}
_SMALL: Final = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}'


@dataclass(frozen=True, slots=True)
class Kind:
    """One request and its answer, or messages of a websocket."""

    body: bytes = _SMALL
    path: str = "/v1/chat/completions"
    content_type: str = "application/json"
    answer: bytes | None = None
    """The body of the provider's answer; `None`: its usual one."""
    answer_type: str = "application/json"
    is_compressed: bool = False
    """Whether `answer` is in gzip."""
    up: tuple[str, ...] = ()
    """Messages of the client on a websocket."""
    down: tuple[str, ...] = ()
    """Messages of the provider."""


def kinds() -> dict[str, Callable[[], Kind]]:
    """Return how each kind is made, by name."""
    answers = {**_answers(), **_streams()}
    compressed = {f"in gzip, {name}": _compressed(answers[name]) for name in _IN_GZIP}
    return {**_bodies(), **_uploads(), **answers, **compressed, **_websockets()}


def _compressed(make: Callable[[], Kind]) -> Callable[[], Kind]:
    def made() -> Kind:
        kind = make()
        assert kind.answer is not None
        return replace(kind, answer=gzip.compress(kind.answer), is_compressed=True)

    return made


@cache
def _text(name: str, size: int = SIZE) -> str:
    chance = random.Random(7)
    if name == "prose":
        return (PROSE * (size // len(PROSE) + 1))[:size]
    if name == "prose and one emoji":  # four bytes for each character once it is decoded
        return _text("prose", size - 4) + "\N{GRINNING FACE}"
    if name == "code":
        return (CODE * (size // len(CODE) + 1))[:size]
    if name == "base64":
        return "".join(chance.choices(_BASE64, k=size))
    if name == "lines of base64":
        letters = _text("base64", size)
        return "\n".join(letters[at : at + 76] for at in range(0, size, 76))
    if name == "random words":
        letters = _BASE64 + "-_ .:="
        return "".join("".join(chance.choices(letters, k=12)) + chance.choice(" =:\n") for _ in range(size // 13))
    if name == "groups of digits":
        return "".join(f"{chance.randrange(10_000):04} " for _ in range(size // 5))
    if name == "addresses":
        return "a.b@mail-of-c.de " * (size // 17)
    if name == "sk-proj- repeated":
        return "sk-proj-" * (size // 8)
    if name == "letters of two bytes":
        return ("жизнь прекрасна и удивительна, " * (size // 56 + 1))[: size * 31 // 56]
    if name in _ESCAPED:
        return (_ESCAPED[name] * (size // len(json.dumps(_ESCAPED[name])) + 1))[:size]
    assert name == "beginnings of keys", name
    begun = [example[:cut] for rule in rules.load().rules for example in rule.match for cut in range(3, 14)]
    return " ".join(chance.choices(begun, k=size // 9))


_ESCAPED: Final = {"backslashes": "\\", "quotes": '"', "control characters": "\x01", "escapes and letters": 'ж"\\ n\n'}
_TEXTS: Final = (
    "prose", "code", "base64", "lines of base64", "random words", "sk-proj- repeated", "groups of digits", "addresses",
    "letters of two bytes",
)  # fmt: skip
_IN_GZIP: Final = (
    "answer, prose", "answer, base64", "answer, empty objects", "answer, text", "event of 8 MB, prose",
    "events of 40 bytes, prose", "answer, embeddings",
)  # fmt: skip


def _bodies() -> dict[str, Callable[[], Kind]]:
    def chat(name: str, size: int = SIZE) -> Callable[[], Kind]:
        return lambda: Kind(
            _json({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": _text(name, size)}]})
        )

    def built(make: Callable[[], bytes]) -> Callable[[], Kind]:
        return lambda: Kind(make())

    return {
        **{name: chat(name) for name in (*_TEXTS, "prose and one emoji", *_ESCAPED)},
        "letters as escapes": built(
            lambda: json.dumps(
                {"messages": [{"role": "user", "content": _text("letters of two bytes", 2_600_000)}]}
            ).encode()
        ),
        "40 messages of 200 KB": built(
            lambda: _json({"messages": [{"role": "user", "content": _text("prose", 200_000)}] * 40})
        ),
        "16 KB of beginnings of keys": chat("beginnings of keys", 16_000),
        "100,000 messages": built(lambda: _json({"model": "gpt-4o-mini", "messages": [_MESSAGE] * 100_000})),
        "empty objects": built(lambda: _HEAD + b"[" + b"{}," * 990_000 + b"{}]}"),
        "empty lists": built(lambda: _HEAD + b"[" + b"[]," * 990_000 + b"[]]}"),
        "numbers": built(lambda: _HEAD + b"[" + b"100," * 1_900_000 + b"1]}"),
        "deep": built(lambda: _HEAD + b"[" + _deep(19_000) + b"1]}"),
        "a key twice": built(lambda: b'{"stream":false,"stream":false,' + _json({"messages": [_MESSAGE] * 90_000})[1:]),
        "a key to be masked": built(
            lambda: _json({"messages": [_MESSAGE] * 90_000 + [{"role": "user", "content": _MEDIUM}]})
        ),
    }


def _deep(count: int) -> bytes:
    return (b"[" * 100 + b"]" * 100 + b",") * count


def _uploads() -> dict[str, Callable[[], Kind]]:
    def form(name: str, size: int) -> Callable[[], Kind]:
        def make() -> Kind:
            head = 'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
            purpose = 'Content-Disposition: form-data; name="purpose"\r\n\r\nuser_data'
            body = f"--edge\r\n{purpose}\r\n--edge\r\n{head}{_text(name, size)}\r\n--edge--\r\n"
            return Kind(body.encode(), "/v1/files", "multipart/form-data; boundary=edge")

        return make

    def raw(name: str, size: int) -> Callable[[], Kind]:
        return lambda: Kind(_text(name, size).encode(), "/v1/unknown", "text/plain")

    sizes = {"beginnings of keys": 1_000_000, "groups of digits": 2_000_000, "random words": 4_000_000}
    names = (*_TEXTS, "beginnings of keys")
    parts = b'--edge\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 20_000 + b"--edge--\r\n"
    return {
        **{f"form, {name}": form(name, sizes.get(name, SIZE)) for name in names},
        **{f"raw, {name}": raw(name, sizes.get(name, SIZE)) for name in ("prose", "beginnings of keys")},
        "form of 20,000 parts": lambda: Kind(parts, "/v1/files", "multipart/form-data; boundary=edge"),
    }


def _answers() -> dict[str, Callable[[], Kind]]:
    def said(name: str) -> Callable[[], Kind]:
        return lambda: _answered(_completion(_text(name)))

    def built(make: Callable[[], bytes]) -> Callable[[], Kind]:
        return lambda: _answered(b'{"id":"c","object":"chat.completion","choices":[],"data":' + make() + b"}")

    return {
        **{f"answer, {name}": said(name) for name in _TEXTS},
        "answer, beginnings of keys": lambda: _answered(_completion(_text("beginnings of keys", 200_000))),
        "answer, empty objects": built(lambda: b"[" + b"{}," * 2_600_000 + b"{}]"),
        "answer, numbers": built(lambda: b"[" + b"0.1234567," * 800_000 + b"1]"),
        "answer, deep": built(lambda: b"[" + _deep(38_000) + b"1]"),
        "answer, 10,000 choices": lambda: _answered(
            _json(
                {
                    "id": "c",
                    "object": "chat.completion",
                    "choices": [
                        {"index": index, "message": {"role": "assistant", "content": PROSE[:600]}}
                        for index in range(10_000)
                    ],
                }
            )
        ),
        "answer, text": lambda: _answered(_text("prose").encode(), "text/plain"),
        "answer, text, beginnings of keys": lambda: _answered(
            _text("beginnings of keys", 400_000).encode(), "text/plain"
        ),
        "answer, embeddings": lambda: Kind(
            b'{"model":"text-embedding-3-small","input":"Hello"}',
            "/v1/embeddings",
            answer=_json({"data": [{"index": at, "embedding": [0.0123456789] * 1536} for at in range(300)]}),
        ),
    }


def _streams() -> dict[str, Callable[[], Kind]]:
    def events(said: list[str]) -> Kind:
        chunks = [_json({"id": "c", "choices": [{"index": 0, "delta": {"content": text}}]}) for text in said]
        data = b"".join(b"data: %b\n\n" % chunk for chunk in [*chunks, b"[DONE]"])
        return _answered(data, "text/event-stream", _SMALL[:-1] + b',"stream":true}')

    def cut(text: str, size: int) -> list[str]:
        return [text[at : at + size] for at in range(0, len(text), size)]

    return {
        **{f"event of 8 MB, {name}": (lambda name=name: events([_text(name)])) for name in _TEXTS},
        "event of 1 MB, prose": lambda: events([_text("prose", 1_000_000)]),
        "event of 200 KB, beginnings of keys": lambda: events([_text("beginnings of keys", 200_000)]),
        "event, deep": lambda: _answered(
            b'data: {"choices":[],"x":[' + _deep(19_000) + b"1]}\n\ndata: [DONE]\n\n",
            "text/event-stream",
            _SMALL[:-1] + b',"stream":true}',
        ),
        "events of 40 bytes, prose": lambda: events(cut(_text("prose", 2_000_000), 40)),
        "events of 4 KB, prose": lambda: events(cut(_text("prose"), 4096)),
        "events of 4 KB, beginnings of keys": lambda: events(cut(_text("beginnings of keys", 200_000), 4096)),
        "events of 4 KB, groups of digits": lambda: events(cut(_text("groups of digits", 1_000_000), 4096)),
    }


def _websockets() -> dict[str, Callable[[], Kind]]:
    def up(text: Callable[[], str]) -> Callable[[], Kind]:
        return lambda: Kind(
            path="/v1/realtime",
            up=(json.dumps({"type": "conversation.item.create", "item": {"content": text()}}, ensure_ascii=False),),
        )

    def down(text: Callable[[], str]) -> Callable[[], Kind]:
        return lambda: Kind(
            path="/v1/realtime",
            down=(json.dumps({"type": "response.output_text.done", "text": text()}, ensure_ascii=False),),
        )

    deep = '{"type":"x","y":[' + _deep(19_000).decode() + "1]}"
    names = ("prose", "base64", "groups of digits", "letters of two bytes")
    return {
        **{f"websocket up, {name}": up(lambda name=name: _text(name)) for name in names},
        **{f"websocket down, {name}": down(lambda name=name: _text(name)) for name in names},
        "websocket up, deep": lambda: Kind(path="/v1/realtime", up=(deep,)),
        "websocket down, deep": lambda: Kind(path="/v1/realtime", down=(deep,)),
        "websocket down, 200 KB of beginnings of keys": down(lambda: _text("beginnings of keys", 200_000)),
    }


def _answered(data: bytes, answer_type: str = "application/json", body: bytes = _SMALL) -> Kind:
    return Kind(body, answer=data, answer_type=answer_type)


def _completion(text: str) -> bytes:
    return _json(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
        }
    )


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
