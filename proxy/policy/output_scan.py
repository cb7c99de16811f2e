"""Phase 7, scanOutput: the policy for one answer. Relays drive it through `proxy.nouns.scanners.OutputScanner`.

A complete text and one that arrived in pieces get the same result: the same rules find, the same actions decide and
the same masks are applied.

Failure mode: a fault while a text is scanned is told to `fault`, as in `guarded_channel`, which also says what follows.
"""

from collections.abc import Sequence
from typing import Final, Literal

from proxy.config.policy import Policy as Settings
from proxy.nouns.findings import Finding, Sighting, Unscanned, Verdict
from proxy.nouns.scanners import ChannelScanner, ScannedText, TextKind
from proxy.policy import mask
from proxy.policy.detect import LARGE, encode
from proxy.policy.guarded_channel import Fault, GuardedChannel
from proxy.policy.patience import USUAL_S, Patience
from proxy.policy.policy import Policy
from proxy.policy.stream_json import JsonScanner

_PART: Final = 1 << 16
"""Documents in texts are read part by part, so that not all pieces are in memory at once."""
_new: Final = tuple.__new__
"""Creates a named tuple in half the time of its constructor (callgrind)."""


class OutputScan:
    """One answer. Findings are added to `verdict`."""

    def __init__(self, policy: Policy, verdict: Verdict, settings: Settings, fault: Fault) -> None:
        self._policy = policy
        self._fault = fault
        self._verdict = verdict
        self.unscannable = settings.unscannable
        self.hold_s = settings.hold_s
        self.hold_bytes = settings.hold_bytes
        self.max_channels = settings.max_channels
        self.edits = bool(policy.output_plan.held.watches)
        verdict.saw("output", 0)
        self._seen = verdict.scanned_characters

    def saw(self, characters: int) -> None:
        """Record how much text was scanned."""
        self._seen["output"] += characters

    def channel(self, kind: TextKind = "text") -> ChannelScanner:
        """Return the scanner of a new channel."""
        plan = self._policy.output_plan
        return GuardedChannel(JsonScanner(plan) if kind == "json" else plan.scanner(), self._fault)

    def is_clean(self, texts: Sequence[str]) -> bool:
        """Tell whether complete plain texts have no finding; False if that takes long, or fails, as `whole` will."""
        try:
            data = encode("\n".join(texts))
            return len(data) < LARGE and not self._policy.detector.suspects(data, Patience(USUAL_S))
        except Exception:  # TooSlow, too
            return False

    def whole(self, text: str, kind: TextKind = "text") -> ScannedText:
        """Scan a complete text. Raises what `fault` raises."""
        try:
            return self._whole_json(text) if kind == "json" else self._whole_text(text)
        except Exception as error:
            self._fault(error)
            return ScannedText(text)

    def _whole_text(self, text: str) -> ScannedText:
        found = self._policy.detector.find(text)
        if not found:
            return _new(ScannedText, (text, (), None))
        actions = self._policy.output.of_all(found)
        hidden = [finding for finding, action in zip(found, actions, strict=True) if action == "redact"]
        blocked = next((finding for finding, action in zip(found, actions, strict=True) if action == "block"), None)
        return ScannedText(mask.redact(text, hidden) if hidden else text, found, blocked)

    def _whole_json(self, text: str) -> ScannedText:
        scanner = JsonScanner(self._policy.output_plan)
        sent: list[str] = []
        is_changed = False
        for at in range(0, len(text) or 1, _PART):
            pieces = scanner.pieces(text[at : at + _PART], final=at + _PART >= len(text))
            is_changed = is_changed or any(piece.masked for piece in pieces)
            sent.append("".join(piece.text for piece in pieces))
        return ScannedText("".join(sent) if is_changed else text, scanner.findings, scanner.blocked)

    def found(self, place: str, findings: Sequence[Finding]) -> None:
        """Record findings."""
        for finding in findings:
            self._verdict.add(Sighting(finding, self._policy.output(finding), "output", place))

    def missed(self, place: str, reason: str) -> None:
        """Record that a part could not be scanned."""
        self._verdict.miss(Unscanned("output", place, reason))

    def hurried(self, reason: Literal["time", "size"]) -> None:
        """Record that an event was sent without its undecided end."""
        self._verdict.hurry(reason)
