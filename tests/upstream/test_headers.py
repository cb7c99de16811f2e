import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.headers import names_credential, request_headers, response_headers

_OURS = (b"Authorization", b"Bearer provider")


def _request(*fields, extra=()):
    return list(request_headers(fields, authorization=None, extra=extra))


@pytest.mark.parametrize(
    "name",
    [
        "Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authorization",
        "Proxy-Connection", "Proxy-Anything", "HTTP2-Settings", "Host", "Content-Length", "Expect",
        "Authorization", "api-key", "x-api-key", "Cookie", "OpenAI-Organization", "OpenAI-Project",
        "X-Sidegate-User", "x-sidegate-anything", "X-Forwarded-For", "Forwarded", "X-Real-IP", "Via",
        "X-Auth-Token", "x-goog-api-key", "X-My-Apikey", "client_secret", "X-Password-Hint", "Credentials",
        "Helicone-Auth", "Otari-Key", "Ocp-Apim-Subscription-Key", "X-Amz-Security-Token", "X-Authorization-Copy",
        "Cookie2", "X-CSRF-Token", "Sec-WebSocket-Key", "Close",
    ],
)  # fmt: skip
@pytest.mark.parametrize("spell", [str.lower, str.upper, str])
def test_request_field_when_ours_or_secret_is_dropped(name, spell):
    assert _request((spell(name).encode(), b"secret")) == []


@pytest.mark.parametrize(
    "name",
    [
        "Accept", "User-Agent", "Content-Type", "Content-Encoding", "traceparent", "tracestate", "OpenAI-Beta",
        "x-stainless-retry-count", "X-Stainless-Lang", "Idempotency-Key", "X-Client-Request-Id", "Accept-Language",
        "x-author", "keyboard", "Sec-WebSocket-Protocol", "Monkey",
    ],
)  # fmt: skip
def test_request_field_when_harmless_passes_untouched(name):
    field = (name.encode(), b"\xff v ")
    assert _request(field) == [field]


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (b"gzip, deflate", b"gzip, deflate"),
        (b" gzip ;q=0.5,identity", b" gzip ;q=0.5,identity"),
        (b"GZIP", b"GZIP"),
        (b"", b""),
        (b"gzip, br, zstd", b"gzip"),
        (b"br;q=1.0, gzip;q=0.8, *;q=0.1", b"gzip;q=0.8"),
        (b"br", b"identity"),
        (b"*", b"identity"),
        (b"br, identity;q=0", b"identity"),
        (b"br, gzip;q=0.0", b"identity"),
    ],
)
def test_accept_encoding_when_sent_names_only_what_we_can_decode(sent, passed):
    assert _request((b"accept-Encoding", sent)) == [(b"accept-Encoding", passed)]


def test_connection_when_it_nominates_fields_drops_them_but_never_ours():
    fields = [(b"X-Hop", b"1"), (b"Connection", b"close, x-hop,AUTHORIZATION, x-conf"), (b"X-Stay", b"2")]
    got = request_headers(fields, authorization=b"Bearer provider", extra=[(b"X-Conf", b"3")])
    assert list(got) == [(b"X-Stay", b"2"), _OURS, (b"X-Conf", b"3")]


def test_extra_when_configured_replaces_the_clients_and_is_not_filtered():
    got = _request(
        (b"user-agent", b"client"), (b"A", b"1"), extra=[(b"User-Agent", b"ours"), (b"OpenAI-Project", b"p")]
    )
    assert got == [(b"A", b"1"), (b"User-Agent", b"ours"), (b"OpenAI-Project", b"p")]


def test_name_when_long_is_judged_like_any_other():
    assert _request((b"x" * 100, b"1"), (b"x" * 100 + b"-token", b"1")) == [(b"x" * 100, b"1")]


def test_names_when_a_client_invents_very_many_are_judged_all_the_same():
    fields = [(b"x-%d%s" % (number, b"-token" * (number % 2)), b"1") for number in range(1000)]
    assert _request(*fields) == fields[::2] == _request(*fields)
    assert response_headers([*fields, (b"Set-Cookie", b"a=b")]) == fields


@pytest.mark.parametrize("value", [b"keep-alive", b"close", b"Keep-Alive, Close"])
def test_connection_when_it_nominates_nothing_drops_only_itself(value):
    fields = [(b"A", b"1"), (b"Connection", value), (b"Close", b"2"), (b"B", b"3")]
    assert _request(*fields) == response_headers(fields) == [(b"A", b"1"), (b"B", b"3")]


def test_response_when_filtered_keeps_everything_of_the_providers():
    kept = [
        (b"x-request-id", b"r"), (b"Openai-Organization", b"o"), (b"x-ratelimit-remaining-tokens", b"9"),
        (b"retry-after-ms", b"1"), (b"x-should-retry", b"false"), (b"Content-Encoding", b"gzip"),
        (b"Content-Type", b"text/event-stream"), (b"DATE", b"now"), (b"Via", b"1.1 cdn"),
    ]  # fmt: skip
    dropped = [
        (b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked"), (b"Connection", b"x-hop"), (b"X-Hop", b"1"),
        (b"Keep-Alive", b"timeout=5"), (b"Set-Cookie", b"a=b"), (b"alt-svc", b"h3"), (b"X-Sidegate-Trace-Id", b"t"),
        (b"Proxy-Authenticate", b"Basic"), (b"Upgrade", b"h2c"), (b"Trailer", b"x"),
    ]  # fmt: skip
    mixed = [field for pair in zip(kept, dropped, strict=False) for field in pair] + dropped[len(kept) :]
    assert list(response_headers(mixed)) == kept


@pytest.mark.parametrize(
    "told", [(b"X-Echo", b"got Bearer sk-secret here"), (b"x-sk-secret", b"1")], ids=["value", "name"]
)
def test_response_when_a_field_holds_the_credential_drops_the_field(told):
    fields = [told, (b"X-Fine", b"sk-other"), (b"long" * 30, b"1")]
    assert list(response_headers(fields, secrets=[b"", b"sk-secret"])) == fields[1:]


_names = st.text(alphabet=string.ascii_letters + string.digits + "-_", min_size=1, max_size=80).map(str.encode)
_fields = st.lists(st.tuples(_names, st.binary(max_size=30)), max_size=30)


@given(_fields, _fields)
def test_request_filter_when_given_anything_keeps_order_and_lets_nothing_secret_through(fields, extra):
    got = list(request_headers(fields, authorization=b"Bearer provider", extra=extra))
    at = len(got) - len(extra)
    assert got[at - 1 :] == [_OURS, *extra]
    passed = got[: at - 1]
    rest = iter(fields)
    for field in passed:
        if field[0].lower() == b"accept-encoding":
            continue
        assert any(field == original for original in rest)  # a subsequence: order and bytes kept
        assert not names_credential(field[0])
    assert not {name.lower() for name, _ in passed} & {name.lower() for name, _ in extra}


@given(_fields, st.binary(min_size=1, max_size=3))
def test_response_filter_when_given_anything_is_a_subsequence_without_the_secret(fields, secret):
    got = response_headers(fields, secrets=[secret])
    rest = iter(fields)
    for field in got:
        assert secret not in field[0] and secret not in field[1]
        assert any(field == original for original in rest)


@given(_fields)
def test_request_filter_when_applied_twice_changes_nothing_more(fields):
    once = _request(*fields)
    assert _request(*once) == once


@pytest.mark.parametrize("name", [b"X_Forwarded_For", b"openai_organization", b"X-Sidegate_User", b"API_KEY"])
def test_request_field_when_spelt_with_underscores_is_judged_like_dashes(name):
    assert request_headers(((name, b"x"), (b"Accept", b"*/*")), authorization=None, extra=()) == [(b"Accept", b"*/*")]
