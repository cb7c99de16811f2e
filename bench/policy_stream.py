"""What the policy costs: a streamed event, a prompt, a large text, a plan, and inputs made to be slow.

Prints microseconds of CPU per event, megabytes a second, and how both compare with doing nothing. The laws themselves
are held by tests/policy/test_stream_scan.py.

Run it with `python -m bench.policy_stream`.
"""

import random
import statistics
import time
from collections.abc import Callable
from functools import partial

from proxy.policy import rules
from proxy.policy.detect import Detector
from proxy.policy.stream_scan import StreamPlan

PROSE = (
    "The scheduler keeps one queue per tenant. When a request arrives, it is placed behind those of the same tenant; "
    "every tenant gets its turn, so that a burst of one does not delay the others. See section 4.2 (page 17) for how "
    "weights are set.\n\nTo try it: install the package, start the service, and send 20 requests at once. "
)
CODE = (
    "def handle(self, request: Request, *, retries: int = 3) -> Response:\n    for attempt in range(retries):\n"
    '        token = self._tokens.get(request.user_id)\n        reply = self.client.post(f"{self.base_url}/v1/items", '
    'json={"name": request.name, "count": 12})\n        if reply.status_code == 200:\n            return reply\n'
    "    raise RuntimeError('gave up after %d attempts' % retries)\n\n"
)


def cpu_us(work: Callable[[], object], times: int, rounds: int = 3) -> float:
    """Return the least CPU time of one call in microseconds."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(times):
            work()
        best = min(best, (time.process_time() - begun) / times)
    return best * 1e6


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def stream(plan: StreamPlan, deltas: list[str]) -> None:
    scanner = plan.scanner()
    for delta in deltas:
        scanner.pieces(delta)
    scanner.pieces("", final=True)


def hold_back(plan: StreamPlan, deltas: list[str]) -> tuple[float, int]:
    """Return how many characters wait after an event: the mean, and what 99 of 100 events do not pass."""
    scanner = plan.scanner()
    held = []
    for delta in deltas:
        scanner.pieces(delta)
        held.append(scanner.held)
    return statistics.mean(held), sorted(held)[len(held) * 99 // 100]


def main() -> None:
    chance = random.Random(7)
    begun = time.process_time()
    shipped = rules.load()
    detector = Detector(shipped)
    print(f"rules and detector   {(time.process_time() - begun) * 1e3:8.1f} ms")
    for name, hidden in (
        ("all redacted", ("secret", "pii", "keyword", "command")),
        ("secrets redacted", ("secret",)),
        ("all flagged", ()),
    ):

        def make(hidden: tuple[str, ...] = hidden) -> StreamPlan:
            return StreamPlan(detector, lambda finding: "redact" if finding.category in hidden else "flag")

        begun = time.process_time()
        plan = make()
        print(f"{name}: plan {(time.process_time() - begun) * 1e3:.1f} ms, again {cpu_us(make, 1) / 1e3:.1f} ms")
        for kind, text in (("prose", PROSE * 20), ("code", CODE * 20)):
            for size in (1, 4, 8, 40):
                deltas = cut(text, size)
                cost = cpu_us(partial(stream, plan, deltas), 1) / len(deltas)
                mean, high = hold_back(plan, deltas)
                print(f"  {kind:6} {size:3} characters an event {cost:7.2f} us   waiting {mean:5.2f} mean {high:3} p99")
    no_names = CODE.replace("token", "client")
    ten_kb = (PROSE + no_names) * (10_000 // len(PROSE + no_names))
    print(f"clean prompt of {len(ten_kb)} bytes   {cpu_us(partial(detector.find, ten_kb), 200):8.1f} us")
    large = ten_kb * 100
    print(f"large clean text   {len(large) / cpu_us(partial(detector.find, large), 2):8.0f} MB/s")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    plan = StreamPlan(detector, lambda finding: "redact")
    hard = {
        "base64": "".join(chance.choices(letters, k=1 << 20)),
        "base64 behind a name": "token = " + "".join(chance.choices(letters, k=1 << 20)),
        "sk-sk-": "sk-" * 350_000,
        "sk-proj-": "sk-proj-" * 130_000,
        "eyJ.eyJ.": "eyJ." * 260_000,
        "a.b-a.b-": "a.b-" * 260_000,
        "a@a.a@a.": "a@a." * 260_000,
        "AAAA": "sk-" + "A" * (1 << 20),
        "token=a ": "token=aaaaaaaaaaaa " * 55_000,
        "BEGIN": "-----BEGIN PRIVATE KEY-----\n" * 37_000,
        "an open key": "-----BEGIN PRIVATE KEY-----\n" + "".join(chance.choices(letters, k=1 << 20)),
        "digits": "1234 " * 200_000,
    }
    for name, text in hard.items():
        whole = [cpu_us(partial(detector.find, text[: len(text) // part]), 1, 1) for part in (4, 1)]
        deltas = cut(text[: 1 << 18], 8)
        events = [cpu_us(partial(stream, plan, deltas[: len(deltas) // n]), 1, 1) * n / len(deltas) for n in (4, 1)]
        print(
            f"{name:22} whole {len(text) / whole[1]:7.1f} MB/s (x4 text: x{whole[1] / whole[0]:.1f} time)"
            f"   streamed {events[1]:6.1f} us an event (a quarter: {events[0]:.1f})"
        )


if __name__ == "__main__":
    main()
