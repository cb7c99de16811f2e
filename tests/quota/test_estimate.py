"""Bounds: never less than what a call can cost, near it for text."""

import json
from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.quota import Quota
from proxy.config.schema import Limits, Prices
from proxy.exchange import Usage
from proxy.nouns.holds import Bound
from proxy.openai import json_steps
from proxy.openai.operations import match, operations
from proxy.openai.request import parse_empty, parse_handshake, parse_json
from proxy.quota.estimate import Bounds, bound, highest_prices
from proxy.routing.plan import least_nanos
from proxy.upstream import pricing

SETTINGS = Quota(assumed_output_tokens=9000, default_output_tokens=1000, unseen_input_tokens=5000)
CHAT = match("POST", "/v1/chat/completions", False)
COMPLETIONS = match("POST", "/v1/completions", False)
RESPONSES = match("POST", "/v1/responses", False)
EMBEDDINGS = match("POST", "/v1/embeddings", False)
IMAGES = match("POST", "/v1/images/generations", False)
SPEECH = match("POST", "/v1/audio/speech", False)
TRANSCRIPTION = match("POST", "/v1/audio/transcriptions", False)
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 50_000}}


@pytest.fixture(scope="module")
def prices() -> pricing.PriceTable:
    return pricing.load(None, Prices(overrides={"by-piece": {"per_image": "0.04"}}))


def ask(document: dict[str, object], operation=CHAT):
    return parse_json(json.dumps(document).encode(), operation, limits=Limits(), force_stream_usage=False)


def bound_of(document, prices, operation=CHAT, settings=SETTINGS) -> Bound:
    made = bound(operation, ask(document, operation), None, prices, settings)
    assert made is not None
    return made


def messages(text: object = "hello"):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("tier", "input_price", "output_price"),
    [("priority", 2_500, 20_000_000_000), ("fast", 2_500, 20_000_000_000), ("flex", 1_250, 10_000_000_000)]
    + [(other, 1_250, 10_000_000_000) for other in ("auto", "default", None, 7, ["priority"], {})],
)
def test_bound_when_a_request_asks_for_a_tier_then_it_covers_that_and_the_standard_one(
    prices, tier, input_price, output_price
):
    made = bound_of({"model": "gpt-5", "messages": messages(), "service_tier": tier}, prices)
    assert made.input_nanos == made.input_tokens * input_price
    assert made.output_nanos_per_million == output_price


def test_modest_cost_when_a_tier_is_asked_for_then_only_exact_bounds_tell(prices):
    highest = highest_prices(["gpt-5"], prices)
    for tier, is_told in (("default", True), ("priority", False)):
        asked = ask({"model": "gpt-5", "messages": messages(), "service_tier": tier})
        assert (Bounds(CHAT, asked, None, prices, SETTINGS).modest_nanos(highest) is not None) is is_told


# --- input ---------------------------------------------------------------------------------------------------------


def test_bound_when_the_text_is_short_then_it_is_near_the_text(prices):
    made = bound_of({"model": "gpt-4o", "messages": messages(), "user": "u" * 500, "temperature": 0.5}, prices)
    assert 8 <= made.input_tokens <= 100


@settings(deadline=None)
@given(st.lists(st.text(max_size=60), max_size=5), st.booleans())
def test_bound_when_text_is_anything_then_no_byte_is_left_out(texts, ascii_only):
    document = {"messages": [message for text in texts for message in messages(text)]}
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    request = parse_json(body, CHAT, limits=Limits(), force_stream_usage=False)
    made = bound(CHAT, request, None, pricing.PriceTable({}, Prices()), SETTINGS)
    sizes = sum(len(text.encode()) for text in texts)
    # What templates put around each message, and JSON's own escapes of at most five bytes more.
    assert sizes + 16 * len(texts) + 32 <= made.input_tokens <= 6 * sizes + 40 * len(texts) + 64


@pytest.mark.parametrize(
    ("ids", "tokens"),
    [([1, 99_999, 3], 3), ([[1, 2], [99_999]], 3), ([[]], 0)],
    ids=["ids", "lists of ids", "no id"],
)
def test_bound_when_token_ids_are_sent_then_their_number_counts(prices, ids, tokens):
    made = bound_of({"model": "text-embedding-3-small", "input": ids}, prices, EMBEDDINGS)
    assert tokens <= made.input_tokens <= tokens + 40


@pytest.mark.parametrize("ids", [[1, "abc"], [[1], "abc"], [[1], [2.5]]], ids=repr)
def test_bound_when_token_ids_are_mixed_with_text_then_they_count_as_text(prices, ids):
    assert bound_of({"input": ids}, prices, EMBEDDINGS).input_tokens > 40


def test_bound_when_there_are_tools_then_their_definitions_count(prices):
    tool = {"type": "function", "function": {"name": "f", "description": "d" * 400}}
    plain = bound_of({"model": "gpt-4o", "messages": messages()}, prices)
    assert bound_of({"model": "gpt-4o", "messages": messages(), "tools": [tool]}, prices).input_tokens > (
        plain.input_tokens + 400
    )
    assert bound_of({"model": "claude-sonnet-4-5", "messages": messages(), "tools": [tool]}, prices).input_tokens > (
        plain.input_tokens + 1000
    )


def test_bound_when_there_is_a_picture_then_its_bound_replaces_its_base64(prices):
    made = bound_of({"model": "gpt-4o", "messages": messages([PICTURE])}, prices)
    assert 1445 <= made.input_tokens <= 1445 + 200


def test_bound_when_a_body_was_not_kept_decoded_then_it_is_the_same(prices):
    request = ask({"model": "gpt-4o", "messages": messages([PICTURE]), "max_tokens": 7, "n": 2})
    assert bound(CHAT, replace(request, document=None), None, prices, SETTINGS) == bound(
        CHAT, request, None, prices, SETTINGS
    )


def test_bound_when_the_provider_knows_more_then_the_setting_counts_once(prices):
    plain = {"model": "gpt-4o", "input": "hello"}
    hidden = plain | {"previous_response_id": "resp_1", "conversation": "conv_1", "tools": [{"type": "web_search"}]}
    more = bound_of(hidden, prices, RESPONSES).input_tokens - bound_of(plain, prices, RESPONSES).input_tokens
    assert 5000 <= more <= 5200


@pytest.mark.parametrize(
    "content", ['"\\ud83d"', f'["\\ud83d", {10**30}]'], ids=["half a surrogate pair", "a huge number"]
)
def test_bound_when_values_are_rare_then_they_count_too(prices, content):
    body = f'{{"messages":[{{"role":"user","content":{content}}}],"max_tokens":5}}'.encode()
    request = parse_json(body, CHAT, limits=Limits(), force_stream_usage=False)
    made = bound(CHAT, request, None, prices, SETTINGS)
    assert made is not None and made.output_tokens == 5 and made.input_tokens > 40


# --- output --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "members", "output", "modest", "is_capped", "can_grow"),
    [
        pytest.param(CHAT, {"max_tokens": 7}, 7, 7, True, False, id="named"),
        pytest.param(CHAT, {"max_tokens": 7, "stream": True}, 7, 7, True, False, id="named of a stream"),
        pytest.param(CHAT, {"max_tokens": 5000, "n": 3}, 15_000, 15_000, True, False, id="named of several"),
        pytest.param(CHAT, {"max_tokens": 10**6}, 10**6, 10**6, True, False, id="named above the model's"),
        pytest.param(CHAT, {"max_tokens": -7}, 16_384, 1000, True, False, id="garbage"),
        pytest.param(CHAT, {}, 16_384, 1000, True, False, id="the model's own"),
        pytest.param(CHAT, {"n": 2}, 32_768, 2000, True, False, id="the model's own, several"),
        pytest.param(CHAT, {"model": "unknown"}, 9000, 1000, True, False, id="unknown model"),
        pytest.param(CHAT, {"stream": True}, 16_384, 1024, True, True, id="stream"),
        pytest.param(CHAT, {"stream": True, "n": 2}, 32_768, 2048, True, True, id="stream of several"),
        pytest.param(COMPLETIONS, {"model": "davinci-002"}, 16, 16, True, False, id="completions of OpenAI"),
        pytest.param(
            COMPLETIONS, {"prompt": ["a", "b"], "max_tokens": 7, "best_of": 3}, 42, 42, True, False, id="many"
        ),
        pytest.param(RESPONSES, {"max_output_tokens": 7, "n": 9}, 7, 7, True, False, id="responses"),
    ],
)
def test_bound_when_output_is_bounded_by_request_model_or_settings(
    prices, operation, members, output, modest, is_capped, can_grow
):
    made = bound_of({"model": "gpt-4o", **members}, prices, operation)
    assert (made.output_tokens, made.modest_output_tokens) == (output, modest)
    assert (made.is_capped, made.can_grow, made.can_be_capped) == (is_capped, can_grow, True)


def test_bound_when_a_stream_has_no_maximum_then_it_may_begin_with_a_part_of_its_models(prices):
    made = bound_of({"model": "gpt-4-turbo", "stream": True}, prices, settings=Quota())
    assert (made.output_tokens, made.modest_output_tokens, made.can_grow) == (4096, 1024, True)


def test_bound_when_output_is_predicted_then_it_may_be_charged_beside_the_answer(prices):
    prediction = {"type": "content", "content": "x" * 300}
    made = bound_of({"model": "gpt-4o", "max_tokens": 7, "prediction": prediction}, prices)
    assert made.output_tokens > 307 and not made.can_be_capped


@pytest.mark.parametrize(
    ("operation", "document"),
    [
        (EMBEDDINGS, {"model": "text-embedding-3-small", "input": "abc"}),
        (IMAGES, {"model": "gpt-image-1", "prompt": "abc"}),
        (SPEECH, {"model": "gpt-4o-mini-tts", "input": "abc"}),
        (TRANSCRIPTION, {"model": "whisper-1"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_bound_when_an_operation_has_no_open_end_then_it_is_capped(prices, operation, document):
    made = bound_of(document, prices, operation)
    assert (made.is_capped, made.can_be_capped, made.can_grow) == (True, False, False)
    assert made.modest_output_tokens == made.output_tokens


def test_bound_when_a_compaction_is_asked_for_then_it_cannot_be_capped(prices):
    compact = match("POST", "/v1/responses/compact", False)
    assert not bound_of({"model": "gpt-4o", "input": "abc"}, prices, compact).can_be_capped


def test_bound_when_a_session_begins_then_its_first_answer_is_bounded(prices):
    realtime = match("GET", "/v1/realtime", True)
    made = bound(realtime, parse_handshake("/v1/realtime?model=gpt-realtime"), None, prices, SETTINGS)
    assert made == Bound(
        5000, 5000 * 32_000, 1000, 64 * 10**9, 1000, is_capped=False, can_be_capped=False, can_grow=True
    )


def test_bound_when_the_operation_is_unknown_then_something_must_be_left(prices):
    made = bound(match("POST", "/v1/rerank", False), parse_empty(), None, prices, SETTINGS)
    assert (made.tokens, made.cost_nanos) == (1, 1)


def test_bound_when_a_message_is_asked_for_then_its_maximum_counts(prices):
    operation = match("POST", "/v1/messages", False)
    body = b'{"model":"gpt-4o","max_tokens":50,"messages":[{"role":"user","content":"hi"}]}'
    asked = parse_json(body, operation, limits=Limits(), force_stream_usage=True)
    made = bound(operation, asked, len(body), prices, SETTINGS)
    assert (made.output_tokens, made.is_capped, made.can_be_capped) == (50, True, False)
    assert 2 < made.input_tokens < 100


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.name)
def test_bound_when_any_operation_is_empty_then_what_may_tell_usage_has_one(prices, operation):
    made = bound(operation, parse_empty(), None, prices, SETTINGS)
    assert (made is not None) is (operation.dialect != "none")
    if made is not None:
        assert 0 < made.input_tokens and 0 <= made.modest_output_tokens <= made.output_tokens
        assert not made.can_be_capped


# --- other units ---------------------------------------------------------------------------------------------------


def test_bound_when_images_are_counted_one_by_one_then_their_price_is_in_it(prices):
    document = {"model": "by-piece", "prompt": "abc", "n": 3}
    assert bound_of(document, prices, IMAGES).cost_nanos >= prices.price("by-piece", Usage(images=3))[0] > 0


def test_bound_when_a_model_names_no_tokens_for_images_then_none_are_reserved(prices):
    assert bound_of({"model": "dall-e-3", "prompt": "abc"}, prices, IMAGES).output_tokens == 0


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/images/variations"])
def test_bound_when_an_image_is_uploaded_then_the_dearest_model_and_most_images_count(prices, path):
    made = bound(match("POST", path, False), parse_empty(10_000), 10_000, prices, SETTINGS)
    assert made is not None
    usage = Usage(input_tokens=5000, output_tokens=62_400, image_input_tokens=5000, image_output_tokens=62_400)
    for model in ("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "gpt-image-2"):
        assert prices.price(model, usage)[0] <= made.cost_nanos


@pytest.mark.parametrize("size", [0, 1, 1999, 2000, 10**6, 25 << 20])
@pytest.mark.parametrize("operation", ["transcriptions", "translations"])
def test_bound_when_a_recording_is_uploaded_then_its_size_bounds_its_seconds(prices, operation, size):
    made = bound(match("POST", f"/v1/audio/{operation}", False), parse_empty(size), size, prices, SETTINGS)
    assert made is not None
    seconds = size / 2000
    tokens = Usage(int(seconds * 10), int(seconds * 10), audio_input_tokens=int(seconds * 10))
    for model in ("whisper-1", "gpt-4o-transcribe", "gpt-4o-transcribe-diarize", "gpt-4o-mini-transcribe"):
        assert prices.price(model, Usage(audio_seconds=seconds))[0] <= made.cost_nanos
        assert prices.price(model, tokens)[0] <= made.cost_nanos


def test_bound_when_an_upload_does_not_tell_its_size_then_the_largest_is_taken(prices):
    made = bound(TRANSCRIPTION, parse_empty(), None, prices, SETTINGS)
    assert made == bound(TRANSCRIPTION, parse_empty(), 25 << 20, prices, SETTINGS)


def test_bound_when_no_transcriber_has_a_price_then_the_unknown_price_counts():
    table = pricing.PriceTable({}, Prices())
    made = bound(TRANSCRIPTION, parse_empty(), 2000, table, SETTINGS)
    assert made is not None and made.output_nanos_per_million == 30 * 10**9


# --- price ---------------------------------------------------------------------------------------------------------

SHIPPED = pricing.load(None, Prices())
MODELS = st.sampled_from(
    (
        *("gpt-4o", "gpt-4o-mini", "gpt-audio", "gpt-5", "o3", "claude-sonnet-4-5", "gemini-2.5-pro", "deepseek-chat"),
        *("gpt-image-1", "gpt-realtime", "voxtral-small-latest", "nobody's", "ft:gpt-4o-mini:org::id"),
    )
)
SHARES = st.floats(0, 1)


@settings(deadline=None)
@given(MODELS, st.integers(0, 2000), st.integers(1, 10**6), st.booleans(), st.lists(SHARES, min_size=8, max_size=8))
def test_bound_when_usage_stays_within_it_then_no_usage_costs_more(model, size, maximum, with_media, shares):
    content = [{"type": "input_audio", "input_audio": {"data": "A" * size}}] if with_media else "a" * size
    document = {"model": model, "messages": messages(content), "max_tokens": maximum}
    if with_media:
        document["audio"] = {"voice": "alloy"}
    made = bound_of(document, SHIPPED)
    sent, received = int(made.input_tokens * shares[0]), int(made.output_tokens * shares[1])
    usage = Usage(
        sent,
        received,
        cached_input_tokens=int(sent * shares[2]),
        cache_write_tokens=int(sent * shares[3]),
    )
    if with_media:
        usage = replace(
            usage,
            audio_input_tokens=int(sent * shares[4]),
            image_input_tokens=int(sent * shares[5]),
            audio_output_tokens=int(received * shares[6]),
            image_output_tokens=int(received * shares[7]),
        )
    assert SHIPPED.price(model, usage)[0] <= made.cost_nanos
    assert usage.input_tokens + usage.output_tokens <= made.tokens


@settings(deadline=None)
@given(MODELS, st.integers(0, 2000), st.integers(1, 10**6))
def test_bound_when_text_is_used_up_then_its_price_is_the_bound(model, size, maximum):
    made = bound_of({"model": model, "messages": messages("a" * size), "max_tokens": maximum}, SHIPPED)
    exact = SHIPPED.price(model, Usage(made.input_tokens, made.output_tokens))[0]
    assert exact <= made.cost_nanos
    if model in ("gpt-4o", "o3", "gpt-5", "deepseek-chat", "nobody's"):
        assert made.cost_nanos - exact <= 1


def test_bound_when_unknown_models_are_free_then_it_costs_nothing():
    table = pricing.PriceTable({}, Prices(unknown_model="free"))
    made = bound_of({"model": "m", "messages": messages()}, table)
    assert (made.cost_nanos, made.tokens > 9000) == (0, True)


def test_bounds_when_several_models_are_asked_about_then_the_body_is_read_once_and_each_bound_is_its_own():
    read = []

    class Watched(dict):
        def items(self):
            read.append(1)
            return super().items()

    members = {"messages": messages([PICTURE]), "tools": [{"type": "function"}], "n": 2}
    request = replace(ask(members), document=Watched(members))
    bound_at = Bounds(CHAT, request, None, SHIPPED, SETTINGS).at
    assert not read
    models = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gpt-5", "nobody's")
    assert [bound_at(model) for model in models] == [bound_of({"model": model, **members}, SHIPPED) for model in models]
    assert len(read) == 1


MEMBERS = st.fixed_dictionaries(
    {"messages": st.sampled_from([messages("hi"), messages([PICTURE])])},
    optional={
        "max_tokens": st.integers(1, 10**6),
        "n": st.integers(1, 3),
        "stream": st.just(True),
        "tools": st.just([{"type": "web_search"}]),
        "audio": st.just({"voice": "a"}),
        "previous_response_id": st.just("resp_1"),
        "prediction": st.just({"type": "content", "content": "word " * 9}),
    },
)


@settings(deadline=None)
@given(MEMBERS, st.sampled_from([CHAT, COMPLETIONS, RESPONSES]))
def test_modest_answer_of_many_models_costs_no_less_than_that_of_any(members, operation):
    models = ["gpt-4o", "gpt-5-pro", "claude-opus-4-5", "gpt-4o-audio-preview", "davinci-002", "nobody's"]
    made = Bounds(operation, ask(members, operation), None, SHIPPED, SETTINGS)
    most = made.modest_nanos(highest_prices(models, SHIPPED))
    if most is None:
        assert operation is COMPLETIONS or members["messages"] == messages([PICTURE])
    else:
        assert most >= max(least_nanos(made.at(model)) for model in models)


def test_images_when_no_model_is_named_then_media_count_as_for_an_unknown_one(prices):
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 40_000}}
    document = {"input": [sound], "prompt": "a cat"}
    plain, named = bound_of(document, prices, IMAGES), bound_of({"model": "gpt-image-1", **document}, prices, IMAGES)
    assert plain.input_tokens > named.input_tokens
    assert plain.output_nanos_per_million == named.output_nanos_per_million


def test_bound_when_the_body_was_decoded_for_it_then_it_is_let_go_in_steps(monkeypatch):
    seen = []
    monkeypatch.setattr(json_steps, "dissolve", seen.append)
    request, prices = ask({"model": "m", "messages": []}), pricing.PriceTable({}, Prices())
    assert bound(CHAT, request, None, prices, SETTINGS) is not None
    assert seen == []
    assert bound(CHAT, replace(request, document=None), None, prices, SETTINGS) is not None
    assert seen == [request.document]


@pytest.mark.parametrize(
    "content",
    [
        ["words " * 100_000],
        ["жизнь \U0001f600\n\x01" * 60_000],
        ["\ud83d" + "a" * 400_000],
        ["hello"] * 20_000,
        ["hello", "\ud83d"] * 20_000,
        ["a" * 400_000, *["hello"] * 20_000],
    ],
    ids=["text", "letters", "surrogate", "many", "many surrogates", "mixed"],
)
def test_bound_of_a_large_request_is_that_of_its_json(prices, content, monkeypatch):
    document = {"model": "gpt-5", "messages": [messages(text)[0] for text in content], "tools": [], "n": 1}
    large = bound_of(document, prices)
    monkeypatch.setattr(json_steps, "LARGE_BYTES", 1 << 30)
    assert large == bound_of(document, prices)


def test_bound_of_a_large_request_is_found_without_a_call_for_all_of_it(prices, monkeypatch):
    sizes, dumps = [], orjson.dumps
    request = ask({"model": "gpt-5", "messages": messages("жизнь, " * 200_000)})
    many = ask({"model": "gpt-5", "messages": messages("hello") * 40_000})
    monkeypatch.setattr(orjson, "dumps", lambda value: sizes.append(len(dumps(value))) or dumps(value))
    texts = ask({"model": "gpt-5", "messages": messages("hello, " * 1000) * 1000})
    parts = ask({"model": "gpt-5", "messages": [{"role": "user", "content": messages("hello") * 40_000}]})
    for large in (request, many, texts, parts):
        assert bound(CHAT, large, None, prices, SETTINGS)
    assert max(sizes, default=0) < 150_000
