"""Credentials planted in every place that is kept or shown: none of them is found in anything that is.

`test_leaks` plants them where HTTP itself breaks. Here HTTP is in order and the places are those that a trace, a label
or an answer is made of: names and ids that the client chose, and everything that a provider can say back.

Rule of the file: every search is for the plain text and for what base64 or bytea would make of it.
"""

import asyncio
import base64
import gzip
import json
import os
import signal
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.fakes import warm
from tests.fakes.fixtures import Launch
from tests.fakes.provider import Provider, Script
from tests.fakes.sidegate import ADMIN_KEY, PROVIDER_KEY, Sidegate
from tests.fakes.steps import CLOSE, LAST_CHUNK, chunk, head, script, sse_head, whole
from tests.fakes.websocket import TEXT, Frame, Socket, close_frame, connect, socket_script
from tests.fakes.wire import Cut, Reply, Wire, post, request

CLIENT_KEY = "sk-client-canary-4f9a1c77e1b2"
EXTRA_KEY = "extra-header-canary-0123456789"
AUTH = f"Authorization: Bearer {CLIENT_KEY}"
ADMIN = f"Authorization: Bearer {ADMIN_KEY}"
OURS = (PROVIDER_KEY, EXTRA_KEY, ADMIN_KEY)
ECHO = f"{PROVIDER_KEY} {EXTRA_KEY}"


def chat(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], **members}).encode()


CHAT = chat()
FORM = "Content-Type: multipart/form-data; boundary=b"


def form(**fields: str) -> bytes:
    part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    return "".join([*(part.format(*field) for field in fields.items()), "--b--\r\n"]).encode()


REQUESTS = {
    "model": post("/v1/chat/completions", chat(model=CLIENT_KEY), AUTH, case="CASE"),
    "user": post("/v1/chat/completions", chat(user=CLIENT_KEY, safety_identifier=CLIENT_KEY), AUTH, case="CASE"),
    "member name": post("/v1/chat/completions", chat(**{CLIENT_KEY: CLIENT_KEY}), AUTH, case="CASE"),
    "conversation": post("/v1/responses", chat(input="x", previous_response_id=CLIENT_KEY), AUTH, case="CASE"),
    "tool result": post(
        "/v1/chat/completions",
        chat(messages=[{"role": "tool", "tool_call_id": CLIENT_KEY, "name": CLIENT_KEY, "content": CLIENT_KEY}]),
        AUTH,
        case="CASE",
    ),
    "path": request("GET", f"/v1/models/{CLIENT_KEY}", AUTH, case="CASE"),
    "unknown path": request("POST", f"/v1/{CLIENT_KEY}/x?key={CLIENT_KEY}", AUTH, body=b"x", case="CASE"),
    "path without header": request("GET", f"/v1/files/{CLIENT_KEY}", case="CASE"),
    "own headers": post(
        "/v1/chat/completions", CHAT, AUTH, f"X-Sidegate-User: {CLIENT_KEY}", f"X-Sidegate-Conversation: {CLIENT_KEY}",
        f"X-Sidegate-Project: {CLIENT_KEY}", case="CASE",
    ),
    "client metadata": post(
        "/v1/chat/completions", CHAT, AUTH, f"User-Agent: {CLIENT_KEY}", f"X-Stainless-Lang: {CLIENT_KEY}",
        f"X-Stainless-Retry-Count: {CLIENT_KEY}", case="CASE",
    ),
    "other header": post("/v1/chat/completions", chat(user=CLIENT_KEY), f"api-key: {CLIENT_KEY}", case="CASE"),
    "form": request(
        "POST", "/v1/audio/transcriptions", AUTH, FORM, body=form(model=CLIENT_KEY, user=CLIENT_KEY), case="CASE"
    ),
    "broken form": request("POST", "/v1/files", AUTH, f"{FORM}{CLIENT_KEY}", body=form(x=CLIENT_KEY), case="CASE"),
    "API filter": request("GET", f"/v1/traces?userId={CLIENT_KEY}&{CLIENT_KEY}=1", ADMIN),
    "API id": request("GET", f"/v1/traces/{CLIENT_KEY}", ADMIN),
    "API guess": request("GET", "/v1/traces", AUTH, ADMIN),
    "admin key for a model": post("/v1/chat/completions", chat(model=ADMIN_KEY), ADMIN, case="CASE"),
}  # fmt: skip


def answer(**members: Any) -> bytes:
    message = {"role": "assistant", "content": "hello"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return json.dumps({"id": "x", "model": "gpt-4o-mini", "choices": choices, "usage": usage, **members}).encode()


def refusal(message: str = "no", code: str = "invalid_api_key", kind: str = "invalid_request_error") -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def event(document: bytes, name: str = "") -> bytes:
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + document + b"\n\n"


def tool_call(key: str) -> list[Any]:
    call = {"id": key, "type": "function", "function": {"name": key, "arguments": key}}
    return [{"index": 0, "message": {"role": "assistant", "tool_calls": [call]}, "finish_reason": key}]


ERROR_EVENT = event(refusal(f"Incorrect API key provided: {ECHO}.", PROVIDER_KEY, PROVIDER_KEY))
ANSWERS: dict[str, Script] = {
    "request id": script(whole(answer(), f"x-request-id: {PROVIDER_KEY}")),
    "headers": script(whole(answer(), f"X-Echo: Bearer {PROVIDER_KEY}", f"X-Extra: {EXTRA_KEY}")),
    "reason": script(whole(answer(), status=f"200 {ECHO}")),
    "reason of an error": script(whole(refusal(), status=f"401 {ECHO}")),
    "names": script(whole(answer(id=PROVIDER_KEY, model=PROVIDER_KEY))),
    "names of another header": script(whole(answer(id=EXTRA_KEY, model=EXTRA_KEY))),
    "tool calls": script(whole(answer(choices=tool_call(PROVIDER_KEY)))),
    "error message": script(whole(refusal(f"Incorrect API key provided: {ECHO}."), status="401 Unauthorized")),
    "error code": script(whole(refusal("no", PROVIDER_KEY, EXTRA_KEY), status="401 Unauthorized")),
    "error cut in the key": script(
        head("401 Unauthorized", "Transfer-Encoding: chunked"),
        chunk(refusal(f"Incorrect: {PROVIDER_KEY}")[:50]), 0.1, chunk(refusal(f"Incorrect: {PROVIDER_KEY}")[50:]),
        LAST_CHUNK,
    ),
    "error page": script(whole(f"<p>{ECHO}".encode(), status="502 Bad Gateway", content_type="text/html")),
    "error event": script(sse_head(), chunk(ERROR_EVENT), LAST_CHUNK),
    "error event torn": script(sse_head(), chunk(ERROR_EVENT[:60]), 0.05, chunk(ERROR_EVENT[60:]), LAST_CHUNK),
    "event name": script(sse_head(), chunk(event(b"{}", PROVIDER_KEY)), CLOSE),
    "interim answer": script(
        f"HTTP/1.1 103 {PROVIDER_KEY}\r\nX-Echo: {ECHO}\r\n\r\n".encode(), whole(answer())
    ),
    "trailer": script(
        head("200 OK", "Transfer-Encoding: chunked", "Trailer: X-Echo"), chunk(answer()),
        f"0\r\nX-Echo: {ECHO}\r\n\r\n".encode(),
    ),
    "compressed error": script(
        whole(gzip.compress(refusal(f"Incorrect: {ECHO}")), "Content-Encoding: gzip", status="401 Unauthorized")
    ),
    "compressed content": script(whole(zlib.compress(answer(user=ECHO)), "Content-Encoding: deflate")),
    "compressed page": script(
        whole(gzip.compress(ECHO.encode()), "Content-Encoding: gzip", status="502 No", content_type="text/html")
    ),
    "compressed event": script(
        sse_head("Content-Encoding: gzip"), chunk(gzip.compress(ERROR_EVENT)[:90]), 0.05,
        chunk(gzip.compress(ERROR_EVENT)[90:]), LAST_CHUNK,
    ),
    "redirect": script(whole(b"", f"Location: /v1/x?key={PROVIDER_KEY}", status="302 Found")),
}  # fmt: skip


async def reveal(socket: Socket) -> None:
    await socket.send(Frame(TEXT, refusal(f"Incorrect API key provided: {ECHO}.", PROVIDER_KEY)))
    await socket.send(close_frame(1008, PROVIDER_KEY.encode()))


SOCKETS: dict[str, Script] = {
    "socket": socket_script(reveal, f"X-Echo: {ECHO}"),
    "refused socket": script(whole(refusal(f"Incorrect API key provided: {ECHO}."), status="401 Unauthorized")),
}


def test_admin_key_when_its_file_was_left_empty_then_a_new_one_is_made(provider: Provider, tmp_path: Path) -> None:
    file = tmp_path / "var" / "admin.key"
    file.parent.mkdir()
    file.touch(mode=0o600)
    proxy = Sidegate(tmp_path, provider.base_url, "postgresql://nobody@127.0.0.1:1/none", {"SIDEGATE_ADMIN_KEY": ""})
    try:
        proxy.start()
        assert file.read_text().startswith("sg-admin-")
        assert file.read_text().strip() not in proxy.log()
    finally:
        proxy.stop()


class Stage:
    """One proxy with debug logs and what came out of it, by name."""

    def __init__(self, provider: Provider, proxy: Sidegate, case: str, database_url: str) -> None:
        self.provider, self.proxy, self.case, self.database_url = provider, proxy, case, database_url
        self.answers: dict[str, bytes] = {}

    async def play(self) -> None:
        for name, data in REQUESTS.items():
            await self._ask(name, data.replace(b"CASE", self.case.encode()))
        for number, (name, play) in enumerate(ANSWERS.items()):
            case = f"{self.case}-{number}"
            self.provider.on(case, play)
            await self._ask(name, post("/v1/chat/completions", chat(stream="event" in name), AUTH, case=case))
        for name, play in SOCKETS.items():
            case = f"{self.case}-{name[:3]}"
            self.provider.on(case, play)
            await self._connect(name, case)

    async def _ask(self, name: str, data: bytes) -> None:
        async with asyncio.timeout(10), await Wire.open(self.proxy.address) as wire:
            await wire.send(data)
            self._keep(name, await wire.reply())

    async def _connect(self, name: str, case: str) -> None:
        offer = f"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{CLIENT_KEY}"
        async with asyncio.timeout(10):
            wire, reply, _ = await connect(self.proxy.address, "/v1/realtime?model=m", AUTH, offer, case=case)
            async with wire:
                await wire.body(reply, "GET")
                if reply.status == 101:
                    reply.body = await everything(wire)
                self._keep(name, reply)

    def _keep(self, name: str, reply: Reply) -> None:
        plain = zlib.decompressobj(47).decompress(reply.body) if reply.value("content-encoding") else b""
        self.answers[name] = b"".join(reply.informational) + reply.head + reply.raw_body + reply.body + plain

    async def kept(self) -> dict[str, bytes]:
        """Return everything that is left of the run: files, tables, figures and lines."""
        found = {"metrics": self.proxy.ops("/metrics")[1], "readiness": self.proxy.ops("/readyz")[1]}
        assert self.proxy.terminate() == 0
        found["log"] = self.proxy.log()
        found["dump"] = await dump(self.database_url)
        return {name: text.encode() for name, text in found.items()} | dict(files_below(self.proxy.data_dir))


async def everything(wire: Wire) -> bytes:
    """Return what comes until the connection ends."""
    found = b""
    try:
        while True:
            found += await wire.some()
    except Cut:
        return found


async def dump(url: str) -> str:
    """Return all rows of all tables as text."""
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE relkind IN ('r', 'm') AND nspname NOT IN ('pg_catalog', 'information_schema')"
        )
        statements = [f"SELECT t::text FROM {row['name']} AS t" for row in names]
        return "\n".join([row[0] for statement in statements for row in await connection.fetch(statement)])
    finally:
        await connection.close()


def files_below(directory: Path) -> Iterator[tuple[str, bytes]]:
    for root, _, names in os.walk(directory):
        for name in names:
            yield f"file {name}", (Path(root) / name).read_bytes()


def hits(texts: dict[str, bytes], secrets: tuple[str, ...]) -> list[str]:
    """Name what was found where."""
    return [
        f"{secret[:12]}.. in {name}"
        for name, text in texts.items()
        for secret in secrets
        if any(spelling in text for spelling in spellings(secret.encode()))
    ]


def spellings(secret: bytes) -> tuple[bytes, ...]:
    """As it is, as content is kept, and as PostgreSQL prints bytes."""
    return secret, base64.b64encode(secret)[:-4], secret.hex().encode()


@pytest.mark.parametrize("client", ["lean", "aiohttp"])
async def test_credentials_when_planted_in_every_name_then_none_is_kept_or_told(
    provider: Provider, launch: Launch, case: str, database_url: str, client: str
) -> None:
    proxy = launch(
        database=database_url,
        SIDEGATE__CLIENT__KIND=client,
        SIDEGATE__LOGGING__LEVEL="debug",
        SIDEGATE__LOGGING__REQUESTS="all",
        SIDEGATE__UPSTREAM__HEADERS=json.dumps({"X-Backend-Token": EXTRA_KEY}),
    )
    stage = Stage(provider, proxy, case, database_url)
    await stage.play()
    assert hits(stage.answers, (PROVIDER_KEY, EXTRA_KEY)) == []
    kept = await stage.kept()
    assert kept["dump"].count(b"chat.completions.create") > len(ANSWERS)
    assert hits(kept, (*OURS, CLIENT_KEY)) == []


COMMANDS = (("config", "check"), ("config", "show"), ("migrate", "status"), ("traces", "tail"), ("serve",))
ENDLESS = (("serve",), ("traces", "tail"))
PASSWORD = "password-canary-0123456789"
UNUSABLE = {
    "nobody there": f"postgresql://user:{PASSWORD}@127.0.0.1:1/db",
    "not encoded": f"postgresql://user:{PASSWORD}#x@127.0.0.1/db",
    "no host": f"postgresql://user:{PASSWORD}@no-such-host.invalid/db",
    "unknown option": f"postgresql://user:{PASSWORD}@127.0.0.1:1/db?sslmode={PASSWORD}",
}


@pytest.mark.parametrize("url", UNUSABLE.values(), ids=UNUSABLE.keys())
async def test_commands_when_nothing_works_then_they_show_no_credential(tmp_path: Path, url: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": url,
        "OPENAI_API_KEY": PROVIDER_KEY,
        "SIDEGATE_ADMIN_KEY": ADMIN_KEY,
        "SIDEGATE__UPSTREAM__HEADERS": json.dumps({"X-Backend-Token": EXTRA_KEY}),
        "SIDEGATE__LOGGING__LEVEL": "debug",
        "SIDEGATE__SERVER__OPS_LISTEN__PORT": "0",
        "SIDEGATE_LISTEN": "127.0.0.1:0",
        "SIDEGATE_DATA_DIR": str(tmp_path / "var"),
    }
    told = (asyncio.to_thread(output, command, environment, tmp_path) for command in COMMANDS)
    said = await asyncio.gather(*told)
    assert hits(dict(zip(map(" ".join, COMMANDS), said, strict=True)), (*OURS, PASSWORD)) == []
    assert b"****" in said[1] or b"percent-encode" in said[1]


def output(command: tuple[str, ...], environment: dict[str, str], directory: Path) -> bytes:
    """Return all that a command says, until its end or, of one without an end, until it has tried everything once."""
    file = directory / "-".join(command)
    with file.open("wb") as out:
        running = warm.start(command, environment, directory, out.fileno(), out.fileno())
    try:
        running.wait(2 if command in ENDLESS else 30)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGTERM)
        running.wait(30)
    return file.read_bytes()
