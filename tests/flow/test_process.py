"""The process as a whole: ending, dying, starting without its database, and finding everything again."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes import warm
from tests.fakes.fixtures import Launch
from tests.fakes.judge import error_events, eventually
from tests.fakes.kernel import can_collapse
from tests.fakes.provider import Call, Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import LAST_CHUNK, SILENCE, chunk, script, sse_head, whole
from tests.fakes.wire import Cut, Reply, Wire, exchange, post

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi there, tell me a story"}]}'
STREAM = CHAT[:-1] + b',"stream":true}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"once upon a time there was"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/nowhere"


async def begin_stream(proxy: Sidegate, case: str) -> tuple[Wire, Reply]:
    """Start a stream and return when its first event is here."""
    wire = await Wire.open(proxy.address)
    await wire.send(post("/v1/chat/completions", STREAM, case=case))
    reply = await wire.head()
    await wire.until(b"was")
    return wire, reply


@pytest.mark.parametrize("mode", ["trusted", "keys"])
def test_welcome_when_printed_then_its_commands_can_be_pasted(mode: str, tmp_path: Path) -> None:
    environ = {
        "SIDEGATE_LISTEN": "0.0.0.0:0",
        "SIDEGATE_OPS_LISTEN": "[::]:0" if socket.has_dualstack_ipv6() else "0.0.0.0:0",
        "DATABASE_URL": NO_DATABASE,
        "SIDEGATE__AUTH__MODE": mode,
    }
    printed = tmp_path / "printed"
    with printed.open("wb") as out, (tmp_path / "log").open("wb") as log:
        process = warm.start(["serve", "--welcome"], environ, tmp_path, out.fileno(), log.fileno())
    try:
        eventually(lambda: "TRACE_ID" in printed.read_text(), 30)
    finally:
        process.kill()
        process.wait()
    said = printed.read_text()
    script = Path(sys.executable).with_name("sidegate")
    assert (f"$({script} keys create" in said) == ('-H "Authorization: Bearer $KEY"' in said) == (mode == "keys")
    assert '"Authorization: Bearer $(cat var/admin.key)"' in said and "ADMIN_KEY" not in said
    assert re.search(r"OPENAI_BASE_URL=http://127\.0\.0\.1:[1-9]\d+/v1\n", said)
    assert re.search(r"http://(127\.0\.0\.1|\[::1\]):[1-9]\d+/metrics", said)
    assert not re.search(r"0\.0\.0\.0|\[::\]", said)


async def test_sigterm_when_idle_then_it_ends_at_once_with_0(launch: Launch) -> None:
    proxy = launch()
    started = time.monotonic()
    assert proxy.terminate() == 0
    assert time.monotonic() - started < 8  # no wait of the end is shorter; it may still be compiling rules


async def test_sigterm_when_a_stream_runs_then_it_finishes_and_its_trace_is_stored(
    provider: Provider, launch: Launch, case: str, sidegate: Sidegate
) -> None:
    proxy = launch()
    gate = provider.gate()
    provider.on(case, script(sse_head(), chunk(EVENT), gate, chunk(DONE), LAST_CHUNK))
    wire, reply = await begin_stream(proxy, case)
    async with wire:
        proxy.ask_to_end()
        await asyncio.to_thread(eventually, lambda: not proxy.is_ready())
        with pytest.raises(OSError):
            await Wire.open(proxy.address)
        gate.open()
        await asyncio.wait_for(wire.until(DONE), 5)
    assert proxy.terminate() == 0
    assert sidegate.trace(reply.trace_id)["outcome"] == "ok"


async def test_sigterm_when_a_kept_connection_asks_again_then_503_and_close(
    provider: Provider, launch: Launch, case: str
) -> None:
    proxy = launch()
    gate = provider.gate()
    provider.on(case, script(sse_head(), chunk(EVENT), gate, chunk(DONE), LAST_CHUNK))
    idle = await Wire.open(proxy.address)
    await idle.send(post("/v1/chat/completions", CHAT, case=f"{case}-first"))
    assert (await idle.reply()).status == 200
    running, _ = await begin_stream(proxy, case)
    proxy.ask_to_end()
    await asyncio.to_thread(eventually, lambda: not proxy.is_ready())
    async with asyncio.timeout(5), running, idle:
        idle.writer.write(post("/v1/chat/completions", CHAT, case=f"{case}-late"))
        ending = await idle.ended()
        assert ending in ("cut", "reset")
        gate.open()
        await running.until(DONE)
    assert provider.seen(f"{case}-late") == []
    assert proxy.terminate() == 0


async def test_sigterm_when_connections_are_idle_then_they_are_not_waited_for(launch: Launch, case: str) -> None:
    proxy = launch()
    idle = [await Wire.open(proxy.address) for _ in range(3)]
    await idle[0].send(post("/v1/chat/completions", CHAT, case=case))
    assert (await idle[0].reply()).status == 200
    await asyncio.to_thread(eventually, lambda: proxy.metrics()["sidegate_journal_records"] == 0)
    began = time.monotonic()
    assert await asyncio.to_thread(proxy.terminate) == 0
    assert time.monotonic() - began < 1.8
    for wire in idle:
        await wire.__aexit__()


async def test_sigterm_when_a_stream_outlives_the_drain_then_it_ends_with_an_error_event(
    provider: Provider, launch: Launch, case: str, sidegate: Sidegate
) -> None:
    proxy = launch(SIDEGATE__SERVER__DRAIN_S="0.5")
    provider.on(case, script(sse_head(), chunk(EVENT), SILENCE))
    wire, reply = await begin_stream(proxy, case)
    async with wire:
        proxy.ask_to_end()
        rest = b""
        with pytest.raises(Cut, match=r"closed|reset"):
            while True:
                rest += await asyncio.wait_for(wire.some(), 6)
    assert DONE not in rest
    (error,) = error_events(rest)
    assert error["code"] == "shutting_down"
    assert proxy.terminate() == 0
    trace = sidegate.trace(reply.trace_id)
    assert (trace["outcome"], trace["usageSource"]) == ("drain_abort", "estimated")


async def test_sigterm_when_a_large_event_is_not_read_then_the_error_event_comes_behind_all_of_it(
    provider: Provider, launch: Launch, case: str, sidegate: Sidegate
) -> None:
    large = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"word " * 1_200_000 + b'"}}]}\n\n'
    proxy = launch(SIDEGATE__SERVER__DRAIN_S="0.5", SIDEGATE__LIMITS__EVENT_BYTES=str(1 << 24))
    provider.on(case, script(sse_head(), chunk(EVENT), chunk(large), SILENCE))
    async with await Wire.open(proxy.address) as wire:
        await wire.send(post("/v1/chat/completions", STREAM, case=case))
        reply = await wire.head()
        rest = await wire.until(b"was")
        wire.writer.transport.pause_reading()
        await asyncio.sleep(1)
        proxy.ask_to_end()
        await asyncio.sleep(1)
        wire.writer.transport.resume_reading()
        with pytest.raises(Cut, match=r"closed|reset"):
            while True:
                rest += await asyncio.wait_for(wire.some(), 6)
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    assert large in body
    (error,) = error_events(body)
    assert error["code"] == "shutting_down"
    assert proxy.terminate() == 0
    assert sidegate.trace(reply.trace_id)["outcome"] == "drain_abort"


async def test_sigterm_when_sent_twice_then_it_ends_at_once(provider: Provider, launch: Launch, case: str) -> None:
    proxy = launch()
    provider.on(case, script(sse_head(), chunk(EVENT), SILENCE))
    wire, _ = await begin_stream(proxy, case)
    async with wire:
        proxy.ask_to_end()
        await asyncio.to_thread(eventually, lambda: not proxy.is_ready())
        started = time.monotonic()
        proxy.ask_to_end()
        await asyncio.to_thread(proxy.process.wait, 5)
        assert time.monotonic() - started < 2


async def test_sigterm_when_sent_twice_then_a_client_that_does_not_read_is_not_waited_for(
    provider: Provider, launch: Launch, case: str
) -> None:
    sent = 0

    async def talk_on(call: Call) -> None:
        nonlocal sent
        await call.body()
        await call.send(sse_head())
        while True:
            await call.send(chunk(EVENT * 500))
            sent += 1

    proxy = launch()
    provider.on(case, talk_on)
    async with await Wire.open(proxy.address) as wire:
        wire.writer.transport.pause_reading()
        wire.writer.write(post("/v1/chat/completions", STREAM, case=case))
        before = -1
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(0.5)
        proxy.ask_to_end()
        await asyncio.to_thread(eventually, lambda: not proxy.is_ready())
        started = time.monotonic()
        proxy.ask_to_end()
        await asyncio.to_thread(proxy.process.wait, 9)
        assert time.monotonic() - started < 3


async def test_start_when_the_database_is_away_then_it_serves_and_traces_wait(
    provider: Provider, launch: Launch, case: str, tmp_path: Path, session_database_url: str
) -> None:
    proxy = launch(database=NO_DATABASE, SIDEGATE__SERVER__FLUSH_S="2")
    assert proxy.ready_after_s < 3
    status, body = proxy.ops("/readyz")
    assert status == 200
    assert "database" in body
    replies = [await exchange(proxy.address, post("/v1/chat/completions", CHAT, case=case)) for _ in range(5)]
    assert [reply.status for reply in replies] == [200] * 5
    assert proxy.api(f"/v1/traces/{replies[0].trace_id}")[0] == 503
    assert proxy.terminate(25) == 0
    again = Sidegate(proxy.data_dir, provider.base_url, session_database_url).start()
    try:
        for reply in replies:
            assert again.trace(reply.trace_id)["outcome"] == "ok"
    finally:
        again.stop()


async def test_kill_when_streams_run_then_each_is_found_as_interrupted_and_answered_ones_as_they_were(
    provider: Provider, launch: Launch, case: str
) -> None:
    proxy = launch()
    answered = [
        await exchange(proxy.address, post("/v1/chat/completions", CHAT, case=f"{case}-done")) for _ in range(10)
    ]
    provider.on(case, script(sse_head(), chunk(EVENT), SILENCE))
    begun = [await begin_stream(proxy, case) for _ in range(3)]
    proxy.kill9()
    for wire, _ in begun:
        assert await asyncio.wait_for(wire.ended(), 5) in ("cut", "reset")
        await wire.__aexit__()
    proxy.restart()
    for _, reply in begun:
        trace = proxy.trace(reply.trace_id)
        assert (trace["outcome"], trace["usageSource"]) == ("interrupted", "estimated")
        assert trace["inputTokens"] > 0
    for reply in answered:
        assert proxy.trace(reply.trace_id)["outcome"] == "ok"
    proxy.kill9()
    proxy.restart()
    assert proxy.trace(begun[0][1].trace_id)["outcome"] == "interrupted"


@pytest.mark.skipif(not can_collapse(), reason="this kernel cannot collapse pages")
async def test_start_when_the_kernel_can_then_the_memory_in_use_is_moved_to_huge_pages(launch: Launch) -> None:
    proxy = launch()
    eventually(lambda: proxy.huge_bytes() > proxy.rss_bytes() // 4, 30)


async def test_start_when_another_process_owns_the_data_then_it_ends_with_a_clear_error(
    provider: Provider, launch: Launch, session_database_url: str
) -> None:
    proxy = launch()
    second = Sidegate(proxy.data_dir, provider.base_url, session_database_url)
    with pytest.raises(AssertionError, match=r"the proxy ended with [1-9]"):
        second.start()
    assert "Traceback" not in second.log(own_run=True)
    assert proxy.is_ready()


async def test_start_when_a_setting_is_misspelt_then_it_says_so_and_ends_with_78(
    provider: Provider, tmp_path: Path
) -> None:
    proxy = Sidegate(tmp_path, provider.base_url, NO_DATABASE, {"SIDEGATE__TIMEOUTS__GAPS_S": "1"}, by_script=True)
    with pytest.raises(AssertionError, match="ended with 78"):
        proxy.start()
    assert "gap_s" in proxy.log().lower()


async def test_start_when_no_database_is_given_then_a_private_one_starts_and_keeps_its_data(
    provider: Provider, launch: Launch, case: str
) -> None:
    proxy = launch(database=None, by_script=True)
    reply = await exchange(proxy.address, post("/v1/chat/completions", CHAT, case=case))
    assert proxy.trace(reply.trace_id)["outcome"] == "ok"
    proxy.kill9()
    proxy.restart()
    assert proxy.trace(reply.trace_id)["outcome"] == "ok"
    pid = proxy.process.pid
    proxy.stop()
    found = subprocess.run(["pgrep", "--parent", str(pid)], capture_output=True, check=False)
    assert found.stdout == b""


async def test_provider_key_when_absent_then_the_clients_own_is_not_sent_in_its_place(
    provider: Provider, launch: Launch, case: str
) -> None:
    proxy = launch(OPENAI_API_KEY="")
    provider.on(case, script(whole(b"{}")))
    await exchange(proxy.address, post("/v1/chat/completions", CHAT, "Authorization: Bearer sk-client", case=case))
    assert b"sk-client" not in provider.seen(case)[0].head
