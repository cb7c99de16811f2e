"""The nouns of the project: what one request is made of. Verbs live in the packages.

`Exchange` (RFC 9110 section 3.4: a request/response exchange) is the one object of a request's life: slots in groups,
one per phase, `None` until that phase ran. Phases take values and return a value; only `pipeline` and `settling`
assign. The exception is `attempts`: dispatch appends an `Attempt` before it sends, and the relay counts into the
attempt's `Meter`, so that a task cancelled anywhere still settles what was spent.

Facts made once per request (`Inbound`, `ParsedRequest`, `Charge` ...) are never changed after they were made. They are
not declared frozen: a frozen dataclass sets each field through `object.__setattr__`, at five times the cost (timeit).

The small Protocols, here and in `peers`, are the seams between packages that may not import each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from proxy.candidates import Candidate as Candidate
from proxy.candidates import Judgement as Judgement
from proxy.candidates import RoutePlan as RoutePlan
from proxy.errors import ProxyError
from proxy.findings import Verdict
from proxy.holds import Bound, Hold
from proxy.peers import Downstream as Downstream
from proxy.peers import Header as Header
from proxy.peers import Headers as Headers
from proxy.peers import Message as Message
from proxy.peers import UpstreamReply as UpstreamReply
from proxy.peers import UpstreamRequest as UpstreamRequest
from proxy.peers import WebsocketPeer as WebsocketPeer
from proxy.peers import first_values as first_values

T = TypeVar("T")

BodyKind = Literal["none", "json", "multipart", "raw", "websocket"]
Dialect = Literal["chat", "completions", "responses", "embeddings", "images", "audio", "realtime", "generic", "none"]
"""How usage and text are laid out in answers and their stream events. `none`: usage in them was charged before."""
CacheUse = Literal["hit", "miss", "bypass"]
"""`hit`: answered by what was kept. `bypass`: the request, or its client, does not allow that."""
UsageSource = Literal["provider", "estimated", "none"]
"""`provider`: exact figures of the provider. `estimated`: ours, marked as such. `none`: nothing was billable."""
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

`rejected`: we said no before a provider was asked. `upstream_error`: the provider answered with status >= 400.
`upstream_failed`, `timeout`: no complete answer came. `truncated`: a stream ended without its terminator.
`quota_cut`: we ended a stream because the caller's quota was used up. `policy_cut`: because of what it says.
`client_abort`: the client left first. `drain_abort`: cut at the end of the drain time. `overload_abort`: ended
because the process was short of memory. `interrupted`: the process died in between (found in the journal at the next
start).
"""


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table of OpenAI endpoints (`openai.operations`)."""

    name: str
    """For example `chat.completions.create`; `unknown` for the default row."""
    request_type: str
    """What analytics group by: chat, responses, completions, embeddings, images, audio, models, other ..."""
    body: BodyKind
    dialect: Dialect
    billable: bool
    """False where an answer without usage costs nothing (models, files): then nothing is estimated."""
    forces_stream_usage: bool = False
    """True where `stream_options.include_usage` exists: chat completions and completions."""
    gen_ai_operation: str = ""
    """OpenTelemetry `gen_ai.operation.name`."""
    sent_to: str | None = None
    """The path at providers, where clients have another name for it."""


@dataclass(slots=True)
class Inbound:
    """The request head, checked. `target`: for the provider, the raw path and query: never decoded, never rebuilt."""

    method: str
    target: str
    path: str
    headers: Headers
    fields: Mapping[bytes, bytes]
    """The first value of each header, by lower-case name."""
    operation: Operation
    peer: str | None
    content_length: int | None
    """`None`: no body announced, or chunked."""
    has_body: bool
    memory: dict[Any, Any] = field(default_factory=dict)
    """What `said` has found out. A connection's requests with the same head share it, within one configuration."""

    def said(self, reader: Callable[..., T], *settings: object) -> T:
        """Return what `reader(fields, *settings)` reads of the header fields; it is asked once for a head.

        `settings`: the same for all requests that share this head. What the reader raises is not kept.
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
    """Where the user's name came from."""
    key_id: str | None = None
    """Of the API key, in mode `keys`."""
    models: frozenset[str] | None = None
    """The models that the key is limited to; `None`: all."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that the model asked for (`kind="call"`), or a tool result that the client sent back (`"result"`)."""

    kind: Literal["call", "result"]
    id: str
    name: str
    arguments_bytes: int
    """Size of arguments or result in bytes; the text itself is content and stays out."""


@dataclass(slots=True)
class ParsedRequest:
    """What the body says. `body` is what goes upstream: the client's own bytes unless an edit was needed."""

    body: bytes | None
    """`None` for streamed bodies (multipart, raw) and for requests without one."""
    document: Mapping[str, Any] | None
    """The decoded JSON object; `None` for anything else. Not kept after the exchange."""
    model: str | None
    stream: bool
    strip_usage: bool
    """We forced `include_usage`: the extra chunk and the `usage: null` members are taken out again."""
    input_text_bytes: Callable[[], int]
    """Counts the UTF-8 bytes of all text that the model reads: on demand, because few requests need an estimate."""
    conversation: str | None
    user_hint: str | None
    """`safety_identifier`, else `user`, of the body."""
    tool_results: tuple[ToolCall, ...]
    request_bytes: int


@dataclass(slots=True)
class Usage:
    """Token counts of one call, in the provider's own sense.

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
    """Billed duration where the provider counts seconds instead of tokens (transcription)."""
    images: int = 0
    """Images produced, where the provider counts images instead of tokens."""

    @property
    def has_media(self) -> bool:
        """True where not all of it is text."""
        # Written out: a loop over the names takes four times as long, and few calls have any (timeit).
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
    """What one attempt has used so far. The relay writes it while bytes pass; settle reads it at any moment."""

    usage: Usage | None = None
    """The provider's figures, the latest seen; `None` until they came."""
    output_text_bytes: int = 0
    """UTF-8 bytes of generated text seen so far (content, reasoning, refusals, tool arguments, all choices)."""
    text_deltas: int = 0
    """Stream events that held generated text: each is at least one output token."""
    sound_tokens: int = 0
    """Upper bound of the tokens of generated sound seen so far, in streams and sessions of events."""
    response_model: str | None = None
    response_id: str | None = None
    conversation: str | None = None
    """The provider's own id of the conversation, where the answer names one."""
    finish_reasons: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    """At most `MAX_TOOL_CALLS`; more are counted in `tool_calls_dropped`."""
    tool_calls_dropped: int = 0
    terminated: bool = False
    """A stream's own terminator was seen (`[DONE]`, `response.completed` ...) or a whole document was read."""
    stream_error: str | None = None
    """Code or type of an error event that the provider put into the stream."""
    cut: bool = False
    """We ended the answer because the caller's quota was used up; the provider had more to say."""
    withheld: bool = False
    """We ended the answer because the policy forbids what it says, or cannot read it."""
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
    """We broke the request off before its body was whole: no provider acts on that."""
    credential: int = 0
    """Which of the upstream's credentials was used."""
    why: str = "first"
    """What made it: first, retry, fallback, escalate, review or arbitrate."""
    failure: str | None = None
    """Why its answer was not used, a word of `routing.retry` or `routing.checks`; `None` for the one that was."""
    check: str | None = None
    """What was found of its answer; of a review: its verdict. `None` where nobody looked."""
    request: ParsedRequest | None = None
    """What it sends in the place of the client's request: a review's question."""
    bound: Bound | None = None
    """What was reserved for it, once a later attempt has a reservation of its own."""
    sent: bool = False
    """Some byte of the request may have reached the provider."""
    headers_at: float | None = None
    first_byte_at: float | None = None
    ended: float | None = None
    status: int | None = None
    request_id: str | None = None
    """The provider's `x-request-id`."""
    error: ProxyError | None = None
    meter: Meter = field(default_factory=Meter)
    collected: Meter | None = None
    """What was counted while its answer was collected, before `meter` counted it anew on its way to the client."""

    @property
    def used(self) -> Meter:
        """What is known of its usage: both meters read one answer from its beginning, and one of them got further."""
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
    """False: the model has no price; the policy for unknown models decided `cost_nanos`."""


@dataclass(slots=True)
class Delivery:
    """What the client got so far. Written by the relay and the ingress."""

    status: int | None = None
    """Status line sent; `None` while nothing was sent."""
    committed_at: float | None = None
    """Monotonic time of the first byte sent downstream: the commit point."""
    bytes: int = 0


@dataclass(slots=True)
class Capture:
    """Bounded copies of request and answer, only when content capture is on."""

    limit_bytes: int
    request: bytes | None = None
    response: bytearray = field(default_factory=bytearray)
    truncated: bool = False

    def add(self, chunk: bytes) -> None:
        """Keep as much of `chunk` as still fits."""
        room = self.limit_bytes - len(self.response)
        if len(chunk) > room:
            self.truncated = True
            chunk = chunk[: max(room, 0)]
        self.response += chunk


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
    """What a header says that the request is for; `None`: what its operation says."""
    principal: Principal | None = None
    is_critical: bool = False
    """Begins also where others are refused for want of time, memory or room."""
    request: ParsedRequest | None = None
    verdict: Verdict | None = None
    """What the policy has found so far; those who scan add to it while bytes pass. `None`: nothing is scanned."""
    plan: RoutePlan | None = None
    attempts: list[Attempt] = field(default_factory=list)
    answered: Attempt | None = None
    """Whose answer the client gets, once answers were compared."""
    judgement: Judgement | None = None
    """What was found of the answers; `None` where nobody looked."""
    cache: CacheUse | None = None
    """What the cache had to do with it; `None` where the project has none."""
    replayed: Attempt | None = None
    """Stands where a provider's answer would, for one that was kept: nobody was asked, so it is none of `attempts`."""
    delivery: Delivery = field(default_factory=Delivery)
    charges: tuple[Charge, ...] = ()
    """One per attempt, set by settle."""
    hold: Hold | None = None
    """Set by reserve, then by settle; `None` where no quota applies."""
    capture: Capture | None = None
    error: ProxyError | None = None
    outcome: Outcome | None = None
    ended: float | None = None
    marks: dict[str, float] = field(default_factory=dict)
    """Monotonic time at the end of each phase."""

    @property
    def answering(self) -> Attempt | None:
        """Whose answer the client gets: the last one's, unless answers were compared or one was kept."""
        if self.answered is not None:
            return self.answered
        return self.attempts[-1] if self.attempts else self.replayed


class Allowance(Protocol):
    """What a running answer may still generate; the relay asks before it passes text on."""

    error: ProxyError | None
    """Why the last `extend` said no."""

    def covers(self, meter: Meter) -> bool:
        """Tell whether what was generated so far stays within the reservation. Cheap, changes nothing."""

    async def extend(self, meter: Meter) -> bool:
        """Reserve more so that `covers` holds again; False: nothing is left, the answer must end here.

        Waits for PostgreSQL at most `quota.database_timeout_ms`. Sets `error`.
        """
