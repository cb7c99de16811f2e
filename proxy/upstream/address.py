"""The URL at a provider for a client's target, in the two styles that providers use.

    openai   base + what followed /v1:                    /chat/completions
    azure    base + /deployments/NAME + the same + query: /deployments/gpt-4o/chat/completions?api-version=2024-10-21

Rule of the file: nothing of the client's raw target is decoded, joined or normalised, so no client can reach another
host or path prefix. A deployment's name is escaped: it may be the model name from the client.

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
"""Operations of a deployment; all others belong to the resource as a whole."""


def openai_url(base_url: str, target: str) -> str:
    """Return the absolute URL for a raw target."""
    return base_url + target[_PREFIX_LENGTH:]


def azure_url(base_url: str, target: str, api_version: str, deployment: str | None) -> str:
    """Return the URL of a deployment's operation; of the resource without a deployment, or for other operations."""
    path, _, query = target[_PREFIX_LENGTH:].partition("?")
    if deployment is not None and path in _OF_DEPLOYMENTS:
        path = f"/deployments/{quote(deployment, safe='')}{path}"
    if "api-version=" not in query:
        query = f"{query}&api-version={api_version}" if query else f"api-version={api_version}"
    return f"{base_url}{path}?{query}"
