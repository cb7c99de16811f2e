"""Settings that are legal but probably not intended: warnings of `sidegate config check`, never a reason to refuse.

Rule of the file: each piece of advice is one function that reads the finished configuration and names a key;
nothing of a secret is examined except its length.
"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from proxy.config.problems import KeyPath, Origin, Problem
from proxy.config.schema import Config

_SHORT_KEY: Final = 16
Advice = tuple[KeyPath, str]


def advise(config: Config, origins: Mapping[KeyPath, Origin]) -> Iterator[Problem]:
    """Yield every piece of advice, at the place where its key was set."""
    for advice in (_exposure, _plain_text, _two_forms, _weak_key, _same_port, _unreachable_limits, _missing_files):
        for path, text in advice(config):
            yield Problem(origins[path], ".".join(path), text)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine (in a pod: only its containers) can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _exposure(config: Config) -> Iterator[Advice]:
    if not is_loopback(config.server.listen.host):
        yield (
            ("server", "listen", "host"),
            "is not a loopback address: everybody who can reach it may use the provider's key",
        )


def _plain_text(config: Config) -> Iterator[Advice]:
    for upstream in config.providers:
        url = urlsplit(upstream.base_url)
        has_key = any(credential.api_key is not None for credential in upstream.keys)
        if url.scheme == "http" and has_key and not is_loopback(url.hostname or ""):
            where = ("upstreams",) if config.upstreams else ("upstream", "base_url")
            name = f"{upstream.name} " if config.upstreams else ""
            yield where, f"{name}is http: prompts and the provider's key cross the network in clear text"


def _two_forms(config: Config) -> Iterator[Advice]:
    if config.upstreams and config.upstream.api_key is not None:
        yield ("upstreams",), "takes the place of upstream: upstream.api_key (OPENAI_API_KEY) is not used"


def _weak_key(config: Config) -> Iterator[Advice]:
    if config.admin_key and len(config.admin_key.get_secret_value()) < _SHORT_KEY:
        yield ("admin_key",), f"is shorter than {_SHORT_KEY} characters and can be guessed"


def _same_port(config: Config) -> Iterator[Advice]:
    data, ops = config.server.listen, config.server.ops_listen
    if data.port and data.port == ops.port and data.host == ops.host:
        yield ("server", "ops_listen", "port"), "is the same address as server.listen; only one can be bound"


def _unreachable_limits(config: Config) -> Iterator[Advice]:
    if config.limits.buffered_bytes < config.limits.json_body_bytes:
        yield ("limits", "buffered_bytes"), "is below json_body_bytes: a body of the largest size never fits"
    if config.journal.max_bytes < 2 * config.journal.segment_bytes:
        yield ("journal", "max_bytes"), "holds less than two segments: space is only given back segment by segment"
    if config.timeouts.total_s < config.timeouts.first_byte_s:
        yield ("timeouts", "total_s"), "is below first_byte_s, which therefore never takes effect"


def _missing_files(config: Config) -> Iterator[Advice]:
    files: tuple[tuple[KeyPath, str | None], ...] = (
        (("prices", "file"), config.prices.file),
        (("client", "ca_file"), config.client.ca_file),
        (("otel", "ca_file"), config.otel.ca_file),
        (("policy", "rules_file"), config.policy.rules_file),
    )
    for path, name in files:
        if name and not Path(name).is_file():
            there = Path(name).exists()
            yield path, "is not a regular file" if there else "names a file that does not exist on this machine"
