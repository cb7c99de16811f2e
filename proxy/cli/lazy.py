"""Import at the moment of need: the one place where an import depends on what was typed.

`sidegate config check` runs in deployment pipelines and in editors; it must not pay for a server, a database driver and
an event loop that it never uses. Everywhere else imports stand at the head of a file.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def function(target: str) -> Callable[..., Any]:
    """Return the function that `target` names as `module:name`, importing its module now."""
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
