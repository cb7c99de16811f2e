"""Every configuration key: its type, range, default and the reason for the default.

Rules of the file: models are frozen and refuse unknown keys; no value is ever printed by a validation error (a mistyped
secret must not reach a log); times end in `_s` or `_ms`, sizes in `_bytes`. `config/sidegate.yaml` shows the same keys
with their defaults (a test holds the two together), `config/sidegate.schema.json` is generated from here.
"""

from decimal import Decimal
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, field_validator

from proxy.config.api import Api as Api
from proxy.config.auth import Auth as Auth
from proxy.config.cache import Cache as Cache
from proxy.config.names import did_you_mean, nearest
from proxy.config.otel import Otel as Otel
from proxy.config.policy import Policy as Policy
from proxy.config.projects import Projects as Projects
from proxy.config.quota import Quota as Quota
from proxy.config.routing import Routing as Routing
from proxy.config.shedding import Shedding as Shedding
from proxy.config.units import Bytes, Count, Credential, Dollars, Port, Seconds, Section
from proxy.config.upstreams import Upstream as Upstream
from proxy.config.upstreams import UpstreamEntry as UpstreamEntry

PRICE_CLASSES: Final = (
    "input",
    "cached_input",
    "cache_write",
    "output",
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
    "per_hour",
    "per_image",
)
"""What a model can have a price for: dollars per million tokens, and per hour of audio or per image."""


def _check_price_class(name: str) -> str:
    if name not in PRICE_CLASSES:
        raise ValueError(
            f"is no price; known are {', '.join(PRICE_CLASSES)}{did_you_mean(nearest(name, PRICE_CLASSES))}"
        )
    return name


PriceClass = Annotated[str, AfterValidator(_check_price_class), Field(json_schema_extra={"enum": list(PRICE_CLASSES)})]


_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Listen(Section):
    """One address to listen on."""

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address to bind. Loopback unless something else must reach it."
    )
    port: Port = Field(description="TCP port; 0 lets the system choose one.")

    @property
    def address(self) -> str:
        """Return `host:port`, as in a URL."""
        return _address(self.host, self.port)

    @property
    def local_address(self) -> str:
        """Return `host:port` at which this machine reaches it: a server of all addresses is reached by loopback."""
        return _address(_ANY_ADDRESS.get(self.host, self.host), self.port)


class Server(Section):
    """Listeners and the life of the process."""

    kind: Literal["lean", "aiohttp"] = Field(
        "lean",
        description="`lean`: our own reader of plain HTTP/1.1 requests; aiohttp's server is loaded when another one "
        "comes. `aiohttp`: that server for all.",
    )
    listen: Listen = Field(Listen(port=8080), description="Data plane (/v1/*) and the management API.")
    surfaces: Literal["all", "data", "api"] = Field(
        "all",
        description="What `listen` serves: the data plane and the management API, or one of them. In a pod the sidecar "
        "serves `data`, one hub for all serves `api`.",
    )
    ops_listen: Listen = Field(Listen(port=9090), description="/metrics, /livez and /readyz.")
    drain_s: Seconds = Field(
        120.0, description="After SIGTERM running streams may finish for this long; then they end with an error event."
    )
    flush_s: Seconds = Field(10.0, description="After the drain the journal may flush to PostgreSQL for this long.")
    keepalive_s: Seconds = Field(
        30.0, description="Idle client connections and unfinished request heads are closed after this."
    )
    uvloop: bool = Field(True, description="Use uvloop where it is installed.")
    reuse_port: bool = Field(
        False,
        description="Several processes may listen on `listen`; the kernel spreads connections. `--workers` sets it.",
    )
    watch_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        2.0,
        description="How often the configuration and every file that it names are checked; changes are applied "
        "while running. 0: on SIGHUP only.",
    )


class Limits(Section):
    """What one client, and all of them together, may ask of this process."""

    connections: Count = Field(1024, description="Open client connections; above it new ones get 503 and are closed.")
    concurrent_requests: Count = Field(
        512, description="Requests in flight; above it 503. About 1 MiB each at worst, so 512 need 512 MiB."
    )
    header_line_bytes: Bytes = Field(
        16_384, description="Longest request line or header line; above it 431. Twice the usual 8 KiB."
    )
    headers: Count = Field(128, description="Header lines of a request; above it 431.")
    json_body_bytes: Bytes = Field(
        67_108_864, description="Largest JSON body; above it 413. The provider itself takes 50 MB with images."
    )
    upload_body_bytes: Bytes = Field(
        1_073_741_824, description="Largest streamed body (multipart, raw); above it 413. Never held in memory."
    )
    buffered_bytes: Bytes = Field(
        268_435_456,
        description="JSON request bodies held at the same time, all requests together; above it 503. "
        "Bodies up to 64 KiB may take an eighth more. "
        "Where memory is bounded, at most shedding.bodies_memory of that.",
    )
    body_idle_s: Seconds = Field(30.0, description="Longest silence inside a request body; above it 408.")
    body_min_bytes_per_s: Bytes = Field(
        1024, description="Slowest average rate of a request body, checked after body_idle_s; below it 408."
    )
    json_depth: Count = Field(128, description="Deepest nesting of a JSON body; above it 400.")
    json_structurals: Count = Field(
        2_000_000, description="Most '{', '[' and ',' of a JSON body: bounds parse time and memory; above it 400."
    )
    json_thread_bytes: Bytes = Field(
        262_144,
        description="Larger JSON bodies are parsed in a thread, in steps, so that other requests wait for one of these "
        "at most. The slowest JSON of this size takes 15 ms. `/v1/route` refuses them.",
    )
    event_bytes: Bytes = Field(
        16_777_216, description="Largest single event of a stream that has to be edited; above it the stream is cut."
    )
    inspect_bytes: Bytes = Field(
        4_194_304, description="Largest answer parsed as a whole for usage; of larger ones only head and tail are read."
    )
    websocket_message_bytes: Bytes = Field(16_777_216, description="Largest websocket message in either direction.")


class Timeouts(Section):
    """How long the other side may take. Defaults are never shorter than the official SDKs' own."""

    connect_s: Seconds = Field(
        5.0, description="TCP and TLS to the provider. Error code upstream_connect_timeout, 504."
    )
    pool_s: Seconds = Field(
        5.0, description="Waiting for one of `max_connections` to become free. Code upstream_pool_timeout, 503."
    )
    first_byte_s: Seconds = Field(
        600.0, description="From the request's last byte to the answer's head. Code upstream_first_byte_timeout, 504."
    )
    gap_s: Seconds = Field(600.0, description="Longest silence inside an answer. Code upstream_gap_timeout.")
    total_s: Seconds = Field(
        3600.0, description="From sending the request to the answer's end. Code upstream_total_timeout."
    )
    write_stall_s: Seconds = Field(
        60.0, description="Longest time a client may not read while data waits; then it is cut."
    )
    answer_hold_s: Seconds = Field(
        1.0,
        description="A JSON answer is held for this long to be sent in one piece; then it is sent as it arrives.",
    )
    after_end_s: Seconds = Field(
        5.0, description="How long a provider may keep a stream open after its terminator; then the answer ends anyway."
    )


class UpstreamClient(Section):
    """The HTTP client towards providers."""

    kind: Literal["lean", "aiohttp"] = Field(
        "lean", description="`lean`: our own HTTP/1.1 client, about half the CPU. `aiohttp`: its client session."
    )
    read_buffer_bytes: Bytes = Field(65_536, description="Read ahead per answer before the provider is held back.")
    header_line_bytes: Bytes = Field(32_768, description="Longest header line of an answer; above it 502.")
    headers: Count = Field(256, description="Header lines of an answer; above it 502.")
    ca_file: str | None = Field(None, description="PEM bundle to trust instead of the system's.")


class Database(Section):
    """PostgreSQL."""

    url: SecretStr | None = Field(
        None,
        description="postgresql:// DSN; PgBouncer is fine. Without it a private PostgreSQL is started below data_dir.",
    )
    pool_size: Count = Field(
        4,
        description="Connections of this process; N sidecars need N times as many. The management API uses half of "
        "them at most.",
    )
    connect_timeout_s: Seconds = Field(2.0, description="Opening one connection.")
    acquire_timeout_s: Seconds = Field(2.0, description="Waiting for a free connection of the pool.")
    statement_timeout_s: Seconds = Field(30.0, description="One statement of the writer or of the API.")
    migrate_on_start: bool = Field(True, description="Apply outstanding migrations at start; off where a job does it.")
    partitions_ahead_days: Annotated[int, Field(ge=1, le=60)] = Field(7, description="Day partitions made in advance.")
    retention_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        90, description="Older trace partitions are dropped; 0 keeps all."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value()
        if not text.startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        try:
            _ = urlsplit(text).port
        except ValueError:
            raise ValueError("must name one host and port; percent-encode special characters of the password") from None
        return value


class Journal(Section):
    """The durable queue on disk between requests and PostgreSQL."""

    segment_bytes: Annotated[int, Field(ge=65_536)] = Field(
        16_777_216, description="Size at which a new file is started."
    )
    max_bytes: Annotated[int, Field(ge=1_048_576)] = Field(
        536_870_912, description="All segments together. Above 90 % captured content is not kept; at 100 % see on_full."
    )
    on_full: Literal["refuse", "serve"] = Field(
        "refuse", description="No space for a record: refuse new requests with 503, or serve them and count the loss."
    )
    fsync: Literal["interval", "always", "never"] = Field(
        "interval", description="A crash of the process never loses a record; this is about power loss."
    )
    fsync_interval_ms: Count = Field(100, description="With fsync: interval, at most this much is lost at power loss.")
    batch_records: Count = Field(500, description="Records per transaction.")
    batch_bytes: Bytes = Field(1_048_576, description="Bytes per transaction; a single larger record goes alone.")
    batch_delay_ms: Count = Field(500, description="The longest wait of a record for others before it is written.")
    retry_max_s: Seconds = Field(5.0, description="Longest pause between retries while PostgreSQL is unavailable.")


RequestType = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]


class Tracing(Section):
    """What a trace keeps."""

    enabled: bool = Field(
        True, description="False keeps only what accounting needs: no client, tools, phases, content."
    )
    content: Literal["off", "redacted", "full"] = Field(
        "off",
        description="Keep request and answer bodies. `redacted`: their structure, every text replaced by its length. "
        "`full`: prompts and answers as they are; mind the law.",
    )
    content_bytes: Bytes = Field(65_536, description="Kept per body and direction; the rest is cut and marked.")
    request_types: Annotated[tuple[RequestType, ...], Field(max_length=64)] = Field(
        ("chat", "code-agent", "route"),
        description="What the header X-Sidegate-Request-Type may say of a request; analytics keep sums for each.",
    )


class Identity(Section):
    """Who calls, when the caller does not say. Mode `trusted`: whoever reaches the data port is believed."""

    default_user: str = Field("anonymous", min_length=1, max_length=256, description="User of requests that name none.")
    default_project: str = Field(
        "default-project", min_length=1, max_length=256, description="Project of such requests."
    )


class Prices(Section):
    """The price table."""

    file: str | None = Field(None, description="Own table instead of the default one, same format.")
    overrides: dict[str, dict[PriceClass, Dollars]] = Field(
        default_factory=dict,
        description="Per model: input, cached_input, output ... in dollars per million tokens; applied to the table.",
    )
    unknown_model: Literal["estimate", "free", "deny"] = Field(
        "estimate", description="A model without a price: charge `unknown_price`, charge nothing, or refuse it."
    )
    unknown_price: dict[PriceClass, Dollars] = Field(
        default_factory=lambda: {
            "input": Decimal("10"),
            "output": Decimal("30"),
            "per_image": Decimal("0.25"),
            "per_hour": Decimal("5"),
        },
        description="Prices of unknown models with `estimate`, as in the table; high on purpose.",
    )


class Logging(Section):
    """JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level written.")
    requests: Literal["none", "errors", "all"] = Field(
        "errors", description="One line per request: none, those that failed on our or the provider's side, or all."
    )


class Metrics(Section):
    """Bounds of the metric labels."""

    max_models: Count = Field(100, description="Distinct model labels; further ones are counted as `other`.")
    gen_ai: bool = Field(
        False, description="Also under the names of OpenTelemetry's GenAI conventions: gen_ai_client_token_usage ..."
    )


class Config(Section):
    """The whole configuration."""

    data_dir: str = Field(
        "var", min_length=1, description="Journal, private PostgreSQL and admin key. Must be writable."
    )
    admin_key: Credential = Field(
        None, description="Bearer key of the management API. Without it one is created in data_dir/admin.key."
    )
    server: Server = Server()
    limits: Limits = Limits()
    shedding: Shedding = Shedding()
    timeouts: Timeouts = Timeouts()
    upstream: Upstream = Upstream()
    upstreams: tuple[UpstreamEntry, ...] = Field(
        (),
        max_length=64,
        description="Several providers instead of `upstream`; the first is the default. See docs/routing.md.",
        json_schema_extra={"writeOnly": True},
    )
    routing: Routing = Routing()
    client: UpstreamClient = UpstreamClient()
    database: Database = Database()
    journal: Journal = Journal()
    tracing: Tracing = Tracing()
    identity: Identity = Identity()
    prices: Prices = Prices()
    api: Api = Api()
    auth: Auth = Auth()
    projects: Projects = Projects()
    quota: Quota = Quota()
    policy: Policy = Policy()
    cache: Cache = Cache()
    logging: Logging = Logging()
    metrics: Metrics = Metrics()
    otel: Otel = Otel()

    @field_validator("upstreams")
    @classmethod
    def _check_upstream_names(cls, upstreams: tuple[UpstreamEntry, ...]) -> tuple[UpstreamEntry, ...]:
        names = [upstream.name for upstream in upstreams]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"has more than one upstream with the name {', '.join(twice)}")
        return upstreams

    @property
    def providers(self) -> tuple[UpstreamEntry, ...]:
        """Every provider in force, the default one first."""
        return self.upstreams or (UpstreamEntry(**dict(self.upstream)),)
