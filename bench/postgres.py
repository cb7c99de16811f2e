"""A private PostgreSQL that can be stopped and started while others hold its DSN.

Every start of the private server has a socket directory of its own; the DSN given out names a directory of ours, in
which a link leads to the socket of the moment. While the server is stopped the link leads nowhere: connecting fails as
it does when a real server is down.
"""

import os
import signal
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from proxy.db.embedded import EmbeddedPostgres
from proxy.db.install import DATA

SOCKET = ".s.PGSQL.5432"


class StoppablePostgres:
    """Start it on a thread that lives as long as the server should."""

    def __init__(self, directory: Path) -> None:
        self._server = EmbeddedPostgres(directory / "data")
        self._data = (directory / "data" / "postgres" / "instance" / DATA).resolve()
        self._door = directory / "door"
        self._door.mkdir()
        self.url = ""
        """The same for every start."""

    async def start(self) -> None:
        parts = urlsplit(await self._server.start())
        link = self._door / SOCKET
        link.unlink(missing_ok=True)
        link.symlink_to(Path(parse_qs(parts.query)["host"][0]) / SOCKET)
        self.url = parts._replace(query=urlencode({"host": str(self._door)})).geturl()

    async def stop(self) -> None:
        await self._server.stop()

    async def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server: SIGSTOP freezes it, SIGCONT lets it go on."""
        for pid in self._processes():
            os.kill(pid, number)

    def _processes(self) -> list[int]:
        """All processes that work in the data directory, as every process of PostgreSQL does."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "cwd").resolve(strict=True) == self._data:
                    found.append(int(entry.name))
            except OSError:
                continue  # it has ended meanwhile
        return found
