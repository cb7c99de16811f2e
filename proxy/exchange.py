"""The nouns of the project: the data of one request. Verbs live in the packages.

`Exchange` (RFC 9110 section 3.4: a request/response exchange) holds all state of one request: slots in groups, one per
phase, `None` until that phase ran. Phases take values and return a value; only `pipeline`, `settling` and `outgoing`
assign to it. `attempts` is shared: dispatch appends an `Attempt` before it sends, and the relay counts into the
attempt's `Meter`, so that a task cancelled anywhere still settles what was spent.

Facts built once per request (`Inbound`, `ParsedRequest`, `Charge` ...) are never modified afterwards. They are not
declared frozen: a frozen dataclass sets each field through `object.__setattr__`, at five times the cost (timeit).

The small Protocols, here and in `peers`, are the seams between packages that may not import each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from proxy.errors import ProxyError
from proxy.nouns.candidates import Candidate as Candidate
from proxy.nouns.candidates import Judgement as Judgement
from proxy.nouns.candidates import RoutePlan as RoutePlan
from proxy.nouns.findings import Verdict
from proxy.nouns.holds import Bound, Hold
from proxy.nouns.peers import Capture as Capture
from proxy.nouns.peers import Downstream as Downstream
from proxy.nouns.peers import Header as Header
from proxy.nouns.peers import Headers as Headers
from proxy.nouns.peers import Message as Message
from proxy.nouns.peers import Sink as Sink
from proxy.nouns.peers import UpstreamReply as UpstreamReply
from proxy.nouns.peers import UpstreamRequest as UpstreamRequest
from proxy.nouns.peers import WebsocketPeer as WebsocketPeer
from proxy.nouns.peers import first_values as first_values

T = TypeVar("T")

BodyKind = Literal["none", "json", "multipart", "raw", "websocket"]
Dialect = Literal["chat", "completions", "responses", "embeddings", "images", "audio", "realtime", "generic", "none"]
"""How answers and their stream events represent usage and text. `none`: usage in them was already charged elsewhere."""
CacheUse = Literal["hit", "miss", "bypass"]
"""`hit`: answered from the cache. `bypass`: the request or its client does not allow that."""
UsageSource = Literal["provider", "estimated", "none"]
"""`provider`: the provider's exact figures. `estimated`: our estimate, marked as such. `none`: nothing was billable."""
Outcome = Literal[
    "ok",
    "rejected",
    "upstream_error",
    "upstream_failed",
    "timeout",
    "truncated",
    "quota_cut",
    "policy_cut",
    "client_abort",
    "drain_abort",
    "overload_abort",
    "internal_error",
    "interrupted",
]
"""How an exchange ended.

`rejected`: we refused it before a provider was called. `upstream_error`: the provider answered with status >= 400.
`upstream_failed`, `timeout`: no complete answer arrived. `truncated`: a stream ended without its terminator.
`quota_cut`: we ended a stream because the caller's quota was used up. `policy_cut`: because of its content.
`client_abort`: the client disconnected first. `drain_abort`: aborted at the end of the drain time. `overload_abort`:
ended because the process was short of memory. `interrupted`: the process died meanwhile (found in the journal at the
next start).
"""


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table of OpenAI endpoints (`openai.operations`)."""

    name: str
    """For example `chat.completions.create`; `unknown` for the fallback row."""
    request_type: str
    """The dimension of analytics: chat, responses, completions, embeddings, images, audio, models, other ..."""
    body: BodyKind
    dialect: Dialect
    billable: bool
    """False if an answer without usage is free (models, files), so that nothing is estimated."""
    forces_stream_usage: bool = False
    """True if `stream_options.include_usage` is supported: chat completions and completions."""
    gen_ai_operation: str = ""
    """OpenTelemetry `gen_ai.operation.name`."""
    sent_to: str | None = None
    """The provider's path, if it differs from the one that clients use."""

    @property
    def is_chained(self) -> bool:
        """Tell whether answers continue each other by `previous_response_id`."""
        return self.dialect == "responses" or self.name == "responses.connect"


@dataclass(slots=True)
class Inbound:
    """The validated request head. `target`: raw path and query, sent to the provider without decoding or rebuilding."""

    method: str
    target: str
    path: str
    headers: Headers
    fields: Mapping[bytes, bytes]
    """The first value of each header, by lower-case name."""
    operation: Operation
    peer: str | None
    content_length: int | None
    """`None`: no body, or a chunked one."""
    has_body: bool
    memory: dict[Any, Any] = field(default_factory=dict)
    """Results of `said`. Requests with the same head on one connection share it, within one configuration."""

    def said(self, reader: Callable[..., T], *settings: object) -> T:
        """Return `reader(fields, *settings)`, computed once per request head.

        `settings`: must be the same for all requests that share this head. Exceptions are not cached.
        """
        found: T
        try:
            found = self.memory[reader]
        except KeyError:
            found = self.memory[reader] = reader(self.fields, *settings)
        return found


@dataclass(slots=True)
class Principal:
    """The caller. `user_id` and `project_id` are at most 256 characters of printable text."""

    user_id: str
    project_id: str
    source: Literal["header", "body", "default", "key"]
    """Where the user's name comes from."""
    key_id: str | None = None
    """The id of the API key, in mode `keys`."""
    models: frozenset[str] | None = None
    """The models that the key is limited to; `None`: all."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call by the model (`kind="call"`), or a tool result that the client sent back (`"result"`)."""

    kind: Literal["call", "result"]
    id: str
    name: str
    arguments_bytes: int
    """Size of the arguments or the result in bytes; the text itself is content and is not kept."""


@dataclass(slots=True)
class ParsedRequest:
    """The parsed body. `body` is what goes upstream: the client's own bytes unless an edit was needed."""

    body: bytes | None
    """`None` for streamed bodies (multipart, raw) and for requests without one."""
    document: Mapping[str, Any] | None
    """The decoded JSON object; `None` for anything else. Dropped after the exchange."""
    model: str | None
    stream: bool
    strip_usage: bool
    """We forced `include_usage`: the extra chunk and the `usage: null` members are removed from the answer."""
    input_text_bytes: Callable[[], int]
    """Counts the UTF-8 bytes of all text that the model reads. Lazy, because few requests need an estimate."""
    conversation: str | None
    user_hint: str | None
    """`safety_identifier` of the body, else its `user`."""
    tool_results: tuple[ToolCall, ...]
    request_bytes: int
    continues: str | None = None  # id of the response that decides the conversation, as nothing names one


@dataclass(slots=True)
class Usage:
    """Token counts of one call, with the provider's definitions.

    `input_tokens` includes cached, audio and image input; `output_tokens` includes reasoning and audio output.
    The detail fields are parts of the totals, never additions.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    audio_seconds: float = 0.0
    """Billed duration, if the provider counts seconds instead of tokens (transcription)."""
    images: int = 0
    """Images produced, if the provider counts images instead of tokens."""
    cached_audio_tokens: int = 0
    """Part of both `cached_input_tokens` and `audio_input_tokens`, if the provider says how many are both."""
    cached_image_tokens: int = 0
    """The same of images."""

    @property
    def has_media(self) -> bool:
        """True if some of it is not text."""
        # Unrolled: a loop over the names takes four times as long, and few calls have any (timeit).
        return bool(
            self.audio_input_tokens
            or self.audio_output_tokens
            or self.image_input_tokens
            or self.image_output_tokens
            or self.audio_seconds
            or self.images
        )


@dataclass(slots=True)
class Meter:
    """What one attempt has used so far. The relay updates it as bytes pass; settle reads it at any moment."""

    usage: Usage | None = None
    """The provider's latest figures; `None` until they arrive."""
    usage_by_model: dict[str | None, Usage] = field(default_factory=dict)
    """In sessions: `usage` by the models that answers are billed at, also of those that have only begun."""
    is_interim: bool = False
    """`usage` came while choices of its stream were open: figures of a whole answer come after those."""
    answered: int = 0
    """The part of `output_text_bytes + sound_tokens` whose usage is known; in sessions and chats."""
    latest_input_tokens: int = 0
    """In sessions: input of the latest answer; the next one reads at least about as much."""
    largest_input_tokens: int = 0
    """In sessions: the largest input of an answer, on which prices may depend."""
    output_text_bytes: int = 0
    """UTF-8 bytes of generated text seen so far (content, reasoning, refusals, tool arguments, all choices)."""
    text_deltas: int = 0
    """Stream events with generated text: each is at least one output token."""
    sound_tokens: int = 0
    """Upper bound of the tokens of generated audio seen so far, in streams and sessions of events."""
    response_model: str | None = None
    response_id: str | None = None
    latest_response_id: str | None = None
    """In sessions: of the latest response that has ended, which is what another session continues."""
    service_tier: str | None = None
    """The tier that the answer says it was processed in; the provider bills that, whatever was asked for."""
    conversation: str | None = None
    """The provider's own conversation id, if the answer names one."""
    finish_reasons: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    """At most `MAX_TOOL_CALLS`; the rest is counted in `tool_calls_dropped`."""
    tool_calls_dropped: int = 0
    terminated: bool = False
    """The stream's terminator was seen (`[DONE]`, `response.completed` ...) or a complete document was read."""
    stream_error: str | None = None
    """Code or type of an error event in the provider's stream."""
    cut: bool = False
    """We ended the answer early because the caller's quota was used up."""
    withheld: bool = False
    """We ended the answer because the policy forbids its content or cannot read it."""
    response_bytes: int = 0
    """Body bytes read from the provider."""
    events: int = 0


MAX_TOOL_CALLS = 256


@dataclass(slots=True)
class Attempt:
    """One try at one upstream. Times are `time.monotonic()` seconds; `None` until reached."""

    index: int
    candidate: Candidate
    started: float
    withdrawn: bool = False
    """We aborted the request before its body was complete, so no provider acts on it."""
    credential: int = 0
    """Index of the upstream's credential in use."""
    why: str = "first"
    """Reason for the attempt: first, retry, fallback, escalate, review or arbitrate."""
    failure: str | None = None
    """Why its answer was not used, a word of `routing.retry` or `routing.checks`; `None` for the one that was used."""
    check: str | None = None
    """Result of the check of its answer; of a review: its verdict. `None` if there was no check."""
    request: ParsedRequest | None = None
    """What it sends instead of the client's request: a review's question."""
    bound: Bound | None = None
    """What was reserved for it, set once a later attempt has its own reservation."""
    sent: bool = False
    """Some bytes of the request may have reached the provider."""
    headers_at: float | None = None
    first_byte_at: float | None = None
    ended: float | None = None
    status: int | None = None
    request_id: str | None = None
    """The provider's `x-request-id`."""
    error: ProxyError | None = None
    meter: Meter = field(default_factory=Meter)
    collected: Meter | None = None
    """Counts taken while its answer was collected, before `meter` counted it again on its way to the client."""

    def note_sent(self) -> None:
        """Note that its first bytes are about to leave."""
        self.sent = True

    @property
    def used(self) -> Meter:
        """Return its usage: both meters read the same answer from its beginning; the one that got further counts."""
        collected, meter = self.collected, self.meter
        if collected is None or meter.terminated or collected.response_bytes <= meter.response_bytes:
            return meter
        return collected


@dataclass(slots=True)
class Charge:
    """What one attempt cost. `cost_nanos`: integer nano-dollars."""

    usage: Usage
    usage_source: UsageSource
    cost_nanos: int
    priced: bool
    """False: the model has no price, and the policy for unknown models decided `cost_nanos`."""
    told: Usage | None = None
    """The provider's own figures, if the charge is an estimate in spite of them: less than it, or not believed."""
    is_beyond: bool = False
    """The provider told more tokens than were reserved, and they are charged."""


@dataclass(slots=True)
class Delivery:
    """What the client has received so far. Written by the relay and the ingress."""

    status: int | None = None
    """The status sent; `None` while nothing was sent."""
    committed_at: float | None = None
    """Monotonic time of the first byte sent downstream: the commit point."""
    bytes: int = 0


@dataclass(slots=True)
class Exchange:
    """One client request from its first to its last byte."""

    trace_id: str
    """UUIDv7; its time is `started_at_ms`."""
    started_at_ms: int
    """Wall clock, milliseconds since 1970 UTC."""
    started: float
    """Monotonic seconds."""
    inbound: Inbound
    request_type: str | None = None
    """The purpose of the request that a header names; `None`: derived from its operation."""
    principal: Principal | None = None
    is_critical: bool = False
    """Admitted even while others are refused for lack of CPU time, memory or capacity."""
    request: ParsedRequest | None = None
    verdict: Verdict | None = None
    """What the policy has found so far; scanners add to it while bytes pass. `None`: nothing is scanned."""
    plan: RoutePlan | None = None
    attempts: list[Attempt] = field(default_factory=list)
    answered: Attempt | None = None
    """The attempt whose answer the client gets, set once answers were compared."""
    judgement: Judgement | None = None
    """Results of the checks of the answers; `None` if there were none."""
    cache: CacheUse | None = None
    """How the cache was used; `None` if it is off for the project."""
    replayed: Attempt | None = None
    """Stands in for an attempt when the answer comes from the cache; it is not one of `attempts`."""
    delivery: Delivery = field(default_factory=Delivery)
    charges: tuple[Charge, ...] = ()
    """One per attempt, set by settle."""
    hold: Hold | None = None
    """Set by reserve, then by settle; `None` if no quota applies."""
    capture: Capture | None = None
    error: ProxyError | None = None
    outcome: Outcome | None = None
    ended: float | None = None
    marks: dict[str, float] = field(default_factory=dict)
    """Monotonic time at the end of each phase."""

    @property
    def answering(self) -> Attempt | None:
        """The attempt whose answer the client gets: the last one, unless answers were compared or one was cached."""
        if self.answered is not None:
            return self.answered
        return self.attempts[-1] if self.attempts else self.replayed


class Allowance(Protocol):
    """How much a running answer may still generate; the relay asks before it sends text on."""

    error: ProxyError | None
    """Why the last `extend` failed."""

    def covers(self, meter: Meter) -> bool:
        """Tell whether what was generated so far is within the reservation. Cheap, no side effects."""

    async def extend(self, meter: Meter) -> bool:
        """Reserve more so that `covers` holds again; False: nothing is left and the answer must end here.

        Waits for PostgreSQL at most `quota.database_timeout_ms`. Sets `error`.
        """
