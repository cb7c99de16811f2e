import json

import pytest

from proxy.cli.main import main
from tests.cli.conftest import FakeApi

SHOP = {
    "id": "shop",
    "organizationId": "acme",
    "name": "Web shop",
    "createdAt": "2026-11-25T10:00:00.123456Z",
    "archivedAt": None,
}
CONFIG = {"security": {"redactSecrets": False, "scanPrompts": True}, "timeZone": "UTC"}


class ProjectsApi(FakeApi):
    def answer(self, path: str, query: dict[str, str]):
        if path.endswith("/config"):
            return CONFIG
        return {"projects": [SHOP], "nextCursor": None} if query else SHOP


@pytest.fixture
def projects_api(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIDEGATE_ADMIN_KEY", "k")
    fake = ProjectsApi()
    yield fake
    fake.close()


def test_every_action_asks_for_what_its_name_says(projects_api: ProjectsApi, capsys) -> None:
    for words in (
        ["create", "shop", "--org", "acme"],
        ["change", "shop", "--name", "Web shop"],
        ["archive", "shop"],
        ["restore", "a b"],
        ["list", "--state", "all"],
    ):
        assert main(["projects", *words, "--url", projects_api.url]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" ")[2] for line in said[:4]] == ["created", "changed", "archived", "active"]
    assert said[5].split()[:4] == ["shop", "acme", "active", "2026-11-25T10:00:00"]
    assert [(method, path) for method, path, _ in projects_api.lines] == [
        ("POST", "/v1/sidegate/projects"),
        ("PATCH", "/v1/sidegate/projects/shop"),
        ("DELETE", "/v1/sidegate/projects/shop"),
        ("POST", "/v1/sidegate/projects/a%20b/restore"),
        ("GET", "/v1/sidegate/projects"),
    ]
    assert projects_api.bodies == [{"id": "shop", "organizationId": "acme"}, {"name": "Web shop"}, {}]


def test_configure_changes_what_was_read_and_names_its_version(projects_api: ProjectsApi, tmp_path, capsys) -> None:
    words = ["--set", "security.redactSecrets=true", "--set", 'routing.maxLayer="L2"', "--set", "timeZone=null"]
    assert main(["projects", "configure", "shop", *words, "--url", projects_api.url]) == 0
    file = tmp_path / "shop.json"
    file.write_text("{}")
    assert main(["projects", "configure", "shop", str(file), "--url", projects_api.url]) == 0
    assert projects_api.bodies == [
        {"security": {"redactSecrets": True, "scanPrompts": True}, "routing": {"maxLayer": "L2"}},
        {},
    ]
    path = "/v1/sidegate/projects/shop/config"
    assert projects_api.lines == [("GET", path, None), ("PUT", path, '"v1"')] * 2
    capsys.readouterr()
    assert main(["projects", "config", "shop", "--url", projects_api.url]) == 0
    assert json.loads(capsys.readouterr().out) == CONFIG


@pytest.mark.parametrize("words", [[], ["file", "--set", "a=1"], ["--set", "a"], ["--set", "a=b"], ["--set", ".=1"]])
def test_configure_without_one_clear_change_is_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["projects", "configure", "shop", *words])
    assert end.value.code == 2


def test_file_that_is_no_object_fails_before_anything_is_asked(projects_api: ProjectsApi, tmp_path, capsys) -> None:
    file = tmp_path / "shop.json"
    for text, reason in (("{", "is not JSON"), ("[]", "must hold a JSON object")):
        file.write_text(text)
        assert main(["projects", "configure", "shop", str(file), "--url", projects_api.url]) == 1
        assert reason in capsys.readouterr().err
    assert main(["projects", "configure", "shop", "--set", "timeZone.x=1", "--url", projects_api.url]) == 1
    assert [method for method, _, _ in projects_api.lines] == ["GET"]
