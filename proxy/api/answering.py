"""Cached and conditional responses of the management API.

A cached response depends only on the path, the parameters and the project that the caller is limited to. Permissions
are checked on every request, before the cache. Any request that may change something empties it, successful or not.

An `ETag` is a hash of the body, unless the handler knows a version. `Cache-Control: no-store` stays: figures and traces
do not belong on a browser's disk, but a client that holds them in memory can still revalidate them.

Source: RFC 9110 sections 8.8.3 (ETag), 13.1.2 (If-None-Match), 15.4.5 (304).
"""

import hashlib
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web

from proxy.api.caller import Caller
from proxy.api.response_cache import CachedResponse, CacheKey, ResponseCache

IF_NONE_MATCH: Final = "If-None-Match"
_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')

LIFE: Final = web.ResponseKey("life_s", float)
"""Key of a response whose handler knows for how many seconds it is true."""
Handler = Callable[[web.BaseRequest, Mapping[str, str], Caller], Awaitable[web.Response]]


async def cached_or_made(
    cache: ResponseCache, path: str, handler: Handler, request: web.BaseRequest, caller: Caller
) -> web.Response:
    """Return the cached response to the same question with the same visibility, or let the handler make one."""
    query = request.raw_path.partition("?")[2]
    parameters = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    key = CacheKey(path, caller.project_id, tuple(sorted(parameters)))
    if (found := cache.find(key)) is not None:
        return web.Response(body=found.body, headers=found.headers)
    start = cache.begin()
    response = await handler(request, {}, caller)
    if response.status == 200 and isinstance(response.body, bytes):
        life_s = response.get(LIFE, math.inf)
        cache.keep(key, start, CachedResponse(tuple(response.headers.items()), response.body, life_s))
    return response


def is_conditional(handler: Any) -> bool:
    """Tell whether an endpoint is described as honouring `If-None-Match`."""
    return IF_NONE_MATCH in handler.description.headers


def unless_known(request: web.BaseRequest, response: web.Response) -> web.Response:
    """Return the response with its `ETag`, or 304 if the client named that tag."""
    if response.status != 200 or not isinstance(response.body, bytes):
        return response
    tag = response.headers.setdefault("ETag", f'"{hashlib.blake2b(response.body, digest_size=12).hexdigest()}"')
    known = ", ".join(request.headers.getall(IF_NONE_MATCH, ())).strip()
    if known != "*" and tag not in _TAG.findall(known):
        return response
    return web.Response(status=304, headers={"ETag": tag, "Cache-Control": response.headers["Cache-Control"]})
