"""The action for a finding: allow, flag, redact or block, by its rule, its category and its severity.

    layers    the project's  >  the configuration's  >  the defaults     the first with an entry wins
    selectors `github-token`  >  `secret.high`  >  `secret`              within a layer the most specific wins

So a project that sets `secret: flag` flags every secret, even if a layer below has a more specific entry. With masking
disabled, findings to be redacted are only flagged; blocked ones stay blocked.

Defaults: a prompt with a secret or personal data of high severity is blocked, a probable secret is masked. Answers are
masked rather than blocked. Keywords and commands are harmless until somebody runs them, so they are flagged.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from proxy.findings import Action, Direction, Finding

Table = Mapping[str, Action]

DEFAULTS: Final[Mapping[Direction, Table]] = {
    "prompt": {"secret.high": "block", "pii.high": "block", "secret.medium": "redact"},
    "output": {"secret.high": "redact", "pii.high": "redact", "secret.medium": "redact"},
}
"""Anything without an entry is flagged."""


class Actions:
    """The actions for one direction. Immutable, so any thread may use it."""

    def __init__(self, layers: Sequence[Table], *, redacts: bool) -> None:
        self._layers = tuple(dict(layer) for layer in layers if layer)
        self._redacts = redacts
        self._known: dict[tuple[str, str, str], Action] = {}

    def __call__(self, finding: Finding) -> Action:
        """Return the action. Depends only on rule, category and severity."""
        key = (finding.rule_id, finding.category, finding.severity)
        action = self._known.get(key)
        if action is None:
            action = self._known[key] = self._decided(*key)
        return action

    def _decided(self, rule_id: str, category: str, severity: str) -> Action:
        for layer in self._layers:
            for selector in (rule_id, f"{category}.{severity}", category):
                if selector in layer:
                    action = layer[selector]
                    return "flag" if action == "redact" and not self._redacts else action
        return "flag"
