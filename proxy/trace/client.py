"""The client of a trace: its library, its address and its key's id; and where a trace of its own continues here.

Rule of the file: pure. A client says the same with every request, so what it says is encoded once.
"""

from collections.abc import Mapping
from functools import lru_cache

from proxy.exchange import Exchange
from proxy.trace import context
from proxy.trace.values import NAME, bounded, encode, written

_REMEMBERED = 64


def client_of(x: Exchange, secrets: tuple[bytes, ...]) -> bytes:
    """Return the description of the client as JSON without credentials."""
    inbound = x.inbound
    client = inbound.said(_client, inbound.peer, x.principal.key_id if x.principal else None, secrets)
    if b"traceparent" in inbound.fields and (of := context.read(inbound.fields, x.trace_id)).parent_id:
        return b"%b,%b" % (client[:-1], encode({"w3cTraceId": of.trace_id, "w3cParentId": of.parent_id})[1:])
    return client


def _client(fields: Mapping[bytes, bytes], peer: str | None, key_id: str | None, secrets: tuple[bytes, ...]) -> bytes:
    get = fields.get
    version = get(b"x-stainless-package-version", b"?")
    said = (get(b"user-agent"), get(b"x-stainless-lang"), version, get(b"x-stainless-retry-count"))
    return _described(
        tuple([None if one is None else one[:NAME] for one in said]), bounded(peer, NAME), key_id, secrets
    )


@lru_cache(_REMEMBERED)
def _described(
    said: tuple[bytes | None, ...], peer: str | None, key_id: str | None, secrets: tuple[bytes, ...]
) -> bytes:
    """Return the description of a client. Cached, as connections come and go."""
    agent, language, version, retries = said
    client = {"userAgent": _text(agent), "peer": peer}
    if language is not None:
        client["sdk"] = f"{_text(language)}/{_text(version)}"
    if retries is not None:
        client["retryCount"] = _text(retries)
    if key_id is not None:
        client["keyId"] = key_id
    return written(client, secrets)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")
