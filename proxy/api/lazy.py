"""The management API, built on first use: most sidecars never serve it, and importing it loads aiohttp.

Rule of the file: it knows the first path segments of the table in `routes`, and imports nothing else of the API.
"""

from collections.abc import Callable
from typing import Any, Final

FIRST_SEGMENTS: Final = frozenset({"traces", "quota", "analytics", "sidegate", "route"})


def may_be_ours(target: str) -> bool:
    """Tell whether a target, with or without its query, may be in the table or below the dashboard."""
    if target.startswith("/ui"):
        return True
    segment, _, _ = target[4:].partition("?")[0].partition("/")
    return segment in FIRST_SEGMENTS and target.startswith("/v1/")


class LazyApi:
    """`routes.Api`, built by `make` at the first path that may be ours."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._api: Any = None

    def match(self, method: str, path: str) -> Any | None:
        """Return the route of a request, `None` if the path is not ours."""
        if not may_be_ours(path):
            return None
        return self._made().match(method, path)

    async def handle(self, request: Any, route: Any) -> Any:
        """Answer a request that `match` found. Raises ProxyError."""
        return await self._made().handle(request, route)

    def page(self, request: Any) -> Any:
        """Answer a request for a file of the dashboard. Raises ProxyError."""
        return self._made().page(request)

    def _made(self) -> Any:
        if self._api is None:
            self._api = self._make()
        return self._api
