"""A verdict in its trace: where something was found, by which rule, and the action; never the text."""

from typing import Any

from proxy.nouns.findings import Sighting, Verdict
from proxy.trace.values import TEXT, bounded


def policy_of(verdict: Verdict | None) -> dict[str, Any] | None:
    """Return what the policy did in one exchange, `None` if the exchange ended before the policy ran."""
    if verdict is None:
        return None
    document: dict[str, Any] = {"version": verdict.version, "scanned": dict(verdict.scanned_characters)}
    if verdict.sightings:
        document["findings"] = [_finding(sighting) for sighting in verdict.sightings]
    if verdict.counts and (more := sum(verdict.counts.values()) - len(verdict.sightings)) > 0:
        document["moreFindings"] = more
    if verdict.unscanned:
        document["unscanned"] = [
            {"direction": part.direction, "place": bounded(part.place, TEXT), "reason": part.reason}
            for part in verdict.unscanned
        ]
    if verdict.missed and (more := sum(verdict.missed.values()) - len(verdict.unscanned)) > 0:
        document["moreUnscanned"] = more
    if verdict.faults:
        document["faults"] = verdict.faults
    return document


def _finding(sighting: Sighting) -> dict[str, Any]:
    finding = sighting.finding
    return {
        "rule": finding.rule_id,
        "category": finding.category,
        "severity": finding.severity,
        "action": sighting.action,
        "direction": sighting.direction,
        "place": bounded(sighting.place, TEXT),
        "start": finding.start,
        "end": finding.end,
    }
