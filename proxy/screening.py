"""The policy at work in one exchange: phase 3 for each kind of body, large texts in a thread, faults as configured.

    JSON            before anything else is done: refused, or sent as it came, or sent with what was found masked
    forms, raw      while they pass (`policy.upload_scan`)
    websocket       message by message: a blocked one is answered with an error and does not reach the provider
    answers         by the relays, which get a scanner (`output`)

Failure mode: a scan that fails refuses the request (`policy_unavailable`), or lets it pass and counts it (`on_fault`).
The log names the kind of failure and where it happened, but no message: that could quote a text.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from proxy.config.policy import Policy as Settings
from proxy.config.schema import Limits
from proxy.errors import InvalidRequest, PolicyUnavailable, PolicyViolation, ProxyError
from proxy.exchange import Capture, Header, Inbound, Message, ParsedRequest, WebsocketPeer
from proxy.findings import Action, Unscanned, Verdict
from proxy.openai.documents import dump_exact, load, load_exact
from proxy.openai.input_text import input_text_bytes
from proxy.openai.json_body import parse_body, unambiguous
from proxy.openai.multipart import MultipartObserver
from proxy.openai.stream_end import realtime_error
from proxy.policy import places
from proxy.policy.guarded_output import GuardedOutput
from proxy.policy.output_scan import OutputScan
from proxy.policy.policy import Policy
from proxy.policy.refusal import denied, violation
from proxy.policy.scan import Scanned, scan
from proxy.policy.upload_scan import UploadScan
from proxy.scanners import OutputScanner

T = TypeVar("T")

_log = logging.getLogger("sidegate.policy")
_FAULT: Final = "Sidegate failed to scan the request, and what is not scanned does not pass."
_STRONGEST: Final[tuple[Action, ...]] = ("block", "redact", "flag")
_MAX_NAMED: Final = 8


class Screening:
    """One exchange's policy. `verdict`: what is found is added to it."""

    def __init__(self, policy: Policy, settings: Settings, limits: Limits, verdict: Verdict) -> None:
        self.policy = policy
        self.verdict = verdict
        self._settings = settings
        self._limits = limits

    async def request(self, request: ParsedRequest, inbound: Inbound, capture: Capture | None) -> ParsedRequest:
        """Return the request as it may be sent: the same one where nothing has to be masked.

        `capture`: gets the body as it may be kept. Raises PolicyViolation, PolicyUnavailable.
        """
        if not self.policy.scan_prompts or request.body is None:
            return request
        wants_kept = capture is not None and self.policy.redacts
        try:
            work = partial(self._looked_at, request, inbound, wants_kept)
            scanned, kept, sent = await self._apart(len(request.body), work)
        except ProxyError:
            raise
        except Exception as error:
            if capture is not None:
                capture.request = None
            self._fault(error)
            return request
        if capture is not None and wants_kept:
            capture.request = kept
        scanned.enter(self.verdict)
        self._judge(scanned)
        return sent

    async def message(self, text: str) -> str:
        """Return a websocket message of the client as it may be sent. Raises PolicyViolation, PolicyUnavailable."""
        if not self.policy.scan_prompts:
            return text
        try:
            return await self._apart(len(text), partial(self._message, text))
        except ProxyError:
            raise
        except Exception as error:
            self._fault(error)
            return text

    async def may_quote(self, texts: Sequence[str]) -> bool:
        """Tell whether texts of an answer may be sent to another provider: nothing in them is blocked or masked.

        Notes nothing: no client has said them. Raises PolicyUnavailable.
        """
        if not self.policy.scan_prompts:
            return True
        try:
            work = partial(scan, self.policy, list(texts), self._settings.nested_bytes)
            scanned = await self._apart(sum(map(len, texts)), work)
        except Exception as error:
            self._fault(error)
            return True
        return scanned.blocked is None and not scanned.sent

    def missed(self, place: str, reason: str) -> None:
        """Note a part of the request that no text can be read from. Raises PolicyViolation where it may not pass."""
        if self.policy.scan_prompts:
            self.verdict.miss(Unscanned("prompt", place, reason))
            if self._settings.unscannable == "deny":
                raise denied(place, reason)

    async def upload(self, observer: MultipartObserver | None) -> "Upload | None":
        """Return what scans a body that passes as a stream; `None` where it passes as it comes."""
        if not self.policy.scan_prompts:
            return None
        if not self.policy.has_prepared_uploads:
            await asyncio.to_thread(self.policy.prepare_uploads)
        if observer is not None:
            observer.follow()
        denies = self._settings.unscannable == "deny"
        return Upload(UploadScan(self.policy, self.verdict, observer, denies_unscannable=denies), self._fault)

    def output(self) -> OutputScanner | None:
        """Return what scans the answer; `None` where nobody does."""
        if not self.policy.scan_outputs:
            return None
        return GuardedOutput(OutputScan(self.policy, self.verdict, self._settings), self._fault)

    def header(self) -> Header | None:
        """Return the header that tells what was found in the request; `None` where nothing was."""
        found: dict[Action, list[str]] = {}
        for direction, rule_id, action in self.verdict.counts:
            if direction == "prompt":
                found.setdefault(action, []).append(rule_id)
        if not found or not self._settings.header:
            return None
        action = next(action for action in _STRONGEST if action in found)
        rules = ",".join(found[action][:_MAX_NAMED])
        return b"x-sidegate-policy", f"{action}; rules={rules}; version={self.verdict.version}".encode()

    def _looked_at(
        self, request: ParsedRequest, inbound: Inbound, wants_kept: bool
    ) -> tuple[Scanned, bytes | None, ParsedRequest]:
        """Return what a body holds, the body as it may be kept, and the request as it may be sent."""
        document, body = self._document(request, inbound)
        scanned = scan(self.policy, document, self._settings.nested_bytes)
        kept = _edited(body, document, scanned.kept) if wants_kept else None
        if scanned.sent:
            body = _edited(body, document, scanned.sent)
        if body is request.body:
            return scanned, kept, request
        request = replace(request, body=body)
        if request.document is not None and scanned.sent:
            changed = places.changed(request.document, scanned.sent)
            request = replace(request, document=changed, input_text_bytes=partial(input_text_bytes, changed))
        return scanned, kept, request

    def _document(self, request: ParsedRequest, inbound: Inbound) -> tuple[Any, bytes]:
        """Return what is scanned and the bytes that say the same: JSON as its value, anything else as one text."""
        body = request.body or b""
        if request.document is not None:
            return request.document, body
        if inbound.fields.get(b"content-type", b"").partition(b";")[0].strip().lower().endswith(b"json"):
            try:
                document = parse_body(body, self._limits)
            except InvalidRequest:
                self.missed("", "malformed")
            else:
                if type(document) is list:
                    return document, unambiguous(body, document)
        return _as_text(body), body

    def _message(self, text: str) -> str:
        try:
            document: Any = load(text.encode())
        except ValueError:
            document = text
        scanned = scan(self.policy, document, self._settings.nested_bytes)
        scanned.enter(self.verdict)
        self._judge(scanned)
        if type(document) is str and document == text:
            return scanned.sent.get((), text)
        if not scanned.sent:
            # A key that stands twice has two readings: the provider gets the one that was scanned.
            body = text.encode("utf-8", "surrogatepass")
            sure = unambiguous(body, document)
            return text if sure is body else sure.decode()
        return dump_exact(places.changed(load_exact(text.encode()), scanned.sent)).decode()

    def _judge(self, scanned: Scanned) -> None:
        """Refuse what is blocked, and what was not scanned where that is not enough."""
        if (blocked := scanned.blocked) is not None:
            rules = (sighting.finding.rule_id for sighting in scanned.sightings if sighting.action == "block")
            raise violation(blocked, rules)
        if scanned.unscanned and self._settings.unscannable == "deny":
            raise denied(scanned.unscanned[0].place, scanned.unscanned[0].reason)

    async def _apart(self, size: int, work: Callable[[], T]) -> T:
        """Do small work at once and large work in a thread."""
        return work() if size <= self._settings.thread_bytes else await asyncio.to_thread(work)

    def _fault(self, error: Exception) -> None:
        """Note a fault of ours. Raises PolicyUnavailable unless such requests pass."""
        self.verdict.faults += 1
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        at = "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        _log.error("scanning failed", extra={"kind": type(error).__name__, "at": at})
        if self._settings.on_fault == "closed":
            raise PolicyUnavailable(_FAULT) from None


class Upload:
    """A body that is scanned while it passes. A fault ends it, as part of it is in the scanner's hands."""

    def __init__(self, upload: UploadScan, fault: Callable[[Exception], None]) -> None:
        self._scan = upload
        self._fault = fault

    def feed(self, piece: bytes) -> bytes:
        """Return what may be sent once `piece` has come. Raises PolicyViolation, PolicyUnavailable."""
        return self._try(partial(self._scan.feed, piece))

    def finish(self) -> bytes:
        """Return the rest: the body ends here."""
        return self._try(self._scan.finish)

    def _try(self, work: Callable[[], bytes]) -> bytes:
        try:
            return work()
        except ProxyError:
            raise
        except Exception as error:
            self._fault(error)
            raise PolicyUnavailable(_FAULT) from None


class ScreenedClient:
    """A websocket client whose messages are scanned before anybody gets them."""

    def __init__(self, client: WebsocketPeer, screening: Screening) -> None:
        self._client = client
        self._screening = screening

    async def receive(self) -> Message:
        """Return the next message that may pass; the client is told of those that may not."""
        while True:
            message = await self._client.receive()
            try:
                return await self._screened(message)
            except (PolicyViolation, PolicyUnavailable) as error:
                await self._client.send(Message("text", realtime_error(error)))

    async def send(self, message: Message) -> None:
        """Pass a message on to the client."""
        await self._client.send(message)

    async def _screened(self, message: Message) -> Message:
        if message.kind == "binary":
            self._screening.missed("message", "binary")
        if message.kind != "text" or type(message.data) is not str:
            return message
        text = await self._screening.message(message.data)
        return message if text is message.data else Message("text", text)


def _edited(body: bytes, document: Any, changes: dict[places.Place, str]) -> bytes:
    """Return `body` with `changes`, equal but for them: numbers of any size and members added to it stay."""
    if not changes:
        return body
    if type(document) is not str:
        return dump_exact(places.changed(load_exact(body), changes))
    text = changes.get((), document)
    return text.encode() if _is_utf8(body) else text.encode("latin-1")


def _as_text(body: bytes) -> str:
    return body.decode() if _is_utf8(body) else body.decode("latin-1")


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
