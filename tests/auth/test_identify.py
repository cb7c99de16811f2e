import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.identify import conversation_hint, identify, is_critical, request_type_hint, with_body_hint
from proxy.config.project import AdmissionSettings
from proxy.config.schema import Identity
from proxy.errors import InvalidRequest
from proxy.exchange import first_values

DEFAULTS = Identity()


@pytest.mark.parametrize(
    ("headers", "user", "project", "source"),
    [
        pytest.param((), "anonymous", "default-project", "default", id="nothing"),
        pytest.param(((b"X-Sidegate-User", b"ann"),), "ann", "default-project", "header", id="user"),
        pytest.param(((b"OpenAI-Project", b"proj_1"),), "anonymous", "proj_1", "default", id="provider's project"),
        pytest.param(
            ((b"openai-project", b"proj_1"), (b"x-sidegate-project", b" own ")),
            "anonymous",
            "own",
            "default",
            id="own wins",
        ),
        pytest.param(
            ((b"OpenAI-Project", b"\xff\x00"),), "anonymous", "default-project", "default", id="unusable hint"
        ),
        pytest.param(((b"x-sidegate-user", "Zoë".encode()),), "Zoë", "default-project", "header", id="utf-8"),
    ],
)
def test_identify_when_headers_name_a_caller_then_ours_come_first(headers, user, project, source):
    principal = identify(first_values(headers), DEFAULTS)
    assert (principal.user_id, principal.project_id, principal.source) == (user, project, source)


@pytest.mark.parametrize(
    "value", [b"", b"   ", b"a" * 257, b"a\x00b", b"\xff\xfe", "a\u2028b".encode(), "語".encode() * 171]
)
@pytest.mark.parametrize("header", [b"X-Sidegate-User", b"X-Sidegate-Project"])
def test_identify_when_our_header_is_unusable_then_it_is_refused_by_name_without_its_value(header, value):
    with pytest.raises(InvalidRequest) as caught:
        identify(first_values(((header, value),)), DEFAULTS)
    assert caught.value.param == header.decode()
    assert caught.value.http_status == 400
    assert "aaaa" not in caught.value.message


def test_body_hint_when_no_header_named_a_user_then_it_does():
    principal = with_body_hint(identify({}, DEFAULTS), " user-7 ")
    assert (principal.user_id, principal.source) == ("user-7", "body")


@pytest.mark.parametrize("hint", [None, "", "x" * 257, "a\nb", "語" * 171])
def test_body_hint_when_unusable_then_the_default_stays(hint):
    assert with_body_hint(identify({}, DEFAULTS), hint).user_id == "anonymous"


def test_body_hint_when_a_header_named_a_user_then_it_is_ignored():
    named = identify({b"x-sidegate-user": b"ann"}, DEFAULTS)
    assert with_body_hint(named, "bob") is named


def test_conversation_when_the_header_is_there_then_it_names_one():
    assert conversation_hint({b"accept": b"*/*", b"x-sidegate-conversation": b"c-1"}) == "c-1"
    assert conversation_hint({b"x-sidegate-conversation": b"\x00"}) is None
    assert conversation_hint({}) is None


@pytest.mark.parametrize(("value", "named"), [(b" Code-Agent ", "code-agent"), (b"chat", "chat"), (None, None)])
def test_request_type_when_the_header_is_there_then_it_names_one(value, named):
    fields = {} if value is None else {b"x-sidegate-request-type": value}
    assert request_type_hint(fields, ("chat", "code-agent")) == named


@pytest.mark.parametrize("value", [b"", b"chats", b"\xff"])
def test_request_type_when_it_is_not_known_then_it_is_refused(value):
    with pytest.raises(InvalidRequest, match="one of chat, code-agent") as caught:
        request_type_hint({b"x-sidegate-request-type": value}, ("chat", "code-agent"))
    assert (caught.value.code, caught.value.param) == ("invalid_header", "X-Sidegate-Request-Type")


@pytest.mark.parametrize(
    ("settings", "value", "expected"),
    [
        ({}, None, False),
        ({}, b"critical", False),
        ({}, b"urgent", False),
        ({"priority": "critical"}, None, True),
        ({"priority": "critical"}, b"normal", True),
        ({"priorityHeader": True}, None, False),
        ({"priorityHeader": True}, b" Critical ", True),
        ({"priority": "critical", "priorityHeader": True}, None, True),
        ({"priority": "critical", "priorityHeader": True}, b"normal", False),
    ],
    ids=str,
)
def test_priority_when_a_project_decides_then_the_header_counts_only_where_it_may(settings, value, expected):
    fields = {} if value is None else {b"x-sidegate-priority": value}
    assert is_critical(fields, AdmissionSettings(**settings)) is expected


@pytest.mark.parametrize("value", [b"", b"urgent", b"\xff"])
def test_priority_when_the_header_counts_and_is_none_then_it_is_refused(value):
    with pytest.raises(InvalidRequest, match="one of normal, critical") as caught:
        is_critical({b"x-sidegate-priority": value}, AdmissionSettings(priorityHeader=True))
    assert (caught.value.code, caught.value.param) == ("invalid_header", "X-Sidegate-Priority")


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=300)), max_size=8))
def test_identify_when_given_any_headers_then_names_are_bounded_and_printable(headers):
    try:
        principal = identify(first_values(headers), DEFAULTS)
    except InvalidRequest:
        return
    for name in (principal.user_id, principal.project_id):
        assert 0 < len(name) <= 256
        assert name.isprintable()
