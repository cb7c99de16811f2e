"""Chat completions and legacy completions as OpenAI writes them: whole documents and stream chunks.

Rules of the file: no I/O. With `stream_options.include_usage` every chunk carries `usage: null`, and one more chunk,
with no choices, carries the figures; without it `usage` does not occur at all.

Source: OpenAI API reference, "Chat" and "Completions".
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from proxy.demo.events import Frame, Head, event
from proxy.demo.reply import Reply

Json = dict[str, Any]


def usage(head: Head, replies: Sequence[Reply]) -> Json:
    """Return the token counts of all choices together."""
    output = sum(len(reply.pieces) for reply in replies)
    return {
        "prompt_tokens": head.input_tokens,
        "completion_tokens": output,
        "total_tokens": head.input_tokens + output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def document(head: Head, replies: Sequence[Reply]) -> Json:
    """Return a `chat.completion`."""
    choices = [
        {"index": index, "message": _message(head, reply, index), "logprobs": None, "finish_reason": _finish(reply)}
        for index, reply in enumerate(replies)
    ]
    return _envelope(head, "chat.completion") | {"choices": choices, "usage": usage(head, replies)}


def frames(head: Head, replies: Sequence[Reply], include_usage: bool) -> Iterator[Frame]:
    """Yield the stream but for `[DONE]`: roles, tokens (choices in turn), finish reasons, usage if asked for."""
    base = _envelope(head, "chat.completion.chunk")
    if include_usage:
        base["usage"] = None
    for index, reply in enumerate(replies):
        yield _choice_frame(base, index, _opening(head, reply, index), None)
    for turn in zip_longest(*(reply.pieces for reply in replies)):
        for index, piece in enumerate(turn):
            if piece is not None:
                yield _choice_frame(base, index, _delta(replies[index], piece), None, tokens=1)
    for index, reply in enumerate(replies):
        yield _choice_frame(base, index, {}, _finish(reply))
    if include_usage:
        yield event(base | {"choices": [], "usage": usage(head, replies)})


def text_document(head: Head, replies: Sequence[Reply]) -> Json:
    """Return a `text_completion`."""
    choices = [
        {"index": index, "text": reply.text, "logprobs": None, "finish_reason": _finish(reply)}
        for index, reply in enumerate(replies)
    ]
    return _envelope(head, "text_completion") | {"choices": choices, "usage": usage(head, replies)}


def text_frames(head: Head, replies: Sequence[Reply], include_usage: bool) -> Iterator[Frame]:
    """Yield the stream of a legacy completion."""
    base = _envelope(head, "text_completion")
    if include_usage:
        base["usage"] = None
    for turn in zip_longest(*(reply.pieces for reply in replies)):
        for index, piece in enumerate(turn):
            if piece is not None:
                choice = {"index": index, "text": piece, "logprobs": None, "finish_reason": None}
                yield event(base | {"choices": [choice]}, tokens=1)
    for index, reply in enumerate(replies):
        choice = {"index": index, "text": "", "logprobs": None, "finish_reason": _finish(reply)}
        yield event(base | {"choices": [choice]})
    if include_usage:
        yield event(base | {"choices": [], "usage": usage(head, replies)})


def _envelope(head: Head, kind: str) -> Json:
    return {
        "id": head.id,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }


def _choice_frame(base: Json, index: int, delta: Json, finish: str | None, tokens: int = 0) -> Frame:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event(base | {"choices": [choice]}, tokens)


def _finish(reply: Reply) -> str:
    if not reply.complete:
        return "length"
    return "tool_calls" if reply.kind == "tool" else "stop"


def _message(head: Head, reply: Reply, index: int) -> Json:
    if reply.kind == "text":
        return {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [_call(head, reply, index)]}


def _call(head: Head, reply: Reply, index: int) -> Json:
    function = {"name": reply.tool_name, "arguments": reply.text}
    return {"id": f"call_{head.id[-16:]}{index}", "type": "function", "function": function}


def _opening(head: Head, reply: Reply, index: int) -> Json:
    if reply.kind == "text":
        return {"role": "assistant", "content": "", "refusal": None}
    call = _call(head, reply, index)
    call["function"]["arguments"] = ""
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [{"index": 0} | call]}


def _delta(reply: Reply, piece: str) -> Json:
    if reply.kind == "text":
        return {"content": piece}
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
