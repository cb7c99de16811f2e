"""One request to the demo upstream: its body, the fault it asks for, its bill; and how it is refused.

Rules of the file: what cannot be understood is refused with an error of OpenAI's shape, and costs nothing.

Source: OpenAI API reference, "Error codes" and "Debugging requests".
"""

import asyncio
import secrets
import time
from typing import Any, Final

import orjson
from aiohttp import web

from proxy.demo.events import Head
from proxy.demo.faults import Fault, FaultError, parse, split_model
from proxy.demo.ledger import Bill
from proxy.demo.reply import Prompt

Json = dict[str, Any]
MAX_CHOICES: Final = 16
RATE_LIMIT_HEADERS: Final = {
    "retry-after": "1",
    "retry-after-ms": "1000",
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6ms",
}
TYPE_AND_CODE: Final = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("request_forbidden", "permission_denied"),
    429: ("requests", "rate_limit_exceeded"),
}


class Refusal(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = RATE_LIMIT_HEADERS if code == "rate_limit_exceeded" else {}
        self.document = error_document(status, message, code, param)


def error_document(status: int, message: str, code: str | None = None, param: str | None = None) -> Json:
    """Return OpenAI's error body; type and code follow from the status where they are not given."""
    fallback = ("server_error", None) if status >= 500 else ("invalid_request_error", None)
    kind, usual_code = TYPE_AND_CODE.get(status, fallback)
    return {"error": {"message": message, "type": kind, "param": param, "code": code or usual_code}}


class Call:
    """One understood request while it is answered."""

    def __init__(self, request: web.Request, body: Json, fault: Fault, bill: Bill) -> None:
        self.request = request
        self.body = body
        self.fault = fault
        self.bill = bill
        self._started = time.monotonic()

    def head(self, prefix: str, prompt: Prompt) -> Head:
        """Return the answer's head and bill its input."""
        self.bill.input_tokens = prompt.tokens
        return Head(prefix + secrets.token_hex(16), int(time.time()), self.bill.model, prompt.tokens)

    def headers(self) -> dict[str, str]:
        """Return what OpenAI adds to every answer."""
        elapsed_ms = int((time.monotonic() - self._started) * 1000)
        return {
            "x-request-id": self.bill.request_id,
            "openai-processing-ms": str(max(1, elapsed_ms)),
            "openai-version": "2020-10-01",
        }

    def max_tokens(self, *names: str) -> int | None:
        """Return the first limit of output tokens that the body names."""
        return next((value for value in map(self.body.get, names) if is_count(value)), None)

    def choices(self) -> int:
        """Return the wanted number of choices."""
        wanted = self.body.get("n") or 1
        if not is_count(wanted) or wanted > MAX_CHOICES:
            raise Refusal(400, f"n must be a whole number between 1 and {MAX_CHOICES}.", param="n")
        return int(wanted)

    def include_usage(self) -> bool:
        """Tell whether the stream was asked to end with usage."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True and not self.fault.no_usage


def is_count(value: object) -> bool:
    """Tell whether a JSON value is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


async def read_call(request: web.Request, bill: Bill) -> Call:
    """Read body and fault and fill in the bill; then wait, if that is the fault.

    Raises:
        Refusal: the body is not understood, or being refused is the fault asked for.
    """
    body = _read_json(await request.read())
    wanted = body.get("model")
    if not isinstance(wanted, str) or not wanted:
        raise Refusal(400, "you must provide a model parameter", param="model")
    bill.model, suffix = split_model(wanted)
    bill.stream = body.get("stream") is True
    try:
        fault = parse(request.headers.get("x-demo-fault", suffix))
    except FaultError as error:
        raise Refusal(400, str(error), "unknown_fault") from None
    call = Call(request, body, fault, bill)
    await asyncio.sleep(fault.head_delay_s)
    if fault.rate_limit:
        raise Refusal(429, "Rate limit reached for requests, as this request asked for.", "rate_limit_exceeded")
    if fault.status:
        raise Refusal(fault.status, "The demo upstream failed, as this request asked for.")
    return call


def _read_json(text: bytes) -> Json:
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "We could not parse the JSON body of your request.")
    return body
