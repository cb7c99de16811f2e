import json

import pytest

from proxy.cli.main import main
from tests.cli.conftest import FakeApi

ACME = {"id": "acme", "name": "Acme\u001b", "metadata": {}, "createdAt": "2026-11-25T10:00:00.123456Z"}


class OrgsApi(FakeApi):
    def answer(self, path: str, query: dict[str, str]):
        return {"organizations": [ACME], "nextCursor": None} if query else ACME


@pytest.fixture
def orgs_api(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIDEGATE_ADMIN_KEY", "k")
    fake = OrgsApi()
    yield fake
    fake.close()


def test_every_action_asks_for_what_its_name_says(orgs_api: OrgsApi, capsys) -> None:
    for words in (["create", "acme", "--name", "A"], ["rename", "acme", "B"], ["delete", "acme"], ["list"]):
        assert main(["orgs", *words, "--url", orgs_api.url]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" ")[2] for line in said[:3]] == ["created", "changed", "deleted"]
    assert said[3].split() == ["ORGANIZATION", "SINCE", "NAME"] and said[4].split()[:2] == [
        "acme",
        "2026-11-25T10:00:00",
    ]
    assert "\x1b" not in said[4]
    assert [(method, path) for method, path, _ in orgs_api.lines] == [
        ("POST", "/v1/sidegate/organizations"),
        ("PATCH", "/v1/sidegate/organizations/acme"),
        ("DELETE", "/v1/sidegate/organizations/acme"),
        ("GET", "/v1/sidegate/organizations"),
    ]
    assert orgs_api.bodies == [{"id": "acme", "name": "A"}, {"name": "B"}]
    assert main(["orgs", "list", "--json", "--url", orgs_api.url]) == 0
    assert json.loads(capsys.readouterr().out) == [ACME]


def test_refusal_of_the_proxy_is_one_line_and_exit_code_1(orgs_api: OrgsApi, capsys) -> None:
    orgs_api.refusal = (409, b'{"error": {"message": "Projects belong to it."}}')
    assert main(["orgs", "delete", "acme", "--url", orgs_api.url]) == 1
    assert capsys.readouterr().err == "sidegate: the proxy answers 409: Projects belong to it.\n"
