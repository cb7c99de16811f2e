"""What the demo upstream billed: the second opinion on what a proxy in front of it has recorded.

Rules of the file: a row per request, written when the answer ends, however it ends; an aborted stream is billed up to
its last event. Only the latest rows are kept, the totals count them all. No texts.
"""

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

KEPT_ROWS = 10_000


@dataclass(slots=True)
class Bill:
    """One request. `completed`: the whole answer was handed to the network."""

    request_id: str
    endpoint: str
    model: str
    stream: bool
    marker: str | None
    """The request's `x-demo-marker`, to find it again."""
    status: int = 200
    input_tokens: int = 0
    output_tokens: int = 0
    completed: bool = False


class Ledger:
    """All bills of one demo upstream."""

    def __init__(self) -> None:
        self._rows: deque[Bill] = deque(maxlen=KEPT_ROWS)
        self._totals = {"requests": 0, "completed": 0, "input_tokens": 0, "output_tokens": 0}

    def add(self, bill: Bill) -> None:
        """Keep one finished request."""
        self._rows.append(bill)
        self._totals["requests"] += 1
        self._totals["completed"] += bill.completed
        self._totals["input_tokens"] += bill.input_tokens
        self._totals["output_tokens"] += bill.output_tokens

    def document(self) -> dict[str, Any]:
        """Return totals and rows, oldest first, as JSON values."""
        return {"object": "demo.ledger", "totals": dict(self._totals), "requests": [asdict(row) for row in self._rows]}
