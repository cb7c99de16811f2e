"""The files that keys of the configuration name, and that are read again when they change.

Rule of the file: whoever adds a key that names such a file adds it here, or a change of it goes unseen.
"""

from collections.abc import Mapping
from pathlib import Path

from proxy.config.schema import Config


def named_files(config: Config) -> Mapping[str, Path]:
    """Return the files by the names of their keys."""
    named = {
        "prices.file": config.prices.file,
        "routing.layers_file": config.routing.layers_file,
        "policy.rules_file": config.policy.rules_file,
        "client.ca_file": config.client.ca_file,
        "otel.ca_file": config.otel.ca_file,
    }
    return {key: Path(name) for key, name in named.items() if name}
