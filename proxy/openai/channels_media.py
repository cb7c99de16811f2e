"""What in a document is no text of a model: images and sound, sealed data, echoes of the request.

Source: OpenAI API reference: image objects, audio parts, the response object; Anthropic for `redacted_thinking`.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

from proxy.openai import binary

_ECHOES: Final = frozenset(
    "instructions tools tool_choice metadata prompt user safety_identifier prompt_cache_key text reasoning".split()
)
"""Members in which a response object repeats its request."""
_RESPONSE_OBJECTS: Final = frozenset({"response", "realtime.response"})
_MEDIA: Final = frozenset({"b64_json", "partial_image_b64", "embedding"})
_SOUND: Final = (("audio", "data"), ("input_audio", "data"), ("output_audio", "data"))
MAYBE_MEDIA: Final = frozenset({"data", "result", "audio", "image", "file_data"})
"""Members of media or of text."""
_LEAST_MEDIA: Final = 4096
"""A shorter text in a member that may contain media is treated as text."""
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
        return binary.is_base64(text)
    if name in MAYBE_MEDIA and len(text) >= _LEAST_MEDIA and binary.is_base64(text):
        return True
    return text.startswith("data:") and binary.is_media(text)


def hands_out_credentials(name: Any) -> bool:
    """Tell whether an answer belongs to the administration API, whose keys the client has requested."""
    return type(name) is str and name.startswith(("organization.", "realtime."))
