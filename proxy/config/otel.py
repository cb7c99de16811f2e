"""The keys of OpenTelemetry: where spans go, which requests have some, and what a provider may see of a trace.

Rule of the file: keys that the specification of OpenTelemetry names have its defaults, and its environment variables
(`config.environment`) set them.

Source: OpenTelemetry specification, "OTLP Exporter Configuration" and "Environment Variable Specification".
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from proxy.config.units import Count, Seconds, Section


def _check_url(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts, port = urlsplit(value), urlsplit(value).port
    except ValueError:
        raise ValueError("is not a URL: host or port are malformed") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not value.isascii():
        raise ValueError("must be an absolute http:// or https:// URL")
    if "@" in parts.netloc or "?" in value or "#" in value:
        raise ValueError("must not carry a user, a password, a query or a fragment; put keys into otel.headers")
    return value.rstrip("/")


Url = Annotated[str | None, AfterValidator(_check_url)]


class Otel(Section):
    """OpenTelemetry: spans of requests, attempts and policy over OTLP/HTTP. Off until an endpoint is named."""

    endpoint: Url = Field(
        None,
        description="Base URL of a collector that takes OTLP over HTTP (protobuf), for example http://localhost:4318; "
        "/v1/traces is appended.",
    )
    traces_endpoint: Url = Field(None, description="The complete URL for spans, used unchanged instead of `endpoint`.")
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="Sent with every export, for example a key. Values may be ${NAME} or file:/path.",
        json_schema_extra={"writeOnly": True},
    )
    compression: Literal["none", "gzip"] = Field("none", description="Of exported spans.")
    ca_file: str | None = Field(None, description="PEM bundle to trust for exports instead of the system's.")
    timeout_s: Seconds = Field(10.0, description="One export, and the last one at the end of the process.")
    service_name: str = Field("sidegate", min_length=1, max_length=256, description="Attribute service.name.")
    resource_attributes: dict[str, str] = Field(
        default_factory=dict, description="Further attributes of this process, for example deployment.environment.name."
    )
    sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = Field("parentbased_always_on", description="Which requests have spans. `parentbased`: the caller decides.")
    sampler_arg: Annotated[float, Field(ge=0, le=1)] = Field(1.0, description="The share, for `traceidratio`.")
    upstream: Literal["pass", "continue", "drop"] = Field(
        "pass",
        description="Trace headers to providers: as the client sent them; with our attempt as their parent (for model "
        "servers of your own); or none at all.",
    )
    batch_spans: Count = Field(512, description="Spans per export.")
    batch_delay_s: Seconds = Field(5.0, description="The longest wait of a span for others.")
    queue_spans: Count = Field(2048, description="Spans waiting for export; above it new ones are dropped.")
    retry_s: Seconds = Field(60.0, description="A failed export is retried for this long, then dropped.")

    @property
    def url(self) -> str | None:
        """Where spans go; `None`: nowhere, and none are made."""
        if self.traces_endpoint is not None:
            return self.traces_endpoint
        return None if self.endpoint is None else f"{self.endpoint}/v1/traces"
