"""The environment and the command line's flags as layers over the file.

The names of the outside contract are a table; beside them every key can be set as `SIDEGATE__SECTION__KEY`. No other
name that begins with `SIDEGATE_` is accepted, and a near miss of one of the names without prefix is refused too: a
sidecar that silently ran with the wrong database or without its key would be worse than one that does not start.

What is deliberately let through:
- an empty value means "not set";
- variables that Kubernetes makes for Services called sidegate or sidegate-something (`SIDEGATE_SERVICE_HOST`,
  `SIDEGATE_PORT=tcp://...`), also where that looks like one of ours;
- a near miss while the right name is in the environment too, even empty: then the other one belongs to another program;
- other names that begin with `OTEL_`: they are set for whole platforms.

Source: Kubernetes documentation, "Accessing the Service: Environment Variables".
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

from proxy.config.guesses import meant_by
from proxy.config.keys import KEYS, SECTIONS, Key
from proxy.config.names import closeness, did_you_mean, distance, nearest, shown
from proxy.config.problems import KeyPath, Layer, Origin, Setting
from proxy.config.source import read_mapping, scalar

CONFIG_VARIABLE: Final = "SIDEGATE_CONFIG"
"""Names the configuration file; a path and not a key."""

VARIABLES: Final[Mapping[str, KeyPath]] = MappingProxyType(
    {
        "SIDEGATE_LISTEN": ("server", "listen"),
        "SIDEGATE_OPS_LISTEN": ("server", "ops_listen"),
        "SIDEGATE_DATA_DIR": ("data_dir",),
        "SIDEGATE_ADMIN_KEY": ("admin_key",),
        "DATABASE_URL": ("database", "url"),
        "UPSTREAM_BASE_URL": ("upstream", "base_url"),
        "OPENAI_API_KEY": ("upstream", "api_key"),
        "ENABLE_REQUEST_TRACING": ("tracing", "enabled"),
        "DEFAULT_QUOTA_TOKENS_DAILY": ("quota", "default_tokens_daily"),
        "DEFAULT_QUOTA_COST_DAILY": ("quota", "default_cost_daily"),
        "ENABLE_PROMPT_SCANNING": ("policy", "scan_prompts"),
        "ENABLE_OUTPUT_SCANNING": ("policy", "scan_outputs"),
        "REDACT_SECRETS": ("policy", "redact_secrets"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": ("otel", "endpoint"),
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("otel", "traces_endpoint"),
        "OTEL_EXPORTER_OTLP_HEADERS": ("otel", "headers"),
        "OTEL_EXPORTER_OTLP_COMPRESSION": ("otel", "compression"),
        "OTEL_EXPORTER_OTLP_CERTIFICATE": ("otel", "ca_file"),
        "OTEL_SERVICE_NAME": ("otel", "service_name"),
        "OTEL_RESOURCE_ATTRIBUTES": ("otel", "resource_attributes"),
        "OTEL_TRACES_SAMPLER": ("otel", "sampler"),
        "OTEL_TRACES_SAMPLER_ARG": ("otel", "sampler_arg"),
    }
)
_PAIRS: Final = frozenset({"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES"})
"""Written `key=value,key=value`, values percent-encoded, as the specification of OpenTelemetry has it."""
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
_SPOKEN: Final = "http/protobuf"
FLAGS: Final[Mapping[str, KeyPath]] = MappingProxyType(
    {
        "--listen": ("server", "listen"),
        "--ops-listen": ("server", "ops_listen"),
        "--data-dir": ("data_dir",),
        "--reuse-port": ("server", "reuse_port"),
    }
)

_PREFIX: Final = "SIDEGATE_"
_LONG_PREFIX: Final = "SIDEGATE__"
_LONG_NAMES: Final[Mapping[str, KeyPath]] = MappingProxyType(
    {_LONG_PREFIX + "__".join(path).upper(): path for path in KEYS}
)
_LONG_SECTIONS: Final = frozenset(_LONG_PREFIX + "__".join(path).upper() for path in SECTIONS if path)
_SHORT_NAMES: Final[Mapping[KeyPath, str]] = MappingProxyType({path: name for name, path in VARIABLES.items()})
_BARE_NAMES: Final = tuple(name for name in VARIABLES if not name.startswith((_PREFIX, "OTEL_")))
_OWN_NAMES: Final = (CONFIG_VARIABLE, *(name for name in VARIABLES if name.startswith(_PREFIX)))
_NEAR_MISS: Final = 2
_DEEPEST: Final = max(map(len, KEYS))
_EXTENDED: Final = re.compile(r"[_0-9].*|S")
_SERVICE_LINK: Final = re.compile(r"SIDEGATE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_PORT: Final = re.compile(r"SIDEGATE_(\w+_)?PORT")
_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://\S+", re.IGNORECASE)
_WORDS: Final[Mapping[str, bool]] = MappingProxyType(
    {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
)


def read_environment(environ: Mapping[str, str]) -> Layer:
    """Read what the environment sets. Of two names for one key the short one of the contract wins."""
    layer = Layer()
    for name in sorted(environ):
        if (name in _LONG_NAMES or name in VARIABLES) and not environ[name].strip():
            continue
        if name in _LONG_NAMES:
            read_key(environ[name], KEYS[_LONG_NAMES[name]], Origin("environment", name), layer)
        elif name not in VARIABLES:
            _check_stranger(name, environ, layer)
    for name, path in VARIABLES.items():
        if environ.get(name, "").strip():
            _read_short(environ[name], path, Origin("environment", name), layer)
    return layer


def read_flags(overrides: Mapping[str, str]) -> Layer:
    """Read the command line's flags: name with its dashes, and text."""
    layer = Layer()
    for flag, text in overrides.items():
        _read_short(text, FLAGS[flag], Origin("flag", flag), layer)
    return layer


def read_key(text: str, key: Key, origin: Origin, layer: Layer) -> None:
    """Read one key from text: words as they stand, numbers and mappings as YAML or JSON."""
    text = text.strip()
    value: Any = text
    match key.kind:
        case "mapping" | "list":
            read_mapping(text, key, origin, layer)
            return
        case "flag":
            value = _WORDS.get(text.lower())
            if value is None:
                layer.complain(origin, (), f"must be one of {', '.join(_WORDS)}{did_you_mean(nearest(text, _WORDS))}")
                return
        case "integer" | "number":
            value = scalar(text)
        case _:
            pass
    layer.settings[key.path] = Setting(value, origin)


def _read_short(text: str, path: KeyPath, origin: Origin, layer: Layer) -> None:
    if origin.name in _PAIRS:
        _read_pairs(text, path, origin, layer)
        return
    if path in KEYS:
        read_key(text, KEYS[path], origin, layer)
        return
    try:
        host, port = split_address(text.strip())
    except ValueError as error:
        layer.complain(origin, (), str(error))
        return
    layer.settings[(*path, "host")] = Setting(host, origin)
    layer.settings[(*path, "port")] = Setting(port, origin)


def _read_pairs(text: str, path: KeyPath, origin: Origin, layer: Layer) -> None:
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if any(not name.strip() or not equals for name, equals, _ in pairs):
        layer.complain(origin, (), "must be key=value, several of them with commas between")
        return
    layer.settings[path] = Setting({name.strip(): unquote(value.strip()) for name, _, value in pairs}, origin)


def split_address(text: str) -> tuple[str, int]:
    """Split `host:port`; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is no such thing; the message does not quote it.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or ("[" in host or "]" in host) or (":" in host) != bracketed:
        raise ValueError("must be host:port, for example 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535):
        raise ValueError("the port must be a number from 0 to 65535")
    return host, int(port)


def _check_stranger(name: str, environ: Mapping[str, str], layer: Layer) -> None:
    origin = Origin("environment", shown(name))
    if name in _PROTOCOLS and environ[name].strip() not in ("", _SPOKEN) and _names_collector(environ):
        layer.complain(origin, (), f"only {_SPOKEN} is spoken here; a collector takes it on port 4318")
    if name.upper().startswith(_PREFIX):
        if name != CONFIG_VARIABLE and not _is_service_link(name, environ[name]):
            layer.complain(origin, (), _unknown(name))
        return
    for right in _near_misses(name):
        if right not in environ:
            layer.complain(
                origin,
                (),
                f"is not read; did you mean {right}? If it is another program's, set {right} too, even empty",
            )


def _names_collector(environ: Mapping[str, str]) -> bool:
    return any(environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip() for name in ("ENDPOINT", "TRACES_ENDPOINT"))


def _unknown(name: str) -> str:
    if name in _LONG_SECTIONS:
        example = next(key for key in _LONG_NAMES if key.startswith(f"{name}__"))
        short = _SHORT_NAMES.get(_words(name))
        return f"is a section; set one of its keys, for example {example}{f', or {short}' if short else ''}"
    if (bare := name[len(_PREFIX) :].upper()) in _BARE_NAMES:
        return f"unknown setting{did_you_mean(bare)}"
    slip = nearest(name, (*_OWN_NAMES, *_LONG_NAMES))
    if slip is not None and closeness(name, slip, _NEAR_MISS) is not None:
        return f"unknown setting{did_you_mean(slip)}"
    guesses = next(filter(None, map(meant_by, _spellings(name))), [])
    return f"unknown setting{did_you_mean(' or '.join(map(_name_of, guesses)))}"


def _words(name: str) -> KeyPath:
    """Return the path that a name spells, whether it exists or not."""
    return tuple(name[len(_PREFIX) :].lower().lstrip("_").split("__"))


def _spellings(name: str) -> Iterator[KeyPath]:
    """Yield the paths that a name may stand for: as it is spelt, then with one underscore between section and key."""
    words = _words(name)
    if words[0] and len(words) <= _DEEPEST:
        yield words
    if len(words) == 1:
        parts = words[0].split("_")
        yield from (("_".join(parts[:at]), "_".join(parts[at:])) for at in range(1, len(parts)))


def _name_of(path: KeyPath) -> str:
    """Return the variable that sets a key, or those that set the keys of a section."""
    long = _LONG_PREFIX + "__".join(path).upper()
    return long if path in KEYS else _SHORT_NAMES.get(path, f"{long}__...")


def _is_service_link(name: str, value: str) -> bool:
    if _SERVICE_LINK.fullmatch(name):
        return True
    return _SERVICE_PORT.fullmatch(name) is not None and _SERVICE_URL.fullmatch(value.strip()) is not None


def _near_misses(name: str) -> Iterator[str]:
    """Yield the bare name that `name` misses by a slip of the keyboard; not one that it merely extends."""
    for right in _BARE_NAMES:
        if distance(name.upper(), right, _NEAR_MISS) > _NEAR_MISS:
            continue
        extended = name.startswith(right) and _EXTENDED.fullmatch(name[len(right) :])
        if not extended and not name.endswith(f"_{right}"):
            yield right
