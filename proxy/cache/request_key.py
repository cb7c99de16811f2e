"""When two requests are equal: everything that determines a provider's answer, as one digest.

    tenant               the project (its id is unique over all organizations); users of one project share answers
    terms                the policy's version, and how answers are checked: other rules make another key
    what is asked        operation, target with query, provider, model and the name it is sent as
    how it is asked      the client's headers that reach a provider, except those that only describe the client
    the body             as a JSON value: order of members, white space and escapes do not count; without `model`, which
                         routing has replaced, and without `stream` and `stream_options`, which only change the form

Users of a project can share an answer because the whole request must be equal: whoever gets a cached answer has sent
exactly the words that produced it. `user`, `safety_identifier` and `metadata` are part of the body, so they separate
users.

A request is not cacheable if its answer depends on more than that, or has side effects: stored completions and
responses, earlier responses and conversations, files and tools of the provider, background work. Sampling is not an
obstacle: most clients leave the temperature at its default, and `no-cache` requests another sample.

Failure mode: a body that is not plain JSON (a lone surrogate) is not cacheable. Source: RFC 9111 section 4.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import orjson

from proxy.cache.memory import Shape
from proxy.exchange import Dialect, Headers, Inbound, ParsedRequest
from proxy.nouns.candidates import Candidate
from proxy.openai import json_steps
from proxy.openai.media_bounds import is_unseen

_CACHEABLE: Final = frozenset(
    {"chat.completions.create", "completions.create", "responses.create", "embeddings.create"}
)
_OF_THE_CLIENT: Final = frozenset(
    {
        b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"api-key", b"authorization",
        b"cache-control", b"connection", b"content-encoding", b"content-length", b"content-type", b"cookie", b"dnt",
        b"expect", b"forwarded", b"host", b"idempotency-key", b"keep-alive", b"openai-organization", b"openai-project",
        b"origin", b"pragma", b"priority", b"referer", b"te", b"trailer", b"traceparent", b"tracestate",
        b"transfer-encoding", b"upgrade", b"user-agent", b"via", b"x-api-key", b"x-real-ip", b"x-request-id",
    }
)  # fmt: skip
"""Headers that do not reach a provider, or do not change its answer. All others are part of the key."""
_PREFIXES: Final = (b"x-sidegate-", b"x-stainless-", b"x-forwarded-", b"proxy-", b"sec-")
_SECOND_OPINION: Final = b"x-sidegate-cross-check"
_FORM: Final = frozenset({"model", "stream", "stream_options"})


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request as the cache sees it."""

    digest: bytes
    """32 bytes; reveals nothing of what was hashed."""
    project_id: str
    stream: bool
    wants_usage: bool
    """A stream whose client requests usage."""
    has_bare: bool
    """Streams of this operation have usage only for those who request it."""
    dialect: Dialect

    @property
    def shape(self) -> Shape:
        """The form for the client."""
        if not self.stream:
            return "whole"
        return "bare" if self.has_bare and not self.wants_usage else "events"


def key_of(
    inbound: Inbound, request: ParsedRequest, candidate: Candidate, project_id: str, terms: Sequence[str | bool]
) -> RequestKey | None:
    """Return the key of a request; `None` if its answer must not be cached. Takes some 20 us.

    A large body whose decoded form was dropped is read again: call it apart from the event loop then.

    `terms`: what the project requires of an answer: its policy's version, checks, second opinions.
    """
    if inbound.operation.name not in _CACHEABLE or request.body is None:
        return None
    asked = [
        project_id, *terms, inbound.operation.name, inbound.target,
        candidate.upstream, candidate.model, candidate.sent_as, _headers(inbound.headers),
    ]  # fmt: skip
    if request.document is not None:
        return _key(inbound, request, request.document, asked)
    document = json_steps.read_container(request.body)
    try:
        return _key(inbound, request, document, asked) if type(document) is dict else None
    finally:
        json_steps.let_go(document, request.body)


def _key(
    inbound: Inbound, request: ParsedRequest, document: Mapping[str, Any], asked: Sequence[Any]
) -> RequestKey | None:
    """Return the key of a decoded request. `asked`: what else it depends on, beginning with the project."""
    operation = inbound.operation
    if _leaves_something(operation.name, document):
        return None
    try:
        said = orjson.dumps(
            {name: value for name, value in document.items() if name not in _FORM}, option=orjson.OPT_SORT_KEYS
        )
    except TypeError:
        return None
    if is_unseen(document, said):
        return None
    digest = hashlib.blake2b(orjson.dumps(asked), digest_size=32)
    digest.update(said)
    options = document.get("stream_options")
    asks = request.stream and not request.strip_usage and type(options) is dict and bool(options.get("include_usage"))
    return RequestKey(digest.digest(), asked[0], request.stream, asks, operation.forces_stream_usage, operation.dialect)


def directives(headers: Headers) -> tuple[bool, bool]:
    """Return whether a cached answer may be used, and whether a new one may be stored, according to `Cache-Control`."""
    values = [value for name, value in headers if name.lower() == b"cache-control"]
    if not values:
        return True, True
    named = {part.strip().lower() for part in b",".join(values).split(b",")}
    if b"no-store" in named:
        return False, False
    return not named & {b"no-cache", b"max-age=0"}, True


def _leaves_something(operation: str, document: Mapping[str, Any]) -> bool:
    """Tell whether the provider stores the answer, so that each is unique, or produces it later."""
    if operation == "responses.create" and document.get("store") is not False:
        return True
    return bool(document.get("store")) or bool(document.get("background"))


def _headers(headers: Headers) -> list[tuple[str, str]]:
    """Return the relevant headers, by name; with every value of a repeated one, in the order of the request."""
    lowered = ((name.lower(), value) for name, value in headers)
    counting = (
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in lowered
        if name == _SECOND_OPINION or (name not in _OF_THE_CLIENT and not name.startswith(_PREFIXES))
    )
    return sorted(counting, key=itemgetter(0))
