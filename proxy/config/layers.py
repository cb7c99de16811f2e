"""The layers file: which models L0 (cheapest) to L3 (premium) have, in order of preference.

    L0:
      - {model: gpt-5-nano, capabilities: [tools, vision, json_schema], context_tokens: 400000}
      - {upstream: local, model: llama3.2, weight: 3}

Rule of the file: a model is requested under the name that clients use; its provider's own name is configured with the
provider (`upstreams[].models`), its price in the price table. A file with any mistake is refused, reporting all of
them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationError

from proxy import resources
from proxy.config.files import read_regular
from proxy.config.routing import LAYERS, Layer
from proxy.config.units import Count, Section
from proxy.config.upstreams import UpstreamEntry, Weight

Capability = Literal["tools", "vision", "json_schema", "code", "reasoning"]
CAPABILITIES: Final[tuple[Capability, ...]] = ("tools", "vision", "json_schema", "code", "reasoning")
_MOST_BYTES: Final = 1_048_576


class LayersError(ValueError):
    """Unusable layers; the text lists every mistake, one per line."""


class LayerEntry(Section):
    """One model of a layer."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    upstream: str | None = Field(None, description="Name of its provider; without it the default one.")
    weight: Weight | None = Field(
        None, description="Entries with weights share the first place in these proportions; the others follow in order."
    )
    capabilities: tuple[Capability, ...] = Field((), description="What requests may need that it has.")
    context_tokens: Count | None = Field(None, description="Input and output together; without it there is no limit.")


class Layers(Section):
    """All layers. An empty one is skipped."""

    L0: tuple[LayerEntry, ...] = ()
    L1: tuple[LayerEntry, ...] = ()
    L2: tuple[LayerEntry, ...] = ()
    L3: tuple[LayerEntry, ...] = ()

    def of(self, layer: Layer) -> tuple[LayerEntry, ...]:
        """Return the entries of a layer."""
        entries: tuple[LayerEntry, ...] = getattr(self, layer)
        return entries


def load(path: Path | None, upstreams: Sequence[UpstreamEntry]) -> Layers:
    """Read the file at `path`, else the default one.

    Raises:
        LayersError: it cannot be read, is not a layers file, or names an unknown upstream or model.
    """
    source = path or resources.ROOT / "config" / "layers.yaml"
    try:
        layers = Layers.model_validate(_read(source))
    except ValidationError as error:
        lines = [f"{source}: {_place(detail)}: {detail['msg']}" for detail in error.errors(include_input=False)]
        raise LayersError("\n".join(lines)) from None
    if mistakes := list(_strangers(layers, upstreams)):
        raise LayersError("\n".join(f"{source}: {mistake}" for mistake in mistakes))
    return layers


def _read(source: Path) -> Mapping[str, Any]:
    try:
        text = read_regular(source, _MOST_BYTES)
    except OSError as error:
        raise LayersError(f"{source}: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise LayersError(f"{source}: is larger than {_MOST_BYTES} bytes")
    try:
        document = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise LayersError(f"{source}:{mark.line + 1 if mark else 0}: is not valid YAML") from error
    if not isinstance(document, dict):
        raise LayersError(f"{source}: must map L0, L1, L2 and L3 to lists of models")
    return {str(name): entries for name, entries in document.items() if entries is not None}


def _place(detail: Any) -> str:
    return ".".join(str(part) for part in detail["loc"])


def _strangers(layers: Layers, upstreams: Sequence[UpstreamEntry]) -> Any:
    """Yield the names in the layers that the configuration does not know."""
    known = {upstream.name: upstream for upstream in upstreams}
    for layer in LAYERS:
        for number, entry in enumerate(layers.of(layer)):
            host = known.get(entry.upstream or upstreams[0].name)
            if host is None:
                yield f"{layer}.{number}.upstream: {entry.upstream!r} is not one of {', '.join(known)}"
            elif host.own_name(entry.model) is None:
                yield f"{layer}.{number}.model: {host.name} does not have {entry.model!r} among its models"
