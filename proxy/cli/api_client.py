"""Ask the API of a running proxy. The private database belongs to the proxy, so commands never open it themselves.

Rule of the file: the key goes nowhere but to the address that was asked for: no redirect is followed, no proxy of the
environment is used, and a key that was found in the local data directory is only sent to this machine.
Failure mode: `CommandFailed` with one line that says what to do.
"""

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urlsplit

from proxy.cli.failure import CommandFailed
from proxy.config.advice import is_loopback
from proxy.config.load import Loaded
from proxy.config.names import shown

_TIMEOUT_S: Final = 15.0
_PIECE_BYTES: Final = 65_536
_KEY_FILE: Final = "admin.key"
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_MAX_MESSAGE: Final = 4000
_JSON: Final = {"Content-Type": "application/json"}


class ApiClient:
    """One API at one address."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._parts = _split(url)
        self._key = key

    def get(self, path: str, parameters: Mapping[str, str] | None = None) -> bytes:
        """Return the body of an answer with status 200.

        Raises:
            CommandFailed: the proxy cannot be reached, or it says no.
        """
        return self.ask("GET", path, parameters)

    def post(
        self, path: str, document: Mapping[str, Any] | None = None, parameters: Mapping[str, str] | None = None
    ) -> bytes:
        """Return the body of an answer with status 200 to a JSON document. Raises as `get`."""
        return self.ask("POST", path, parameters, document)

    def ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the body of an answer that says yes. Raises as `get`."""
        return self.exchange(method, path, parameters, document)[0]

    def exchange(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        document: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, Mapping[str, str]]:
        """Return body and headers of an answer that says yes. Raises as `get`."""
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        said_with = {"Authorization": f"Bearer {self._key}", **(headers or {})}
        body = None if document is None else json.dumps(document)
        connection = self._connection()
        try:
            connection.request(method, target, body, said_with | ({} if body is None else _JSON))
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            raise CommandFailed(f"no answer from {self._url}: {reason}; is Sidegate running there? See --url") from None
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise CommandFailed(_refusal(answer.status, said))
        return said, dict(answer.headers)

    def stream(self, path: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """Yield the pieces of a body that may be long. Raises as `get`, also where the body breaks off."""
        connection = self._connection()
        try:
            connection.request(
                "GET", f"{path}?{urlencode(parameters)}", headers={"Authorization": f"Bearer {self._key}"}
            )
            answer = connection.getresponse()
            if answer.status != 200:
                raise CommandFailed(_refusal(answer.status, answer.read()))
            while piece := answer.read1(_PIECE_BYTES):
                yield piece
            if answer.length:  # of a chunked body it is None, and http.client itself misses the end
                raise CommandFailed(f"the answer of {self._url} broke off")
        except (OSError, http.client.HTTPException) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            raise CommandFailed(f"no whole answer from {self._url}: {reason}") from None
        finally:
            connection.close()

    def get_all(self, path: str, member: str, parameters: Mapping[str, str | None]) -> list[Mapping[str, Any]]:
        """Return the entries of all pages. Parameters that are `None` are left out. Raises as `get`."""
        asked = {name: value for name, value in parameters.items() if value is not None} | {"limit": "500"}
        entries: list[Mapping[str, Any]] = []
        while True:
            page = self.get_json(path, asked)
            entries += page[member]
            if page["nextCursor"] is None:
                return entries
            asked["cursor"] = page["nextCursor"]

    def get_json(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """Return the document of an answer with status 200."""
        try:
            return json.loads(self.get(path, parameters))
        except ValueError:
            raise CommandFailed(f"{self._url} does not answer with JSON; is it Sidegate?") from None

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=_TIMEOUT_S)


def connect(url: str | None, loaded: Loaded) -> ApiClient:
    """Return a client for `url`, by default for the address that the configuration names.

    Raises:
        CommandFailed: the address is none, or no admin key is known for it.
    """
    url = (url or local_url(loaded)).rstrip("/").removesuffix("/v1")
    configured = loaded.config.admin_key
    if configured is not None:
        return ApiClient(url, configured.get_secret_value())
    if not is_loopback(_split(url).hostname or ""):
        raise CommandFailed("the admin key of another machine is needed; set SIDEGATE_ADMIN_KEY")
    file = Path(loaded.config.data_dir) / _KEY_FILE
    try:
        return ApiClient(url, file.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        raise CommandFailed(f"there is no {file}; name the proxy's --data-dir or set SIDEGATE_ADMIN_KEY") from None
    except ValueError:
        raise CommandFailed(f"{file} does not hold an admin key") from None


def local_url(loaded: Loaded) -> str:
    """Return the address of the API as this machine reaches it."""
    listen = loaded.config.server.listen
    host = _EVERYWHERE.get(listen.host, listen.host)
    return f"http://[{host}]:{listen.port}" if ":" in host else f"http://{host}:{listen.port}"


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
    """Return what the proxy says about its refusal, safe for a terminal."""
    if status == 401:
        return "the proxy refuses the admin key; set SIDEGATE_ADMIN_KEY to the one it was started with"
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = "no explanation"
    return f"the proxy answers {status}: {shown(str(message), _MAX_MESSAGE)}"
