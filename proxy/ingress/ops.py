"""The ops port: `/metrics`, `/livez`, `/readyz`. No credentials, no tenant data.

Liveness means that the event loop runs. Readiness means that requests are accepted: it stays true while PostgreSQL or a
provider is unavailable (one outage would otherwise take every application pod out of service at once) and reports their
state in its body; it is false only while draining.

Source: Kubernetes, "Configure Liveness, Readiness and Startup Probes".
"""

from collections.abc import Callable
from typing import Any

import orjson

from proxy.errors import InvalidRequest
from proxy.exchange import Headers
from proxy.ingress.client_request import ClientRequest
from proxy.ingress.downstream import HttpDownstream
from proxy.ingress.own_answers import SERVER, answer, refuse
from proxy.metrics import CONTENT_TYPE, Metrics

State = Callable[[], dict[str, Any]]
"""Returns the current state: `status` is `ready` or `draining`; further members are informative."""


class Ops:
    """Handles requests of the ops port."""

    def __init__(self, metrics: Metrics, state: State) -> None:
        self._metrics = metrics
        self._state = state

    async def handle(self, request: ClientRequest) -> HttpDownstream:
        """Answer one request."""
        path = request.target.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            error = InvalidRequest("Only GET is allowed here.", status=405, code="method_not_allowed")
            return await refuse(request, error, ((b"Allow", b"GET, HEAD"),))
        if path == "/metrics":
            return await answer(request, 200, _typed(CONTENT_TYPE), self._metrics.render())
        if path == "/livez":
            return await _json(request, 200, {"status": "alive"})
        if path == "/readyz":
            state = self._state()
            return await _json(request, 200 if state["status"] == "ready" else 503, state)
        error = InvalidRequest("Unknown path. Here are /metrics, /livez and /readyz.", status=404, code="unknown_path")
        return await refuse(request, error)


async def _json(request: ClientRequest, status: int, document: dict[str, Any]) -> HttpDownstream:
    return await answer(request, status, _typed("application/json"), orjson.dumps(document))


def _typed(content_type: str) -> Headers:
    return ((b"Content-Type", content_type.encode()), SERVER)
