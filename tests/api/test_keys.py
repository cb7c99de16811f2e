import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestClient
from yarl import URL

from proxy.auth.keys import NewKey
from proxy.config import schema
from proxy.db.pool import Database
from tests.fakes.own_api import ADMIN_KEY, Api, digest, handler, routing, stores

ROLES = ("viewer", "developer", "admin", "owner")


class OwnApi:
    """A client of the API, and a key for each role in project `shop`; `stranger` is an owner elsewhere."""

    def __init__(self, client: TestClient[web.BaseRequest, None], keys: dict[str, str]) -> None:
        self._client = client
        self.keys = {"operator": ADMIN_KEY, **keys}

    def raw(self, who: str, method: str, path: str, body: object = None, **more: str):
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        headers = {"Authorization": f"Bearer {self.keys.get(who, who)}", **more}
        return self._client.request(method, URL(path, encoded=True), data=data, headers=headers)

    async def ask(self, who: str, method: str, path: str, body: object = None, **more: str):
        async with self.raw(who, method, path, body, **more) as answer:
            return answer.status, json.loads(await answer.read())

    async def post(self, who: str, path: str, body: object = None):
        return await self.ask(who, "POST", f"/v1/sidegate/{path}", body)


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[OwnApi]:
    database = Database(schema.Database())
    await database.connect(database_url)
    parts = stores(database)
    keys = {}
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO projects (id, organization_id, name)"
            " VALUES ('shop', 'default-org', 's'), ('lab', 'default-org', 'l')"
        )
        for role in ROLES:
            await connection.execute("INSERT INTO user_roles VALUES ($1, 'shop', $1)", role)
        await connection.execute("INSERT INTO user_roles VALUES ('stranger', 'lab', 'owner')")
    for user in (*ROLES, "stranger"):
        project = "lab" if user == "stranger" else "shop"
        made = await parts.keys.create(NewKey("test", user, project, {}, None), "test")
        assert made is not None
        keys[user] = made[1]
    client = TestClient(RawTestServer(handler(Api(parts, routing(), digest(ADMIN_KEY)))))
    await client.start_server()
    yield OwnApi(client, keys)
    await client.close()
    await database.close()


async def test_key_is_shown_once_and_works(api: OwnApi) -> None:
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    scopes = {"models": ["gpt-4o"], "surfaces": ["api", "data"]}
    status, made = await api.post(
        "operator", "keys", {"name": "ci", "userId": "bob", "projectId": "shop", "scopes": scopes, "expiresAt": until}
    )
    assert status == 201 and made["key"].startswith(f"sg-{made['id']}-")
    assert (made["role"], made["scopes"], made["isValid"]) == ("developer", scopes, True)
    status, listed = await api.ask("admin", "GET", "/v1/sidegate/keys?userId=bob")
    assert status == 200 and [key["id"] for key in listed["keys"]] == [made["id"]]
    assert "key" not in listed["keys"][0]
    status, me = await api.ask(made["key"], "GET", "/v1/sidegate/whoami")
    assert (status, me["userId"], me["projectId"], me["role"], me["keyId"]) == (
        200,
        "bob",
        "shop",
        "developer",
        made["id"],
    )
    assert "models:call" in me["permissions"]


async def test_revoked_key_is_refused_here_at_once(api: OwnApi) -> None:
    _, made = await api.post("admin", "keys", {"name": "ci", "userId": "bob"})
    assert (await api.ask(made["key"], "GET", "/v1/sidegate/whoami"))[0] == 200
    status, ended = await api.post("admin", f"keys/{made['id']}/revoke")
    assert status == 200 and not ended["isValid"] and ended["revokedAt"]
    status, error = await api.ask(made["key"], "GET", "/v1/sidegate/whoami")
    assert (status, error["error"]["code"]) == (401, "invalid_api_key")
    assert (await api.post("admin", f"keys/{made['id']}/revoke"))[0] == 200


async def test_rotation_gives_a_successor_once(api: OwnApi) -> None:
    _, made = await api.post("admin", "keys", {"name": "ci", "userId": "bob"})
    status, successor = await api.post("admin", f"keys/{made['id']}/rotate", {"overlapSeconds": 60})
    assert (status, successor["userId"]) == (201, "bob")
    for key in (made["key"], successor["key"]):
        assert (await api.ask(key, "GET", "/v1/sidegate/whoami"))[0] == 200
    status, error = await api.post("admin", f"keys/{made['id']}/rotate")
    assert (status, error["error"]["code"]) == (409, "key_not_rotatable")


async def test_nobody_makes_a_key_that_may_do_more_than_himself(api: OwnApi) -> None:
    assert (await api.post("admin", "keys", {"name": "x", "userId": "owner"}))[0] == 403
    _, listed = await api.ask("operator", "GET", "/v1/sidegate/keys?userId=owner")
    [owner] = listed["keys"]
    assert (await api.post("admin", f"keys/{owner['id']}/rotate"))[0] == 403
    assert (await api.post("admin", f"keys/{owner['id']}/revoke"))[0] == 403
    assert (await api.post("owner", f"keys/{owner['id']}/rotate"))[0] == 201


async def test_key_for_an_operation_that_does_not_exist_is_refused_with_the_nearest_one(api: OwnApi) -> None:
    for operations in (["chat", "embeddings.create"], ["other", "unknown", "code-agent"]):
        new = {"name": "ci", "userId": "bob", "scopes": {"operations": operations}}
        assert (await api.post("admin", "keys", new))[0] == 201
    new["scopes"] = {"operations": ["chat", "embedings"]}
    status, error = await api.post("admin", "keys", new)
    assert (status, error["error"]["param"]) == (400, "scopes.operations")
    assert (
        "There is no operation or kind of operations embedings; did you mean embeddings?" in error["error"]["message"]
    )
    assert "other, realtime, responses, uploads." in error["error"]["message"]  # `unknown` is an operation of `other`


async def test_limited_key_makes_none_that_may_more(api: OwnApi) -> None:
    soon, later = (datetime.now(UTC) + timedelta(days=days) for days in (1, 2))
    scopes = {"models": ["gpt-4o"], "operations": ["chat"], "surfaces": ["api", "data"]}
    limited = {"name": "ci", "userId": "admin", "scopes": scopes, "expiresAt": soon.isoformat()}
    _, mine = await api.post("admin", "keys", limited)
    for more, param in (
        ({"scopes": {**scopes, "models": ["gpt-4o", "o1"]}}, "scopes.models"),
        ({"scopes": {**scopes, "operations": ["embeddings"]}}, "scopes.operations"),
        ({"scopes": {"models": [], "operations": []}}, "scopes.surfaces"),
        ({"scopes": {}}, "scopes.models"),
        ({"expiresAt": later.isoformat()}, "expiresAt"),
    ):
        status, error = await api.post(mine["key"], "keys", {**limited, **more})
        assert (status, error["error"]["code"], error["error"]["param"]) == (403, "exceeds_own_key", param)
    unlimited = {"name": "x", "userId": "bob"}
    assert (await api.post(mine["key"], "keys", unlimited))[0] == 403
    narrow = {"operations": ["chat.completions.create"], "models": ["gpt-4o"], "surfaces": ["data"]}
    status, made = await api.post(mine["key"], "keys", {**limited, "userId": "bob", "scopes": narrow})
    assert (status, made["scopes"]) == (201, narrow)
    status, me = await api.ask(mine["key"], "GET", "/v1/sidegate/whoami")
    assert (me["scopes"], datetime.fromisoformat(me["expiresAt"])) == (scopes, soon)


async def test_limited_key_gets_no_more_by_rotation(api: OwnApi) -> None:
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    scopes = {"models": ["gpt-4o"]}
    _, mine = await api.post("admin", "keys", {"name": "ci", "userId": "admin", "scopes": scopes, "expiresAt": soon})
    _, wide = await api.post("admin", "keys", {"name": "wide", "userId": "bob"})
    status, error = await api.post(mine["key"], f"keys/{wide['id']}/rotate", {"expiresAt": soon})
    assert (status, error["error"]["param"]) == (403, "scopes.models")
    status, error = await api.post(mine["key"], f"keys/{mine['id']}/rotate")
    assert (status, error["error"]["param"]) == (403, "expiresAt")
    status, successor = await api.post(mine["key"], f"keys/{mine['id']}/rotate", {"expiresAt": soon})
    assert (status, successor["scopes"], successor["expiresAt"][:19]) == (201, scopes, soon[:19])


async def test_successor_lives_as_long_as_the_key_was_made_for(api: OwnApi) -> None:
    until = datetime.now(UTC) + timedelta(days=3)
    _, made = await api.post("admin", "keys", {"name": "ci", "userId": "bob", "expiresAt": until.isoformat()})
    _, successor = await api.post("admin", f"keys/{made['id']}/rotate")
    assert timedelta(0) <= datetime.fromisoformat(successor["expiresAt"]) - until < timedelta(minutes=1)


async def test_key_made_for_somebody_else_does_not_rise_with_his_role(api: OwnApi, database_url: str) -> None:
    _, kept = await api.post("admin", "keys", {"name": "kept by the admin", "userId": "bob"})
    _, own = await api.post("operator", "keys", {"name": "bob's own", "userId": "bob", "projectId": "shop"})
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE user_roles SET role = 'owner' WHERE user_id = 'bob'")
    await connection.close()
    roles = {}
    for name, made in (("kept", kept), ("own", own)):
        _, me = await api.ask(made["key"], "GET", "/v1/sidegate/whoami")
        roles[name] = me["role"]
    assert roles == {"kept": "admin", "own": "owner"}
    _, further = await api.post(own["key"], "keys", {"name": "another of bob's", "userId": "bob"})
    assert (further["role"], further["roleLimit"]) == ("owner", None)
    _, successor = await api.post(own["key"], f"keys/{kept['id']}/rotate")
    assert (successor["role"], successor["roleLimit"]) == ("admin", "admin")
    status, _ = await api.post("admin", f"keys/{further['id']}/rotate")
    assert status == 403


async def test_other_tenants_keys_and_projects_do_not_exist(api: OwnApi) -> None:
    _, listed = await api.ask("operator", "GET", "/v1/sidegate/keys?projectId=lab")
    [foreign] = listed["keys"]
    for action in ("rotate", "revoke"):
        status, error = await api.post("owner", f"keys/{foreign['id']}/{action}")
        assert (status, error["error"]["code"]) == (404, "key_not_found")
    assert (await api.post("owner", "keys", {"name": "x", "userId": "y", "projectId": "lab"}))[0] == 404
    assert (await api.ask("owner", "GET", "/v1/sidegate/keys?projectId=lab"))[0] == 404
    for cursor in (foreign["id"], "zzzzzzzzzzzz"):  # nobody learns which of them exists, or since when
        assert (await api.ask("owner", "GET", f"/v1/sidegate/keys?cursor={cursor}"))[1]["keys"] == []
    assert (await api.post("operator", "keys", {"name": "x", "userId": "y", "projectId": "nowhere"}))[0] == 404
    assert (await api.post("operator", "keys/zzzzzzzzzzzz/revoke"))[0] == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"userId": "u"}, "name"),
        ({"name": "n"}, "userId"),
        ({"name": "n", "userId": "u", "scopes": {"model": []}}, "scopes"),
        ({"name": "n", "userId": "u", "scopes": {"surfaces": ["ui"]}}, "scopes"),
        ({"name": "n", "userId": "u", "scopes": {"models": "gpt"}}, "scopes"),
        ({"name": "n", "userId": "u", "scopes": []}, "scopes"),
        ({"name": "n", "userId": "u", "expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"name": "n", "userId": "u", "expiresAt": 5}, "expiresAt"),
        ({"name": "n", "userId": "sk-" + "a" * 30}, "userId"),
        ({"name": "n", "userId": "u", "role": "owner"}, "role"),
    ],
)
async def test_bad_member_is_refused_by_name(body: object, param: str, api: OwnApi) -> None:
    status, error = await api.post("admin", "keys", body)
    assert (status, error["error"]["param"]) == (400, param)
    assert (await api.ask("operator", "GET", "/v1/sidegate/audit"))[1]["changes"] == []


async def test_operator_names_the_project(api: OwnApi) -> None:
    status, error = await api.post("operator", "keys", {"name": "n", "userId": "u"})
    assert (status, error["error"]["param"]) == (400, "projectId")


async def test_every_change_leaves_a_row_without_the_key(api: OwnApi) -> None:
    _, made = await api.post("admin", "keys", {"name": "ci", "userId": "bob"})
    _, successor = await api.post("admin", f"keys/{made['id']}/rotate")
    await api.post("operator", f"keys/{made['id']}/revoke")
    await api.ask("admin", "POST", "/v1/quota/update", {"userId": "bob", "projectId": "shop", "maxTokensDaily": 7})
    await api.ask("admin", "POST", "/v1/quota/reset", {"userId": "nobody", "projectId": "shop"})
    _, found = await api.ask("admin", "GET", "/v1/sidegate/audit?limit=4")
    _, older = await api.ask("admin", "GET", f"/v1/sidegate/audit?cursor={found['nextCursor']}")
    changes = [*found["changes"], *older["changes"]]
    assert [(row["action"], row["actor"], row["target"], row["outcome"]) for row in changes] == [
        ("quota.reset", "admin", "nobody", "refused"),
        ("quota.update", "admin", "bob", "done"),
        ("keys.revoke", "operator", made["id"], "done"),
        ("keys.rotate", "admin", made["id"], "done"),
        ("keys.create", "admin", made["id"], "done"),
    ]
    said = json.dumps(changes)
    assert made["key"] not in said and successor["key"] not in said
    assert (await api.ask("stranger", "GET", "/v1/sidegate/audit"))[1]["changes"] == []


async def test_explanation_of_a_route_is_that_of_the_keys_own_user_project_and_models(api: OwnApi) -> None:
    _, made = await api.post("admin", "keys", {"name": "ci", "userId": "bob", "scopes": {"models": ["gpt-4o"]}})
    body = {"model": "gpt-4o", "messages": []}
    status, found = await api.ask(made["key"], "POST", "/v1/route", body)
    assert (status, found["userId"], found["projectId"], found["model"]) == (200, "bob", "shop", "gpt-4o")
    for header in ("X-Sidegate-Project", "OpenAI-Project"):
        status, error = await api.ask(made["key"], "POST", "/v1/route", body, **{header: "lab"})
        assert (status, error["error"]["code"]) == (404, "project_not_found")
    for more in ({"model": "gpt-4o-mini"}, {"model": "auto"}):
        status, error = await api.ask(made["key"], "POST", "/v1/route", body | more)
        assert (status, error["error"]["code"]) == (403, "model_not_allowed")
    status, error = await api.ask(made["key"], "POST", "/v1/route", body, **{"X-Sidegate-Layer": "L2"})
    assert (status, error["error"]["code"]) == (403, "model_not_allowed")
