"""How many tokens a request lets the model generate, and how to lower that.

Rules of the file. A maximum that is not a positive integer counts as absent: the provider refuses or ignores it. The
table has limits that the vendors publish; unknown names have none, and if the releases of a family differ, the highest
limit is used. A lowered body is equal as a JSON value except for the maximum.

Source: OpenAI API reference: chat completions, completions, responses; the model pages of OpenAI, Anthropic, Google.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from proxy.exchange import Dialect, ParsedRequest
from proxy.openai import json_steps
from proxy.openai.json_body import edited, with_new_member
from proxy.openai.model_names import base_name, of_family

_MEMBERS: Final[Mapping[Dialect, tuple[str, ...]]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "generic": ("max_tokens",),
}
_REASONING: Final = re.compile(r"(o[1-9]|gpt-[5-9])(?![0-9])")
"""OpenAI models that refuse `max_tokens`; every other provider accepts it."""
_DEFAULT_OF_COMPLETIONS: Final = 16
_COMPLETIONS_OF_OPENAI: Final = {"gpt-3.5-turbo-instruct": True, "davinci-002": True, "babbage-002": True}

_LIMITS: Final[Mapping[str, int]] = {
    "babbage-002": 16_384,
    "davinci-002": 16_384,
    "gpt-3.5-turbo": 4096,
    "gpt-3.5-turbo-16k": 16_384,
    "gpt-4": 8192,
    "gpt-4-32k": 32_768,
    "gpt-4-turbo": 4096,
    "gpt-4.1": 32_768,
    "gpt-4.5-preview": 16_384,
    "gpt-4o": 16_384,
    "chatgpt-4o-latest": 16_384,
    "gpt-audio": 16_384,
    "o1": 100_000,
    "o1-mini": 65_536,
    "o3": 100_000,
    "o4-mini": 100_000,
    "codex-mini-latest": 100_000,
    "gpt-5": 128_000,
    "gpt-5-pro": 272_000,
    "gpt-5.1": 128_000,
    "gpt-5.2": 128_000,
    "gpt-5.3": 128_000,
    "gpt-5.4": 128_000,
    "gpt-5.5": 128_000,
    "claude-3-haiku": 4096,
    "claude-3-opus": 4096,
    "claude-3-sonnet": 4096,
    "claude-3-5-haiku": 8192,
    "claude-3-5-sonnet": 8192,
    "claude-3-7-sonnet": 128_000,
    "claude-haiku-4": 128_000,
    "claude-opus-4": 128_000,
    "claude-sonnet-4": 128_000,
    "gemini-1.5": 8192,
    "gemini-2.0": 8192,
    "gemini-2.5": 65_536,
}


@lru_cache(maxsize=1024)
def model_limit(model: str | None) -> int | None:
    """Return the most tokens that `model` generates per choice; `None` if unknown."""
    return of_family(model, _LIMITS)


def requested(document: Mapping[str, Any], dialect: Dialect, model: str | None) -> int | None:
    """Return the maximum per choice that a request names, or that the endpoint implies; `None` without one.

    Of two maxima the higher counts, because providers disagree about which one holds.
    """
    named = [value for name in _MEMBERS.get(dialect, ()) if (value := _positive(document.get(name)))]
    if named:
        return named[0] if len(named) == 1 else max(named)
    if dialect == "completions" and of_family(model, _COMPLETIONS_OF_OPENAI):
        return _DEFAULT_OF_COMPLETIONS
    return None


def choices(document: Mapping[str, Any], dialect: Dialect) -> int:
    """Return how many answers are generated: for every prompt, including discarded ones. At least 1."""
    if dialect == "chat":
        return _positive(document.get("n")) or 1
    if dialect == "completions":
        tries = max(_positive(document.get("n")) or 1, _positive(document.get("best_of")) or 1)
        return tries * _prompts(document.get("prompt"))
    return 1


def capped(request: ParsedRequest, dialect: Dialect, output_tokens: int, *, model: str | None = None) -> ParsedRequest:
    """Return `request` with a body that lets all choices together generate at most `output_tokens`.

    For requests whose `Bound.can_be_capped`. `model`: the name that the provider gets, if it differs from the body's:
    some models accept one member only. If there are fewer tokens than choices, each choice still gets one, the least
    that can be requested.
    """
    body = request.body
    assert body is not None
    document = json_steps.read(body, json_steps.ANY_DEPTH) if request.document is None else request.document
    named = document if model is None else {**document, "model": model}
    per_choice = max(output_tokens // choices(named, dialect), 1)
    body = lowered(body, named, dialect, per_choice)
    if request.document is None:
        json_steps.let_go(document, body)
    return replace(request, body=body)


def lowered(body: bytes, document: Mapping[str, Any], dialect: Dialect, per_choice: int) -> bytes:
    """Return the object in `body` with the maximum `per_choice`: in the members it has, else in the suitable one.

    `document`: decoded `body`. Cost: a copy of the body if the member is new, else O(body) in Python.
    """
    names = [name for name in _MEMBERS[dialect] if document.get(name) is not None]
    if not names:
        names = [_fitting(dialect, document.get("model"))]
        if document and names[0] not in document:
            return with_new_member(body, b'"%b":%d' % (names[0].encode(), per_choice))

    def fitting(written: dict[str, Any]) -> dict[str, Any]:
        written.update(dict.fromkeys(names, per_choice))
        return written

    return edited(body, fitting)


def _fitting(dialect: Dialect, model: Any) -> str:
    if dialect == "chat" and not (type(model) is str and _REASONING.match(base_name(model))):
        return "max_tokens"
    return _MEMBERS[dialect][0]


def _prompts(prompt: Any) -> int:
    """Return the number of prompts: a list of texts or of lists of token ids contains several."""
    if type(prompt) is list and prompt and type(prompt[0]) is not int:
        return len(prompt)
    return 1


def _positive(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None
