import time

import pytest

from proxy.auth.admission import Admission, check_model
from proxy.auth.keyring import Keyring
from proxy.auth.keys import StoredKey
from proxy.config.auth import Auth
from proxy.errors import PermissionDenied, Unauthenticated
from proxy.exchange import Inbound, Principal
from tests.auth.key_table import ID, KEY, KeyTable, stored
from tests.trace.exchanges import CHAT


def inbound(authorization: str | None = f"Bearer {KEY}") -> Inbound:
    fields = {b"x-sidegate-user": b"mallory", b"x-sidegate-project": b"bank"}
    if authorization is not None:
        fields[b"authorization"] = authorization.encode("utf-8", "surrogateescape")
    return Inbound("POST", "/v1/chat/completions", "/v1/chat/completions", (), fields, CHAT, "127.0.0.1", None, True)


def admission(key: StoredKey) -> Admission:
    return Admission(Keyring(Auth(), KeyTable(key), clock=time.monotonic))


async def test_caller_is_the_keys_user_whatever_headers_say() -> None:
    guard = admission(stored(scopes={"models": ["gpt-4o"]}))
    for _ in range(2):
        assert await guard.admit(inbound()) == Principal("alice", "shop", "key", ID, frozenset({"gpt-4o"}))


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY, "Bearer sg-x", "Bearer \udcff"])
async def test_request_without_a_valid_key_is_401(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await admission(stored()).admit(inbound(header))
    assert (caught.value.http_status, caught.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "facts",
    [
        {"role": None},
        {"role": "viewer"},
        {"scopes": {"surfaces": ["api"]}},
        {"scopes": {"surfaces": []}},
        {"scopes": {"operations": ["embeddings"]}},
    ],
)
async def test_key_whose_role_or_scopes_do_not_allow_it_is_403(facts: dict[str, object]) -> None:
    with pytest.raises(PermissionDenied) as caught:
        await admission(stored(**facts)).admit(inbound())
    assert caught.value.http_status == 403


@pytest.mark.parametrize("operation", ["chat", "chat.completions.create"])
async def test_scope_names_an_operation_or_its_kind(operation: str) -> None:
    key = stored(scopes={"operations": [operation], "surfaces": ["data"]}, role="owner")
    assert (await admission(key).admit(inbound())).key_id == ID


def test_models_of_a_key() -> None:
    free, limited = Principal("a", "p", "key"), Principal("a", "p", "key", ID, frozenset({"gpt-4o"}))
    check_model(free, None, billable=True)
    check_model(limited, "gpt-4o", billable=True)
    check_model(limited, None, billable=False)
    for model in ("gpt-4o-mini", None):
        with pytest.raises(PermissionDenied) as caught:
            check_model(limited, model, billable=True)
        assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")
