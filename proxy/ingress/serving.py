"""What requests are answered with: fixed when a request arrives, never exchanged while it runs."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxy.config.schema import Config
from proxy.pipeline import Pipeline


class OwnApi(Protocol):
    """The part of the management API that the data port needs."""

    def match(self, method: str, path: str) -> Any | None:
        """Return a route if the path is one of the management API."""

    async def handle(self, request: Any, route: Any) -> Any:
        """Answer. Raises ProxyError."""

    def page(self, request: Any) -> Any:
        """Answer a request for a file of the dashboard. Raises ProxyError."""


@dataclass(slots=True, eq=False)
class Serving:
    """One version, and the number of requests that use it."""

    config: Config
    pipeline: Pipeline
    api: OwnApi
    running: int = 0
    _over: asyncio.Event | None = field(default=None, repr=False)

    def enter(self) -> None:
        """Count a request that starts."""
        self.running += 1

    def leave(self) -> None:
        """Count a request that ends."""
        self.running -= 1
        if self._over is not None and not self.running:
            self._over.set()

    async def until_over(self) -> None:
        """Wait until no request is left. Call once no more can start."""
        if self.running:
            self._over = asyncio.Event()
            await self._over.wait()
