"""Which credential of which provider can be used: a breaker for each, and what the provider said about it.

    closed, open, half_open    its breaker (`breaker`)
    cooling                    answered 429: not used for as long as it asked, as a whole or for one model, depending on
                               the provider's limit
    refused                    answered 401, 402 or 403: for `refused_s` used only if nothing else is available

The state of a credential survives a change of the configuration. It belongs to the key at its address, so another key
starts afresh.

Among available credentials, those with the fewest running requests relative to their weight come first, and equals take
turns by weight. A `Permit` is one attempt's hold on its credential, released exactly once.

Source: nginx, smooth weighted round-robin.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from pydantic import SecretStr

from proxy.config.routing import Breaker as Settings
from proxy.config.upstreams import UpstreamEntry
from proxy.routing.breaker import Breaker

Outcome = Literal["success", "failure", "half_failure", "cooling", "refused", "nothing"]
Place = tuple[str, int]
"""An upstream's name and the index of its credential."""
_MOST_MODELS: Final = 64
_Key = tuple[str, str, SecretStr | None]
"""An upstream's name and address, and the key in use there."""


@dataclass(slots=True, eq=False)
class _Credential:
    place: Place
    key: _Key
    weight: int
    breaker: Breaker
    under_way: int = 0
    turn: int = 0
    cooling_until: float = 0.0
    refused_until: float = 0.0
    models: dict[str | None, float] = field(default_factory=dict)
    """Until when single models are not used; at most `_MOST_MODELS`."""
    counts: dict[str, int] = field(default_factory=dict)

    def state(self, now: float) -> str:
        if now < self.refused_until:
            return "refused"
        return "cooling" if now < self.cooling_until else self.breaker.state(now)

    def is_eligible(self, model: str | None, now: float) -> bool:
        if self.models and now < self.models.get(model, 0.0):
            return False
        return now >= self.refused_until and now >= self.cooling_until and self.breaker.is_eligible(now)

    def eligible_at(self, model: str | None = None) -> float:
        return max(self.refused_until, self.cooling_until, self.breaker.eligible_at, self.models.get(model, 0.0))

    def cool(self, model: str | None, now: float, until: float) -> None:
        """Do not use one model for a while. Expired entries are removed."""
        self.models = {name: at for name, at in self.models.items() if at > now}
        if model in self.models or len(self.models) < _MOST_MODELS:
            self.models[model] = max(until, self.models.get(model, 0.0))
        else:
            self.cooling_until = max(self.cooling_until, until)


class Permit:
    """One attempt at one credential. `is_probe`: a half-open breaker waits for its outcome."""

    __slots__ = ("_credential", "_model", "_settings", "_waits", "is_probe", "place")

    def __init__(self, credential: _Credential, model: str | None, settings: Settings, *, is_probe: bool) -> None:
        self.place = credential.place
        self._model = model
        self.is_probe = is_probe
        self._credential: _Credential | None = credential
        self._settings = settings
        self._waits = is_probe

    def judge(self, outcome: Outcome, now: float, wait_s: float = 0.0, *, of_model: bool = False) -> None:
        """Record the outcome of the attempt. `of_model`: it concerns only the attempt's model."""
        credential = self._credential
        if credential is None:
            return
        credential.counts[outcome] = credential.counts.get(outcome, 0) + 1
        if outcome == "success":
            credential.refused_until = 0.0
            credential.breaker.succeed(now, is_probe=self._waits)
        elif outcome in ("failure", "half_failure"):
            credential.breaker.fail(now, 1.0 if outcome == "failure" else 0.5, is_probe=self._waits)
        else:
            self._abandon(credential)
            if outcome == "cooling" and of_model:
                credential.cool(self._model, now, now + wait_s)
            elif outcome == "cooling":
                credential.cooling_until = max(credential.cooling_until, now + wait_s)
            elif outcome == "refused":
                credential.refused_until = now + self._settings.refused_s
        self._waits = False

    def release(self) -> None:
        """End the attempt. Idempotent."""
        credential, self._credential = self._credential, None
        if credential is not None:
            credential.under_way -= 1
            self._abandon(credential)

    def _abandon(self, credential: _Credential) -> None:
        if self._waits:
            self._waits = False
            credential.breaker.abandon()


class Health:
    """Every credential of every provider. `before`: the previous state; its attempts go on and are counted here."""

    def __init__(
        self,
        upstreams: Sequence[UpstreamEntry],
        settings: Settings,
        draw: Callable[[], float],
        before: "Health | None" = None,
    ) -> None:
        self._settings = settings
        known = {} if before is None else {one.key: one for row in before._of.values() for one in row}
        self._of: dict[str, list[_Credential]] = {}
        for upstream in upstreams:
            row = self._of[upstream.name] = []
            for number, listed in enumerate(upstream.keys):
                place, key = (upstream.name, number), (upstream.name, upstream.base_url, listed.api_key)
                one = known.get(key) or _Credential(place, key, listed.weight, Breaker(settings, draw))
                if one.place != place:
                    one = replace(one, place=place, under_way=0)
                one.weight, one.breaker.settings = listed.weight, settings
                row.append(one)

    def credentials(self, upstream: str) -> int:
        """Return the number of a provider's credentials."""
        return len(self._of[upstream])

    def retake(self, place: Place, now: float, model: str | None = None) -> Permit | None:
        """Begin another attempt at the same place, even while it is cooling; `None` while the breaker is open."""
        one = self._of[place[0]][place[1]]
        return self._permit(one, model, now) if one.breaker.is_eligible(now) else None

    def take_refused(
        self, upstream: str, tried: Collection[Place], now: float, model: str | None = None
    ) -> Permit | None:
        """Begin an attempt with a credential that was refused before: the client gets the provider's response."""
        left = (one for one in self._of[upstream] if one.place not in tried and one.breaker.is_eligible(now))
        one = next((one for one in left if one.state(now) == "refused"), None)
        return None if one is None else self._permit(one, model, now)

    def take(self, upstream: str, tried: Collection[Place], now: float, model: str | None = None) -> Permit | None:
        """Begin an attempt with the credential whose turn it is; `None` if there is none. `model`: to be requested."""
        usable = [one for one in self._of[upstream] if one.place not in tried and one.is_eligible(model, now)]
        if not usable:
            return None
        least = min(one.under_way / one.weight for one in usable)
        idlest = [one for one in usable if one.under_way / one.weight <= least]
        for one in idlest:
            one.turn += one.weight
        chosen = max(idlest, key=lambda one: one.turn)
        chosen.turn -= sum(one.weight for one in idlest)
        return self._permit(chosen, model, now)

    def _permit(self, credential: _Credential, model: str | None, now: float) -> Permit:
        credential.under_way += 1
        return Permit(credential, model, self._settings, is_probe=credential.breaker.begin(now))

    def eligible_in_s(self, wanted: Collection[tuple[str, str | None]], now: float) -> float:
        """Return the seconds until one of the wanted (upstream, model) pairs can be called again."""
        return max(min(one.eligible_at(model) for name, model in wanted for one in self._of[name]) - now, 0.0)

    def describe(self, now: float) -> Iterator[dict[str, Any]]:
        """Yield the state of each credential; never the credential itself."""
        for upstream, credentials in self._of.items():
            for one in credentials:
                state = one.state(now)
                yield {
                    "upstream": upstream,
                    "credential": one.place[1],
                    "weight": one.weight,
                    "state": state,
                    "inFlight": one.under_way,
                    "eligibleInSeconds": 0.0 if state in ("closed", "half_open") else round(one.eligible_at() - now, 3),
                    "coolingModels": {
                        name or "": round(until - now, 3) for name, until in one.models.items() if until > now
                    },
                    "outcomes": dict(one.counts),
                }
