"""What in a document is no text of a model: images and sound, sealed data, echoes of the request.

Source: OpenAI API reference: image objects, audio parts, the response object; Anthropic for `redacted_thinking`.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any, Final

_ECHOES: Final = frozenset(
    "instructions tools tool_choice metadata prompt user safety_identifier prompt_cache_key text reasoning".split()
)
"""Members in which a response object repeats its request."""
_RESPONSE_OBJECTS: Final = frozenset({"response", "realtime.response"})
_MEDIA: Final = frozenset({"b64_json", "partial_image_b64", "embedding"})
_SOUND: Final = (("audio", "data"), ("input_audio", "data"), ("output_audio", "data"))
MAYBE_MEDIA: Final = frozenset({"data", "result", "audio", "image", "file_data"})
"""Members of media or of text."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_=\r\n-]*")
_LEAST_MEDIA: Final = 4096
"""A shorter text in a member that may contain media is treated as text."""
_PIECE: Final = 1 << 18
_SEALED: Final = frozenset({"reasoning.encrypted", "redacted_thinking"})
"""Types of objects whose `data` only the provider can read."""


def left_out(value: dict[str, Any]) -> Collection[str]:
    """Return the members of an object whose text nobody has generated, or nobody can read."""
    if (name := value.get("object")) is not None:
        return _ECHOES if type(name) is str and name in _RESPONSE_OBJECTS else ()
    kind = value.get("type")
    return ("data",) if type(kind) is str and kind in _SEALED else ()


def is_media(path: Sequence[str | int], name: str, text: str) -> bool:
    """Tell whether the text at `path` is audio or an image in base64. `name`: its member's."""
    if name in _MEDIA or path[-2:] in _SOUND:
        return True
    if name in MAYBE_MEDIA:
        return len(text) >= _LEAST_MEDIA and _is_base64(text)
    return text.startswith("data:") and ";base64," in text[:128]


def _is_base64(text: str) -> bool:
    """Look at a piece at a time: the interpreter is kept while an expression runs, 40 ms over 8 MB."""
    return all(_BASE64.fullmatch(text, at, at + _PIECE) is not None for at in range(0, len(text), _PIECE))


def hands_out_credentials(name: Any) -> bool:
    """Tell whether an answer belongs to the administration API, whose keys the client has requested."""
    return type(name) is str and name.startswith(("organization.", "realtime."))
