"""A deterministic, OpenAI-shaped upstream for a first run without a provider key, and for trying out failures.

It is no language model and says so in every answer. `DemoUpstream` serves inside the process of the caller, `run` as a
program of its own. docs/demo-upstream.md lists endpoints and faults.

    server                          the aiohttp application
    call, delivery                  how a request is read; how an answer leaves, well or broken
    chat, responses, embeddings     documents and stream events of one API each, no I/O
    reply                           what is said, and how many tokens that is
    faults, ledger                  failures on request; what was billed
"""

from proxy.demo.server import DemoUpstream, run, serve

__all__ = ["DemoUpstream", "run", "serve"]
