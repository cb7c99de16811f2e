"""Which answer belongs to which endpoint: the provider's behaviour when no script says otherwise.

Rule of the file: decided by method, path and body alone. The calls that bill tokens are in `answers`; the rest of the
API has one fixed answer per endpoint here, and an unknown path gets the provider's own 404.
"""

import json
from collections.abc import Sequence
from typing import Any

from tests.fakes.answers import (
    Answer,
    chat,
    chat_stream,
    completion,
    completion_stream,
    embeddings,
    response,
    response_stream,
    to_json,
)

FILE = {
    "id": "file-1",
    "object": "file",
    "bytes": 7,
    "created_at": 1,
    "filename": "f.jsonl",
    "purpose": "batch",
    "status": "processed",
}
MODEL = {"id": "gpt-4o-mini", "object": "model", "created": 1, "owned_by": "provider"}
IMAGE_USAGE = {
    "input_tokens": 9,
    "output_tokens": 21,
    "total_tokens": 30,
    "input_tokens_details": {"text_tokens": 9, "image_tokens": 0},
}
IMAGE = {"created": 1, "data": [{"b64_json": "aGk="}], "usage": IMAGE_USAGE}
BINARY = {
    ("POST", "/audio/speech"): ("audio/mpeg", bytes(range(256)) * 40),
    ("GET", "/files/file-1/content"): ("application/octet-stream", b"\x00\xff" * 99),
}
DOCUMENTS: dict[tuple[str, str], Any] = {
    ("GET", "/models"): {"object": "list", "data": [MODEL]},
    ("GET", "/models/gpt-4o-mini"): MODEL,
    ("POST", "/moderations"): {"id": "modr-1", "model": "omni-moderation-latest", "results": []},
    ("POST", "/images/generations"): IMAGE,
    ("POST", "/images/edits"): IMAGE,
    ("POST", "/audio/transcriptions"): {"text": "hello", "usage": {"type": "duration", "seconds": 3}},
    ("POST", "/audio/translations"): {"text": "hello"},
    ("POST", "/files"): FILE,
    ("GET", "/files"): {"object": "list", "data": [FILE], "has_more": False},
    ("DELETE", "/files/file-1"): {"id": "file-1", "object": "file", "deleted": True},
}


def default_answer(method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, case: str) -> Answer:
    path = target.partition("?")[0].removeprefix("/v1")
    content_type = next((value for name, value in headers if name.lower() == b"content-type"), b"")
    document: dict[str, Any] = json.loads(body) if body and content_type.startswith(b"application/json") else {}
    stream = document.get("stream") is True
    if method == "POST" and path == "/chat/completions":
        answer = chat_stream(document, case) if stream else chat(document, case)
    elif method == "POST" and path == "/completions":
        answer = completion_stream(document, case) if stream else completion(document, case)
    elif method == "POST" and path == "/responses":
        answer = response_stream(document, case) if stream else response(document, case)
    elif method == "POST" and path == "/embeddings":
        answer = embeddings(document, case)
    else:
        answer = fixed(method, path)
    return with_headers(answer, case)


def with_headers(answer: Answer, case: str) -> Answer:
    lines = (
        f"x-request-id: req_{case or 'none'}",
        "openai-processing-ms: 7",
        "OpenAI-Version: 2020-10-01",
        "x-ratelimit-remaining-requests: 4999",
        "x-should-retry: false" if answer.status.startswith("4") else "x-fake: 1",
    )
    return Answer(
        answer.pieces, answer.status, answer.content_type, answer.stream, (*answer.headers, *lines),
        answer.model, answer.input_tokens, answer.output_tokens,
    )  # fmt: skip


def fixed(method: str, path: str) -> Answer:
    """The one answer of an endpoint that bills no tokens."""
    if (method, path) in BINARY:
        kind, data = BINARY[method, path]
        return Answer([data], content_type=kind)
    if (method, path) in DOCUMENTS:
        return Answer([to_json(DOCUMENTS[method, path])])
    message = f"Invalid URL ({method} /v1{path})"
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return Answer([to_json({"error": error})], status="404 Not Found")
