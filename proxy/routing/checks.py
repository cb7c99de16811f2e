"""Whether an answer is good enough to be delivered: a pure function of its content and its request.

| weakness            | the answer                                                                        |
|---------------------|-----------------------------------------------------------------------------------|
| `broken`            | ended with an error, or before its end                                            |
| `refused`           | is a refusal, by its own member, the provider's filter, or the way it begins      |
| `cut`               | reached its maximum length                                                        |
| `empty`             | has no choice, or one without text, call or media                                 |
| `invalid_tool_call` | calls a function that does not exist, or with arguments that its schema forbids   |
| `invalid_json`      | is not the JSON that was asked for                                                |

The first weakness that applies to any choice is the answer's. Weak answers are ranked by their use to a client.

Failure mode: a schema that cannot be evaluated (`openai.json_schema`) never counts against an answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from proxy.config.routing import Escalation
from proxy.openai.documents import load
from proxy.openai.expected import Expected
from proxy.openai.json_schema import Unjudged, conforms
from proxy.openai.messages import Call, Message

Weakness = Literal["broken", "empty", "refused", "invalid_tool_call", "invalid_json", "cut", "disputed"]
WORTH: Final[Mapping[str | None, int]] = {
    "broken": 0, "empty": 1, "refused": 2, "invalid_tool_call": 3, "invalid_json": 3, "cut": 4, "disputed": 5, None: 6,
}  # fmt: skip
"""Rank of an answer by its weakness. `disputed` is set by the cross-check."""

_LONGEST_REFUSAL: Final = 600
"""Characters; a longer text is more than a refusal."""


def weakness_of(choices: Sequence[Message], expected: Expected, settings: Escalation) -> Weakness | None:
    """Return the weakness of an answer; `None` if it has none."""
    if not choices:
        return "empty"
    for said in choices:
        if (found := _of_choice(said, expected, settings)) is not None:
            return found
    return None


def _of_choice(said: Message, expected: Expected, settings: Escalation) -> Weakness | None:
    text = said.text.strip()
    if said.refusal or said.end == "filter" or (not said.calls and _refuses(text, settings.refusals)):
        return "refused"
    if said.end == "length":
        return "cut"
    if not text and not said.calls and not said.has_media:
        return "empty"
    if not all(_is_callable(call, expected, settings.schema_steps) for call in said.calls):
        return "invalid_tool_call"
    if text and not said.calls and expected.is_json and not _is_expected(text, expected, settings.schema_steps):
        return "invalid_json"
    return None


def _refuses(text: str, phrases: Sequence[str]) -> bool:
    """Tell whether a short text begins like a refusal, in any spelling."""
    if len(text) > _LONGEST_REFUSAL:
        return False
    return _plain(text).startswith(tuple([_plain(phrase) for phrase in phrases]))


def _plain(text: str) -> str:
    return text.lower().replace("’", "'").replace("cannot", "can't").replace("i am ", "i'm ")


def _is_callable(call: Call, expected: Expected, steps: int) -> bool:
    if not call.is_function:
        return True
    if call.name not in expected.functions:
        return False
    arguments = _loaded(call.arguments or "{}")
    return type(arguments) is dict and _conforms(expected.functions[call.name], arguments, steps)


def _is_expected(text: str, expected: Expected, steps: int) -> bool:
    value = _loaded(text)
    if expected.schema is None:
        return type(value) is dict
    return value is not _NOTHING and _conforms(expected.schema, value, steps)


def _conforms(schema: Any, value: Any, steps: int) -> bool:
    if schema is None:
        return True
    try:
        return conforms(schema, value, steps)
    except Unjudged:
        return True


_NOTHING: Final = object()


def _loaded(text: str) -> Any:
    try:
        return load(text.encode())
    except ValueError:
        return _NOTHING
