"""What must hold after the chaos, whatever was killed when: three accounts of the same requests, held together.

The clients' account: tries, and what came back. The provider's: what it received and billed. Sidegate's: its traces.
Rules of the file: no tolerance anywhere; a law is a function that returns the cases which break it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.provider import Billed, Provider
from tests.fakes.wire import Reply, Wire

Trace = dict[str, Any]


@dataclass
class Try:
    """One request on one connection, as its client saw it."""

    case: str
    stream: bool
    trace_id: str = ""
    status: int = 0
    answered: bool = False
    """The whole answer arrived, a stream with its terminator."""
    aborted: bool = False
    """The client walked away."""
    cut: bool = False
    """The proxy died under it."""

    async def receive(self, wire: Wire) -> None:
        """Read the answer; what is known is kept when it ends early. Raises: Cut."""
        reply: Reply = await wire.head()
        self.status, self.trace_id = reply.status, reply.trace_id
        await wire.body(reply, "POST")
        ended = not self.stream or b"data: [DONE]" in reply.body or b"response.completed" in reply.body
        self.answered = reply.status == 200 and ended


@dataclass
class Accounts:
    """All three, by case."""

    tries: dict[str, Try]
    received: Counter[str]
    ledger: dict[str, Billed]
    traces: dict[str, list[Trace]] = field(default_factory=dict)

    def of(self, case: str) -> Trace:
        """The one trace of a case, or an empty one."""
        found = self.traces.get(case, [])
        return found[0] if found else defaultdict(lambda: None)


def one_trace_each(a: Accounts) -> list[str]:
    """Every request that reached the provider or got an answer has exactly one trace."""
    accepted = set(a.received) | {case for case, one in a.tries.items() if one.trace_id}
    return [case for case in accepted if len(a.traces.get(case, [])) != 1]


def nothing_invented(a: Accounts) -> list[str]:
    """Every trace belongs to a try, and no trace id occurs twice."""
    ids = Counter(trace["id"] for found in a.traces.values() for trace in found)
    return [case for case in a.traces if case not in a.tries] + [id for id, count in ids.items() if count > 1]


def same_identity(a: Accounts) -> list[str]:
    """The id that a client was told is the id of its trace."""
    return [case for case, one in a.tries.items() if one.trace_id and a.of(case)["id"] != one.trace_id]


def sent_once(a: Accounts) -> list[str]:
    """No request was sent to the provider twice."""
    return [case for case, count in a.received.items() if count > 1]


def answered_is_ok(a: Accounts) -> list[str]:
    """What a client got whole is recorded as complete, with the provider's own figures."""
    return [case for case, one in a.tries.items() if one.answered and a.of(case)["outcome"] != "ok"]


def ok_is_billed(a: Accounts) -> list[str]:
    """What is recorded as complete was completed by the provider, token for token."""
    broken = []
    for case in a.traces:
        trace, billed = a.of(case), a.ledger.get(case)
        if trace["outcome"] != "ok":
            continue
        figures = (trace["inputTokens"], trace["outputTokens"], trace["usageSource"])
        if billed is None or not billed.completed:
            broken.append(case)
        elif figures != (billed.input_tokens, billed.output_tokens, "provider"):
            broken.append(case)
    return broken


def never_for_nothing(a: Accounts) -> list[str]:
    """What the provider began to bill is charged, exactly or by an estimate, never with zero."""
    return [case for case in a.ledger if a.of(case)["inputTokens"] == 0 or a.of(case)["usageSource"] == "none"]


def refusals_are_known(a: Accounts) -> list[str]:
    """The proxy refused nothing: journal and limits were large enough for this load."""
    return [case for case, one in a.tries.items() if one.status >= 400]


LAWS: tuple[Callable[[Accounts], list[str]], ...] = (
    one_trace_each,
    nothing_invented,
    same_identity,
    sent_once,
    answered_is_ok,
    ok_is_billed,
    never_for_nothing,
    refusals_are_known,
)


def judge(tries: list[Try], provider: Provider, traces: list[Trace]) -> bool:
    """Print the accounts and the verdict of every law; True when one is broken."""
    by_case: defaultdict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        by_case[trace["userId"]].append(trace)
    received = Counter((seen.value(b"x-case-id") or b"").decode() for seen in provider.requests)
    accounts = Accounts({one.case: one for one in tries}, received, {b.case: b for b in provider.ledger}, dict(by_case))
    print(
        f"{len(tries)} tries: {sum(one.answered for one in tries)} answered, {sum(one.aborted for one in tries)} walked"
        f" away, {sum(one.cut for one in tries)} cut by a kill; the provider received {received.total()}"
    )
    print(
        "traces: " + ", ".join(f"{count} {name}" for name, count in Counter(t["outcome"] for t in traces).most_common())
    )
    complete = [trace for trace in traces if trace["outcome"] == "ok"]
    billed = [accounts.ledger[trace["userId"]] for trace in complete if trace["userId"] in accounts.ledger]
    print(
        f"tokens of complete calls: traces {sum(t['inputTokens'] + t['outputTokens'] for t in complete)},"
        f" ledger {sum(b.input_tokens + b.output_tokens for b in billed)}"
    )
    broken = False
    for law in LAWS:
        cases = law(accounts)
        broken |= bool(cases)
        verdict = f"BROKEN by {len(cases)}: {', '.join(cases[:5])}" if cases else "holds"
        print(f"  {law.__doc__}  {verdict}")
    return broken
