"""`sidegate serve`: run the proxy until a signal."""

import argparse
import gc
import signal
from functools import partial
from types import FrameType
from typing import Final

from proxy.cli.failure import CommandFailed
from proxy.cli.options import add_config, add_data_dir, settings, whole_number
from proxy.process.extensions import map_extensions
from proxy.process.lazy import imported

_MOST_WORKERS: Final = 64
_DESCRIPTION: Final = """\
Start the proxy. It serves at once, even while PostgreSQL is unavailable: traces wait in the journal.
SIGTERM or Ctrl-C drains running requests; a second one stops at once. SIGHUP reloads the configuration,
as does a change of its files."""

_ENDING: Final = """\
example:
  OPENAI_API_KEY=... sidegate serve --listen 127.0.0.1:8080

Without a provider key and without a base URL, the built-in demo upstream answers."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _ENDING
    add_config(parser)
    parser.add_argument("--listen", metavar="HOST:PORT", help="data plane and API (default: 127.0.0.1:8080)")
    parser.add_argument("--ops-listen", metavar="HOST:PORT", help="metrics and health (default: 127.0.0.1:9090)")
    add_data_dir(parser)
    parser.add_argument(
        "--workers",
        metavar="N",
        type=whole_number(1, _MOST_WORKERS),
        default=1,
        help="processes that share the data address (default: 1)",
    )
    parser.add_argument("--reuse-port", action="store_const", const="true", help=argparse.SUPPRESS)
    parser.add_argument("--welcome", action="store_true", help="print a first request to try")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load the configuration before anything heavy is imported, so that mistakes are reported fast."""
    # Everything loaded at start lives to the end: 200 garbage collections would free nothing and take a tenth of it.
    gc.disable()
    # Until the server reloads on it, SIGHUP would end the process; nothing was read yet that could have changed. Not
    # SIG_IGN: child processes would inherit that.
    signal.signal(signal.SIGHUP, _nothing_to_reload)
    loaded = settings(arguments)
    if arguments.workers > 1:
        try:
            return int(imported("proxy.process.workers:run")(loaded.config, arguments.workers, loaded.path))
        except ValueError as error:
            raise CommandFailed(str(error)) from error
    map_extensions()
    code: int = imported("proxy.serve:run")(loaded, partial(settings, arguments), welcome=arguments.welcome)
    return code


def _nothing_to_reload(_number: int, _frame: FrameType | None) -> None:
    """Ignore SIGHUP."""
