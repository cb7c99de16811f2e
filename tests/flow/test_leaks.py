"""The canary: keys and prompts planted wherever something can go wrong turn up nowhere they do not belong."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.fakes.fixtures import Launch
from tests.fakes.provider import Provider
from tests.fakes.sidegate import ADMIN_KEY, PROVIDER_KEY
from tests.fakes.steps import CLOSE, chunk, head, script, sse_head, whole
from tests.fakes.wire import Cut, Reply, Wire, post, request

CLIENT_KEY = "sk-client-canary-4f9a1c"
PROMPT = "prompt-canary-77e1"
CHAT = f'{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{PROMPT}"}}]}}'.encode()
AUTH = f"Authorization: Bearer {CLIENT_KEY}"
SECRETS = (CLIENT_KEY, PROVIDER_KEY, PROMPT, ADMIN_KEY)

REQUESTS = {
    "plain": post("/v1/chat/completions", CHAT, AUTH, case="CASE"),
    "broken json": post("/v1/chat/completions", CHAT[:-2], AUTH, case="CASE"),
    "key in the query": request("GET", f"/v1/models?api_key={CLIENT_KEY}", AUTH, case="CASE"),
    "key in a refused path": request("GET", f"/v1/%2e%2e/{CLIENT_KEY}", AUTH, case="CASE"),
    "key in an unknown path": request("GET", f"/{CLIENT_KEY}", AUTH, case="CASE"),
    "NUL beside the key": request("GET", "/v1/models", f"{AUTH}\x00", case="CASE"),
    "CR beside the key": request("GET", "/v1/models", f"{AUTH}\rX: {CLIENT_KEY}", case="CASE"),
    "two lengths": request("POST", "/v1/chat/completions", AUTH, "Content-Length: 1", body=CHAT, case="CASE"),
    "bad request line": f"GE T /v1/{CLIENT_KEY} HTTP/1.1\r\n{AUTH}\r\n\r\n".encode(),
    "bad chunk": request(
        "POST", "/v1/x", AUTH, "Transfer-Encoding: chunked", body=f"{CLIENT_KEY}\r\n".encode(), case="CASE"
    ),
    "encoded body": post("/v1/chat/completions", CHAT, AUTH, f"Content-Encoding: {CLIENT_KEY}", case="CASE"),
    "key as method": request(CLIENT_KEY, "/v1/models", AUTH, case="CASE"),
    "key as user": post("/v1/chat/completions", CHAT, f"Authorization: Basic {CLIENT_KEY}", case="CASE"),
    "wrong admin key": request("GET", "/v1/traces", AUTH, case="CASE"),
    "bad api parameter": request("GET", "/v1/traces?limit=x", f"Authorization: Bearer {ADMIN_KEY}", case="CASE"),
    "bad websocket": request("GET", "/v1/realtime", AUTH, "Upgrade: websocket", "Connection: Upgrade", case="CASE"),
}
ECHO = f"{PROVIDER_KEY} and {CLIENT_KEY} and {PROMPT}"
ANSWERS = {
    "key in a header": script(whole(b"{}", f"X-Echo: {ECHO}")),
    "bad header": script(f"HTTP/1.1 200 OK\r\nAuthorization: {ECHO}\x00\r\n\r\n".encode(), CLOSE),
    "bad status line": script(f"HTTP/1.1 {ECHO}\r\n\r\n".encode(), CLOSE),
    "bad chunk size": script(head("200 OK", "Transfer-Encoding: chunked"), f"{ECHO}\r\n".encode(), CLOSE),
    "cut stream": script(sse_head(), chunk(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'), CLOSE),
    "error body": script(whole(b'{"error":{"message":"no","type":"t","code":"c"}}', status="401 Unauthorized")),
    "cut body": script(whole(b"{}" * 50)[:-7], CLOSE),
}


@pytest.fixture
def everything(provider: Provider, launch: Launch, case: str) -> "Scene":
    return Scene(provider, launch, case)


class Scene:
    """One proxy with debug logs, through all of the above."""

    def __init__(self, provider: Provider, launch: Launch, case: str) -> None:
        self.proxy = launch(SIDEGATE__LOGGING__LEVEL="debug", SIDEGATE__LOGGING__REQUESTS="all")
        self.provider = provider
        self.case = case
        self.replies: list[tuple[str, bytes]] = []

    async def play(self) -> None:
        for name, data in REQUESTS.items():
            await self._one(name, data.replace(b"CASE", self.case.encode()))
        for name, answer in ANSWERS.items():
            self.provider.on(f"{self.case}-{name[:3]}", answer)
            await self._one(name, post("/v1/chat/completions", CHAT, AUTH, case=f"{self.case}-{name[:3]}"))

    async def _one(self, name: str, data: bytes) -> None:
        async with asyncio.timeout(10), await Wire.open(self.proxy.address) as wire:
            await wire.send(data)
            if name.startswith("bad"):
                wire.writer.write_eof()
            reply = await answer_or_nothing(wire)
        self.replies.append((name, reply.head + reply.body))


async def answer_or_nothing(wire: Wire) -> Reply:
    try:
        return await wire.reply()
    except Cut:
        return Reply()


async def test_canary_when_everything_goes_wrong_then_no_secret_is_seen_again(
    everything: Scene, tmp_path: Path
) -> None:
    await everything.play()
    for name, data in everything.replies:
        assert not [secret for secret in SECRETS if secret.encode() in data], f"in the answer to: {name}"
    proxy = everything.proxy
    texts = {"log": proxy.log(), "metrics": proxy.ops("/metrics")[1], "ready": proxy.ops("/readyz")[1]}
    assert proxy.terminate() == 0
    texts["log"] += proxy.log()
    for name, text in texts.items():
        assert not [secret for secret in SECRETS if secret in text], f"in the {name}"
    for path in files_below(proxy.data_dir):
        data = path.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in data], f"in {path.name}"


def files_below(directory: Path) -> list[Path]:
    return [Path(root) / name for root, _, names in os.walk(directory) for name in names]
