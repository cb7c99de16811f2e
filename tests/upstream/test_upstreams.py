import json

from proxy.config.schema import UpstreamEntry
from proxy.exchange import Attempt, Candidate
from proxy.upstream.provider import Provider
from proxy.upstream.upstreams import Upstreams
from tests.relay.peers import Reply
from tests.upstream.test_provider import Transport, inbound

KEYS = ("sk-first-0123456789", "sk-second-0123456789")


def both(**second):
    transports = (Transport(), Transport())
    entries = (
        UpstreamEntry(name="one", api_key=KEYS[0]),
        UpstreamEntry(**{"name": "two", "base_url": "http://127.0.0.1:1/v1", "api_key": KEYS[1], **second}),
    )
    return Upstreams([Provider(e, t, t) for e, t in zip(entries, transports, strict=True)]), *transports


def attempt(**candidate):
    return Attempt(0, Candidate(**{"upstream": "two", "model": "m", **candidate}), 0.0)


async def test_attempt_when_sent_then_it_reaches_the_provider_that_its_candidate_names():
    upstreams, one, two = both()
    await upstreams.send(attempt(), inbound(), b"{}")
    assert (len(one.requests), len(two.requests)) == (0, 1)
    await upstreams.connect(attempt(upstream="one"), inbound("/v1/realtime"))
    assert len(one.requests) == 1
    assert (b"Authorization", b"Bearer " + KEYS[0].encode()) in one.requests[0].headers


async def test_answer_when_it_quotes_the_key_of_another_provider_then_the_client_does_not_see_it():
    upstreams, _, _ = both()
    echo = Reply((), ((b"X-A", KEYS[0].encode()), (b"X-B", KEYS[1].encode()), (b"X-C", b"c")))
    assert upstreams.response_headers(echo) == [(b"X-C", b"c")]


async def test_body_when_the_provider_has_another_name_for_the_model_then_only_the_name_changes():
    upstreams, _, two = both()
    await upstreams.send(attempt(sent_as="own"), inbound(), b'{ "model": "m" , "a": 1}')
    assert two.requests[0].body == b'{ "model": "own" , "a": 1}'


async def test_body_when_the_provider_does_not_know_the_usage_option_then_it_is_taken_out_again():
    upstreams, _, two = both(force_stream_usage=False)
    assert upstreams.force_stream_usage
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    await upstreams.send(attempt(forced_usage=True), inbound(), body)
    assert json.loads(two.requests[0].body) == {"model": "m", "stream": True}


async def test_azure_when_asked_then_key_version_and_deployment_stand_where_it_wants_them():
    upstreams, _, two = both(kind="azure", api_version="2024-10-21", base_url="https://r.openai.azure.com/openai")
    await upstreams.send(attempt(sent_as="prod"), inbound("/v1/chat/completions"), b'{"model":"m"}')
    request = two.requests[0]
    expected = "https://r.openai.azure.com/openai/deployments/prod/chat/completions?api-version=2024-10-21"
    assert request.url == expected
    assert (b"api-key", KEYS[1].encode()) in request.headers
    assert b"authorization" not in {name.lower() for name, _ in request.headers}


async def test_credentials_when_there_are_several_then_the_attempts_one_is_used_and_all_are_secret():
    credentials = ({"api_key": "sk-a-0123456789"}, {"api_key": "sk-b-0123456789"})
    upstreams, _, two = both(api_key=None, credentials=credentials)
    chosen = attempt()
    chosen.credential = 1
    await upstreams.send(chosen, inbound(), b"{}")
    assert (b"Authorization", b"Bearer sk-b-0123456789") in two.requests[0].headers
    assert {b"sk-a-0123456789", b"sk-b-0123456789"} <= set(upstreams.secrets)


async def test_upstreams_when_closed_then_every_provider_is():
    upstreams, one, two = both()
    assert set(upstreams.stats()) == {"one", "two"}
    await upstreams.close()
    assert (one.closed, two.closed) == (2, 2)
