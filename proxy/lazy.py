"""Import at the moment of need: the one place where an import depends on what happens.

What most processes never use costs none of them memory or start-up time: the commands that were not typed, and aiohttp,
which serves the rare requests (`ingress.lean`) and takes 11 MB and a fifth of the start. Everywhere else imports stand
at the head of a file.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def function(target: str) -> Callable[..., Any]:
    """Return the function or class that `target` names as `module:name`, importing its module now."""
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
