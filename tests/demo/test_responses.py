"""Responses: numbered events in their order, and an object that grows to the document."""

from typing import Any

import orjson
import pytest

from proxy.demo import responses
from proxy.demo.events import Head
from proxy.demo.reply import Reply

HEAD = Head("resp_0123456789abcdef", 1_700_000_000, "demo-small", 7)
TEXT = Reply("text", ("Hello", " there"), True)
TOOL = Reply("tool", ('{"a":', "1}"), True, "lookup")


def events(reply: Reply, request: dict[str, Any], with_usage: bool = True) -> list[dict[str, Any]]:
    found = []
    for frame in responses.frames(HEAD, reply, request, with_usage):
        name, data = frame.data.decode().strip().split("\n")
        body = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {body['type']}"
        found.append(body)
    return found


@pytest.mark.parametrize(
    ("reply", "middle"),
    [
        (
            TEXT,
            ["content_part.added", "output_text.delta", "output_text.delta", "output_text.done", "content_part.done"],
        ),
        (
            TOOL,
            [
                "function_call_arguments.delta",
                "function_call_arguments.delta",
                "function_call_arguments.done",
            ],
        ),
    ],
    ids=["text", "tool"],
)
def test_frames_when_sent_then_in_the_documented_order(reply: Reply, middle: list[str]) -> None:
    names = [event["type"].removeprefix("response.") for event in events(reply, {})]
    assert names == ["created", "in_progress", "output_item.added", *middle, "output_item.done", "completed"]


@pytest.mark.parametrize("reply", [TEXT, TOOL], ids=["text", "tool"])
def test_frames_when_joined_then_equal_the_document(reply: Reply) -> None:
    found = events(reply, {"metadata": {"k": "v"}})
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert "".join(event.get("delta", "") for event in found) == reply.text
    assert found[-1]["response"] == responses.document(HEAD, reply, {"metadata": {"k": "v"}})
    assert found[0]["response"]["status"] == "in_progress"


def test_frames_when_counted_then_tokens_are_those_of_the_usage() -> None:
    frames = list(responses.frames(HEAD, TEXT, {}, True))
    usage = responses.document(HEAD, TEXT, {})["usage"]
    assert sum(frame.tokens for frame in frames) == usage["output_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_document_when_cut_by_the_limit_then_incomplete() -> None:
    cut = Reply("text", ("Hello",), False)
    assert responses.document(HEAD, cut, {})["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events(cut, {})[-1]["type"] == "response.incomplete"


def test_frames_when_usage_is_left_out_then_null() -> None:
    assert events(TEXT, {}, with_usage=False)[-1]["response"]["usage"] is None


def test_document_when_conversation_is_named_then_repeated() -> None:
    request = {"conversation": "conv_1", "previous_response_id": "resp_0", "temperature": 0.2}
    document = responses.document(HEAD, TEXT, request)
    assert document["conversation"] == {"id": "conv_1"}
    assert (document["previous_response_id"], document["temperature"]) == ("resp_0", 0.2)
