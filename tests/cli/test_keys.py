import json

import pytest

from proxy.cli.main import main
from tests.cli.conftest import FakeApi

KEY = {
    "id": "abcdef012345",
    "name": "laptop\u001b[31m",
    "userId": "alice",
    "projectId": "shop",
    "role": "developer",
    "scopes": {},
    "isValid": True,
    "expiresAt": None,
    "revokedAt": None,
    "lastUsedAt": "2026-11-25T10:00:00.123456Z",
}


class KeysApi(FakeApi):
    mode: str | None = "keys"

    def answer(self, path: str, query: dict[str, str]):
        if path.endswith("/whoami"):
            return {"authMode": self.mode}
        if path.endswith("/revoke"):
            return KEY
        if path.endswith("/rotate") or self.bodies:
            return {**KEY, "key": "sg-abcdef012345-secret", "expiresAt": "2027-01-01T00:00:00Z"}
        if "cursor" not in query:
            return {"keys": [KEY], "nextCursor": KEY["id"]}
        return {"keys": [{**KEY, "isValid": False, "role": None, "lastUsedAt": None}], "nextCursor": None}


@pytest.fixture
def keys_api(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIDEGATE_ADMIN_KEY", "k")
    fake = KeysApi()
    yield fake
    fake.close()


def test_create_prints_the_key_alone(keys_api: KeysApi, capsys) -> None:
    words = ["--user", "alice", "--name", "x", "--model", "a", "--model", "b", "--surface", "data", "--days", "9"]
    assert main(["keys", "create", *words, "--url", keys_api.url]) == 0
    printed = capsys.readouterr()
    assert printed.out == "sg-abcdef012345-secret\n"
    assert "alice, developer in shop until 2027" in printed.err and "secret" not in printed.err
    [body] = keys_api.bodies
    assert body["scopes"] == {"models": ["a", "b"], "surfaces": ["data"]}
    assert (body["userId"], body["projectId"], body["expiresAt"][:2]) == ("alice", "default-project", "20")
    assert keys_api.asked[-1][0] == "/v1/sidegate/keys"


@pytest.mark.parametrize(("mode", "is_told"), [("trusted", True), ("keys", False), (None, False)])
def test_create_where_callers_need_no_key_then_it_says_so(mode, is_told, keys_api: KeysApi, capsys) -> None:
    keys_api.mode = mode
    assert main(["keys", "create", "--user", "alice", "--name", "x", "--url", keys_api.url]) == 0
    printed = capsys.readouterr()
    assert printed.out == "sg-abcdef012345-secret\n"
    assert ("auth.mode: trusted" in printed.err) == is_told


def test_list_follows_the_pages(keys_api: KeysApi, capsys) -> None:
    assert main(["keys", "list", "--project", "shop", "--url", keys_api.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "\x1b" not in "".join(lines)
    assert "valid" in lines[1] and "2026-11-25T10:00:00" in lines[1] and "expired" in lines[2]
    assert keys_api.asked[1][1] == {"projectId": "shop", "limit": "500", "cursor": "abcdef012345"}
    assert main(["keys", "list", "--json", "--url", keys_api.url]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_rotate_and_revoke(keys_api: KeysApi, capsys) -> None:
    assert main(["keys", "rotate", "abcdef012345", "--overlap-hours", "2", "--url", keys_api.url]) == 0
    assert capsys.readouterr().out == "sg-abcdef012345-secret\n"
    assert keys_api.bodies == [{"overlapSeconds": 7200}]
    assert main(["keys", "revoke", "a/b", "--url", keys_api.url]) == 0
    assert capsys.readouterr().out == "abcdef012345 of alice is revoked\n"
    assert keys_api.asked[-1][0] == "/v1/sidegate/keys/a%2Fb/revoke"


@pytest.mark.parametrize("days", ["0", "x", "3651"])
def test_days_out_of_range_are_wrong_usage(days: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["keys", "create", "--user", "a", "--name", "b", "--days", days])
    assert end.value.code == 2
