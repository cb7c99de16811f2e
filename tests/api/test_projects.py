"""Organizations, projects, settings and members over HTTP and PostgreSQL, by all roles."""

import asyncio
import json
import time

import pytest

from proxy.api import project_config
from proxy.db.pool import Database
from proxy.errors import InvalidRequest
from proxy.tenants.store import TenantStore
from tests.api.test_keys import OwnApi, api

__all__ = ["api"]

SHOP = "/v1/sidegate/projects/shop"


async def code(api: OwnApi, who: str, method: str, path: str, body: object = None, **headers: str):
    status, answer = await api.ask(who, method, f"/v1/sidegate/{path}", body, **headers)
    return status, answer.get("error", {}).get("code")


async def changes(api: OwnApi):
    _, found = await api.ask("operator", "GET", "/v1/sidegate/audit")
    return [(row["action"], row["actor"], row["target"], row["outcome"]) for row in found["changes"]]


async def test_organization_lives_from_creation_to_deletion(api: OwnApi) -> None:
    status, made = await api.post("operator", "organizations", {"id": "acme", "metadata": {"plan": "pro", "n": 1.5}})
    assert (status, made["id"], made["name"], made["metadata"]) == (201, "acme", "acme", {"plan": "pro", "n": 1.5})
    assert await code(api, "operator", "POST", "organizations", {"id": "acme"}) == (409, "organization_exists")
    status, changed = await api.ask("operator", "PATCH", "/v1/sidegate/organizations/acme", {"name": "Acme"})
    assert (status, changed["name"], changed["metadata"]) == (200, "Acme", made["metadata"])
    await api.post("operator", "projects", {"id": "rockets", "organizationId": "acme"})
    assert await code(api, "operator", "DELETE", "organizations/acme") == (409, "organization_not_empty")
    await api.ask("operator", "PATCH", "/v1/sidegate/projects/rockets", {"organizationId": "default-org"})
    assert (await api.ask("operator", "DELETE", "/v1/sidegate/organizations/acme")) == (200, changed)
    assert await code(api, "operator", "GET", "organizations/acme") == (404, "organization_not_found")
    assert await code(api, "operator", "DELETE", "organizations/default-org") == (409, "protected")
    assert await changes(api) == [
        ("organizations.delete", "operator", "acme", "done"),
        ("projects.update", "operator", "rockets", "done"),
        ("organizations.delete", "operator", "acme", "refused"),
        ("projects.create", "operator", "rockets", "done"),
        ("organizations.update", "operator", "acme", "done"),
        ("organizations.create", "operator", "acme", "refused"),
        ("organizations.create", "operator", "acme", "done"),
    ]


async def test_lists_come_in_pages_and_a_key_sees_its_own_project_only(api: OwnApi) -> None:
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        _, page = await api.ask("operator", "GET", f"/v1/sidegate/projects?limit=2&cursor={cursor}")
        seen += [project["id"] for project in page["projects"]]
        cursor = page["nextCursor"]
    assert seen == ["default-project", "lab", "shop"]
    _, mine = await api.ask("viewer", "GET", "/v1/sidegate/projects?state=all")
    assert ([project["id"] for project in mine["projects"]], mine["nextCursor"]) == (["shop"], None)
    assert await code(api, "owner", "GET", "projects/lab") == (404, "project_not_found")
    assert await code(api, "operator", "GET", "projects/nowhere") == (404, "project_not_found")
    assert await code(api, "operator", "GET", "projects/a%00b") == (404, "project_not_found")


async def test_ended_project_refuses_its_keys_and_keeps_its_id(api: OwnApi) -> None:
    assert (await api.ask("owner", "GET", SHOP))[0] == 200
    status, ended = await api.ask("operator", "DELETE", SHOP)
    assert status == 200 and ended["archivedAt"] is not None
    assert await api.ask("operator", "DELETE", SHOP) == (
        200,
        {**ended, "updatedAt": (await api.ask("operator", "GET", SHOP))[1]["updatedAt"]},
    )
    assert await code(api, "owner", "GET", "whoami") == (401, "invalid_api_key")
    assert await code(api, "operator", "POST", "projects", {"id": "shop"}) == (409, "project_exists")
    _, listed = await api.ask("operator", "GET", "/v1/sidegate/projects?state=archived")
    assert [project["id"] for project in listed["projects"]] == ["shop"]
    status, restored = await api.post("operator", "projects/shop/restore")
    assert (status, restored["archivedAt"]) == (200, None)
    assert (await api.ask("owner", "GET", SHOP))[0] == 200
    assert await code(api, "operator", "DELETE", "projects/default-project") == (409, "protected")


async def test_owner_renames_a_project_but_only_the_operator_moves_it(api: OwnApi) -> None:
    status, renamed = await api.ask("owner", "PATCH", SHOP, {"name": "The shop"})
    assert (status, renamed["name"]) == (200, "The shop")
    moving = {"organizationId": "default-org"}
    assert await code(api, "owner", "PATCH", "projects/shop", moving) == (403, "permission_denied")
    assert await code(api, "operator", "PATCH", "projects/shop", {"organizationId": "nowhere"}) == (
        404,
        "organization_not_found",
    )
    assert await code(api, "operator", "POST", "projects", {"id": "x", "organizationId": "nowhere"}) == (
        404,
        "organization_not_found",
    )


async def test_name_that_no_path_could_hold_is_refused(api: OwnApi) -> None:
    for name in ("", " a", "a/b", "a%b", "..", "a;b", "sk-" + "a" * 30, "a\u0000", 5, None):
        assert await code(api, "operator", "POST", "projects", {"id": name}) == (400, "invalid_parameter"), name


async def test_settings_are_changed_only_by_who_has_read_them(api: OwnApi) -> None:
    async with api.raw("owner", "GET", f"{SHOP}/config") as answer:
        first, config = answer.headers["ETag"], await answer.json()
    assert config == {}
    new = {"security": {"redactSecrets": True}, "timeZone": "Europe/Berlin", "quota": {"maxCostDaily": 0.000000001}}
    assert await code(api, "owner", "PUT", "projects/shop/config", new) == (428, "precondition_required")
    async with api.raw("owner", "PUT", f"{SHOP}/config", new, **{"If-Match": first}) as answer:
        second = answer.headers["ETag"]
        assert (answer.status, await answer.json()) == (200, new)
    assert second != first
    for stale in (first, '"nonsense"', "nonsense", f"W/{second}"):
        assert await code(api, "owner", "PUT", "projects/shop/config", {}, **{"If-Match": stale}) == (
            412,
            "config_changed",
        )
    assert (await api.ask("viewer", "GET", f"{SHOP}/config")) == (200, new)
    either = f"{first}, {second}"
    assert (await api.ask("owner", "PUT", f"{SHOP}/config", {}, **{"If-Match": either}))[0] == 200
    assert (await api.ask("owner", "PUT", f"{SHOP}/config", new, **{"If-Match": "*"}))[0] == 200
    _, found = await api.ask("owner", "GET", "/v1/sidegate/audit?limit=1")
    assert found["changes"][0]["details"]["changed"] == ["quota.maxCostDaily", "security.redactSecrets", "timeZone"]


async def test_of_two_who_change_settings_at_once_one_is_told(api: OwnApi) -> None:
    async with api.raw("owner", "GET", f"{SHOP}/config") as answer:
        tag = {"If-Match": answer.headers["ETag"]}
    bodies = [{"features": {"enableCache": True}}, {"features": {"enableCrossCheck": True}}]
    got = await asyncio.gather(*(api.ask("owner", "PUT", f"{SHOP}/config", body, **tag) for body in bodies))
    assert sorted(status for status, _ in got) == [200, 412]


async def test_settings_with_mistakes_are_refused_with_all_of_them(api: OwnApi) -> None:
    wrong = {
        "securty": {},
        "routing": {"maxLayer": "L9", "maxCostPerRequest": -1},
        "security": {"secretPatterns": ["("], "blockedKeywords": [""]},
        "quota": {"requestsPerMinute": "many", "tokens": 5},
        "timeZone": "Mars/Olympus",
    }
    status, error = await api.ask("owner", "PUT", f"{SHOP}/config", wrong, **{"If-Match": "*"})
    message = error["error"]["message"]
    assert (status, error["error"]["code"]) == (400, "invalid_config")
    for part in (
        "config has no member securty; did you mean security?",
        "routing.maxLayer",
        "routing.maxCostPerRequest",
        "security.secretPatterns[0]",
        "security.blockedKeywords[0]",
        "quota.requestsPerMinute must be",
        "quota has no member tokens",
        "timeZone must be",
    ):
        assert part in message, part
    assert "8 mistakes" in message and "Mars" not in message and "many" not in message.replace("how many", "")
    assert await code(api, "operator", "POST", "projects", {"id": "x", "config": wrong}) == (400, "invalid_config")
    for text in (
        "[]",
        '{"a": 1, "a": 2}',
        '{"timeZone": "\\u0000"}',
        '{"a": "\\ud800"}',
        '{"a": 1e999}',
        "{",
        '{"a":' * 5000,
    ):
        async with api.raw("owner", "PUT", f"{SHOP}/config", text, **{"If-Match": "*"}) as answer:
            assert answer.status == 400, text[:30]
    assert (await api.ask("owner", "GET", f"{SHOP}/config")) == (200, {})


async def test_nobody_gives_or_takes_a_role_above_his_own(api: OwnApi) -> None:
    members = f"{SHOP}/members"
    status, bob = await api.ask("admin", "PUT", f"{members}/bob@example.com", {"role": "admin"})
    assert (status, bob["userId"], bob["role"]) == (200, "bob@example.com", "admin")
    for path, body in (("bob", {"role": "owner"}), ("owner", {"role": "viewer"})):
        assert (await api.ask("admin", "PUT", f"{members}/{path}", body))[0] == 403
    assert (await api.ask("admin", "DELETE", f"{members}/owner"))[0] == 403
    assert (await api.ask("owner", "PUT", f"{members}/bob", {"role": "owner"}))[0] == 200
    assert await code(api, "admin", "PUT", "projects/shop/members/x", {"role": "king"}) == (400, "invalid_parameter")
    assert await code(api, "admin", "PUT", "projects/shop/members/x", {}) == (400, "invalid_parameter")
    assert await code(api, "admin", "PUT", "projects/shop/members/a%20", {"role": "viewer"}) == (
        400,
        "invalid_parameter",
    )
    assert await code(api, "operator", "PUT", "projects/nowhere/members/x", {"role": "viewer"}) == (
        404,
        "project_not_found",
    )
    _, page = await api.ask("admin", "GET", f"{members}?limit=2")
    _, rest = await api.ask("admin", "GET", f"{members}?cursor={page['nextCursor']}")
    names = [member["userId"] for member in [*page["members"], *rest["members"]]]
    assert names == ["admin", "bob", "bob@example.com", "developer", "owner", "viewer"]


async def test_role_in_a_project_that_is_missing_is_refused_with_the_nearest_one(api: OwnApi) -> None:
    status, error = await api.ask("operator", "PUT", "/v1/sidegate/projects/shpo/members/ann", {"role": "viewer"})
    assert (status, error["error"]["code"]) == (404, "project_not_found")
    assert "There is no project shpo; did you mean shop?" in error["error"]["message"]


async def test_role_that_changes_counts_here_at_once(api: OwnApi) -> None:
    assert (await api.ask("developer", "GET", "/v1/sidegate/whoami"))[1]["role"] == "developer"
    await api.ask("admin", "PUT", f"{SHOP}/members/developer", {"role": "viewer"})
    assert (await api.ask("developer", "GET", "/v1/sidegate/whoami"))[1]["role"] == "viewer"


async def test_member_who_is_removed_loses_the_keys_for_good(api: OwnApi) -> None:
    assert (await api.ask("developer", "GET", "/v1/sidegate/whoami"))[0] == 200
    status, gone = await api.ask("admin", "DELETE", f"{SHOP}/members/developer")
    assert (status, gone) == (200, {"userId": "developer", "projectId": "shop", "revokedKeys": 1})
    assert await code(api, "admin", "DELETE", "projects/shop/members/developer") == (404, "member_not_found")
    await api.ask("admin", "PUT", f"{SHOP}/members/developer", {"role": "developer"})
    assert await code(api, "developer", "GET", "whoami") == (401, "invalid_api_key")


async def test_users_are_listed_with_the_roles_that_the_caller_may_see(api: OwnApi) -> None:
    await api.ask("operator", "PUT", "/v1/sidegate/projects/lab/members/admin", {"role": "viewer"})
    _, all_of_them = await api.ask("operator", "GET", "/v1/sidegate/users?userId=admin")
    roles = [{"projectId": "lab", "role": "viewer"}, {"projectId": "shop", "role": "admin"}]
    assert all_of_them == {"users": [{"userId": "admin", "roles": roles}], "nextCursor": None}
    _, own = await api.ask("admin", "GET", "/v1/sidegate/users?userId=admin")
    assert own["users"][0]["roles"] == roles[1:]
    _, page = await api.ask("operator", "GET", "/v1/sidegate/users?limit=1")
    _, rest = await api.ask("operator", "GET", f"/v1/sidegate/users?cursor={page['nextCursor']}")
    assert [user["userId"] for user in rest["users"]] == ["developer", "owner", "stranger", "viewer"]
    assert "stranger" not in json.dumps(await api.ask("owner", "GET", "/v1/sidegate/users"))


async def test_settings_are_validated_beside_the_event_loop(database: Database) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    began = turns
    with pytest.raises(InvalidRequest):
        await project_config.check(TenantStore(database), {"security": {"secretPatterns": ["("]}})
    counting.cancel()
    assert turns > began


async def test_patterns_that_take_long_to_compile_are_refused_and_nobody_waits_for_them(api: OwnApi) -> None:
    longest_s = 0.0

    async def watch() -> None:
        """Measure what the process computes between two turns of the loop, whatever else the machine does."""
        nonlocal longest_s
        while True:
            at = time.process_time()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.process_time() - at)

    config = {"security": {"secretPatterns": [rf"Z{number}\pL{{250}}" for number in range(100)]}}
    watching = asyncio.create_task(watch())
    began = time.process_time()
    status, error = await api.ask("owner", "PUT", f"{SHOP}/config", config, **{"If-Match": "*"})
    took = time.process_time() - began
    watching.cancel()
    assert status == 400 and "security.secretPatterns[0]: is too large for RE2" in error["error"]["message"]
    assert longest_s < took / 4
    config["security"]["secretPatterns"] = [r"zeus-\Qa.b\E"]
    status, error = await api.ask("owner", "PUT", f"{SHOP}/config", config, **{"If-Match": "*"})
    assert status == 400 and "security.secretPatterns[0]: `pattern` cannot be followed" in error["error"]["message"]
