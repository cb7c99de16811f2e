"""The client of the management API. The private database belongs to the proxy, so commands never open it themselves.

Rule of the file: the key is sent only to the address asked for: redirects are not followed, proxies of the environment
are not used, and a key found in the local data directory is sent only to this machine.
Failure mode: `CommandFailed` with one line that says what to do.
"""

import http.client
import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from proxy.cli.failure import CommandFailed
from proxy.config.advice import is_loopback
from proxy.config.load import Loaded
from proxy.config.names import shown
from proxy.process.admin_key import FILE_NAME

_TIMEOUT_S: Final = 15.0
_PIECE_BYTES: Final = 65_536
_MAX_MESSAGE: Final = 4000
_JSON: Final = {"Content-Type": "application/json"}


class ApiClient:
    """The API at one address, with one key."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._parts = _split(url)
        self._key = key

    def get(self, path: str, parameters: Mapping[str, str] | None = None) -> bytes:
        """Return the body of a successful response.

        Raises:
            CommandFailed: the proxy cannot be reached, or it refuses.
        """
        return self.ask("GET", path, parameters)

    def post(
        self, path: str, document: Mapping[str, Any] | None = None, parameters: Mapping[str, str] | None = None
    ) -> bytes:
        """Send a JSON document; return the body of a successful response. Raises as `get`."""
        return self.ask("POST", path, parameters, document)

    def ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the body of a successful response. Raises as `get`."""
        return self.exchange(method, path, parameters, document)[0]

    def exchange(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        document: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, Mapping[str, str]]:
        """Return body and headers of a successful response. Raises as `get`."""
        target = _target(path, parameters)
        sent_headers = {"Authorization": f"Bearer {self._key}", **(headers or {})}
        body = None if document is None else json.dumps(document)
        connection = self._connection()
        try:
            connection.request(method, target, body, sent_headers | ({} if body is None else _JSON))
            answer = connection.getresponse()
            received = answer.read()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise CommandFailed(self._no_answer(error)) from None
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise CommandFailed(_refusal(answer.status, received))
        return received, dict(answer.headers)

    def stream(self, path: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """Yield a long body piece by piece. Raises as `get`, also if the body is cut short."""
        connection = self._connection()
        answer = None
        try:
            connection.request("GET", _target(path, parameters), headers={"Authorization": f"Bearer {self._key}"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise CommandFailed(_refusal(answer.status, answer.read()))
            while piece := answer.read1(_PIECE_BYTES):
                yield piece
            if answer.length:  # None for a chunked body, whose missing end http.client reports itself
                raise CommandFailed(f"the answer of {self._url} was cut short")
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            text = f"no complete answer from {self._url}: {_reason(error)}" if answer else self._no_answer(error)
            raise CommandFailed(text) from None
        finally:
            connection.close()

    def get_all(self, path: str, member: str, parameters: Mapping[str, str | None]) -> list[Mapping[str, Any]]:
        """Return the entries of all pages of a list. Parameters that are `None` are left out. Raises as `get`."""
        asked = {name: value for name, value in parameters.items() if value is not None} | {"limit": "500"}
        entries: list[Mapping[str, Any]] = []
        while True:
            page = self.get_json(path, asked)
            entries += page[member]
            if page["nextCursor"] is None:
                return entries
            asked["cursor"] = page["nextCursor"]

    def get_json(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """Return the JSON document of a successful response. Raises as `get`."""
        return document_of(self.get(path, parameters))

    def _no_answer(self, error: Exception) -> str:
        return f"no answer from {self._url}: {_reason(error)}; is Sidegate running there? See --url"

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=_TIMEOUT_S)


def connect(url: str | None, loaded: Loaded) -> ApiClient:
    """Return a client for `url`, by default for the configured address.

    Raises:
        CommandFailed: the address is malformed, or no admin key is known for it.
    """
    url = (url or local_url(loaded)).rstrip("/").removesuffix("/v1")
    configured = loaded.config.admin_key
    if configured is not None:
        return ApiClient(url, configured.get_secret_value())
    if not is_loopback(_split(url).hostname or ""):
        raise CommandFailed("the proxy on another machine needs its admin key; set SIDEGATE_ADMIN_KEY")
    file = Path(loaded.config.data_dir) / FILE_NAME
    try:
        return ApiClient(url, file.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        raise CommandFailed(f"there is no {file}; name the proxy's --data-dir or set SIDEGATE_ADMIN_KEY") from None
    except ValueError:
        raise CommandFailed(f"{file} does not hold an admin key") from None


def local_url(loaded: Loaded) -> str:
    """Return the address at which this machine reaches the API."""
    return f"http://{loaded.config.server.listen.local_address}"


def segment(name: str) -> str:
    """Return a name as one segment of a path. The proxy judges it, also if it is no valid text."""
    return quote(name, safe="", errors="surrogateescape")


def printable_json(body: bytes) -> str:
    """Return JSON with every digit as the proxy wrote it, but in ASCII, so that no name can control a terminal.

    Characters outside ASCII occur only inside strings, where they can be escaped.
    """
    return re.sub("[^ -~]", lambda letter: json.dumps(letter[0])[1:-1], body.decode())


def json_text(value: Any) -> str:
    """Return a part of an `exact_document` as JSON in ASCII, its amounts with every digit."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)}: {json_text(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return format(value, "f") if isinstance(value, Decimal) else json.dumps(value)


def document_of(body: bytes) -> Any:
    """Return the JSON document of a response. Raises CommandFailed if it is none."""
    return _parsed(body, float)


def exact_document(body: bytes) -> Any:
    """Return the JSON document of a response with its amounts as `Decimal`. Raises CommandFailed if it is none."""
    return _parsed(body, Decimal)


def _parsed(body: bytes, number: Callable[[str], Any]) -> Any:
    try:
        document = json.loads(body, parse_float=number, object_hook=_Members)
    except ValueError:
        raise CommandFailed("the proxy does not answer with JSON; is it Sidegate?") from None
    if not isinstance(document, dict):
        raise CommandFailed("the proxy does not answer with a JSON object; is it Sidegate?")
    return document


class _Members(dict[str, Any]):
    """A JSON object of a response. What it lacks, Sidegate of this version would have sent."""

    def __missing__(self, name: str) -> Any:
        raise CommandFailed(f"the answer lacks {name}; is it Sidegate, and of this version?")


def _target(path: str, parameters: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(parameters, errors='surrogateescape')}" if parameters else path


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.path
    except ValueError:
        usable = False
    if not usable:
        raise CommandFailed("--url must be http://HOST:PORT or https://HOST:PORT of a running proxy")
    return parts


def _refusal(status: int, body: bytes) -> str:
    """Return the proxy's error message, safe for a terminal."""
    if status == 401:
        return "the proxy refuses the admin key; set SIDEGATE_ADMIN_KEY to the one it was started with"
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = "no explanation"
    return f"the proxy answers {status}: {shown(str(message), _MAX_MESSAGE)}"
