"""`sidegate demo-upstream`: a provider for a first try, without a key or a model."""

import argparse
from typing import Final

from proxy.config.environment import split_address
from proxy.process.lazy import imported

_DESCRIPTION: Final = """\
Start a deterministic, OpenAI-shaped provider. It is not a language model: it answers with canned text,
counts tokens as a provider does, and fails on request."""

_ENDING: Final = """\
example:
  sidegate demo-upstream --listen 127.0.0.1:8081 &
  UPSTREAM_BASE_URL=http://127.0.0.1:8081/v1 sidegate serve"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _ENDING
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=_address,
        default=("127.0.0.1", 8081),
        help="address to listen on (default: 127.0.0.1:8081)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal arrives."""
    host, port = arguments.listen
    return int(imported("proxy.demo:run")(host, port) or 0)


def _address(text: str) -> tuple[str, int]:
    try:
        return split_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
