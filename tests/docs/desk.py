"""A reader's desk: a directory with the files that the documentation speaks of, and a shell to type its commands into.

What a reader would have to fill in is filled in: the id of a trace or a key, the address of the running proxy. Commands
that go on until they are stopped are stopped as soon as they serve; they have to end with 0 then. `make` does not begin
the tests anew: of a target is asked only whether it can be made, and `make run` is what its recipe says.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.docs.fences import ROOT
from tests.fakes import warm
from tests.fakes.sidegate import ADMIN_KEY, Sidegate

BIN = Path(sys.executable).parent
SETTINGS = "timeouts:\n  gap_s: 120\ntracing:\n  content: redacted\n"
RULES = """\
rules:
  - id: shop-token
    category: secret
    severity: high
    pattern: 'shop_(?:live|test)_[A-Za-z0-9]{24}'
    match: ['key=shop_live_{A24}']
    no_match: ['workshop_live_{A24}']
"""
REQUEST = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
# Most commands end by themselves. `typed` asks the warm process of the session for them.
_SIDEGATE = """#!/bin/bash
if [[ $1 = serve || " $* " = *" --follow "* ]]; then exec {python} -ISE {desk}/bin/until-stopped "$@"; fi
exec {python} -ISE {desk}/bin/typed "$@"
"""
_MAKE = """#!/bin/bash
set -e
recipe=$({make} -C {root} -n "$@" 2> /dev/null)
if [[ $1 = run ]]; then
    [[ $recipe = *"sidegate serve --welcome"* ]]
    exec {python} -ISE {desk}/bin/until-stopped serve --welcome
fi
"""
_UNTIL_STOPPED = r"""
import os, signal, subprocess, sys, threading

arguments = sys.argv[1:]
# The address in the environment is the one that the other commands talk to.
environ = os.environ | ({"SIDEGATE_LISTEN": "127.0.0.1:0"} if arguments[0] == "serve" else {})
command = [sys.executable, "-ISE", "{desk}/bin/typed", *arguments]
process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
watchdog = threading.Timer(40, process.kill)
watchdog.start()
said = []
if arguments[0] == "serve":
    for line in process.stdout:
        said.append(line)
        if '"listening"' in line:
            process.send_signal(signal.SIGTERM)
            break
else:
    threading.Timer(1.0, process.send_signal, [signal.SIGINT]).start()
said += process.stdout.readlines()
code = process.wait()
watchdog.cancel()
if code not in (0, 130):
    sys.exit("".join(said))
"""


@dataclass(frozen=True, slots=True)
class Filled:
    """What stands for the examples of the documentation."""

    proxy: Sidegate
    trace_id: str
    key_id: str
    project: str
    organization: str
    demo_port: int

    def into(self, text: str) -> str:
        """Return `text` with what a reader would type in place of the examples."""
        host, port = self.proxy.address
        ops_host, ops_port = self.proxy.ops_address
        for pattern, replacement in (
            (r"--(ops-)?listen 127\.0\.0\.1:(8080|9090)", r"--\1listen 127.0.0.1:0"),
            (r"127\.0\.0\.1:8081", f"127.0.0.1:{self.demo_port}"),
            (r"127\.0\.0\.1:8080", f"{host}:{port}"),
            (r"127\.0\.0\.1:9090", f"{ops_host}:{ops_port}"),
            (r"/var/lib/sidegate", "lib"),
            (r"\.venv/bin/sidegate", "sidegate"),
            (r"\bTRACE_ID\b|\b01[0-9a-f]{6}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b", self.trace_id),
            (r"\bID\b|\babcdef012345\b", self.key_id),
            (r"\bKEY=\.\.\.", f"KEY={ADMIN_KEY}"),
            (r"\bFILE\b", "report.log"),
            (r"\bshop\b", self.project),
            (r"\bacme\b", self.organization),
        ):
            text = re.sub(pattern, replacement, text)
        return text


class Desk:
    """One reader in one directory."""

    def __init__(self, path: Path, filled: Filled, database_url: str) -> None:
        self.path = path
        self.filled = filled
        self._environment = {name: os.environ[name] for name in ("HOME", "LANG", "LC_ALL") if name in os.environ}
        self._environment |= {
            "PATH": f"{path / 'bin'}:{BIN}:{os.environ['PATH']}",
            "SIDEGATE_LISTEN": "{}:{}".format(*filled.proxy.address),
            "SIDEGATE_OPS_LISTEN": "127.0.0.1:0",
            "SIDEGATE_ADMIN_KEY": ADMIN_KEY,
            "DATABASE_URL": database_url,
            "SIDEGATE": "http://{}:{}".format(*filled.proxy.address),
            "KEY": ADMIN_KEY,
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        self._lay_out()

    def run(self, script: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Type `script` into a shell that stops at the first failure."""
        # Whatever a block leaves in the background ends with it.
        whole = f"set -e\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{self.filled.into(script)}\n"
        return subprocess.run(
            ["bash", "-c", whole],
            cwd=self.path,
            env=self._environment | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def write(self, name: str, text: str) -> None:
        """Put a file on the desk."""
        place = self.path / self.filled.into(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    def _lay_out(self) -> None:
        self.write("var/admin.key", ADMIN_KEY)
        self.write("sidegate.yaml", SETTINGS)
        self.write("my-rules.yaml", RULES)
        self.write("request.json", json.dumps(REQUEST))
        for name in ("report.log", "prompts/first.txt", "src/app.py"):
            self.write(name, "nothing to see here\n")
        places = {"python": sys.executable, "root": ROOT, "make": shutil.which("make"), "desk": self.path}
        for name, program in {
            "sidegate": _SIDEGATE,
            "make": _MAKE,
            "until-stopped": _UNTIL_STOPPED,
            "typed": warm.typed(),
        }.items():
            for place, path in places.items():
                program = program.replace(f"{{{place}}}", str(path))
            self.write(f"bin/{name}", program)
            (self.path / "bin" / name).chmod(0o755)
