import asyncio
import hashlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from unittest.mock import Mock
from uuid import UUID

import asyncpg
import pytest
from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.api.bodies import members as _members
from proxy.api.bodies import read_body
from proxy.api.quotas import _CALLER, _LIMITS
from proxy.config import schema
from proxy.config.quota import Quota
from proxy.db.pool import Database
from proxy.errors import InvalidRequest
from proxy.journal.frames import Kind, Record
from proxy.quota.ledger import Ledger
from tests.fakes.own_api import ADMIN_KEY, Serve

AUTHORIZED = {"Authorization": f"Bearer {ADMIN_KEY}"}
SETTINGS = schema.Database()
DEFAULTS = Quota(default_tokens_daily=1000, default_cost_daily=Decimal("2.5"), lease_ttl_s=86_400)
LEASE = UUID("019e7044-8800-77cc-8d99-d8c5accf11fb")


async def _get(client, path: str, status: int = 200, **headers: str):
    async with client.get(f"/v1/quota/{path}", headers=headers or AUTHORIZED) as response:
        assert response.status == status, await response.text()
        assert response.content_type == "application/json"
        return json.loads(await response.read(), parse_float=Decimal)


async def _post(client, path: str, body: object, status: int = 200, **headers: str):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.post(f"/v1/quota/{path}", data=data, headers={**AUTHORIZED, **headers}) as response:
        assert response.status == status, await response.text()
        assert response.content_type == "application/json"
        return json.loads(await response.read(), parse_float=Decimal)


async def _use(database: Database, user: str, project: str, tokens: int, nanos: int) -> None:
    """Let a replica hold twice as much and use half of it, in a window that does not end during the test."""
    ledger = Ledger(database, DEFAULTS, "replica")
    await ledger.update(user, project, None, None)
    async with database.transaction() as connection:
        await connection.execute(
            "UPDATE user_quotas SET reset_at = '2100-01-01Z' WHERE user_id = $1 AND project_id = $2", user, project
        )
    lease = UUID(hashlib.md5(f"{user}/{project}".encode(), usedforsecurity=False).hexdigest())
    await ledger.acquire(user, project, lease, (2 * tokens, 2 * nanos), (0, 0))
    document = {
        "user_id": user,
        "project_id": project,
        "created_at": datetime.now(UTC).isoformat(),
        "quota": {"window": 1, "leases": [[str(lease), tokens, nanos]]},
    }
    async with database.transaction() as connection:
        await ledger.apply(connection, [Record(Kind.FINAL, LEASE.bytes, json.dumps(document).encode(), 0, 0)])


async def test_caller_never_seen_has_the_limits_it_would_get_and_leaves_nothing_behind(
    database: Database, serve: Serve, database_url: str
) -> None:
    client = await serve(database, DEFAULTS)
    quota = await _get(client, "status?userId=alice&projectId=new")
    assert (quota["userId"], quota["projectId"], quota["exists"]) == ("alice", "new", False)
    assert (quota["maxTokensDaily"], quota["maxCostDaily"]) == (1000, Decimal("2.5"))
    assert (quota["remainingTokens"], quota["remainingCost"]) == (1000, Decimal("2.5"))
    for name in ("currentTokensToday", "currentCostToday", "heldTokens", "heldCost", "burnedTokens", "burnedCost"):
        assert quota[name] == 0
    assert quota["updatedAt"] is None
    started, resets = (datetime.fromisoformat(quota[name]) for name in ("windowStartedAt", "resetAt"))
    assert started < resets and started.tzinfo is not None
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM user_quotas") == 0
        assert await connection.fetchval("SELECT count(*) FROM projects WHERE id = 'new'") == 0
    finally:
        await connection.close()


async def test_status_tells_what_was_used_and_what_replicas_hold(database: Database, serve: Serve) -> None:
    client = await serve(database, DEFAULTS)
    await _use(database, "alice", "shop", 100, 12_345_678)
    quota = await _get(client, "status?userId=alice&projectId=shop")
    assert (quota["exists"], quota["window"], quota["resetAt"]) == (True, 1, "2100-01-01T00:00:00Z")
    assert (quota["currentTokensToday"], quota["heldTokens"], quota["remainingTokens"]) == (100, 100, 900)
    assert (quota["currentCostToday"], quota["heldCost"]) == (Decimal("0.012345678"), Decimal("0.012345678"))
    assert quota["remainingCost"] == Decimal("2.487654322")
    assert (quota["burnedTokens"], quota["burnedCost"]) == (0, 0)


async def test_what_a_vanished_replica_held_is_burned_and_does_not_remain(database: Database, serve: Serve) -> None:
    client = await serve(database, DEFAULTS)
    await _use(database, "alice", "shop", 100, 500_000_000)
    async with database.transaction() as connection:
        await connection.execute("UPDATE quota_leases SET expires_at = now() - interval '1 second'")
    quota = await _get(client, "status?userId=alice&projectId=shop")
    assert (quota["currentTokensToday"], quota["heldTokens"], quota["burnedTokens"]) == (100, 0, 100)
    assert (quota["remainingTokens"], quota["burnedCost"], quota["remainingCost"]) == (
        800,
        Decimal("0.5"),
        Decimal("1.5"),
    )


async def test_money_is_a_number_with_all_nine_digits(database: Database, serve: Serve) -> None:
    client = await serve(database, DEFAULTS)
    await _use(database, "alice", "shop", 1, 1)
    async with client.get("/v1/quota/status?userId=alice&projectId=shop", headers=AUTHORIZED) as response:
        body = await response.read()
        assert response.headers["Cache-Control"] == "no-store"
    for member in (b'"currentCostToday":0.000000001,', b'"heldCost":0.000000001,', b'"maxCostDaily":2.500000000,'):
        assert member in body


async def test_update_of_a_new_caller_sets_one_limit_and_takes_the_other_by_default(
    database: Database, serve: Serve
) -> None:
    client = await serve(database, DEFAULTS)
    caller = {"userId": "älice 😀", "projectId": "new"}
    quota = await _post(client, "update", {**caller, "maxTokensDaily": 5_000_000})
    assert (quota["maxTokensDaily"], quota["maxCostDaily"], quota["exists"]) == (5_000_000, Decimal("2.5"), True)
    quota = await _post(client, "update", {**caller, "maxCostDaily": 0.1})
    assert (quota["maxTokensDaily"], quota["maxCostDaily"]) == (5_000_000, Decimal("0.1"))
    shown = await _get(client, "status?userId=%C3%A4lice+%F0%9F%98%80&projectId=new")
    assert (shown["maxTokensDaily"], shown["maxCostDaily"]) == (5_000_000, Decimal("0.1"))


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("0", "0"),
        ("12", "12"),
        ("0.000000001", "0.000000001"),
        ("1e-9", "0.000000001"),
        ("2.50E+1", "25"),
        ("0.1000000000000", "0.1"),
        ("-0.0", "0"),
        ("1000000000", "1000000000"),
        ("999999999.999999999", "999999999.999999999"),
        ('"0.3"', "0.3"),
        ('"1000000000.000000000"', "1000000000"),
    ],
)
async def test_cost_is_kept_to_the_last_digit(given: str, stored: str, database: Database, serve: Serve) -> None:
    client = await serve(database, DEFAULTS)
    body = b'{"userId": "u", "projectId": "p", "maxCostDaily": %b}' % given.encode()
    assert (await _post(client, "update", body))["maxCostDaily"] == Decimal(stored)


async def test_limit_below_what_was_used_leaves_nothing(database: Database, serve: Serve) -> None:
    client = await serve(database, DEFAULTS)
    await _use(database, "alice", "shop", 100, 1_000_000_000)
    body = {"userId": "alice", "projectId": "shop", "maxTokensDaily": 99, "maxCostDaily": "0.5"}
    quota = await _post(client, "update", body)
    assert (quota["currentTokensToday"], quota["remainingTokens"], quota["remainingCost"]) == (100, 0, 0)


async def test_reset_begins_a_new_window_and_keeps_the_limits(database: Database, serve: Serve) -> None:
    client = await serve(database, DEFAULTS)
    await _use(database, "alice", "shop", 100, 1)
    await _use(database, "bob", "shop", 100, 1)
    quota = await _post(client, "reset", {"userId": "alice", "projectId": "shop"})
    assert (quota["window"], quota["currentTokensToday"], quota["heldTokens"]) == (2, 0, 0)
    assert (quota["currentCostToday"], quota["maxTokensDaily"], quota["remainingTokens"]) == (0, 1000, 1000)
    other = await _get(client, "status?userId=bob&projectId=shop")
    assert (other["window"], other["currentTokensToday"]) == (1, 100)


async def test_reset_of_a_caller_never_seen_is_404(database: Database, serve: Serve) -> None:
    client = await serve(database, DEFAULTS)
    error = (await _post(client, "reset", {"userId": "alice", "projectId": "shop"}, 404))["error"]
    assert (error["code"], error["param"]) == ("quota_not_found", "userId")


async def test_top_lists_those_nearest_to_a_limit_first(database: Database, serve: Serve) -> None:
    client = await serve(database, DEFAULTS)
    await _use(database, "tokens", "shop", 300, 0)
    await _use(database, "money", "shop", 1, 1_000_000_000)
    await _use(database, "other", "lab", 200, 0)

    async def users(query: str) -> list[str]:
        return [quota["userId"] for quota in (await _get(client, f"top{query}"))["quotas"]]

    assert await users("") == ["money", "tokens", "other"]
    assert await users("?projectId=shop&limit=1") == ["money"]
    assert await users("?projectId=lab") == ["other"]
    assert await users("?projectId=none") == []
    [quota] = (await _get(client, "top?projectId=lab"))["quotas"]
    assert quota == await _get(client, "status?userId=other&projectId=lab")


@pytest.mark.parametrize(
    ("path", "param", "said"),
    [
        ("status", "userId", "`userId` is missing"),
        ("status?userId=", "userId", "`userId` is missing"),
        ("status?userId=a", "projectId", "`projectId` is missing"),
        ("status?projectId=a", "userId", "`userId` is missing"),
        ("status?user=a&projectId=p", "user", "Unknown parameter"),
        ("status?userId=+a&projectId=p", "userId", "no spaces around them"),
        ("status?userId=%FF&projectId=p", "userId", "printable"),
        ("status?userId=a%00&projectId=p", "userId", "printable"),
        (f"status?userId={'a' * 257}&projectId=p", "userId", "1 to 256"),
        ("top?limit=0", "limit", "from 1 to 500"),
        ("top?limit=501", "limit", "from 1 to 500"),
        ("top?userId=a", "userId", "Unknown parameter"),
    ],
)
async def test_bad_parameter_is_refused_by_name(path: str, param: str, said: str, serve: Serve) -> None:
    error = (await _get(await serve(Database(SETTINGS)), path, 400))["error"]
    assert (error["param"], error["code"]) == (param, "invalid_parameter")
    assert said in error["message"]


CALLER = '"userId": "u", "projectId": "p"'


@pytest.mark.parametrize(
    ("members", "param", "said"),
    [
        ('"projectId": "p", "maxTokensDaily": 1', "userId", "`userId` is missing"),
        ('"userId": "u", "maxTokensDaily": 1', "projectId", "`projectId` is missing"),
        (CALLER, "maxTokensDaily", "Give `maxTokensDaily`, `maxCostDaily` or both."),
        (f'{CALLER}, "maxTokenDaily": 1', "maxTokenDaily", "did you mean `maxTokensDaily`?"),
        (f'{CALLER}, "max_cost_daily": 1', "max_cost_daily", "did you mean `maxCostDaily`?"),
        (
            f'{CALLER}, "zzz": 1',
            "zzz",
            "Known members: createProject, maxCostDaily, maxTokensDaily, projectId, userId.",
        ),
        (f'{CALLER}, "maxTokensDaily": 1, "maxTokensDaily": 2', "maxTokensDaily", "given twice"),
        ('"userId": "", "projectId": "p"', "userId", "1 to 256 printable"),
        ('"userId": " u", "projectId": "p"', "userId", "no spaces around them"),
        ('"userId": 7, "projectId": "p"', "userId", "printable"),
        ('"userId": null, "projectId": "p"', "userId", "printable"),
        ('"userId": ["u"], "projectId": "p"', "userId", "printable"),
        ('"userId": "\\ud83d", "projectId": "p"', "userId", "printable"),
        ('"userId": "a\\u0000", "projectId": "p"', "userId", "printable"),
        ('"userId": "\ufffd", "projectId": "p"', "userId", "printable"),
    ]
    + [
        (f'{CALLER}, "maxTokensDaily": {value}', "maxTokensDaily", "a whole number from 0 to 1000000000000000")
        for value in ("-1", "1.0", "1e3", "true", "null", '"5"', "[]", "{}", "1000000000000001", "NaN", "9" * 4000)
    ]
    + [
        (f'{CALLER}, "maxCostDaily": {value}', "maxCostDaily", "dollars from 0 to 1000000000 with at most 9 digits")
        for value in (
            *("-1", "-0.5", "0.0000000001", "1e-999999999", "0.30000000000000004", "1000000001", "1000000000.1"),
            *("1e400", "1e99999999999999999999", "NaN", "Infinity", "-Infinity", "true", "null", "[1]"),
            *('""', '"-1"', '"1e3"', '"NaN"', '"1_0"', '" 1"', '"\u0663"', '"0.0000000000"', '"' + "9" * 99 + '"'),
        )
    ],
)
async def test_bad_member_changes_nothing_and_is_refused_by_name(
    members: str, param: str, said: str, serve: Serve
) -> None:
    error = (await _post(await serve(Database(SETTINGS)), "update", f"{{{members}}}".encode(), 400))["error"]
    assert (error["param"], error["code"]) == (param, "invalid_parameter")
    assert said in error["message"]


def test_all_mistakes_of_a_body_are_reported_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        _members(b'{"nope": 1, "userId": 2, "maxTokensDaily": -1}', _CALLER | _LIMITS)
    for name in ("`nope`", "`userId`", "`maxTokensDaily`"):
        assert name in caught.value.message
    assert caught.value.param == "nope"


@pytest.mark.parametrize("path", ["update", "reset"])
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'"userId"', b"{", b"{'userId': 1}", b"\xff\xfe{}", b"userId=a", b"[" * 16_000, b"9" * 5000],
    ids=lambda body: repr(body[:8]),
)
async def test_body_that_is_no_object_is_refused(path: str, body: bytes, serve: Serve) -> None:
    error = (await _post(await serve(Database(SETTINGS)), path, body, 400))["error"]
    assert (error["code"], error["param"]) == ("invalid_body", None)


async def test_reset_takes_no_limits_and_no_parameters(serve: Serve) -> None:
    client = await serve(Database(SETTINGS))
    body = {"userId": "u", "projectId": "p"}
    error = (await _post(client, "reset", {**body, "maxTokensDaily": 1}, 400))["error"]
    assert error["param"] == "maxTokensDaily"
    error = (await _post(client, "reset?userId=u", body, 400))["error"]
    assert error["param"] == "userId"


async def test_body_above_the_limit_is_413(serve: Serve) -> None:
    error = (await _post(await serve(Database(SETTINGS)), "update", b" " * 16_385, 413))["error"]
    assert error["code"] == "request_too_large"


async def test_body_that_does_not_arrive_is_408(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.api.bodies._BODY_S", 0.01)
    error = (await _post(await serve(Database(SETTINGS)), "update", b"", 408, **{"Content-Length": "5"}))["error"]
    assert error["code"] == "request_timeout"


async def test_body_with_broken_framing_is_refused() -> None:
    reader = StreamReader(Mock(), 2**16, loop=asyncio.get_running_loop())
    reader.set_exception(web.RequestPayloadError("malformed"))
    with pytest.raises(InvalidRequest) as caught:
        await read_body(make_mocked_request("POST", "/v1/quota/update", payload=reader))
    assert caught.value.code == "invalid_body"


async def test_client_that_asks_first_is_told_to_go_on(database: Database, serve: Serve) -> None:
    client = await serve(database, DEFAULTS)
    body = {"userId": "u", "projectId": "p", "maxTokensDaily": 1}
    assert (await _post(client, "update", body, Expect="100-continue"))["maxTokensDaily"] == 1


@pytest.mark.parametrize("path", ["status?userId=a&projectId=p", "top"])
async def test_database_that_is_away_is_503_for_readers(path: str, serve: Serve) -> None:
    error = (await _get(await serve(Database(SETTINGS)), path, 503))["error"]
    assert error["code"] == "database_unavailable"


@pytest.mark.parametrize("path", ["update", "reset"])
async def test_database_that_is_away_is_503_for_writers(path: str, serve: Serve) -> None:
    body = {"userId": "u", "projectId": "p"} | ({"maxTokensDaily": 1} if path == "update" else {})
    error = (await _post(await serve(Database(SETTINGS)), path, body, 503))["error"]
    assert error["code"] == "database_unavailable"


async def test_wrong_key_is_401_before_anything_is_parsed(serve: Serve) -> None:
    client = await serve(Database(SETTINGS))
    assert (await _get(client, "status?x", 401, Authorization="Bearer x"))["error"]["code"] == "invalid_api_key"
    assert (await _post(client, "update", b"{", 401, Authorization="Bearer x"))["error"]["code"] == "invalid_api_key"


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*_CALLER, *_LIMITS]) | st.text(max_size=12), _VALUES, max_size=5))
def test_any_object_gives_values_in_range_or_a_printable_refusal(document: dict[str, object]) -> None:
    try:
        values = _members(json.dumps(document).encode(), _CALLER | _LIMITS)
    except InvalidRequest as refusal:
        assert refusal.message.isprintable()
    else:
        assert values.keys() == document.keys()
        assert 0 <= values.get("maxTokensDaily", 0) <= 10**15
        assert 0 <= values.get("maxCostDaily", 0) <= 10**9


@settings(deadline=None)
@given(st.integers(0, 10**18))
def test_every_amount_of_nanos_comes_back_from_text_and_number(nanos: int) -> None:
    dollars = Decimal(nanos).scaleb(-9)
    for literal in (f"{dollars:f}", f'"{dollars:f}"', str(dollars)):
        values = _members(f'{{"maxCostDaily": {literal}}}'.encode(), _LIMITS)
        assert values["maxCostDaily"].scaleb(9) == nanos
