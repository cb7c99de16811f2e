import hashlib
from typing import get_args

import pytest

from proxy.api.access import Access, Permission
from proxy.errors import Unauthenticated

KEY = "admin-0123456789"


@pytest.fixture
def access() -> Access:
    return Access(hashlib.sha256(KEY.encode()).digest())


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY} "])
def test_admin_key_in_any_spelling_of_the_scheme_may_read_traces(access: Access, header: str) -> None:
    access.require([header], "traces:read")


@pytest.mark.parametrize("permission", get_args(Permission))
def test_admin_key_may_do_everything(access: Access, permission: Permission) -> None:
    access.require([f"Bearer {KEY}"], permission)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [KEY],
        [f"Basic {KEY}"],
        [f"Bearer {KEY}", f"Bearer {KEY}"],
        ["Bearer wrong"],
        [f"Bearer {KEY}x"],
        ["Bearer \udcff"],
    ],
)
def test_anything_else_is_refused_without_echoing_it(access: Access, headers: list[str]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        access.require(headers, "traces:read")
    assert (caught.value.http_status, caught.value.code) == (401, "invalid_api_key")
    assert KEY not in caught.value.message and "wrong " not in caught.value.message
