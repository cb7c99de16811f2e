"""A running request: how much memory it holds, and how others end it.

The reason is set before the request is cancelled, so that the pipeline can distinguish that from a disconnected client.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from proxy.errors import ProxyError
from proxy.exchange import Exchange
from proxy.ingress.downstream import HttpDownstream


@dataclass(slots=True, eq=False)
class Running:
    """One of the requests in the pipeline."""

    x: Exchange
    downstream: HttpDownstream
    task: "asyncio.Task[Any] | None"

    @property
    def is_ending(self) -> bool:
        """It is being ended already, which may take a moment."""
        return self.downstream.ended_by is not None

    @property
    def held_bytes(self) -> int:
        """Approximate bytes in memory: the request's body, held back parts of its answer, unsent output."""
        x = self.x
        request, answering = x.request, x.answering
        held = self.downstream.unsent_bytes
        if request is not None and request.body is not None:
            held += len(request.body)
        if answering is not None and not answering.used.events:  # streams of events hold back very little
            held += max(answering.used.response_bytes - x.delivery.bytes, 0)
        return held if x.capture is None else held + len(x.capture.response)

    def end(self, error: ProxyError) -> None:
        """End the request, reporting `error` to the client as far as possible, and let it be settled."""
        self.downstream.ended_by = error
        self.downstream.refuse_more()
        if self.task is not None:
            self.task.cancel()
