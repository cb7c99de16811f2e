"""The providers that requests can go to: one in the simple form, or a list of them.

    upstream:  {...}      one provider, as an environment variable can describe it
    upstreams: [{...}]    several, in the place of the one: the first is the default

Rule of the file: what a provider is told stands here alone (address, credentials, headers, names of models); which
request goes where is `config.layers` and `routing`.

Source: Azure OpenAI REST reference, "Authentication" and "API versioning"; SSRF rules as for every base URL.
"""

import re
from ipaddress import ip_address
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from proxy.config.units import Count, Credential, Seconds, Section

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_FRAMING: Final = frozenset(
    "connection content-length expect host keep-alive te trailer transfer-encoding upgrade".split()
)
_API_VERSION: Final = r"^[A-Za-z0-9.-]{1,40}$"
_GEN_AI_PROVIDERS: Final = {
    "openai.azure.com": "azure.ai.openai",
    "anthropic.com": "anthropic",
    "amazonaws.com": "aws.bedrock",
    "cohere.com": "cohere",
    "deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "googleapis.com": "gcp.vertex_ai",
    "groq.com": "groq",
    "mistral.ai": "mistral_ai",
    "moonshot.ai": "moonshot_ai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
}
"""By the domain of the address: the well-known values of `gen_ai.provider.name`."""
ANY: Final = "*"
"""Ends a model's name that stands for all that begin so; alone as the provider's name: the same as asked for."""
Weight = Annotated[int, Field(ge=1, le=1000)]


class Upstream(Section):
    """One OpenAI-compatible provider."""

    name: str = Field("default", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Name in traces and metrics.")
    base_url: str = Field(
        "https://api.openai.com/v1", description="Everything after /v1 of a request's path is appended to it."
    )
    api_key: Credential = Field(
        None, description="Sent as `Authorization: Bearer`. Use ${NAME} or file:/path, not the key itself."
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="Added to every request, for example OpenAI-Organization. Values may be ${NAME} or file:/path.",
        json_schema_extra={"writeOnly": True},
    )
    max_connections: Count = Field(512, description="Connections to this provider.")
    idle_connection_s: Seconds = Field(
        10.0, description="Idle connections are closed after this; keep it below the provider's own idle time."
    )
    force_stream_usage: bool = Field(
        True, description="Request usage in streams even if the client did not, and remove it from the answer."
    )

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        if not _VISIBLE.fullmatch(value) or "\\" in value:
            raise ValueError("must be a URL of visible ASCII characters, encoded where needed")
        try:
            parts, port = urlsplit(value), urlsplit(value).port
        except ValueError:
            raise ValueError("is not a URL: host or port are malformed") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an absolute http:// or https:// URL")
        if "@" in parts.netloc or "?" in value or "#" in value:
            raise ValueError("must not carry a user, a password, a query or a fragment; put the key into api_key")
        if port == 0:
            raise ValueError("must not name port 0")
        _check_host(parts.hostname)
        return value.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError("a header name may only have letters, digits and !#$%&'*+.^_`|~-")
            if name.lower() in _FRAMING:
                raise ValueError(f"{name} belongs to the connection and cannot be set")
            if not _FIELD_VALUE.fullmatch(value):
                raise ValueError(f"the value of {name} must be one line of printable ASCII")
        return headers


class UpstreamCredential(Section):
    """One of several keys of a provider."""

    api_key: Credential = Field(description="Use ${NAME} or file:/path, not the key itself.")
    weight: Weight = Field(1, description="Share of the requests, relative to the other keys of this provider.")


class UpstreamTimeouts(Section):
    """Overrides of the section `timeouts` for one provider."""

    connect_s: Seconds | None = Field(None, description="As timeouts.connect_s.")
    pool_s: Seconds | None = Field(None, description="As timeouts.pool_s.")
    first_byte_s: Seconds | None = Field(None, description="As timeouts.first_byte_s.")
    gap_s: Seconds | None = Field(None, description="As timeouts.gap_s.")
    total_s: Seconds | None = Field(None, description="As timeouts.total_s.")


class UpstreamEntry(Upstream):
    """One provider of the list `upstreams`: the simple form's keys, and those for several providers."""

    kind: Literal["openai", "azure"] = Field(
        "openai",
        description="`azure`: the key goes into `api-key`, the model into the path (/deployments/NAME), and "
        "`api_version` into the query.",
    )
    api_version: str | None = Field(
        None, pattern=_API_VERSION, description="Query parameter api-version; needed by Azure."
    )
    credentials: tuple[UpstreamCredential, ...] = Field(
        (),
        max_length=64,
        description="Several keys instead of api_key; balanced by weight and running requests.",
    )
    timeouts: UpstreamTimeouts = Field(UpstreamTimeouts(), description="Overrides of the section `timeouts`.")
    models: dict[str, str] = Field(
        default_factory=dict,
        description="Models it has, by the name that clients use -> its own name for it (a deployment, for Azure). "
        '`gpt-*: "*"` matches every name with that prefix, unchanged. Empty: every model.',
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.credentials and self.api_key is not None:
            raise ValueError("has both api_key and credentials; use one of them")
        if self.kind == "azure" and self.api_version is None:
            raise ValueError("needs api_version, because kind is azure")
        return self

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: dict[str, str]) -> dict[str, str]:
        for asked, own in models.items():
            if not asked.isprintable() or not own.isprintable() or not asked or not own:
                raise ValueError("must map printable names to printable names")
            if ANY in asked[:-1] or (ANY in own and own != ANY):
                raise ValueError('may have * only at the end of a name, or alone for "the same name"')
        return models

    @property
    def keys(self) -> tuple[UpstreamCredential, ...]:
        """Its credentials; one without a key where none is needed."""
        return self.credentials or (UpstreamCredential(api_key=self.api_key),)

    @property
    def gen_ai_provider(self) -> str:
        """The provider in the words of OpenTelemetry; `openai` for whoever else speaks its protocol."""
        if self.kind == "azure":
            return "azure.ai.openai"
        host = urlsplit(self.base_url).hostname or ""
        known = (name for domain, name in _GEN_AI_PROVIDERS.items() if host == domain or host.endswith(f".{domain}"))
        return next(known, "openai")

    def own_name(self, model: str) -> str | None:
        """Return the provider's name for `model`; `None` if it does not have it. The longest prefix wins."""
        if not self.models or (own := self.models.get(model)) == ANY:
            return model
        if own is not None:
            return own
        prefixes = [name for name in self.models if name.endswith(ANY) and model.startswith(name[:-1])]
        if not prefixes:
            return None
        own = self.models[max(prefixes, key=len)]
        return model if own == ANY else own


def _check_host(host: str) -> None:
    """Refuse addresses that are not what they look like, and those where clouds keep credentials."""
    try:
        address = ip_address(host)
    except ValueError:
        if _NUMERIC.fullmatch(host.rstrip(".").rpartition(".")[2]):
            raise ValueError("must write an IPv4 address as four decimal numbers") from None
        return
    if address.version == 6 and address.ipv4_mapped:
        raise ValueError("must not be an IPv4 address in IPv6 form")
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise ValueError("must not be a link-local, multicast or unspecified address")
