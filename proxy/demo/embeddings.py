"""Embeddings, moderations and models of the demo upstream: small documents without a stream.

Rules of the file: no I/O. A vector depends on its text alone and has length 1; it means nothing.

Source: OpenAI API reference, "Embeddings", "Moderations" and "Models".
"""

import base64
import hashlib
import math
import struct
from collections.abc import Sequence
from typing import Any

from proxy.demo.reply import WORD

Json = dict[str, Any]
DIMENSIONS = 1536
MAX_DIMENSIONS = 4096
MODELS = ("demo-small", "demo-large", "demo-embedding")
"""The models that are listed. Any other name is served as well."""
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def read_inputs(value: Any) -> list[str]:
    """Return the inputs of an embedding request: a text, texts, a list of token numbers, or lists of them."""
    if isinstance(value, list) and value and not all(isinstance(item, int) for item in value):
        return [_as_text(item) for item in value]
    return [_as_text(value)]


def count_tokens(inputs: Sequence[str]) -> int:
    """Return the tokens of all inputs; an input has at least one."""
    return sum(max(1, len(WORD.findall(text))) for text in inputs)


def vector(text: str, dimensions: int) -> list[float]:
    """Return `dimensions` single-precision numbers, their squares summing to 1."""
    digest = hashlib.shake_256(text.encode()).digest(4 * dimensions)
    raw = [number / 2**31 for number in struct.unpack(f"<{dimensions}i", digest)]
    length = math.sqrt(sum(number * number for number in raw)) or 1.0
    return list(struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *(number / length for number in raw))))


def document(model: str, inputs: Sequence[str], dimensions: int, as_base64: bool) -> Json:
    """Return the list of embeddings with its usage."""
    data = []
    for index, text in enumerate(inputs):
        numbers = vector(text, dimensions)
        packed = base64.b64encode(struct.pack(f"<{dimensions}f", *numbers)).decode() if as_base64 else numbers
        data.append({"object": "embedding", "index": index, "embedding": packed})
    tokens = count_tokens(inputs)
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def moderation(id: str, model: str, inputs: Sequence[str]) -> Json:
    """Return a verdict that flags nothing."""
    result = {
        "flagged": False,
        "categories": dict.fromkeys(CATEGORIES, False),
        "category_scores": dict.fromkeys(CATEGORIES, 0.0),
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
    return {"id": id, "model": model, "results": [result for _ in inputs]}


def model(name: str) -> Json:
    """Return one model's document."""
    return {"id": name, "object": "model", "created": 1_735_689_600, "owned_by": "sidegate-demo"}


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)
