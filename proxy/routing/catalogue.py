"""The models and providers to choose from, compiled once from the configuration.

Rule of the file: facts of the configuration only. Permissions and prices are up to `plan`, current availability to
`health`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.config.layers import Layers
from proxy.config.routing import LAYERS, Layer
from proxy.config.upstreams import ANY, UpstreamEntry

AUTO: Final = "auto"
_VIRTUAL: Final[dict[str, Layer | None]] = {AUTO: None, **{layer: layer for layer in LAYERS}}
_MOST_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Offer:
    """One model at one provider."""

    upstream: str
    model: str
    own_name: str
    layer: Layer | None = None
    weight: int | None = None
    capabilities: frozenset[str] = frozenset()
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """The offers of one layer in order of preference. `weight`: the sum of those in the first place; 0: none."""

    offers: tuple[Offer, ...]
    weight: int


class Catalogue:
    """Layers and providers as one table. Immutable except for a bounded cache of look-ups."""

    def __init__(self, upstreams: Sequence[UpstreamEntry], layers: Layers) -> None:
        self._upstreams = {upstream.name: upstream for upstream in upstreams}
        self.default = upstreams[0].name
        self.is_single = len(upstreams) == 1 and not upstreams[0].models
        """True if one provider serves every model, so that requests pass unchanged."""
        self._layers = {layer: tuple(self._offers(layers, layer)) for layer in LAYERS}
        self._layers_of: dict[str, list[Layer]] = {}
        for layer, offers in self._layers.items():
            for offer in offers:
                self._layers_of.setdefault(offer.model, []).append(layer)
        self._hosts: dict[str, tuple[Offer, ...]] = {}
        tiers = [Tier(offers, sum(offer.weight or 0 for offer in offers)) for offers in self._layers.values()]
        self._orders = {
            (start, highest): tuple(tiers[rank] for rank in _way(first, last))
            for last, highest in enumerate(LAYERS)
            for first, start in enumerate(LAYERS)
        }

    def layer(self, layer: Layer) -> tuple[Offer, ...]:
        """Return the offers of a layer in order of preference."""
        return self._layers[layer]

    def layered_models(self) -> Sequence[str]:
        """Return the models that belong to layers."""
        return [*self._layers_of]

    def search_order(self, start: Layer, highest: Layer) -> tuple[Tier, ...]:
        """Return all layers as searched: `start` up to `highest`, then downwards, then those above `highest`."""
        return self._orders[start, highest]

    def virtual(self, model: str | None) -> tuple[bool, Layer | None]:
        """Tell whether a model name leaves the choice to us, and which layer it names."""
        if model is None or model not in _VIRTUAL or any(model in host.models for host in self._upstreams.values()):
            return False, None
        return True, _VIRTUAL[model]

    def layers_of(self, model: str) -> Sequence[Layer]:
        """Return the layers that contain a model, lowest first."""
        return self._layers_of.get(model, ())

    def hosts(self, model: str) -> tuple[Offer, ...]:
        """Return the providers of a model: those that list it, else those without a list, which serve every model."""
        found = self._hosts.get(model)
        if found is None:
            if len(self._hosts) >= _MOST_REMEMBERED:
                self._hosts.clear()
            layer = next(iter(self.layers_of(model)), None)
            owners = [(host, own) for host in self._upstreams.values() if (own := host.own_name(model)) is not None]
            named = [pair for pair in owners if pair[0].models] or owners
            found = tuple(Offer(host.name, model, own, layer) for host, own in named)
            self._hosts[model] = found
        return found

    def virtual_names(self, highest: Layer) -> list[str]:
        """Return the model names that leave the choice to us, up to a layer, where there is a choice."""
        layers = [layer for layer in LAYERS if self._layers[layer] and LAYERS.index(layer) <= LAYERS.index(highest)]
        return [AUTO, *layers] if layers else []

    def named_models(self, highest: Layer) -> list[tuple[str, str]]:
        """Return (model, provider) of the configured models, except those that are only in higher layers."""
        named = {model: name for name, host in self._upstreams.items() for model in host.models if ANY not in model}
        for offers in self._layers.values():
            for offer in offers:
                named.setdefault(offer.model, offer.upstream)
        allowed = LAYERS[: LAYERS.index(highest) + 1]
        return sorted(pair for pair in named.items() if (self._layers_of.get(pair[0]) or allowed)[0] in allowed)

    def _offers(self, layers: Layers, layer: Layer) -> Sequence[Offer]:
        offers = []
        for entry in layers.of(layer):
            host = self._upstreams[entry.upstream or self.default]
            offers.append(
                Offer(
                    host.name,
                    entry.model,
                    host.own_name(entry.model) or entry.model,
                    layer,
                    entry.weight,
                    frozenset(entry.capabilities),
                    entry.context_tokens,
                )
            )
        return offers


def _way(first: int, last: int) -> Sequence[int]:
    return [*range(first, last + 1), *range(first - 1, -1, -1), *range(last + 1, len(LAYERS))]
