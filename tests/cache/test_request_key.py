"""Which requests are the same, and whose answers may be kept."""

import json
from dataclasses import replace

import pytest

from proxy.cache.request_key import directives, key_of
from proxy.config.schema import Limits
from proxy.exchange import Inbound, first_values
from proxy.nouns.candidates import Candidate
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.phases.intake import slim

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "héllo"}], "temperature": 0.5}
HERE = Candidate("openai", "gpt-4o", sent_as="gpt-4o")


def key(document=CHAT, *headers, path="/v1/chat/completions", candidate=HERE, project="shop", version="v1", body=None):
    body = json.dumps(document).encode() if body is None else body
    operation = match("POST", path.partition("?")[0], False)
    inbound = Inbound("POST", path, path, headers, first_values(headers), operation, None, len(body), True)
    request = parse_json(body, operation, limits=Limits(), force_stream_usage=True)
    return key_of(inbound, request, candidate, project, (version, False, False))


BASE = key()
SPELT = b'{"temperature":5e-1, "messages":[{"content":"h\\u00e9llo","role":"user"}],"model":"x"}'
SAME = {
    "order and spelling": {"body": SPELT},
    "stream": {"document": CHAT | {"stream": True, "stream_options": {"include_usage": True}}},
    "model as resolved": {"document": CHAT | {"model": "gpt-4o"}},
}


@pytest.mark.parametrize("asked", SAME.values(), ids=SAME.keys())
def test_key_when_the_request_means_the_same_then_it_is_the_same(asked):
    assert key(**asked).digest == BASE.digest


def test_key_when_only_the_client_differs_then_it_is_the_same():
    headers = ((b"User-Agent", b"x"), (b"X-Stainless-Lang", b"js"), (b"Authorization", b"y"), (b"traceparent", b"z"))
    assert key(CHAT, *headers, (b"x-sidegate-user", b"bob")).digest == BASE.digest


OTHER = {
    "text": {"document": CHAT | {"messages": []}},
    "member": {"document": CHAT | {"seed": 1}},
    "user in the body": {"document": CHAT | {"user": "bob"}},
    "project": {"project": "lab"},
    "policy": {"version": "v2"},
    "provider": {"candidate": replace(HERE, upstream="azure")},
    "model": {"candidate": replace(HERE, model="gpt-5")},
    "name sent": {"candidate": replace(HERE, sent_as="deployment")},
    "query": {"path": "/v1/chat/completions?a=1"},
    "operation": {"path": "/v1/embeddings"},
}


@pytest.mark.parametrize("asked", OTHER.values(), ids=OTHER.keys())
def test_key_when_anything_that_counts_differs_then_it_is_another(asked):
    assert key(**asked).digest != BASE.digest


def test_key_when_a_header_reaches_the_provider_then_it_counts():
    assert key(CHAT, (b"x-sidegate-cross-check", b"on")).digest != BASE.digest
    assert key(CHAT, (b"OpenAI-Beta", b"a")).digest != key(CHAT, (b"OpenAI-Beta", b"b")).digest != BASE.digest


def test_key_when_a_header_is_repeated_then_every_value_counts_in_its_order():
    first, other, third = (b"OpenAI-Beta", b"a"), (b"openai-beta", b"b"), (b"x-more", b"c")
    assert key(CHAT, first, other).digest != key(CHAT, first).digest
    assert key(CHAT, first, other).digest != key(CHAT, other, first).digest
    assert key(CHAT, first, third, other).digest == key(CHAT, third, first, other).digest


def test_key_when_parts_are_shifted_then_they_are_not_confused():
    assert key(project="a", version="bc").digest != key(project="ab", version="c").digest


def test_key_when_a_stream_is_asked_for_then_it_says_whether_with_usage():
    plain = key(CHAT | {"stream": True})
    told = key(CHAT | {"stream": True, "stream_options": {"include_usage": True}})
    said = [(one.stream, one.wants_usage) for one in (BASE, plain, told)]
    assert said == [(False, False), (True, False), (True, True)]


def test_key_when_the_body_is_not_kept_decoded_then_it_is_the_same():
    document = CHAT | {"messages": [{"role": "user", "content": "x" * 80_000}]}
    body = json.dumps(document).encode()
    operation = match("POST", "/v1/chat/completions", False)
    request = slim(parse_json(body, operation, limits=Limits(), force_stream_usage=True))
    assert request.document is None
    path = "/v1/chat/completions"
    inbound = Inbound("POST", path, path, (), {}, operation, None, len(body), True)
    assert key_of(inbound, request, HERE, "shop", ("v1", False, False)).digest == key(document).digest


RESPONSE = {"model": "m", "input": "x", "store": False}
REFUSED = {
    "stored completion": (CHAT | {"store": True}, "/v1/chat/completions"),
    "stored response": ({"model": "m", "input": "x"}, "/v1/responses"),
    "earlier response": (RESPONSE | {"previous_response_id": "resp_1"}, "/v1/responses"),
    "background": (RESPONSE | {"background": True}, "/v1/responses"),
    "tool of the provider": (RESPONSE | {"tools": [{"type": "web_search"}]}, "/v1/responses"),
    "file": (CHAT | {"messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "/v1/chat/completions"),
    "operation": ({"model": "m", "input": "x"}, "/v1/moderations"),
    "unknown path": ({"model": "m"}, "/v1/other"),
    "half a surrogate pair": (CHAT | {"user": "\ud83d"}, "/v1/chat/completions"),
}


@pytest.mark.parametrize(("document", "path"), REFUSED.values(), ids=REFUSED.keys())
def test_key_when_the_answer_may_not_be_kept_then_there_is_none(document, path):
    assert key(document, path=path) is None
    assert key(RESPONSE, path="/v1/responses") is not None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, (True, True)),
        (b"max-age=60", (True, True)),
        (b"No-Cache", (False, True)),
        (b"max-age=0", (False, True)),
        (b"no-cache, no-store", (False, False)),
        (b" NO-STORE ", (False, False)),
    ],
)
def test_directives_when_given_then_reading_and_keeping_follow(value, said):
    assert directives(() if value is None else ((b"Cache-Control", value),)) == said


def test_directives_when_they_stand_in_several_headers_then_all_hold():
    assert directives(((b"cache-control", b"max-age=5"), (b"Cache-Control", b"no-store"))) == (False, False)
