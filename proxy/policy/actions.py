"""The action for a finding: allow, flag, redact or block, by its rule, its category and its severity.

    layers    the project's  >  the configuration's  >  the defaults     the first with an entry wins
    selectors `github-token`  >  `secret.high`  >  `secret`              within a layer the most specific wins

So a project that sets `secret: flag` flags every secret, even if a layer below has a more specific entry. With masking
disabled, findings to be redacted are only flagged; blocked ones stay blocked.

Defaults: a prompt with a secret or personal data of high severity is blocked, a probable secret is masked. Answers are
masked rather than blocked. Keywords and commands are harmless until somebody runs them, so they are flagged.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Final

from proxy.nouns.findings import Action, Direction, Finding, in_steps

_KIND: Final[Callable[[Finding], tuple[str, str, str]]] = itemgetter(slice(3))
"""Rule, category and severity of a finding."""
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
        kind = finding[:3]
        action = self._known.get(kind)
        if action is None:
            action = self._known[kind] = self._decided(*kind)
        return action

    def of_all(self, found: Sequence[Finding]) -> list[Action]:
        """Return the action for each of many findings, at a third of the cost of one call each."""
        actions: list[Action] = []
        for part in in_steps(len(found)):
            kinds = [*map(_KIND, found[part])]
            for kind in set(kinds) - self._known.keys():
                self._known[kind] = self._decided(*kind)
            actions += map(self._known.__getitem__, kinds)
        return actions

    def _decided(self, rule_id: str, category: str, severity: str) -> Action:
        for layer in self._layers:
            for selector in (rule_id, f"{category}.{severity}", category):
                if selector in layer:
                    action = layer[selector]
                    return "flag" if action == "redact" and not self._redacts else action
        return "flag"
