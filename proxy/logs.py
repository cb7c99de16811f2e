"""JSON lines on standard error: one event per line, ASCII only, so that input cannot inject terminal sequences.

Rule of the file: a log record consists of its message and the named extra fields. Exceptions are reduced to type and
location; their texts may quote a request. Library loggers that quote their input are disabled here.
"""

import json
import logging
import sys
import time
import traceback
from typing import Any, Literal

import orjson

from proxy.exchange import Exchange

_FAULTS = frozenset({"upstream_failed", "timeout", "truncated", "internal_error", "drain_abort", "overload_abort"})
_requests = logging.getLogger("sidegate.requests")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUOTING_LOGGERS = ("aiohttp", "asyncio")
"""Parents: `aiohttp.server` quotes headers, `aiohttp.websocket` the subprotocols, where browsers send their key."""


class JsonFormatter(logging.Formatter):
    """Render a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, logger, event, the extra fields and, for exceptions, type and innermost place."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])[-4:]
            line["where"] = [f"{frame.filename.rsplit('/', 2)[-1]}:{frame.lineno} {frame.name}" for frame in frames]
        try:
            return _ascii(orjson.dumps(line, default=str))
        except TypeError:  # a lone surrogate, as in a file's name that is not UTF-8, or a number beyond 64 bits
            return json.dumps(line, separators=(",", ":"), default=str)


def _ascii(line: bytes) -> str:
    text = line.decode()
    return text if text.isascii() else json.dumps(orjson.loads(line), separators=(",", ":"))


def configure(level: str) -> None:
    """Send everything from `level` on to standard error as JSON and silence loggers that quote their input."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.raiseExceptions = False
    for name in _QUOTING_LOGGERS:
        quoting = logging.getLogger(name)
        quoting.handlers[:] = [logging.NullHandler()]
        quoting.propagate = False


def log_request(x: Exchange, which: Literal["none", "errors", "all"]) -> None:
    """Write one line about a finished exchange: never, for failures on our or the provider's side, or always.

    Names of users, models and paths are only in the trace, which the line identifies.
    """
    if which == "none" or (which == "errors" and x.outcome == "ok"):
        return
    failed = x.outcome in _FAULTS or (x.outcome == "upstream_error" and (x.delivery.status or 0) >= 500)
    if not failed and which == "errors":
        return
    _requests.log(
        logging.WARNING if failed else logging.INFO,
        "request",
        extra={
            "trace": x.trace_id,
            "operation": x.inbound.operation.name,
            "outcome": x.outcome,
            "status": x.delivery.status,
            "code": None if x.error is None else x.error.code,
            "ms": round(((x.ended or x.started) - x.started) * 1000, 1),
        },
    )
