import pytest

from proxy.cli.main import main
from tests.cli.conftest import FakeApi

ALICE = {"userId": "alice", "roles": [{"projectId": "shop", "role": "owner"}, {"projectId": "lab", "role": "viewer"}]}


class UsersApi(FakeApi):
    def answer(self, path: str, query: dict[str, str]):
        return {"users": [ALICE], "nextCursor": None} if query else {"userId": "alice", "revokedKeys": 2}


@pytest.fixture
def users_api(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIDEGATE_ADMIN_KEY", "k")
    fake = UsersApi()
    yield fake
    fake.close()


def test_every_action_asks_for_what_its_name_says(users_api: UsersApi, capsys) -> None:
    for words in (["set", "alice", "admin"], ["remove", "al ice", "--project", "shop"], ["list", "--user", "alice"]):
        assert main(["users", *words, "--url", users_api.url]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["alice is admin in default-project", "al ice is removed from shop; keys revoked: 2"]
    assert [line.split() for line in said[3:]] == [["alice", "owner", "shop"], ["alice", "viewer", "lab"]]
    assert [(method, path) for method, path, _ in users_api.lines] == [
        ("PUT", "/v1/sidegate/projects/default-project/members/alice"),
        ("DELETE", "/v1/sidegate/projects/shop/members/al%20ice"),
        ("GET", "/v1/sidegate/users"),
    ]
    assert users_api.bodies == [{"role": "admin"}]


def test_role_that_is_none_is_wrong_usage() -> None:
    with pytest.raises(SystemExit) as end:
        main(["users", "set", "alice", "king"])
    assert end.value.code == 2
