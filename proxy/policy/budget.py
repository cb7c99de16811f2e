"""Limits what the rules of a project may cost to compile: each rule alone, and all of them together.

RE2 compiles a pattern in one call during which no other thread gets the interpreter: about 0.5 us per instruction of
its program, and a Unicode class such as `\\pL` takes 1,200 of them each time it may be repeated. A rule is compiled
twice: by itself, for the exact match, and together with all others of its policy, for the gate and for what may still
be open at the end of a stream. So two sums are limited for a project, and the first one for each rule as well:

    alone     instructions of the exact patterns: total time, spread over many calls
    together  instructions of gates and closures: the length of single calls, and the memory of one automaton

Failure mode: a rule beyond a limit is refused with a reason that says what to change but never quotes it; the rules
before it stay valid.
"""

from typing import Final

import re2

from proxy.policy import openings, patterns
from proxy.policy.rules import Rule, RuleError

RULE_MEMORY: Final = 2 << 20
"""Of RE2 for one exact pattern: some 110,000 instructions."""
_ALONE: Final = 5_000_000
_TOGETHER: Final = 150_000
_TOO_LARGE: Final = (
    "is too large for RE2: lower the upper bounds of its repeats, above all of classes such as \\pL or [^a-z], "
    "and note that a repeat without one gets 256"
)
_NO_MORE: Final = "does not fit any more: the rules of this project are too large together, this one and what follows"


class Budget:
    """What is left for the rules of one project."""

    def __init__(self) -> None:
        self._alone = _ALONE
        self._together = _TOGETHER

    def admit(self, pattern: str) -> None:
        """Charge for an exact pattern before a rule is made of it. Raises RuleError.

        `pattern`: bounded; one that is not RE2 costs nothing here, and no rule is made of it.
        """
        self._alone -= _instructions(pattern)
        self._check()

    def charge(self, rule: Rule) -> None:
        """Charge for what a rule adds to the automata of all. Raises RuleError."""
        for pattern in openings.shared(rule):
            self._together -= _instructions(pattern)
            self._check()

    @property
    def is_spent(self) -> bool:
        """True once a rule did not fit; it is not worth trying those that follow."""
        return min(self._alone, self._together) < 0

    def _check(self) -> None:
        if self.is_spent:
            raise RuleError([f"rule: {_NO_MORE}"])


def _instructions(pattern: str) -> int:
    try:
        return int(re2.compile(pattern, patterns.gate_options(RULE_MEMORY)).programsize)
    except UnicodeEncodeError:
        return 0
    except re2.error as error:
        if b"too large" in error.args[0]:
            raise RuleError([f"rule: {_TOO_LARGE}"]) from None
        return 0
