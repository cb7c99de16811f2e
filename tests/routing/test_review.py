"""What a reviewer is asked, and how its verdict is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.openai.messages import Call, Message
from proxy.routing.review import Question, Verdict, can_be_reviewed, review_of, verdict_of

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
CHAT = {
    "model": "auto",
    "messages": MESSAGES,
    "stream": True,
    "tools": [{"type": "function"}],
    "n": 3,
    "logprobs": True,
}
SAID = (Message("Hello", calls=(Call("f", "{}"),)),)


def asked(dialect: Any, document: Any, **more: Any) -> dict[str, Any]:
    question = Question(dialect, document, SAID, more.pop("objection", None))
    request = review_of(question, "gpt-5-mini", knows_schemas=more.pop("knows_schemas", True), output_tokens=99)
    assert request.body is not None
    assert (request.model, request.stream, request.request_bytes) == ("gpt-5-mini", False, len(request.body))
    document = json.loads(request.body)
    assert request.document == document
    assert request.input_text_bytes() > 5
    return document


def test_review_when_of_a_chat_then_its_messages_and_the_answer_and_nothing_else_of_it() -> None:
    document = asked("chat", CHAT)
    assert document["messages"][:-1] == MESSAGES
    assert '"text":"Hello"' in document["messages"][-1]["content"]
    assert '"tool_calls":[{"name":"f","arguments":"{}"}]' in document["messages"][-1]["content"]
    assert document["response_format"]["json_schema"]["strict"] is True
    assert document["max_completion_tokens"] == 99
    assert document.keys() == {"model", "messages", "response_format", "max_completion_tokens"}
    assert "response_format" not in asked("chat", CHAT, knows_schemas=False)


@pytest.mark.parametrize("given", ["Hi", [{"role": "user", "content": "Hi"}]])
def test_review_when_of_a_response_then_its_input_and_instructions(given: Any) -> None:
    document = asked("responses", {"input": given, "instructions": "Be brief.", "store": True})
    assert [item["role"] for item in document["input"]] == ["developer", "user", "user"]
    assert [item["content"] for item in document["input"]][:2] == ["Be brief.", "Hi"]
    assert (document["store"], document["max_output_tokens"]) == (False, 99)
    assert document["text"]["format"]["type"] == "json_schema"
    assert "text" not in asked("responses", {"input": given}, knows_schemas=False)


def test_arbiter_when_asked_then_it_is_told_the_objection() -> None:
    told = asked("chat", CHAT, objection=Verdict("reject", "It is wrong."))["messages"][-1]["content"]
    assert '"objection":"It is wrong."' in told
    assert '"objection"' not in asked("chat", CHAT)["messages"][-1]["content"]


def test_review_when_messages_are_no_list_or_hold_half_a_character_then_it_is_asked_all_the_same() -> None:
    assert len(asked("chat", {"messages": None})["messages"]) == 1
    question = Question("chat", CHAT, (Message("\ud83d"),))
    assert b"ud83d" in (review_of(question, "m", knows_schemas=True, output_tokens=9).body or b"")


@pytest.mark.parametrize(
    ("document", "can"),
    [
        (CHAT, True),
        ({"previous_response_id": "r"}, False),
        ({"conversation": "c"}, False),
        ({"prompt": {}}, False),
    ],
)
def test_request_when_the_provider_keeps_its_messages_then_it_cannot_be_reviewed(document: Any, can: bool) -> None:
    assert can_be_reviewed(document) is can


VERDICTS: dict[str, Verdict | None] = {
    '{"verdict": "accept", "reason": "fine"}': Verdict("accept", "fine"),
    '```json\n{"verdict": "Reject", "reason": "wrong"}\n```': Verdict("reject", "wrong"),
    'Here it is: {"reason": "so", "verdict": "accepted"} - done': Verdict("accept", "so"),
    '{"verdict": "reject", "reason": 7}': Verdict("reject"),
    "Accept: it is right.": Verdict("accept"),
    "I would not accept this.": None,
    "**Rejected**": Verdict("reject"),
    "I would neither accept nor reject it.": None,
    '{"verdict": "maybe"}': None,
    '{"verdict": "accept or reject"}': None,
    "": None,
    "}{": None,
}


@pytest.mark.parametrize(("text", "verdict"), VERDICTS.items())
def test_verdict_when_spelt_in_any_way_then_it_is_read_or_there_is_none(text: str, verdict: Verdict | None) -> None:
    assert verdict_of((Message(text),)) == verdict


@given(st.text(), st.sampled_from(["accept", "reject"]), st.text(alphabet="{}`\n abc", max_size=9))
def test_verdict_when_anything_comes_then_nothing_raises_and_json_is_found(
    reason: str, opinion: Any, around: str
) -> None:
    verdict_of((Message(reason),))
    said = json.dumps({"verdict": opinion, "reason": reason})
    assert verdict_of((Message(said),)) == Verdict(opinion, reason[:500])
    around = around.replace("{", "").replace("}", "")
    assert verdict_of((Message(around + said + around),)) == Verdict(opinion, reason[:500])


def test_verdict_when_nothing_was_said_then_there_is_none() -> None:
    assert verdict_of(()) is None
