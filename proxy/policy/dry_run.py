"""The result of the policy without calling a provider, for project owners who test a rule or an action.

Failure mode: as for `scan`. Nothing is recorded or counted.
"""

from dataclasses import dataclass
from typing import Any

from proxy.config.policy import Policy as Settings
from proxy.nouns.findings import Action, Direction, Sighting, Unscanned
from proxy.policy import mask, places
from proxy.policy.policy import Policy
from proxy.policy.scan import scan


@dataclass(frozen=True, slots=True)
class DryRun:
    """The result of a dry run."""

    version: str
    action: str
    """The strongest action on any finding: block, redact or flag; `allow` without one. `block` also for a part that
    cannot be scanned, if such parts may not pass."""
    sightings: list[Sighting]
    unscanned: list[Unscanned]
    result: Any
    """The text or body as it would be sent; `None` if it is blocked."""


def dry_run(policy: Policy, document: Any, direction: Direction, settings: Settings) -> DryRun:
    """Scan a text or a request's body like one of `direction`. A text of an answer is scanned as one complete text."""
    if direction == "prompt":
        scanned = scan(policy, document, settings.nested_bytes)
        sightings, unscanned = scanned.sightings, scanned.unscanned
        result = places.changed(document, scanned.sent)
    else:
        found = policy.detector.find(document)
        sightings = [Sighting(finding, policy.output(finding), direction, "") for finding in found]
        unscanned = []
        result = mask.redact(document, [each.finding for each in sightings if each.action == "redact"])
    sightings = [each for each in sightings if each.action != "allow"]
    actions: set[Action] = {each.action for each in sightings}
    if unscanned and settings.unscannable == "deny":
        actions.add("block")
    action = next((action for action in ("block", "redact", "flag") if action in actions), "allow")
    return DryRun(policy.version, action, sightings, unscanned, None if action == "block" else result)
