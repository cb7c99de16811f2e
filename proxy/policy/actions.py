"""What is done about a finding: allow, flag, redact or block, by its rule, its category and its severity.

    layers    the project's  >  the configuration's  >  the defaults     the first that says anything wins
    selectors `github-token`  >  `secret.high`  >  `secret`              within a layer the narrowest wins

So a project that says `secret: flag` flags every secret, whatever finer thing the layers below it say. Where masking is
switched off, what would be redacted is only flagged; what is blocked stays blocked.

The defaults: a prompt with a secret or personal data of high severity is stopped before it leaves, a probable secret is
masked. An answer cannot be taken back, so it is masked rather than cut. Keywords and commands are talk until somebody
runs them: they are flagged.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from proxy.findings import Action, Direction, Finding

Table = Mapping[str, Action]

DEFAULTS: Final[Mapping[Direction, Table]] = {
    "prompt": {"secret.high": "block", "pii.high": "block", "secret.medium": "redact"},
    "output": {"secret.high": "redact", "pii.high": "redact", "secret.medium": "redact"},
}
"""What nobody says anything about is flagged."""


class Actions:
    """The decision of one direction. Immutable once built, so any thread may use it."""

    def __init__(self, layers: Sequence[Table], *, redacts: bool) -> None:
        self._layers = tuple(dict(layer) for layer in layers if layer)
        self._redacts = redacts
        self._known: dict[tuple[str, str, str], Action] = {}

    def __call__(self, finding: Finding) -> Action:
        """Return what is done. Only rule, category and severity decide."""
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
