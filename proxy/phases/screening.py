"""The policy in one exchange: phase 3 for each kind of body, large texts on a thread, faults handled as configured.

    JSON            before anything else: refused, sent unchanged, or sent with the findings masked
    forms, raw      as they pass (`policy.upload_scan`)
    websocket       message by message: a blocked one is answered with an error and not sent to the provider
    answers         by the relays, through the scanner that `output` returns

Failure mode: if a scan fails, the request is refused (`policy_unavailable`) or passes and is counted (`on_fault`).
The log has the kind of failure and its place in the code, but no message: that could quote a text.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from proxy.config.policy import Policy as Settings
from proxy.config.schema import Limits
from proxy.errors import PolicyUnavailable, PolicyViolation, ProxyError
from proxy.event_loop.off_loop import decoded_off_loop, off_loop
from proxy.exchange import Capture, Header, Inbound, Message, ParsedRequest, WebsocketPeer
from proxy.nouns.findings import Action, Unscanned, Verdict
from proxy.nouns.scanners import OutputScanner
from proxy.openai.input_text import input_text_bytes
from proxy.openai.multipart import MultipartObserver
from proxy.openai.stream_end import realtime_error
from proxy.policy import places
from proxy.policy.output_scan import OutputScan
from proxy.policy.patience import USUAL_S, Patience, TooSlow
from proxy.policy.policy import Policy
from proxy.policy.refusal import denied, violation
from proxy.policy.request_body import read_body, read_message
from proxy.policy.scan import Scanned, scan
from proxy.policy.upload_scan import UploadScan
from proxy.websocket_frames import control_text, with_control_text

T = TypeVar("T")

_log = logging.getLogger("sidegate.policy")
_FAULT: Final = "Sidegate failed to scan the request, and what is not scanned does not pass."
_STRONGEST: Final[tuple[Action, ...]] = ("block", "redact", "flag")
_MAX_NAMED: Final = 8


class Screening:
    """The policy of one exchange. Findings are added to `verdict`."""

    def __init__(self, policy: Policy, settings: Settings, limits: Limits, verdict: Verdict) -> None:
        self.policy = policy
        self.verdict = verdict
        self._settings = settings
        self._limits = limits

    async def request(self, request: ParsedRequest, inbound: Inbound, capture: Capture | None) -> ParsedRequest:
        """Return the request as it may be sent: the same object if nothing has to be masked.

        `capture`: receives the body as it may be stored. Raises PolicyViolation, PolicyUnavailable.
        """
        if not self.policy.scan_prompts or request.body is None:
            return request
        wants_kept = capture is not None and self.policy.redacts
        try:
            work = partial(self._screened, request, inbound, wants_kept)
            done = self._at_once(len(request.body), work)
            refusal, kept, sent = await self._apart(work) if done is None else done
        except ProxyError:
            raise
        except Exception as error:
            if capture is not None:
                capture.request = None
            self._fault(error)
            return request
        if capture is not None and wants_kept:
            capture.request = kept
        if refusal is not None:
            raise refusal
        return sent

    async def message(self, text: str) -> str:
        """Return a client's websocket message as it may be sent. Raises PolicyViolation, PolicyUnavailable."""
        if not self.policy.scan_prompts:
            return text
        try:
            work = partial(self._message, text)
            done = self._at_once(len(text), work)
            refusal, sent = await self._apart(work) if done is None else done
        except Exception as error:
            self._fault(error)
            return text
        if refusal is not None:
            raise refusal
        return sent

    async def may_quote(self, texts: Sequence[str]) -> bool:
        """Tell whether texts of an answer may be sent to another provider: none is blocked or masked.

        Not recorded in the verdict, as no client has sent them. Raises PolicyUnavailable.
        """
        if not self.policy.scan_prompts:
            return True
        try:
            work = partial(self._quoted, texts)
            done = self._at_once(sum(map(len, texts)), work)
            scanned = await self._apart(work) if done is None else done
        except Exception as error:
            self._fault(error)
            return True
        return scanned.blocked is None and not scanned.sent

    def missed(self, place: str, reason: str) -> None:
        """Record a part of the request that cannot be scanned. Raises PolicyViolation if it may not pass."""
        if self.policy.scan_prompts:
            self.verdict.miss(Unscanned("prompt", place, reason))
            if self._settings.unscannable == "deny":
                raise denied(place, reason)

    async def upload(self, observer: MultipartObserver | None) -> "Upload | None":
        """Return the scanner of a streamed body; `None` if it passes unchanged."""
        if not self.policy.scan_prompts:
            return None
        if not self.policy.has_prepared_uploads:
            await asyncio.to_thread(self.policy.prepare_uploads)
        if observer is not None:
            observer.follow()
        found = self.policy.verdict(self.verdict.max_kept)
        denies = self._settings.unscannable == "deny"
        upload = UploadScan(self.policy, found, observer, denies_unscannable=denies)
        return Upload(upload, lambda: found.move_to(self.verdict), self._fault)

    def output(self) -> OutputScanner | None:
        """Return the scanner of the answer; `None` if answers are not scanned."""
        if not self.policy.scan_outputs:
            return None
        return OutputScan(self.policy, self.verdict, self._settings, self._fault)

    def header(self) -> Header | None:
        """Return the response header that reports findings in the request; `None` without any."""
        if not self.verdict.counts:
            return None
        found: dict[Action, list[str]] = {}
        for direction, rule_id, action in self.verdict.counts:
            if direction == "prompt":
                found.setdefault(action, []).append(rule_id)
        if not found or not self._settings.header:
            return None
        action = next(action for action in _STRONGEST if action in found)
        rules = ",".join(found[action][:_MAX_NAMED])
        return b"x-sidegate-policy", f"{action}; rules={rules}; version={self.verdict.version}".encode()

    def _screened(
        self, request: ParsedRequest, inbound: Inbound, wants_kept: bool, verdict: Verdict, patience: Patience | None
    ) -> tuple[PolicyViolation | None, bytes | None, ParsedRequest]:
        """Scan a body and add what was seen to `verdict`: half a million findings take a third of a second.

        Returns why the request is refused, the body as it may be stored, and the request as it may be sent.
        """
        scanned, kept, sent = self._looked_at(request, inbound, wants_kept, patience)
        refusal = self._refusal(scanned)
        scanned.enter(verdict)
        scanned.let_go()
        return refusal, kept, sent

    def _looked_at(
        self, request: ParsedRequest, inbound: Inbound, wants_kept: bool, patience: Patience | None
    ) -> tuple[Scanned, bytes | None, ParsedRequest]:
        """Scan a body. Returns the result, the body as it may be stored, and the request as it may be sent."""
        read = read_body(request, inbound.fields.get(b"content-type", b""), self._limits)
        scanned = scan(self.policy, read.document, self._settings.nested_bytes, patience, keeps=wants_kept)
        if read.is_malformed:
            scanned.unscanned.insert(0, Unscanned("prompt", "", "malformed"))
        kept = read.written(scanned.kept) if wants_kept else None
        body = read.sent(scanned.sent)
        if body is request.body:
            return scanned, kept, request
        request = replace(request, body=body)
        if request.document is not None and scanned.sent:
            changed = places.changed(request.document, scanned.sent)
            text_bytes = input_text_bytes(changed)  # here, as this may be a thread
            request = replace(request, document=changed, input_text_bytes=lambda: text_bytes)
        return scanned, kept, request

    def _message(self, text: str, verdict: Verdict, patience: Patience | None) -> tuple[PolicyViolation | None, str]:
        """Scan a message. Returns why it is refused, and the message as it may be sent."""
        read = read_message(text)
        scanned = scan(self.policy, read.document, self._settings.nested_bytes, patience, keeps=False)
        scanned.enter(verdict)
        sent = read.sent(scanned.sent)
        read.let_go()
        return self._refusal(scanned), sent

    def _quoted(self, texts: Sequence[str], _verdict: Verdict, patience: Patience | None) -> Scanned:
        return scan(self.policy, list(texts), self._settings.nested_bytes, patience, keeps=False)

    def _refusal(self, scanned: Scanned) -> PolicyViolation | None:
        """Return the error for what is blocked, and for what was not scanned if the policy requires a scan."""
        if scanned.sightings and (blocked := scanned.blocked) is not None:
            rules = (sighting.finding.rule_id for sighting in scanned.sightings if sighting.action == "block")
            return violation(blocked, rules)
        if scanned.unscanned and self._settings.unscannable == "deny":
            return denied(scanned.unscanned[0].place, scanned.unscanned[0].reason)
        return None

    def _at_once(self, size: int, work: Callable[[Verdict, Patience | None], T]) -> T | None:
        """Run small work here and now; `None`: it takes too long for the event loop."""
        if size > self._settings.thread_bytes:
            return None
        try:
            return work(self.verdict, Patience(USUAL_S))
        except TooSlow:
            return None

    async def _apart(self, work: Callable[[Verdict, Patience | None], T]) -> T:
        """Run work in a thread, which has the time for it."""
        verdict = self.policy.verdict(self.verdict.max_kept)  # answers of a session are scanned meanwhile
        try:
            return await decoded_off_loop(partial(work, verdict, None))
        finally:
            self.verdict.join(verdict)

    def _fault(self, error: Exception) -> None:
        """Record an internal fault. Raises PolicyUnavailable unless the policy lets such requests pass."""
        self.verdict.faults += 1
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        at = "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        _log.error("scanning failed", extra={"kind": type(error).__name__, "at": at})
        if self._settings.on_fault == "closed":
            raise PolicyUnavailable(_FAULT) from None


class Upload:
    """A streamed body that is scanned as it passes. A fault ends it, as the scanner holds part of it back.

    All of it is scanned in threads, piece by piece: there is no limit on its size, and a text that is made for it takes
    half a second for each 16 KB. `told`: takes over what was found; not called while a thread is at work.
    """

    def __init__(self, upload: UploadScan, told: Callable[[], None], fault: Callable[[Exception], None]) -> None:
        self._scan = upload
        self._told = told
        self._fault = fault

    async def feed(self, piece: bytes) -> bytes:
        """Take a piece and return what may be sent. Raises PolicyViolation, PolicyUnavailable."""
        return await self._apart(partial(self._scan.feed, piece))

    async def finish(self) -> bytes:
        """Return the rest at the end of the body."""
        return await self._apart(self._scan.finish)

    async def _apart(self, work: Callable[[], bytes]) -> bytes:
        passed, error = await off_loop(partial(_tried, work))
        self._told()
        if error is None:
            return passed
        if not isinstance(error, ProxyError):
            self._fault(error)
            error = PolicyUnavailable(_FAULT)
        raise error from None


def _tried(work: Callable[[], bytes]) -> tuple[bytes, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return b"", error


class ScreenedClient:
    """A websocket client whose messages are scanned before they are relayed."""

    def __init__(self, client: WebsocketPeer, screening: Screening) -> None:
        self._client = client
        self._screening = screening

    async def receive(self) -> Message:
        """Return the next message that may pass; the client gets an error for one that may not."""
        while True:
            message = await self._client.receive()
            try:
                return await self._screened(message)
            except (PolicyViolation, PolicyUnavailable) as error:
                await self._client.send(Message("text", realtime_error(error)))
                if message.kind == "close":  # the session ends all the same, without the reason
                    return Message("close", "", message.code)

    async def send(self, message: Message) -> None:
        """Send a message to the client."""
        await self._client.send(message)

    async def _screened(self, message: Message) -> Message:
        if message.kind == "binary":
            self._screening.missed("message", "binary")
            return message
        text = control_text(message)
        if not text or (sent := await self._screening.message(text)) is text:
            return message
        return Message("text", sent) if message.kind == "text" else with_control_text(message, sent)
