"""Imports on demand: the only place where an import depends on what happens at run time.

What most processes never use should cost neither memory nor start-up time: the CLI commands that are not run, and
aiohttp, which serves rare requests (`ingress.lean`) and takes 11 MB and a fifth of the start. Everywhere else, imports
are at the head of a file.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def imported(target: str) -> Callable[..., Any]:
    """Return the function or class that `target` names as `module:name`, importing its module now."""
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
