"""The texts that log probabilities spell, token by token. Usually that is the text beside them.

Some servers send log probabilities of tokens that are not in the text: of reasoning, of tool calls that they take
apart, of text that comes later. So what they spell is scanned like any other text, unless it stands beside them.

| form                                    | from                          |
|-----------------------------------------|-------------------------------|
| `{"content": [{"token": ..}, ..], ..}`  | chat; `refusal` likewise      |
| `[{"token": ..}, ..]`                   | responses, transcriptions     |
| `{"tokens": ["..", ..], ..}`            | completions                   |

Rule of the file: anything may be missing or of the wrong type; nothing raises.

Source: OpenAI API reference: log probabilities of chat, completions, responses.
"""

from typing import Any, Final

LOGPROBS: Final = "logprobs"
"""The member that holds them."""
REPEATS: Final = (LOGPROBS, "top_logprobs", "completion_probabilities", "token_ids", "tokens")
"""Members that repeat a text token by token; they are not read. The names besides: completions, llama.cpp, vLLM."""
_LISTS: Final = ("content", "refusal", "tokens")


def spelled(logprobs: Any) -> str:
    """Return the text that log probabilities spell, empty if they spell none."""
    lists = map(logprobs.get, _LISTS) if type(logprobs) is dict else (logprobs,)
    entries = [entry for entries in lists if type(entries) is list for entry in entries]
    tokens = [entry.get("token") if type(entry) is dict else entry for entry in entries]
    return "".join([token for token in tokens if type(token) is str])


def emptied(name: str | int, value: Any) -> bytes:
    """Return the JSON that stands for member `name`, one of `REPEATS`, once the text has changed that it repeats."""
    return b"[]" if type(value) is list and name == LOGPROBS else b"null"
