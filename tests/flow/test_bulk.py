"""200 MB up and 200 MB down pass at flat memory, whole and unchanged."""

import asyncio
import hashlib

import pytest

from tests.fakes import steps
from tests.fakes.provider import Call, Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import head
from tests.fakes.wire import Wire, request

SIZE = 200 * 1024 * 1024
BLOCK = bytes(range(256)) * 1024
FORM = "Content-Type: multipart/form-data; boundary=b"
GROWTH_BYTES = 4_000_000


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_upload_when_200_mb_then_memory_is_flat(
    provider: Provider, sidegate: Sidegate, case: str, framing: str
) -> None:
    chunked = framing == "chunked"
    # The first one compiles the rules of uploads, loads the server that reads chunks, and fills the buffers: once.
    await upload(sidegate, 40, chunked=chunked, case=f"{case}-small")
    before = settled(sidegate)
    size, digest = await upload(sidegate, SIZE // len(BLOCK), chunked=chunked, case=case)
    (seen,) = provider.seen(case)
    assert (seen.body_bytes, seen.body_sha256) == (size, digest)
    assert sidegate.peak_rss_bytes() - before < GROWTH_BYTES
    assert seen.value(b"content-length") == (None if chunked else str(size).encode())


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_download_when_200_mb_then_memory_is_flat(
    provider: Provider, sidegate: Sidegate, case: str, framing: str
) -> None:
    chunked = framing == "chunked"

    async def perform(call: Call) -> None:
        line = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {SIZE}"
        await call.send(head("200 OK", line, content_type="application/octet-stream"))
        block = steps.chunk(BLOCK) if chunked else BLOCK
        for _ in range(SIZE // len(BLOCK)):
            await call.send(block)
        if chunked:
            await call.send(steps.LAST_CHUNK)

    provider.on(case, perform)
    before = settled(sidegate)
    digest, size = hashlib.sha256(), 0
    async with asyncio.timeout(40), await Wire.open(sidegate.address) as wire:
        await wire.send(request("GET", "/v1/files/file-big/content", case=case))
        reply = await wire.head()
        while size < SIZE:
            data = await wire.exactly(int(await wire.until(b"\r\n"), 16)) if chunked else await wire.some()
            if chunked:
                await wire.exactly(2)
            digest.update(data)
            size += len(data)
    assert reply.status == 200
    assert digest.digest() == hashlib.sha256(BLOCK * (SIZE // len(BLOCK))).digest()
    assert sidegate.peak_rss_bytes() - before < GROWTH_BYTES


async def upload(sidegate: Sidegate, blocks: int, *, chunked: bool, case: str) -> tuple[int, str]:
    """Upload a file and return the size and the digest of the form."""
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'
    end = b"\r\n--b--\r\n"
    size, digest = len(start) + blocks * len(BLOCK) + len(end), hashlib.sha256()
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    async with asyncio.timeout(40), await Wire.open(sidegate.address) as wire:
        await wire.send(request("POST", "/v1/files", FORM, framing, case=case))
        for piece in (start, *[BLOCK] * blocks, end):
            digest.update(piece)
            await wire.send(steps.chunk(piece) if chunked else piece)
        if chunked:
            await wire.send(steps.LAST_CHUNK)
        assert (await wire.reply()).status == 200
    return size, digest.hexdigest()


def settled(sidegate: Sidegate) -> int:
    """Start a new peak and return the memory in use now."""
    sidegate.reset_peak_rss()
    return sidegate.rss_bytes()
