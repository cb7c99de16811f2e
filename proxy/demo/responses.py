"""The Responses API as OpenAI writes it: the response object and the sequence of its stream events.

Rules of the file: no I/O. Every event is numbered and named; the object grows from `in_progress` to `completed`, or to
`incomplete` where the request's limit of output tokens cut the text:

    created, in_progress
    output_item.added
      text:  content_part.added, output_text.delta ..., output_text.done, content_part.done
      tool:  function_call_arguments.delta ..., function_call_arguments.done
    output_item.done
    completed | incomplete

Source: OpenAI API reference, "Responses" and "Streaming events".
"""

from collections.abc import Iterator
from typing import Any

from proxy.demo.events import Frame, Head, event
from proxy.demo.reply import Reply

Json = dict[str, Any]
ECHOED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""Members of the request that the object repeats, with the value of a request that leaves them out."""


def document(head: Head, reply: Reply, request: Json, with_usage: bool = True) -> Json:
    """Return the finished response object."""
    incomplete = None if reply.complete else {"reason": "max_output_tokens"}
    status = "completed" if reply.complete else "incomplete"
    usage = _usage(head, reply) if with_usage else None
    return _object(head, request, status) | {
        "output": [_item(head, reply, status)],
        "usage": usage,
        "incomplete_details": incomplete,
    }


def frames(head: Head, reply: Reply, request: Json, with_usage: bool) -> Iterator[Frame]:
    """Yield the whole stream, numbered."""
    for number, (body, tokens) in enumerate(_events(head, reply, request, with_usage)):
        yield event(body | {"sequence_number": number}, tokens, body["type"])


def _events(head: Head, reply: Reply, request: Json, with_usage: bool) -> Iterator[tuple[Json, int]]:
    started = _object(head, request, "in_progress")
    finished = document(head, reply, request, with_usage)
    item = finished["output"][0]
    yield {"type": "response.created", "response": started}, 0
    yield {"type": "response.in_progress", "response": started}, 0
    empty: Json = {"content": []} if reply.kind == "text" else {"arguments": ""}
    opened = item | {"status": "in_progress"} | empty
    yield {"type": "response.output_item.added", "output_index": 0, "item": opened}, 0
    yield from (_text_events if reply.kind == "text" else _tool_events)(reply, item)
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}, 0
    yield {"type": f"response.{finished['status']}", "response": finished}, 0


def _text_events(reply: Reply, item: Json) -> Iterator[tuple[Json, int]]:
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    part = item["content"][0]
    yield {"type": "response.content_part.added", **place, "part": part | {"text": ""}}, 0
    for piece in reply.pieces:
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}, 1
    yield {"type": "response.output_text.done", **place, "text": reply.text, "logprobs": []}, 0
    yield {"type": "response.content_part.done", **place, "part": part}, 0


def _tool_events(reply: Reply, item: Json) -> Iterator[tuple[Json, int]]:
    place = {"item_id": item["id"], "output_index": 0}
    for piece in reply.pieces:
        yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}, 1
    done = {"type": "response.function_call_arguments.done", **place, "name": reply.tool_name, "arguments": reply.text}
    yield done, 0


def _object(head: Head, request: Json, status: str) -> Json:
    conversation = request.get("conversation")
    if isinstance(conversation, str):
        conversation = {"id": conversation}
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": head.model,
        "output": [],
        "service_tier": "default",
        "conversation": conversation,
        "usage": None,
        **{name: request.get(name, default) for name, default in ECHOED.items()},
    }


def _item(head: Head, reply: Reply, status: str) -> Json:
    suffix = head.id.removeprefix("resp_")
    if reply.kind == "tool":
        return {
            "id": f"fc_{suffix}",
            "type": "function_call",
            "status": status,
            "call_id": f"call_{suffix}",
            "name": reply.tool_name,
            "arguments": reply.text,
        }
    part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    return {"id": f"msg_{suffix}", "type": "message", "status": status, "role": "assistant", "content": [part]}


def _usage(head: Head, reply: Reply) -> Json:
    output = len(reply.pieces)
    return {
        "input_tokens": head.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": head.input_tokens + output,
    }
