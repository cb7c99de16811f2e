"""Where at a provider a request goes: the URL for a client's target, in the two styles that providers have.

    openai   base + what followed /v1:                    /chat/completions
    azure    base + /deployments/NAME + the same + query: /deployments/gpt-4o/chat/completions?api-version=2024-10-21

Rule of the file: of the client's raw target nothing is decoded, joined or normalised, so no client can reach another
host or path prefix. The name of a deployment is escaped: it may be what the client calls the model.

Source: Azure OpenAI REST reference, "Data plane inference"; RFC 3986 section 3.3.
"""

from typing import Final
from urllib.parse import quote

_PREFIX_LENGTH: Final = len("/v1")
_OF_DEPLOYMENTS: Final = frozenset(
    {
        "/chat/completions", "/completions", "/embeddings", "/images/generations", "/images/edits", "/audio/speech",
        "/audio/transcriptions", "/audio/translations",
    }
)  # fmt: skip
"""What a deployment answers; everything else belongs to the resource as a whole."""


def openai_url(base_url: str, target: str) -> str:
    """Return the absolute URL for a raw target."""
    return base_url + target[_PREFIX_LENGTH:]


def azure_url(base_url: str, target: str, api_version: str, deployment: str | None) -> str:
    """Return the URL of a deployment's operation; without a deployment, or for other operations, of the resource."""
    path, _, query = target[_PREFIX_LENGTH:].partition("?")
    if deployment is not None and path in _OF_DEPLOYMENTS:
        path = f"/deployments/{quote(deployment, safe='')}{path}"
    if "api-version=" not in query:
        query = f"{query}&api-version={api_version}" if query else f"api-version={api_version}"
    return f"{base_url}{path}?{query}"
