"""One version of the configuration in use, and the part of it that can be prepared outside the event loop.

    Config --compiled (in a thread)--> Compiled --App.assembled--> Generation --Ingress.use--> every request from now on

Rule of the file: a generation is never changed. It is replaced by the next one as a whole; requests keep the generation
that they began with. What did not change is passed from one generation to the next: compiled rules and tables,
connections to providers and the state of their health.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.config import layers, named_files
from proxy.config.changes import version
from proxy.config.files import read_regular
from proxy.config.layers import Layers
from proxy.config.schema import Config
from proxy.ingress.serving import Serving
from proxy.phases.planner import Planner
from proxy.policy.ready import Policies
from proxy.routing.dispatch import Dispatcher
from proxy.routing.health import Health
from proxy.upstream import pricing
from proxy.upstream.client_pool import Clients
from proxy.upstream.pricing import PriceTable
from proxy.upstream.upstreams import Upstreams

_MOST_BYTES: Final = 16_777_216
"""Only so much of a file is compared: a bundle of all certificate authorities has a quarter of a megabyte."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The expensive results of a configuration. Needs no event loop; immutable except for bounded caches."""

    prices: PriceTable
    layers: Layers
    policies: Policies
    digests: Mapping[str, str]
    """Digests of the files that the configuration names, by key; empty for a file that cannot be read."""
    version: str
    """Identifies settings and files; equal for replicas with the same ones, whatever their secrets."""


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """Everything that was built from one version of the configuration."""

    config: Config
    compiled: Compiled
    clients: tuple[Clients, ...]
    providers: Upstreams
    health: Health
    dispatcher: Dispatcher
    planner: Planner
    serving: Serving

    @property
    def version(self) -> str:
        """The identifier of this version."""
        return self.compiled.version


def compiled(config: Config, before: Generation | None = None) -> Compiled:
    """Read and compile what the configuration names, reusing what did not change since `before`.

    Raises:
        PriceTableError, LayersError, RuleError: a file cannot be used.
    """
    digests = {key: _digest(path) for key, path in named_files.named_files(config).items()}
    old = None if before is None else before.compiled

    def is_same(section: str, file: str) -> bool:
        if before is None or getattr(before.config, section) != getattr(config, section):
            return False
        return before.compiled.digests.get(file) == digests.get(file)

    of_prices = old.prices if old is not None and is_same("prices", "prices.file") else _prices(config)
    if old is not None and is_same("policy", "policy.rules_file"):
        of_policy = old.policies
    else:
        of_policy = Policies(config.policy, old.policies.gates if old else None)
    return Compiled(of_prices, _layers(config), of_policy, digests, version(config, digests))


def _prices(config: Config) -> PriceTable:
    return pricing.load(Path(config.prices.file) if config.prices.file else None, config.prices)


def _layers(config: Config) -> Layers:
    return layers.load(Path(config.routing.layers_file) if config.routing.layers_file else None, config.providers)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_regular(path, _MOST_BYTES)).hexdigest()
    except OSError:
        return ""
