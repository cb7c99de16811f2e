"""The table of endpoints and the strict check of the raw target."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest
from proxy.openai.operations import (
    UNKNOWN,
    UNKNOWN_READ,
    UNKNOWN_WEBSOCKET,
    check_target,
    match,
    operations,
    target_of,
)

KNOWN = [
    ("POST", "/v1/chat/completions", False, "chat.completions.create"),
    ("POST", "/v1/chat", False, "chat.completions.create"),
    ("POST", "/v1/code-agent", False, "chat.completions.create"),
    ("GET", "/v1/chat/completions", False, "chat.completions.list"),
    ("GET", "/v1/chat/completions/chatcmpl-1", False, "chat.completions.retrieve"),
    ("POST", "/v1/chat/completions/chatcmpl-1", False, "chat.completions.update"),
    ("DELETE", "/v1/chat/completions/chatcmpl-1", False, "chat.completions.delete"),
    ("GET", "/v1/chat/completions/chatcmpl-1/messages", False, "chat.completions.messages.list"),
    ("POST", "/v1/completions", False, "completions.create"),
    ("POST", "/v1/responses", False, "responses.create"),
    ("GET", "/v1/responses", True, "responses.connect"),
    ("POST", "/v1/responses/compact", False, "responses.compact"),
    ("POST", "/v1/responses/input_tokens", False, "responses.input_tokens.count"),
    ("GET", "/v1/responses/resp_1", False, "responses.retrieve"),
    ("DELETE", "/v1/responses/resp_1", False, "responses.delete"),
    ("POST", "/v1/responses/resp_1/cancel", False, "responses.cancel"),
    ("GET", "/v1/responses/resp_1/input_items", False, "responses.input_items.list"),
    ("POST", "/v1/messages", False, "messages.create"),
    ("POST", "/v1/messages/count_tokens", False, "messages.count_tokens"),
    ("POST", "/v1/embeddings", False, "embeddings.create"),
    ("POST", "/v1/images/edits", False, "images.edit"),
    ("POST", "/v1/audio/transcriptions", False, "audio.transcriptions.create"),
    ("GET", "/v1/models", False, "models.list"),
    ("GET", "/v1/models/gpt-4o", False, "models.retrieve"),
    ("GET", "/v1/models/org%2Fmodel", False, "models.retrieve"),
    ("GET", "/v1/models/org/model", False, "models.retrieve"),
    ("POST", "/v1/files", False, "files.create"),
    ("GET", "/v1/files/file-1/content", False, "files.content"),
    ("POST", "/v1/uploads/upload_1/parts", False, "uploads.parts.create"),
    ("POST", "/v1/batches/batch_1/cancel", False, "batches.cancel"),
    ("GET", "/v1/realtime", True, "realtime.connect"),
    ("POST", "/v1/realtime/client_secrets", False, "realtime.client_secrets.create"),
]
DEFAULTS = [
    ("PUT", "/v1/chat/completions", False, UNKNOWN),
    ("POST", "/v1/threads/runs", False, UNKNOWN),
    ("POST", "/v1/chats", False, UNKNOWN),
    ("POST", "/v1/chat/completions/a/b/c", False, UNKNOWN),
    ("POST", "/v1", False, UNKNOWN),
    ("GET", "/v1/threads/t/runs/r", False, UNKNOWN_READ),
    ("HEAD", "/v1/models", False, UNKNOWN_READ),
    ("GET", "/v1/threads", True, UNKNOWN_WEBSOCKET),
    ("POST", "/v1/realtime", True, UNKNOWN),
]


@pytest.mark.parametrize(("method", "path", "upgrade", "name"), KNOWN, ids=lambda v: str(v))
def test_match_when_the_endpoint_is_known_then_its_row(method: str, path: str, upgrade: bool, name: str) -> None:
    assert match(method, path, upgrade).name == name


@pytest.mark.parametrize(("method", "path", "upgrade", "row"), DEFAULTS, ids=lambda v: str(getattr(v, "name", v)))
def test_match_when_the_endpoint_is_unknown_then_a_default_row(method, path, upgrade, row) -> None:
    assert match(method, path, upgrade) is row


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions/", "/v1/%63hat/completions", "/v1/chat/%63%6Fmpletions", "/v1/c%68at/completions/"]
)
def test_match_when_the_path_is_spelt_otherwise_then_the_same_row(path: str) -> None:
    assert match("POST", check_target(path), False).forces_stream_usage


@pytest.mark.parametrize(("path", "kind"), [("/v1/chat", "chat"), ("/v1/code-agent/", "code-agent")])
def test_target_when_the_name_is_ours_then_providers_get_theirs(path: str, kind: str) -> None:
    operation = match("POST", path, False)
    assert (operation.request_type, operation.billable) == (kind, True)
    assert target_of(operation, path) == "/v1/chat/completions"
    assert target_of(operation, path + "?a=%2F?b") == "/v1/chat/completions?a=%2F?b"
    assert target_of(match("POST", "/v1/responses", False), "/v1/responses?a") == "/v1/responses?a"


def test_match_when_the_path_has_escaped_underscores_then_the_same_row() -> None:
    assert match("POST", "/v1/realtime/client%5Fsecrets", False).name == "realtime.client_secrets.create"


def test_operations_when_usage_was_charged_before_then_the_dialect_is_none() -> None:
    rows = {row.name: row for row in operations()}
    assert rows["responses.retrieve"].dialect == rows["chat.completions.retrieve"].dialect == "none"
    assert rows["unknown"].billable is False


def test_operations_when_stream_usage_can_be_forced_then_only_chat_and_completions() -> None:
    assert {row.name for row in operations() if row.forces_stream_usage} == {
        "chat.completions.create",
        "completions.create",
    }


@pytest.mark.parametrize(
    "target",
    [
        "/v1",
        "/v1/",
        "/v1/models",
        "/v1/chat/completions/",
        "/v1/models/org%2Fmodel",
        "/v1/models/ft:gpt-4o:org::id",
        "/v1/models/a%20b%E2%82%AC",
        "/v1/files/.hidden",
        "/v1/files/a..b",
        "/v1/files/a'b(c)*!$&+,=@~",
    ],
)
def test_check_target_when_it_is_a_plain_path_then_it_comes_back(target: str) -> None:
    assert check_target(target) == check_target(target.encode()) == target


@pytest.mark.parametrize("query", ["", "a=b", "include[]=x&y=%zz", "a=../..//%00", "q=http://x/?y", "a=%2e%2e;b"])
def test_check_target_when_there_is_a_query_then_only_the_path_comes_back(query: str) -> None:
    assert check_target("/v1/files?" + query) == "/v1/files"


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "http://169.254.169.254/v1/models",
        "example.com:443",
        "/v1//models",
        "//evil/v1/models",
        "/v1/./models",
        "/v1/../admin",
        "/v1/models/..",
        "/v1/models/../..",
        "/v1/%2e%2e/x",
        "/v1/..%3b/x",
        "/v1/x%3By",
        "/v1/%c0%ae%c0%ae/x",
        "/v1/%2E/x",
        "/v1/.%2e/x",
        "/v1/%252e",
        "/v1/a%5cb",
        "/v1/a\\b",
        "/v1/a%00b",
        "/v1/a%0Db",
        "/v1/a%7fb",
        "/v1/a%",
        "/v1/a%2",
        "/v1/a%zz",
        "/v1/a;b",
        "/v1/a b",
        "/v1/a\x00b",
        "/v1/a\nb",
        "/v1/ä",
        "/v1/a#b",
        "/v1/a?b#c",
        "/v1/a?b c",
        "/v1/a?b\r\nc",
        "/v1/a?\udcff",
        "/v1/files/a%2fb",
        "/v1%2fmodels",
        "/v1/models%2fx",
        "/v1/models/a%2f..%2fb",
        "/v1/models/%2fa",
        "/v1/models/a%2f%2fb",
        "/v1/models/a%2Fb/c",
    ],
)
def test_check_target_when_it_is_ambiguous_or_malformed_then_it_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_target(target)
    assert (caught.value.http_status, caught.value.code) == (400, "invalid_path")


@pytest.mark.parametrize("target", ["/", "/v2/models", "/v1x/models", "/v11", "/metrics?x=1", "/V1/models"])
def test_check_target_when_the_path_is_outside_then_not_found(target: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_target(target)
    assert (caught.value.http_status, caught.value.code) == (404, "unknown_path")


@given(st.text(alphabet=string.printable + "äé\x00%./?;", max_size=24))
def test_check_target_when_it_accepts_anything_then_no_second_reading_exists(text: str) -> None:
    target = "/v1/" + text
    try:
        path = check_target(target)
    except InvalidRequest:
        return
    assert target == path or target.startswith(path + "?")
    assert match("POST", path, False) is not None
    assert not {"..", "."} & set(path.lower().replace("%2f", "/").split("/"))
    assert not any(bad in path.lower() for bad in ("//", "\\", ";", "%2e", "%25", "%5c", "%00"))


@pytest.mark.parametrize("query", ["api_key=sk-x", "a=1&api-key=x", "APIKEY=x", "x=1;access_token=y"])
def test_check_target_when_the_query_holds_a_credential_then_it_is_refused_without_quoting_it(query: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_target(f"/v1/models?{query}")
    assert caught.value.code == "credential_in_query"
    assert "sk-x" not in caught.value.message


@pytest.mark.parametrize("query", ["page_token=1", "after=api_key", "key=1", "xapi_key=1", "token=2"])
def test_check_target_when_the_query_only_resembles_one_then_it_passes(query: str) -> None:
    assert check_target(f"/v1/models?{query}") == "/v1/models"
