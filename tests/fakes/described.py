"""Holds the answers of the management API, in all tests that ask it, to what the OpenAPI document says of them."""

import json
from functools import cache
from typing import Any

import jsonschema_rs
from aiohttp import web

from proxy.api.openapi import document
from proxy.api.routes import Api, Endpoint, PublicEndpoint

_documents: list[dict[str, Any]] = []


@cache
def _validator(path: str, method: str, status: int, media_type: str) -> Any:
    responses = _documents[0]["paths"][path][method.lower()]["responses"]
    assert str(status) in responses, f"{method} {path} answers {status}, which is not described"
    content = responses[str(status)]["content"]
    assert media_type in content, f"{method} {path} answers {media_type}, which is not described"
    media = content[media_type]
    return jsonschema_rs.validator_for({**media["schema"], "components": _documents[0]["components"]})


def check(api: Api, endpoint: Endpoint | PublicEndpoint, answer: web.Response) -> None:
    """Raise AssertionError if this endpoint is not described to answer like this."""
    if not _documents:
        _documents.append(document((*api.table, *api.public), "test"))
    if answer.status == 304:
        described = _documents[0]["paths"][endpoint.path][endpoint.method.lower()]
        assert "304" in described["responses"] and not answer.body
        return
    validator = _validator(endpoint.path, endpoint.method, answer.status, answer.content_type)
    if answer.content_type != "application/json":
        return  # rows, perhaps still to be made
    assert isinstance(answer.body, bytes)
    found = validator.iter_errors(json.loads(answer.body))
    problems = [f"{list(error.instance_path)}: {error.message}" for error in found]
    assert not problems, (endpoint.method, endpoint.path, answer.status, problems)
