"""The ops port: `/metrics`, `/livez`, `/readyz`. No credentials, no data of tenants.

Liveness says that the event loop turns. Readiness says that requests are accepted: it stays true while PostgreSQL or a
provider is away (one outage would otherwise take every application pod out of service at once) and names their state in
its body; it turns false only while draining.

Source: Kubernetes, "Configure Liveness, Readiness and Startup Probes".
"""

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from proxy.errors import InvalidRequest
from proxy.ingress.listener import RawRequest, error_response
from proxy.metrics import CONTENT_TYPE, Metrics

State = Callable[[], dict[str, Any]]
"""Present state: `status` is `ready` or `draining`; further members inform."""


class Ops:
    """Handles requests of the ops port."""

    def __init__(self, metrics: Metrics, state: State) -> None:
        self._metrics = metrics
        self._state = state

    async def handle(self, request: RawRequest) -> web.Response:
        """Answer one request."""
        path = request.target.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            error = InvalidRequest("Only GET is allowed here.", status=405, code="method_not_allowed")
            response = error_response(error)
            response.headers["Allow"] = "GET, HEAD"
            return response
        if path == "/metrics":
            return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})
        if path == "/livez":
            return _json(200, {"status": "alive"})
        if path == "/readyz":
            state = self._state()
            return _json(200 if state["status"] == "ready" else 503, state)
        return error_response(
            InvalidRequest("Unknown path. Here are /metrics, /livez and /readyz.", status=404, code="unknown_path")
        )


def _json(status: int, document: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")
