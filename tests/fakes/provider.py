"""A scripted provider on bare asyncio sockets: what a test asserts about the provider's side is decided here.

Rule of the file: no HTTP library touches a byte. A request is recorded exactly as it arrived (`Seen`), and its answer
is whatever the script sends: well-formed, torn, late, cut, reset or nothing at all. A script is an async function of a
`Call`; `steps` builds one from bytes and pauses. Which script answers is looked up by the request's `x-case-id`
header, so one provider serves many tests at once; without a script the answers of `tests.fakes.endpoints` are given.

The provider runs in a thread with a loop of its own: synchronous SDKs and async tests use it alike, and a test that
blocks cannot stop it. Its ledger says what it would bill, independent of anything that the proxy believes.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.fakes.answers import Answer
from tests.fakes.connection import Connection, PeerGone, Seen, parse_head, read_body
from tests.fakes.endpoints import default_answer

T = TypeVar("T")


@dataclass
class Billed:
    """One entry of the provider's own ledger."""

    case: str
    model: str
    input_tokens: int
    output_tokens: int
    completed: bool = False
    """The whole answer was written while the connection stood."""


class Call:
    """One request in the hands of its script."""

    def __init__(self, connection: Connection, seen: Seen, case: str, ledger: "list[Billed]") -> None:
        self.connection = connection
        self.seen = seen
        self.case = case
        self._ledger = ledger

    async def body(self) -> bytes:
        """Read the body to its end, once; both framings."""
        if not self.seen.body_complete:
            await read_body(self.connection, self.seen)
        return self.seen.body

    async def send(self, data: bytes) -> None:
        await self.connection.write(data)

    async def peer_gone(self) -> None:
        await self.connection.until(lambda: self.connection.ended)

    def close(self) -> None:
        self.connection.transport.close()

    def reset(self) -> None:
        self.connection.reset()

    def bill(self, answer: Answer) -> Billed:
        entry = Billed(self.case, answer.model, answer.input_tokens, answer.output_tokens)
        self._ledger.append(entry)
        return entry


Script = Callable[[Call], Awaitable[None]]


async def answer_by_default(call: Call) -> None:
    """Answer as OpenAI would and bill it."""
    body = await call.body()
    await give(call, default_answer(call.seen.method, call.seen.target, call.seen.headers, body, call.case))


async def give(call: Call, answer: Answer, pause_s: float = 0.0) -> None:
    """Send a prepared answer piece by piece, with `pause_s` between the pieces, and keep the ledger."""
    entry = call.bill(answer)
    await call.send(answer.head())
    for piece in answer.framed_pieces():
        if pause_s:
            await asyncio.sleep(pause_s)
        await call.send(piece)
    entry.completed = True


class Provider:
    """The provider as a whole. `start` returns when it listens; every method may be called from any thread."""

    def __init__(self) -> None:
        self.ledger: list[Billed] = []
        self.requests: list[Seen] = []
        self.failures: list[Exception] = []
        """What went wrong in scripts and answers; `stop` raises the first."""
        self.default: Script = answer_by_default
        self.open: set[Connection] = set()
        self.connections = 0
        self._scripts: dict[str, list[Script]] = {}
        self._by_case: defaultdict[str, list[Seen]] = defaultdict(list)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="provider", daemon=True)

    def start(self) -> "Provider":
        self._thread.start()
        self._server = self.run(
            self._loop.create_server(lambda: Connection(self._serve, self.open.discard), "127.0.0.1", 0, backlog=1024)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        self.run(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self.failures:
            raise self.failures[0]

    async def _shut(self) -> None:
        self._server.close()
        tasks = [connection.task for connection in self.open]
        for connection in list(self.open):
            connection.transport.abort()
            connection.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the provider's own loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def on(self, case: str, *scripts: Script) -> None:
        """Answer the n-th request of `case` by the n-th script, all further ones by the last."""
        self._scripts[case] = list(scripts)

    def seen(self, case: str) -> list[Seen]:
        return self._by_case[case]

    def billed(self, case: str) -> list[Billed]:
        return [entry for entry in self.ledger if entry.case == case]

    def gate(self) -> "Gate":
        return Gate(self._loop)

    async def _serve(self, connection: Connection) -> None:
        """Answer the requests of one connection until either side ends it."""
        self.open.add(connection)
        self.connections += 1
        connection.number = self.connections
        try:
            while not connection.ended:
                head = await connection.take_until(b"\r\n\r\n")
                if head is None:
                    return
                seen = parse_head(connection.number, head)
                connection.current = seen
                case = (seen.value(b"x-case-id") or b"").decode()
                call = Call(connection, seen, case, self.ledger)
                await self._record(case, seen)(call)
                if connection.transport.is_closing():
                    return
                await call.body()
                connection.current = None
        except PeerGone:
            pass
        except Exception as error:
            self.failures.append(error)
        finally:
            connection.transport.close()

    def _record(self, case: str, seen: Seen) -> Script:
        """File a request and return the script that answers it."""
        self.requests.append(seen)
        of_case = self._by_case[case]
        of_case.append(seen)
        scripts = self._scripts.get(case)
        if not scripts:
            return self.default
        return scripts[min(len(of_case), len(scripts)) - 1]


class Gate:
    """A door that a test opens from any thread and a script waits at."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    async def passed(self) -> None:
        await self._event.wait()
