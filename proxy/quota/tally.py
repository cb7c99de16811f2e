"""Counters of quotas for `/metrics`, and warnings about callers near their limit.

Label values come from a fixed set: never a user, a project or a model.
"""

import logging
from collections import Counter
from collections.abc import Iterable

from proxy.metrics import Sample

_DENIALS = ("tokens", "cost", "requests", "concurrent", "reserved", "outage", "waiting", "callers")
_log = logging.getLogger("sidegate.quota")


class QuotaTally:
    """Totals since the start."""

    def __init__(self) -> None:
        # From 0 on: Prometheus sees no increase in a series that starts at 1.
        self._denials: Counter[str] = Counter(dict.fromkeys(_DENIALS, 0))
        self._acquisitions: Counter[str] = Counter(dict.fromkeys(("granted", "refused"), 0))
        self._unleased: Counter[str] = Counter(dict.fromkeys(("open", "capped", "cold"), 0))
        self._warnings: Counter[int] = Counter(dict.fromkeys((80, 100), 0))

    def deny(self, reason: str) -> None:
        """Count a refused request by the exhausted dimension, or by why it could not be decided."""
        self._denials[reason] += 1

    def acquired(self, *, is_granted: bool) -> None:
        """Count an answer of PostgreSQL to the request for a lease."""
        self._acquisitions["granted" if is_granted else "refused"] += 1

    def admit_without_lease(self, why: str) -> None:
        """Count a request served without a lease."""
        self._unleased[why] += 1

    def warn(self, user_id: str, project_id: str, percent: int) -> None:
        """Log that a caller has used this much of a daily limit."""
        self._warnings[percent] += 1
        extra = {"user": user_id, "project": project_id, "percent": percent}
        _log.warning(
            "a caller has used most of a daily limit" if percent < 100 else "a daily limit is used up", extra=extra
        )

    def samples(self) -> Iterable[Sample]:
        """Yield the counters."""
        yield from _counters("sidegate_quota_denials", "Requests refused by quotas.", "reason", self._denials)
        yield from _counters("sidegate_quota_acquisitions", "Leases asked for.", "result", self._acquisitions)
        yield from _counters("sidegate_quota_unleased", "Requests served without a lease.", "policy", self._unleased)
        by_percent = Counter({str(percent): count for percent, count in self._warnings.items()})
        yield from _counters("sidegate_quota_warnings", "Daily limits that came near their end.", "percent", by_percent)


def _counters(name: str, text: str, label: str, counts: Counter[str]) -> Iterable[Sample]:
    for value, count in sorted(counts.items()):
        yield Sample("counter", name, text, {label: value}, count)
