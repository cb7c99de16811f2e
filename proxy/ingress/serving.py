"""What requests are answered with: taken as a whole when a request comes, never exchanged under it."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxy.config.schema import Config
from proxy.pipeline import Pipeline


class OwnApi(Protocol):
    """The management API, as far as the data port needs it."""

    def match(self, method: str, path: str) -> Any | None:
        """Return a route if the path is ours."""

    async def handle(self, request: Any, route: Any) -> Any:
        """Answer. Raises ProxyError."""

    def page(self, request: Any) -> Any:
        """Answer a request for a file of the dashboard. Raises ProxyError."""


@dataclass(slots=True, eq=False)
class Serving:
    """One version, and how many requests are on their way through it."""

    config: Config
    pipeline: Pipeline
    api: OwnApi
    running: int = 0
    _over: asyncio.Event | None = field(default=None, repr=False)

    def enter(self) -> None:
        """Count a request that begins."""
        self.running += 1

    def leave(self) -> None:
        """Count a request that ends."""
        self.running -= 1
        if self._over is not None and not self.running:
            self._over.set()

    async def until_over(self) -> None:
        """Wait until no request is left. To be called once no more can begin."""
        if self.running:
            self._over = asyncio.Event()
            await self._over.wait()
