"""Says which project was meant by an id that does not exist.

Rule of the file: only the operator is told of other projects; a key knows its own one alone.
"""

from functools import partial
from typing import Final

from proxy.api.caller import Caller, not_found
from proxy.config.names import did_you_mean, nearest, shown
from proxy.errors import InvalidRequest
from proxy.event_loop.off_loop import off_loop
from proxy.tenants.store import TenantStore

_COMPARED: Final = 1000
_MOST_SLIPS: Final = 3
"""Ids that are random mostly differ in less than a third of their letters: to look for that would take a second."""


async def missing_project(store: TenantStore, caller: Caller, asked: str, hint: str = "") -> InvalidRequest:
    """Return the 404 for a project that does not exist, with the nearest one that does. `hint`: how else to go on."""
    error = not_found("project", "projectId")
    if caller.project_id is not None:
        return error
    known = [project.id for project in await store.projects(None, None, "all", _COMPARED, None)]
    guess = await off_loop(partial(nearest, asked, known, _MOST_SLIPS))
    message = f"There is no project {shown(asked)}{did_you_mean(guess and shown(guess))}"
    return InvalidRequest(
        f"{message}{'' if guess else '.'}{hint}", status=error.http_status, code=error.code, param=error.param
    )
