"""`sidegate serve`: start the proxy and stay until a signal."""

import argparse
import gc
from functools import partial
from typing import Final

from proxy.cli.options import add_config, add_data_dir, settings
from proxy.lazy import function

_DESCRIPTION: Final = """\
Start the proxy. It serves at once, also while PostgreSQL is away: traces wait in the journal.
SIGTERM or Ctrl-C lets running answers finish; a second one ends at once. SIGHUP reads the configuration
anew, as a change of its files does."""

_ENDING: Final = """\
example:
  OPENAI_API_KEY=... sidegate serve --listen 127.0.0.1:8080

Without a provider key and a base URL the built-in demo upstream answers."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _ENDING
    add_config(parser)
    parser.add_argument("--listen", metavar="HOST:PORT", help="data plane and API (default: 127.0.0.1:8080)")
    parser.add_argument("--ops-listen", metavar="HOST:PORT", help="metrics and health (default: 127.0.0.1:9090)")
    add_data_dir(parser)
    parser.add_argument("--welcome", action="store_true", help="print how to make a first call")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load the configuration first, so that a mistake in it is told before anything heavy is imported."""
    # Everything that is loaded lives to the end: 200 looks for garbage find nothing, in a tenth of the start's time.
    gc.disable()
    loaded = settings(arguments)
    code: int = function("proxy.serve:run")(loaded, partial(settings, arguments), welcome=arguments.welcome)
    return code
