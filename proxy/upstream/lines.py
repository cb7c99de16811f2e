"""The connections to providers: one line per address, limits and timeouts, shared by all who need the same one.

A changed configuration takes its lines again. If only keys, headers or models of a provider changed, it gets the line
in use, with all its open connections; a line is closed once the last configuration that uses it has returned it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.config.schema import Config, Timeouts, UpstreamClient, UpstreamEntry
from proxy.upstream.client import Client, make_client
from proxy.upstream.websockets import Websockets

_Key = tuple[str, str, int, float, UpstreamClient, str, Timeouts, int]


@dataclass(slots=True, eq=False)
class Line:
    """The two clients for one address. `users`: how many have taken it and not returned it."""

    key: _Key
    client: Client
    websockets: Websockets
    users: int = field(default=0)

    async def close(self) -> None:
        """Drop all connections, including those in use."""
        await self.client.close()
        await self.websockets.close()


class Lines:
    """The lines of the process. Must be used inside its event loop."""

    def __init__(self, make: Callable[[UpstreamEntry, UpstreamClient, Timeouts], Client] = make_client) -> None:
        self._make = make
        self._open: dict[_Key, Line] = {}

    def __len__(self) -> int:
        return len(self._open)

    def take(self, settings: UpstreamEntry, config: Config, trust: str = "") -> Line:
        """Return the line to a provider. `trust`: identifies the content of `client.ca_file`.

        Creating one loads the trusted certificates: some 20 ms. Raises OSError if they cannot be read.
        """
        own = settings.timeouts.model_dump(exclude_none=True)
        timeouts = config.timeouts.model_copy(update=own) if own else config.timeouts
        message_bytes = config.limits.websocket_message_bytes
        key = (
            settings.name,
            settings.base_url,
            settings.max_connections,
            settings.idle_connection_s,
            config.client,
            trust,
            timeouts,
            message_bytes,
        )
        line = self._open.get(key)
        if line is None:
            websockets = Websockets(settings, config.client, timeouts, message_bytes)
            line = self._open[key] = Line(key, self._make(settings, config.client, timeouts), websockets)
        line.users += 1
        return line

    async def give(self, line: Line) -> None:
        """Return a line; the last user closes it."""
        line.users -= 1
        if not line.users:
            self._open.pop(line.key, None)
            await line.close()

    async def close(self) -> None:
        """Close all lines, even those in use."""
        while self._open:
            _, line = self._open.popitem()
            await line.close()
