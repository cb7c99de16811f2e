"""Lists of the API, page by page: `limit` and `cursor` come in, the entries and `nextCursor` go out.

A handler asks its store for one row more than it shows: that row alone says whether another page follows, so the last
page never ends in an empty one. Cursors are the name of the last entry shown; entries that come and go between two
pages neither repeat nor hide others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from aiohttp import web

from proxy.api.bodies import json_answer
from proxy.api.names import MAX_NAME
from proxy.api.parameters import Parameter, integer, text
from proxy.api.shapes import TEXT, Schema, array, nullable, obj

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 500
PAGE: Final[Mapping[str, Parameter]] = {"limit": integer(1, MAX_LIMIT), "cursor": text(MAX_NAME)}
"""The parameters of every list."""

_Row = TypeVar("_Row")


def page(member: str, schema: Schema) -> Schema:
    """Return the schema of one page; `member` names its entries. The next page begins where `nextCursor` says."""
    return obj(**{member: array(schema), "nextCursor": nullable(TEXT)})


def page_of(
    member: str,
    rows: Sequence[_Row],
    limit: int,
    *,
    document: Callable[[_Row], Mapping[str, Any]],
    cursor: Callable[[_Row], str],
) -> web.Response:
    """Answer with the first `limit` rows. `rows`: up to `limit + 1`, in the order of the cursor."""
    has_more = len(rows) > limit
    return json_answer(
        {
            member: [document(row) for row in rows[:limit]],
            "nextCursor": cursor(rows[limit - 1]) if has_more else None,
        }
    )
