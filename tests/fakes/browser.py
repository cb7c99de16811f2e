"""A real headless Chromium, driven by its DevTools protocol over one websocket.

In place of a driver package: what the tests need of one are the few verbs below, and its wheel is 45 MB.

Source: Chrome DevTools Protocol (Target, Page, Runtime, Input, Emulation, Log).
"""

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--no-proxy-server",
    "--lang=en-US",
    "--remote-debugging-port=0",
)
_WITHIN_S = 20.0


class Page:
    """One tab. `complaints`: uncaught errors, and what the browser refused (policy violations, failed loads)."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser, self._session = browser, session
        self.complaints: list[str] = []

    async def call(self, method: str, **parameters: Any) -> Any:
        return await self._browser.call(method, self._session, **parameters)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """Return the value of an expression. Raises: AssertionError if it throws."""
        found = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression is truthy."""
        async with asyncio.timeout(_WITHIN_S):
            while not await self.run(f"Boolean({script})"):
                await asyncio.sleep(0.03)

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        code = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, " ": 32}[key]
        text = {"Enter": "\r", " ": " "}.get(key)
        event = {"key": key, "windowsVirtualKeyCode": code, **({"text": text} if text else {})}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **event)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **size)

    async def screenshot(self, path: Path) -> None:
        taken = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(taken["data"]))


class Browser:
    """One browser process."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._pages: dict[str, Page] = {}
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    async def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self._number += 1
        answer = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        named = {"sessionId": session} if session else {}
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters, **named})
        return await asyncio.wait_for(answer, _WITHIN_S)

    async def listen(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                answer = self._waiting.pop(said["id"])
                if not answer.done():
                    _resolve(answer, said)
            elif said["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self._pages[said["sessionId"]].complaints.append(_complaint(said["params"]))

    async def page(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> Page:
        """Open a tab whose storage nobody else sees."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await page.call(f"{domain}.enable")
        await page.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await page.call("Emulation.setEmulatedMedia", features=[scheme])
        await page.call("Emulation.setTimezoneOverride", timezoneId="UTC")
        return page


@contextlib.asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """Start a browser with a profile of its own; end it and forget the profile."""
    async with contextlib.AsyncExitStack() as stack:
        url = await _started(stack)
        async with ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            browser = Browser(socket)
            listening = asyncio.create_task(browser.listen())
            yield browser
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening


async def _started(stack: contextlib.AsyncExitStack) -> str:
    """Return the address of a browser's protocol. One that does not open its port in time was seen once."""
    try:
        return await _start(stack)
    except TimeoutError:
        return await _start(stack)


async def _start(stack: contextlib.AsyncExitStack) -> str:
    assert CHROMIUM is not None
    profile = stack.enter_context(tempfile.TemporaryDirectory(prefix="sidegate-chromium-", ignore_cleanup_errors=True))
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *_OPTIONS,
        f"--user-data-dir={profile}",
        env={**os.environ, "HOME": profile},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    stack.push_async_callback(_end, process)
    port, path = await _address(Path(profile) / "DevToolsActivePort")
    return f"ws://127.0.0.1:{port}{path}"


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # nothing in its profile is worth a polite end
    await process.wait()


async def _address(file: Path) -> tuple[str, str]:
    async with asyncio.timeout(_WITHIN_S):
        while not (file.exists() and len(lines := file.read_text().split()) == 2):
            await asyncio.sleep(0.05)
    return lines[0], lines[1]


def _resolve(answer: asyncio.Future[Any], said: dict[str, Any]) -> None:
    if "error" in said:
        answer.set_exception(AssertionError(said["error"]["message"]))
    else:
        answer.set_result(said["result"])


def _complaint(parameters: dict[str, Any]) -> str:
    if "entry" in parameters:
        return str(parameters["entry"]["text"])
    details = parameters["exceptionDetails"]
    return str(details.get("exception", {}).get("description", details["text"]))
