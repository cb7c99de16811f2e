"""The files that keys of the configuration name, and that are reloaded when they change.

Rule of the file: add every key that names such a file here, or changes of it are not noticed.
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
