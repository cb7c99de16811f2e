"""What the demo upstream says, and how many tokens that is.

Rules of the file: no I/O, no clock, no chance: the same request gets the same reply. A reply never quotes the prompt,
so a demo cannot leak one. A token is a word with the space before it (of tool arguments: a slice of 8 characters);
streams send one token per event, so what was billed can be counted at any moment.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

NOTICE = "This is the Sidegate demo upstream, not a language model."
WORD = re.compile(r"\s*\S+")
ARGUMENT_SLICE = 8
MAX_SCHEMA_DEPTH = 5

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a request says, in numbers and with its tools."""

    messages: int
    characters: int
    tokens: int
    wants_tool: bool
    """A tool must be called, or the last message asks for one."""
    tool: Json | None
    """The function to call: `name` and `parameters`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One choice: a text or one tool call, as its tokens."""

    kind: Literal["text", "tool"]
    pieces: tuple[str, ...]
    complete: bool
    """False: the request's limit of output tokens cut it."""
    tool_name: str = ""

    @property
    def text(self) -> str:
        """The whole of it."""
        return "".join(self.pieces)


def read_prompt(items: Sequence[Any], tools: Any, tool_choice: Any) -> Prompt:
    """Read messages (chat), input items (responses) or texts (completions) that may hold anything."""
    texts = list(strings(items))
    functions = _functions(tools)
    answered = bool(items) and isinstance(items[-1], dict) and _is_tool_result(items[-1])
    tool = _wanted_tool(functions, tool_choice, "".join(strings(items[-1:])))
    return Prompt(
        messages=len(items),
        characters=sum(map(len, texts)),
        tokens=max(1, sum(len(WORD.findall(text)) for text in texts)),
        wants_tool=tool is not None and not answered,
        tool=tool,
    )


def compose(prompt: Prompt, choice: int, max_tokens: int | None) -> Reply:
    """Return the reply of one choice (counted from 0), at most `max_tokens` tokens long."""
    if prompt.wants_tool and prompt.tool is not None:
        arguments = orjson.dumps(example(prompt.tool.get("parameters"))).decode()
        starts = range(0, len(arguments), ARGUMENT_SLICE)
        pieces = tuple(arguments[start : start + ARGUMENT_SLICE] for start in starts)
        return _cut(Reply("tool", pieces, True, str(prompt.tool["name"])), max_tokens)
    plural = "" if prompt.messages == 1 else "s"
    text = (
        f"{NOTICE} It received {prompt.messages} message{plural} with {prompt.characters} characters of text "
        "and answers every request with these words, so that you can see requests, streams and traces work."
    )
    if choice:
        text += f" (Choice {choice + 1}.)"
    return _cut(Reply("text", tuple(WORD.findall(text)), True), max_tokens)


def strings(value: Any) -> Iterator[str]:
    """Yield the texts that a model would read: plain strings, and `content`, `text`, `output` of messages and parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key in ("content", "text", "output"):
            yield from strings(value.get(key))


def example(schema: Any, depth: int = 0) -> Any:
    """Return a value that fits a JSON schema of the usual kind; `{}` where the schema says nothing."""
    if not isinstance(schema, dict) or depth > MAX_SCHEMA_DEPTH:
        return {}
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    plain = {"string": "demo", "integer": 1, "number": 1.5, "boolean": True, "array": [], "null": None}
    if isinstance(kind, str) and kind in plain:
        return plain[kind]
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {name: example(part, depth + 1) for name, part in properties.items()}


def _cut(reply: Reply, max_tokens: int | None) -> Reply:
    if max_tokens is None or max_tokens >= len(reply.pieces):
        return reply
    return Reply(reply.kind, reply.pieces[:max_tokens], False, reply.tool_name)


def _is_tool_result(item: Json) -> bool:
    return item.get("role") == "tool" or item.get("type") == "function_call_output"


def _functions(tools: Any) -> list[Json]:
    """Return the function tools; chat nests them under `function`, responses does not."""
    if not isinstance(tools, list):
        return []
    flat = [tool.get("function", tool) for tool in tools if isinstance(tool, dict) and tool.get("type") == "function"]
    return [tool for tool in flat if isinstance(tool, dict) and isinstance(tool.get("name"), str)]


def _wanted_tool(functions: list[Json], choice: Any, last_text: str) -> Json | None:
    if not functions or choice == "none":
        return None
    if choice == "required":
        return functions[0]
    if isinstance(choice, dict):
        wanted = str(choice.get("function", choice))
        return next((tool for tool in functions if repr(tool["name"]) in wanted), functions[0])
    named = next((tool for tool in functions if tool["name"] in last_text), None)
    return named or (functions[0] if "tool" in last_text.lower() else None)
