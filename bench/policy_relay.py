"""What the policy costs: a prompt, and what is added to a streamed event, from the provider's bytes to the client's.

The same stream is read with and without a scanner, in turn; the best of several rounds, in microseconds of CPU for one
event, and how many events wait for the next one. Where other programs share the caches it costs twice as much, and so
it does without a scanner: the ratio tells more than the figures.

No socket is in it. `make bench` runs it after the rest; alone: `python -m bench.policy_relay`.
"""

import json
import random
import re
import time
from functools import partial

from bench.policy_stream import CODE, PROSE, cpu_us
from proxy.config.policy import Policy as Settings
from proxy.exchange import Attempt, Candidate, Headers, first_values
from proxy.policy.output_scan import OutputScan
from proxy.policy.patience import Patience
from proxy.policy.policy import Policy
from proxy.policy.ready import Policies
from proxy.relay.answer import Answer
from proxy.relay.reading import Reading

ROUNDS = 25
_TOKEN = re.compile(r"\s?[A-Za-z]+|\s?[0-9]{1,3}|[^\w\s]+|\s+|_")


class _Reply:
    """The head of a stream; its events are handed over by hand."""

    status, reason, complete = 200, "OK", False
    headers: Headers = ((b"Content-Type", b"text/event-stream"),)
    fields = first_values(headers)

    async def read(self) -> bytes:
        return b""

    def close(self) -> None:
        pass


def events_of(tokens: list[str]) -> list[bytes]:
    """Return a stream of chat chunks, one for each token."""
    chunk = {
        "id": "chatcmpl-BxR7m2QpVn4KfYt0sLdWc9Hg", "object": "chat.completion.chunk", "created": 1741569952,
        "model": "gpt-4o-2024-08-06", "service_tier": "default", "system_fingerprint": "fp_44709d6fcb",
    }  # fmt: skip
    said = [{"index": 0, "delta": {"content": token}, "logprobs": None, "finish_reason": None} for token in tokens]
    documents = [{**chunk, "choices": [choice], "usage": None} for choice in said]
    return [b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n" for document in documents]


def relayed(policy: Policy | None, events: list[bytes]) -> int:
    """Read a stream to its end; return how many events did not leave at once."""
    scanner = None
    if policy is not None:
        scanner = OutputScan(policy, policy.verdict(100), Settings(), _raise)
    attempt = Attempt(0, Candidate("default", "gpt-4o"), 0.0, sent=True, status=200)
    answer = Answer(
        _Reply(), _Reply.headers, attempt, dialect="chat", strip_usage=False, is_head=False, seal=_seal, capture=None,
        scanner=scanner,
    )  # fmt: skip
    reading, late = Reading(answer, 1 << 20), 0
    for event in events:
        for read in reading.events(event):
            late += not reading.admit(read)
    reading.held()
    return late


def main() -> None:
    """Print the cost of each kind of text."""
    chance = random.Random(7)
    policy = Policies(Settings()).prepare()
    prompt = (PROSE + CODE.replace("token", "client")) * 20
    for size, patience in ((10_000, Patience(3600.0)), (8_000_000, None)):  # the large one is scanned in a thread
        text = (prompt * (size // len(prompt) + 1))[:size]
        cost = cpu_us(partial(policy.detector.find, text, patience), max(2_000_000 // size, 1))
        print(f"clean prompt of {size:9,} bytes: {cost:10,.1f} us, {size / cost:4.0f} MB/s")
    kinds = {
        "short words": [" the", " of", " and", " to", " in a"] * 100,
        "prose": _TOKEN.findall(PROSE * 6),
        "code": _TOKEN.findall(CODE * 6),
        "numbers": [f" {chance.randrange(1000)}" for _ in range(500)],
        "one long number": [f"{chance.randrange(1000):03}" for _ in range(500)],
    }
    for name, tokens in kinds.items():
        events = events_of(tokens)
        plain = scanned = float("inf")
        for _ in range(ROUNDS):
            plain = min(plain, _cost_us(None, events))
            scanned = min(scanned, _cost_us(policy, events))
        late = relayed(policy, events) / len(events)
        print(f"{name:16} without {plain:6.2f} us, with {scanned:6.2f}: {scanned - plain:6.2f} added; {late:4.0%} wait")


def _cost_us(policy: Policy | None, events: list[bytes]) -> float:
    begun = time.process_time()
    relayed(policy, events)
    return (time.process_time() - begun) / len(events) * 1e6


def _raise(error: Exception) -> None:
    raise error


def _seal() -> None:
    pass


if __name__ == "__main__":
    main()
