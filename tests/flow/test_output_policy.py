"""Answers under the policy, from outside: a secret in any channel of any operation is masked, however it is cut, and
what is clean leaves byte for byte.
"""

import asyncio
import json
from typing import Any

import openai
import pytest

from tests.fakes import steps
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import LAST_CHUNK, chunks, script, sse_head, whole
from tests.fakes.websocket import CLOSE, Frame, Socket, close_frame, connect, socket_script
from tests.fakes.websocket import TEXT as TEXT_FRAME
from tests.fakes.wire import Reply, exchange, request
from tests.policy.secrets import HIGH

MASK = "ghp_" + "*" * 8
BASE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1763850000, "model": "gpt-4o"}
ITEM = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
DONE = b"data: [DONE]\n\n"
TEXT = f"The key is {HIGH}, keep it."
ARGUMENTS = json.dumps({"command": f"export K={HIGH}"})


def event(document: Any, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def delta(said: dict[str, Any], index: int = 0, finish: str | None = None) -> bytes:
    return event({**BASE, "choices": [{"index": index, "delta": said, "logprobs": None, "finish_reason": finish}]})


def chat(wrap: Any, text: str, size: int) -> bytes:
    pieces = [delta(wrap(piece), index) for piece in cut(text, size) for index in (0, 1)]
    return b"".join([*pieces, delta({}, 0, "stop"), delta({}, 1, "stop"), DONE])


def responses(kind: str, member: str, text: str, size: int, item: dict[str, Any], **where: Any) -> bytes:
    where = {"item_id": "msg_1", "output_index": 0, **where}
    begin = {"id": "resp_1", "object": "response", "model": "gpt-4o", "output": [], "status": "in_progress"}
    events = [{"type": "response.created", "response": begin}]
    events += [{"type": f"{kind}.delta", **where, "delta": piece} for piece in cut(text, size)]
    events.append({"type": f"{kind}.done", **where, member: text})
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events.append({"type": "response.completed", "response": {**begin, "status": "completed", "output": [item]}})
    numbered = ({**one, "sequence_number": number} for number, one in enumerate(events))
    return b"".join(event(one, str(one["type"])) for one in numbered)


def call(arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"arguments": arguments}}]}


MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": TEXT}]}
REFUSAL = {**MESSAGE, "content": [{"type": "refusal", "refusal": TEXT}]}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": TEXT}]}
FUNCTION = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "run", "arguments": ARGUMENTS}
CUSTOM = {"type": "custom_tool_call", "id": "c_1", "call_id": "c", "name": "run", "input": TEXT}
OPEN_REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": TEXT}],
}
SERVED = {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "run", "arguments": ARGUMENTS, "output": TEXT}
CODE = {"type": "code_interpreter_call", "id": "ci_1", "code": TEXT, "outputs": [{"type": "logs", "logs": TEXT}]}


def assistant(text: str) -> bytes:
    content = [{"index": 0, "type": "text", "text": {"value": text}}]
    return event({"object": "thread.message.delta", "delta": {"content": content}}, "thread.message.delta")


STREAMS = {
    "chat content": ("chat/completions", lambda n: chat(lambda t: {"content": t}, TEXT, n)),
    "chat refusal": ("chat/completions", lambda n: chat(lambda t: {"refusal": t}, TEXT, n)),
    "chat reasoning": ("chat/completions", lambda n: chat(lambda t: {"reasoning_content": t}, TEXT, n)),
    "chat arguments": ("chat/completions", lambda n: chat(call, ARGUMENTS, n)),
    "chat function call": (
        "chat/completions", lambda n: chat(lambda t: {"function_call": {"arguments": t}}, ARGUMENTS, n),
    ),
    "chat transcript": ("chat/completions", lambda n: chat(lambda t: {"audio": {"transcript": t}}, TEXT, n)),
    "completions": (
        "completions",
        lambda n: b"".join(event({"choices": [{"index": 0, "text": t, "finish_reason": None}]}) for t in cut(TEXT, n))
        + DONE,
    ),
    "responses text": (
        "responses", lambda n: responses("response.output_text", "text", TEXT, n, MESSAGE, content_index=0),
    ),
    "responses refusal": (
        "responses", lambda n: responses("response.refusal", "refusal", TEXT, n, REFUSAL, content_index=0),
    ),
    "responses reasoning": (
        "responses",
        lambda n: responses("response.reasoning_summary_text", "text", TEXT, n, REASONING, summary_index=0),
    ),
    "responses arguments": (
        "responses", lambda n: responses("response.function_call_arguments", "arguments", ARGUMENTS, n, FUNCTION),
    ),
    "responses custom tool": (
        "responses", lambda n: responses("response.custom_tool_call_input", "input", TEXT, n, CUSTOM),
    ),
    "responses open reasoning": (
        "responses",
        lambda n: responses("response.reasoning_text", "text", TEXT, n, OPEN_REASONING, content_index=0),
    ),
    "responses call of a server": (
        "responses", lambda n: responses("response.mcp_call_arguments", "arguments", ARGUMENTS, n, SERVED),
    ),
    "responses code": ("responses", lambda n: responses("response.code_interpreter_call_code", "code", TEXT, n, CODE)),
    "assistants": ("threads/t/runs", lambda n: b"".join(assistant(t) for t in cut(TEXT, n)) + b"event: done\n" + DONE),
    "transcription": (
        "audio/transcriptions",
        lambda n: b"".join(event({"type": "transcript.text.delta", "delta": t}) for t in cut(TEXT, n))
        + event({"type": "transcript.text.done", "text": TEXT}),
    ),
    "unknown JSON": ("new/thing", lambda n: b"".join(event({"token": {"text": t}}) for t in cut(TEXT, n))),
    "unknown text": ("new/thing", lambda n: b"".join(b"data: %b\n\n" % t.encode() for t in cut(TEXT, n))),
    "error": ("chat/completions", lambda n: event({"error": {"message": TEXT, "type": "server_error"}})),
}  # fmt: skip
WHOLES = {
    "chat": (
        "chat/completions",
        {"choices": [{"index": 0, "message": {"content": TEXT, **call(ARGUMENTS)}}, {"message": {"refusal": TEXT}}]},
    ),
    "completions": ("completions", {"choices": [{"index": 0, "text": TEXT}]}),
    "responses": ("responses", {"object": "response", "output": [MESSAGE, REFUSAL, REASONING, FUNCTION, CUSTOM]}),
    "transcription": ("audio/transcriptions", {"text": TEXT, "segments": [{"text": TEXT}]}),
    "images": ("images/generations", {"data": [{"revised_prompt": TEXT}]}),
    "error": ("chat/completions", {"error": {"message": TEXT, "type": "x", "param": None, "code": None}}),
    "unknown": ("new/thing", [{"deep": [TEXT]}]),
}
BODY = b'{"model": "gpt-4o", "stream": true}'


async def ask(sidegate: Sidegate, path: str, case: str, *, body: bytes = BODY) -> Reply:
    data = request("POST", f"/v1/{path}", "Content-Type: application/json", body=body, case=case)
    return await exchange(sidegate.address, data, timeout_s=30)


def said(stream: bytes) -> dict[str, str]:
    """Join the pieces of each channel; the text of a snapshot is a channel of its own."""
    joined: dict[str, str] = {}

    def note(place: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, member in value.items():
                if name not in ("id", "item_id", "call_id", "sequence_number"):
                    note(f"{place}.{name}" if name != "index" else place, member)
        elif isinstance(value, list):
            for number, member in enumerate(value):
                index = member.get("index", number) if isinstance(member, dict) else number
                note(f"{place}[{index}]", member)
        elif isinstance(value, str):
            joined[place] = joined.get(place, "") + value

    for line in stream.splitlines():
        data = line.removeprefix(b"data: ")
        if data != line and data != b"[DONE]":
            document = json.loads(data) if data.startswith(b"{") else {"plain": data.decode()}
            note(str(document.get("type", "")), document)
    return joined


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(("path", "make"), STREAMS.values(), ids=STREAMS.keys())
async def test_secret_when_a_stream_holds_it_in_any_channel_cut_anyhow_then_it_is_masked(
    provider: Provider, sidegate: Sidegate, case: str, path: str, make: Any, size: int
) -> None:
    stream = make(size)
    provider.on(case, script(sse_head(), chunks(cut_bytes(stream, 501)), LAST_CHUNK))
    reply = await ask(sidegate, path, case)
    assert reply.status == 200
    expected = {place: text.replace(HIGH, MASK) for place, text in said(stream).items()}
    assert expected != said(stream)
    assert said(reply.body) == expected


def cut_bytes(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


CLEAN = f"The key is sk-your-key-here, at {HIGH[:20]}. naïve \U0001f44b"


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
async def test_stream_when_nothing_is_found_then_it_leaves_byte_for_byte(
    provider: Provider, sidegate: Sidegate, case: str, size: int, end: str
) -> None:
    stream = b": hi\n\n" + chat(lambda text: {"reasoning_content": text}, CLEAN, size)
    stream += chat(lambda text: {"content": text}, CLEAN, size)
    stream = stream.replace(b"\n", end.encode())
    provider.on(case, script(sse_head(), chunks(cut_bytes(stream, 501)), LAST_CHUNK))
    reply = await ask(sidegate, "chat/completions", case)
    assert reply.body == stream


@pytest.mark.parametrize(("path", "document"), WHOLES.values(), ids=WHOLES.keys())
async def test_secret_when_a_json_answer_holds_it_then_it_alone_is_masked(
    provider: Provider, sidegate: Sidegate, case: str, path: str, document: Any
) -> None:
    body = json.dumps(document, indent=2).encode()
    provider.on(case, script(whole(body)))
    reply = await ask(sidegate, path, case, body=b'{"model": "gpt-4o"}')
    assert reply.body == body.replace(HIGH.encode(), MASK.encode())


@pytest.mark.parametrize(
    ("kind", "length"), [("text/plain", True), ("text/vtt", False), ("application/x-subrip", False)]
)
async def test_secret_when_a_text_holds_it_then_it_is_masked(
    provider: Provider, sidegate: Sidegate, case: str, kind: str, length: bool
) -> None:
    body = f"WEBVTT\n\n{TEXT}\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n"
    framed = f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    if not length:
        framed = b"Transfer-Encoding: chunked\r\n\r\n" + chunks(cut_bytes(body, 5)) + LAST_CHUNK
    provider.on(case, script(head.encode() + framed))
    reply = await ask(sidegate, "audio/transcriptions", case)
    assert reply.body == body.replace(HIGH.encode(), MASK.encode())


def test_official_client_when_an_answer_holds_a_secret_then_it_reads_the_masked_text(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    provider.on(case, script(sse_head(), chunks(cut_bytes(STREAMS["chat content"][1](3), 400)), LAST_CHUNK))
    client = openai.OpenAI(
        base_url=sidegate.base_url, api_key="sk-x", default_headers={"x-case-id": case}, max_retries=0
    )
    with client:
        with client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], stream=True, n=2
        ) as stream:
            texts = ["", ""]
            for part in stream:
                for choice in part.choices:
                    texts[choice.index] += choice.delta.content or ""
    assert texts == [TEXT.replace(HIGH, MASK)] * 2


async def test_trace_when_an_answer_held_a_secret_then_it_names_rule_place_and_action(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    provider.on(case, script(sse_head(), chunks([STREAMS["responses text"][1](3)]), LAST_CHUNK))
    reply = await ask(sidegate, "responses", case)
    trace = sidegate.trace(reply.trace_id)
    found = {(each["rule"], each["action"], each["direction"]) for each in trace["policy"]["findings"]}
    assert found == {("github-token", "redact", "output")}
    assert trace["policy"]["findings"][0]["place"] == "output[0].content[0].response.output_text"
    assert trace["policy"]["scanned"]["output"] >= len(TEXT)
    assert HIGH not in reply.body.decode() + json.dumps(trace)


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_secret_when_a_session_says_it_then_it_is_masked_and_all_else_arrives_as_it_was_sent(
    provider: Provider, sidegate: Sidegate, case: str, size: int
) -> None:
    deltas = [{"type": "response.output_text.delta", **ITEM, "delta": piece} for piece in cut(TEXT, size)]
    done = {"type": "response.output_text.done", **ITEM, "text": TEXT}
    sent = [json.dumps(one) for one in (*deltas, done, {"type": "new", "said": TEXT})]
    sent += ["hello", f"plain {HIGH}", "three"]

    async def speak(socket: Socket) -> None:
        for text in sent:
            await socket.send(Frame(TEXT_FRAME, text.encode()))
        await socket.send(close_frame(1000, b""))
        await socket.receive()

    provider.on(case, socket_script(speak))
    got: list[str] = []
    async with asyncio.timeout(10):
        wire, _, socket = await connect(sidegate.address, "/v1/realtime?model=gpt-realtime", case=case)
        async with wire:
            while (frame := await socket.receive()).opcode != CLOSE:
                if frame.opcode == TEXT_FRAME:
                    got.append(frame.data.decode())
            await socket.send(close_frame(1000, b""))
    documents = [json.loads(text) for text in got[:-3]]
    joined = "".join(one["delta"] for one in documents if one["type"].endswith(".delta"))
    assert (joined, documents[-2]["text"], documents[-1]["said"]) == (TEXT.replace(HIGH, MASK),) * 3
    assert got[-3:] == ["hello", f"plain {MASK}", "three"]
    assert got[0] == sent[0] or size == 1000


async def test_stream_when_it_breaks_off_within_a_secret_then_no_more_of_it_has_left_than_a_mask_shows(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    begin = b"".join(delta({"content": piece}) for piece in cut(f"It is {HIGH[:-1]}", 3))
    provider.on(case, script(sse_head(), chunks([begin]), steps.CLOSE))
    reply = await ask(sidegate, "chat/completions", case)
    left = [json.loads(line[6:]) for line in reply.body.splitlines() if line.startswith(b"data: {")]
    assert "".join(one["choices"][0]["delta"]["content"] for one in left if "choices" in one) == f"It is {HIGH[:4]}"
