"""Upper bounds for media: images, audio and files in a request, images and speech in an answer.

| what             | tokens at most                                                                             |
|------------------|--------------------------------------------------------------------------------------------|
| image in         | what the model's family charges for the largest picture of that detail                     |
| audio in         | the seconds that its bytes hold at 16 kbit/s, the least that encoders use for speech       |
| file, video      | its decoded bytes, or a document of 100 pages with text and picture                        |
| image out        | by quality and format; the maximum if unknown                                              |
| speech out       | by the bytes of its text at the slowest ordinary pace                                      |

Rule of the file: the bound replaces base64, but only in media parts of messages and items; the same members elsewhere
are text, and so is everything else in such a part. `is_unseen` detects content that only the provider can look up.

Source: OpenAI guides "Images and vision", "Audio", "File inputs", "Image generation"; Gemini API, "Audio".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import re2

from proxy.openai.model_names import base_name, of_family
from proxy.openai.pieces import contains, utf8_len

BYTES_PER_SECOND: Final = 2000
"""Of audio: 16 kbit/s."""
TOKENS_PER_SECOND: Final = 10
"""Of audio input to OpenAI's models, one per 100 ms."""
MOST_IMAGE_TOKENS: Final = 16_384
"""For a picture sent to an unknown model: the default of the Qwen-VL family, which is the highest."""
MOST_FILE_TOKENS: Final = 262_144

_OTHERS_TOKENS_PER_SECOND: Final = 32
_LOW_AND_HIGH: Final[Mapping[str, tuple[int, int]]] = {
    "gpt-4-turbo": (85, 1445),
    "gpt-4.1": (85, 1445),
    "gpt-4.1-mini": (2489, 2489),
    "gpt-4.1-nano": (3779, 3779),
    "gpt-4.5-preview": (85, 1445),
    "gpt-4o": (85, 1445),
    "gpt-4o-mini": (2833, 48_169),
    "chatgpt-4o-latest": (85, 1445),
    "o1": (75, 1275),
    "o3": (75, 1275),
    "o4-mini": (2642, 2642),
}
"""A base and eight tiles, or 1536 patches times the model's factor."""
_IMAGE_OUT: Final[Mapping[str, tuple[int, int]]] = {"low": (272, 408), "medium": (1056, 1584), "high": (4160, 6240)}
_PREVIEW_TOKENS: Final = 100
_MOST_PREVIEWS: Final = 3
_SPEECH_TOKENS_PER_BYTE: Final = 2
_SPEECH_BASE_TOKENS: Final = 64
_SLOWEST_SPEECH: Final = 0.25

_MEDIA: Final = (
    rb'"type":"(?:image|image_url|input_image|computer_screenshot|audio|input_audio|file|input_file|video'
    rb'|video_url|input_video)"'
)
_HELD: Final = rb'"file_(?:id|url)":"|"type":"item_reference"|"audio":\{[^{}]*"id":'
# RE2 searches for a literal prefix first: a tenth of the time of `re` for 20 KB (bench/decision.py).
_SIGN: Final = re2.compile(_MEDIA)
_HELD_BY_PROVIDER: Final = re2.compile(_HELD)
_EITHER: Final = re2.compile(_MEDIA + b"|" + _HELD)
_OWN_TOOLS: Final = ("function", "custom")


@dataclass(frozen=True, slots=True)
class Media:
    """The media of a request."""

    tokens: int = 0
    data_bytes: int = 0
    """Bytes of its JSON that `tokens` accounts for."""
    found: bool = False


def is_text_alone(written: bytes) -> bool:
    """Tell whether there is neither media nor content that only the provider knows, apart from results of its tools.

    One search instead of two for most requests, none for a chat of plain strings. `written`: the document's members
    as compact JSON.
    """
    if not (contains(written, b'"type":"') or contains(written, b'"file_') or contains(written, b'"audio":{')):
        return True
    return _EITHER.search(written) is None


def may_hold_media(written: bytes) -> bool:
    """Tell whether messages or items may contain media: saves most requests the walk. `written`: as above."""
    return _SIGN.search(written) is not None


def find_media(document: Mapping[str, Any], model: str | None) -> Media:
    """Return the bounds of all media in messages and items."""
    tokens = data_bytes = 0
    found = False
    stack = [document.get("messages"), document.get("input")]
    while stack:
        item = stack.pop()
        if type(item) is dict:
            bound = _BOUNDS.get(kind) if type(kind := item.get("type")) is str else None
            if bound is not None:
                found = True
                more_tokens, more_bytes = bound(item, model)
                tokens += more_tokens
                data_bytes += more_bytes
            else:
                stack += item.values()
        elif type(item) is list:
            stack += item
    return Media(tokens, data_bytes, found)


def is_unseen(document: Mapping[str, Any], written: bytes) -> bool:
    """Tell whether the model will also read content that only the provider knows, or results of its own tools.

    `written`: as above; empty if it was searched already.
    """
    get = document.get
    if get("previous_response_id") is not None or get("conversation") is not None:
        return True
    if get("web_search_options") is not None or type(get("prompt")) is dict:
        return True
    tools = document.get("tools")
    if type(tools) is list and any(type(tool) is dict and tool.get("type") not in _OWN_TOOLS for tool in tools):
        return True
    return written != b"" and _HELD_BY_PROVIDER.search(written) is not None


def image_out_tokens(document: Mapping[str, Any]) -> int:
    """Return the output tokens of one generated image. `document`: the request; empty if unknown."""
    quality, size, previews = document.get("quality"), document.get("size"), document.get("partial_images")
    square, oblong = _IMAGE_OUT.get(quality if type(quality) is str else "", _IMAGE_OUT["high"])
    known = previews if type(previews) is int and 0 <= previews <= _MOST_PREVIEWS else _MOST_PREVIEWS
    shown = 0 if previews is None and document else known
    return (square if size == "1024x1024" else oblong) + shown * _PREVIEW_TOKENS


def speech_tokens(document: Mapping[str, Any]) -> int:
    """Return the output tokens of synthesized speech."""
    text, speed = document.get("input"), document.get("speed")
    size = utf8_len(text) if type(text) is str else 0
    if (type(speed) is int or type(speed) is float) and speed < 1:
        size = int(size / max(speed, _SLOWEST_SPEECH)) + 1
    return _SPEECH_BASE_TOKENS + _SPEECH_TOKENS_PER_BYTE * size


def _image(part: Mapping[str, Any], model: str | None) -> tuple[int, int]:
    source = part.get("image_url", part.get("source"))
    inner = source if type(source) is dict else {}
    detail = inner.get("detail", part.get("detail"))
    low, high = of_family(model, _LOW_AND_HIGH) or (MOST_IMAGE_TOKENS, MOST_IMAGE_TOKENS)
    data = inner.get("url", inner.get("data")) if inner else source
    in_place = type(data) is str and (data.startswith("data:") or "data" in inner)
    return low if detail == "low" else high, _size(data) if in_place else 0


def _sound(part: Mapping[str, Any], model: str | None) -> tuple[int, int]:
    inner = part.get("input_audio")
    size = _size(inner.get("data") if type(inner) is dict else part.get("data"))
    own = model is not None and base_name(model).startswith("gpt-")
    per_second = TOKENS_PER_SECOND if own else _OTHERS_TOKENS_PER_SECOND
    return _decoded(size) * per_second // BYTES_PER_SECOND + per_second, size


def _file(part: Mapping[str, Any], _model: str | None) -> tuple[int, int]:
    inner = part.get("file")
    size = _size(inner.get("file_data") if type(inner) is dict else part.get("file_data"))
    return min(_decoded(size), MOST_FILE_TOKENS), size


def _video(_part: Mapping[str, Any], _model: str | None) -> tuple[int, int]:
    return MOST_FILE_TOKENS, 0


def _size(data: Any) -> int:
    return len(data) if type(data) is str else 0


def _decoded(size: int) -> int:
    return (size * 3 + 3) // 4


_BOUNDS: Final[Mapping[str, Callable[[Mapping[str, Any], str | None], tuple[int, int]]]] = {
    **dict.fromkeys(("image", "image_url", "input_image", "computer_screenshot"), _image),
    **dict.fromkeys(("audio", "input_audio"), _sound),
    **dict.fromkeys(("file", "input_file"), _file),
    **dict.fromkeys(("video", "video_url", "input_video"), _video),
}
