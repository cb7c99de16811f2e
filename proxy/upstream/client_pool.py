"""The clients of providers: one pair per address, limits and timeouts, shared by all configurations that need the same.

A changed configuration takes its clients again. If only keys, headers or models of a provider changed, it gets the pair
in use, with all its open connections; a pair is closed once the last configuration that uses it has returned it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.config.schema import Config, Timeouts, UpstreamClient, UpstreamEntry
from proxy.upstream.client import Client, make_client
from proxy.upstream.websockets import Websockets

_Key = tuple[str, str, int, float, UpstreamClient, str, Timeouts, int]


@dataclass(slots=True, eq=False)
class Clients:
    """The two clients for one address. `users`: how many have taken them and not returned them."""

    key: _Key
    http: Client
    websockets: Websockets
    users: int = field(default=0)

    async def close(self) -> None:
        """Drop all connections, including those in use."""
        await self.http.close()
        await self.websockets.close()


class ClientPool:
    """The clients of the process. Must be used inside its event loop."""

    def __init__(self, make: Callable[[UpstreamEntry, UpstreamClient, Timeouts], Client] = make_client) -> None:
        self._make = make
        self._open: dict[_Key, Clients] = {}

    def __len__(self) -> int:
        return len(self._open)

    def take(self, settings: UpstreamEntry, config: Config, trust: str = "") -> Clients:
        """Return the clients for a provider. `trust`: identifies the content of `client.ca_file`.

        Creating them loads the trusted certificates: some 20 ms. Raises OSError if they cannot be read.
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
        clients = self._open.get(key)
        if clients is None:
            websockets = Websockets(settings, config.client, timeouts, message_bytes)
            clients = self._open[key] = Clients(key, self._make(settings, config.client, timeouts), websockets)
        clients.users += 1
        return clients

    async def give_back(self, clients: Clients) -> None:
        """Return clients; the last user closes them."""
        clients.users -= 1
        if not clients.users:
            self._open.pop(clients.key, None)
            await clients.close()

    async def close(self) -> None:
        """Close all clients, even those in use."""
        while self._open:
            _, clients = self._open.popitem()
            await clients.close()
