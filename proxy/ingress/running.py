"""A request that runs: what it holds in memory, and how somebody else ends it.

Whoever ends a request says why before cancelling it, so that the pipeline can tell that from a client that left.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from proxy.errors import ProxyError
from proxy.exchange import Exchange
from proxy.ingress.downstream import HttpDownstream


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """One of the requests in the pipeline."""

    x: Exchange
    downstream: HttpDownstream
    task: "asyncio.Task[Any] | None"

    @property
    def is_ending(self) -> bool:
        """Somebody has ended it already; it may need a moment."""
        return self.downstream.ended_by is not None

    @property
    def held_bytes(self) -> int:
        """Bodies in memory, about: the request's, what is held back of its answer, what the client has not read."""
        x = self.x
        request, answering = x.request, x.answering
        held = self.downstream.unsent_bytes
        if request is not None and request.body is not None:
            held += len(request.body)
        if answering is not None and not answering.used.events:  # of a stream of events, little is ever held back
            held += max(answering.used.response_bytes - x.delivery.bytes, 0)
        return held if x.capture is None else held + len(x.capture.response)

    def end(self, error: ProxyError) -> None:
        """Let the client be told `error` as far as it can be, and the request be settled."""
        self.downstream.ended_by = error
        self.downstream.refuse_more()
        if self.task is not None:
            self.task.cancel()
