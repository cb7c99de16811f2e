"""Bounds of images, sounds and files."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.openai.media_bounds import (
    MOST_FILE_TOKENS,
    MOST_IMAGE_TOKENS,
    find_media,
    image_out_tokens,
    is_text_alone,
    is_unseen,
    may_hold_media,
    speech_tokens,
)

PICTURE = "data:image/png;base64," + "A" * 50_000
SOUND = "A" * 64_000
"""48,000 bytes: 24 seconds at most."""


def find(part, model="gpt-4o", member="messages"):
    document = {member: [{"role": "user", "content": [part]}]}
    written = orjson.dumps(document)
    assert may_hold_media(written)
    assert not is_text_alone(written)
    return find_media(document, model)


@pytest.mark.parametrize(
    ("part", "model", "tokens", "data_bytes"),
    [
        ({"type": "image_url", "image_url": {"url": PICTURE}}, "gpt-4o", 1445, len(PICTURE)),
        ({"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}}, "gpt-4o", 85, len(PICTURE)),
        ({"type": "image_url", "image_url": {"url": "https://h/a.png"}}, "gpt-4o-mini", 48_169, 0),
        ({"type": "input_image", "image_url": PICTURE, "detail": "low"}, "o4-mini", 2642, len(PICTURE)),
        ({"type": "input_image", "image_url": PICTURE}, "unknown", MOST_IMAGE_TOKENS, len(PICTURE)),
        ({"type": "input_image", "file_id": "file-1"}, "o3", 1275, 0),
        ({"type": "image", "source": {"type": "base64", "data": "A" * 900}}, None, MOST_IMAGE_TOKENS, 900),
        ({"type": "image_url", "image_url": 7}, "gpt-4o", 1445, 0),
        ({"type": "input_audio", "input_audio": {"data": SOUND}}, "gpt-audio", 250, len(SOUND)),
        ({"type": "input_audio", "input_audio": {"data": SOUND}}, "gemini-2.5-pro", 800, len(SOUND)),
        ({"type": "input_audio", "input_audio": None}, None, 32, 0),
        ({"type": "file", "file": {"file_data": "A" * 4000}}, "gpt-4o", 3000, 4000),
        ({"type": "input_file", "file_data": "A" * 4_000_000}, "gpt-4o", MOST_FILE_TOKENS, 4_000_000),
        ({"type": "input_file", "file_id": "file-1"}, "gpt-4o", 0, 0),
        ({"type": "video_url", "video_url": {"url": "https://h/v"}}, "gpt-4o", MOST_FILE_TOKENS, 0),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_find_media_when_a_part_is_given_then_its_bound_stands_for_its_data(part, model, tokens, data_bytes):
    media = find(part, model)
    assert (media.found, media.tokens, media.data_bytes) == (True, pytest.approx(tokens, abs=10), data_bytes)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"messages": [{"content": "hello"}]},
        {"messages": [{"content": [{"type": "text", "text": '"type":"image_url"'}]}]},
        {"tools": [{"type": "image_url", "image_url": PICTURE}]},
        {"messages": [{"type": {"type": 7}, "content": PICTURE}]},
    ],
    ids=["nothing", "text", "text about pictures", "a definition", "text that looks like data"],
)
def test_find_media_when_nothing_is_a_part_then_everything_is_text(document):
    media = find_media(document, "gpt-4o")
    assert (media.tokens, media.data_bytes, media.found) == (0, 0, False)


KINDS = st.sampled_from(["image_url", "image", "input_audio", "file", "input_file", "video", "text"])
PARTS = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=9) | st.just("data:,é"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries(
            {},
            optional={"type": KINDS}
            | dict.fromkeys(
                ["image_url", "url", "source", "input_audio", "data", "file", "file_data", "content"], inner
            ),
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(PARTS, st.sampled_from(["messages", "input"]))
def test_find_media_when_parts_are_anything_then_no_more_is_taken_off_than_was_there(part, member):
    document = {member: [part]}
    written = orjson.dumps(document)
    media = find_media(document, "gpt-4o")
    assert media.tokens >= 0
    assert 0 <= media.data_bytes <= len(written)


@pytest.mark.parametrize(
    ("document", "unseen"),
    [
        ({}, False),
        ({"previous_response_id": None}, False),
        ({"previous_response_id": "resp_1"}, True),
        ({"conversation": {"id": "conv_1"}}, True),
        ({"prompt": {"id": "pmpt_1"}}, True),
        ({"prompt": "file_id"}, False),
        ({"web_search_options": {}}, True),
        ({"tools": [{"type": "function"}, {"type": "custom"}]}, False),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, True),
        ({"tools": [{"type": "mcp"}]}, True),
        ({"tools": "file_search"}, False),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, True),
        ({"input": [{"content": [{"type": "input_image", "file_id": "file-1"}]}]}, True),
        ({"input": [{"content": [{"type": "input_file", "file_url": "https://h/f"}]}]}, True),
        ({"messages": [{"content": [{"type": "file", "file": {"file_id": "file-1"}}]}]}, True),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, True),
        ({"messages": [{"content": '"file_id":"file-1"'}]}, False),
    ],
    ids=repr,
)
def test_is_unseen_when_the_provider_adds_input_then_it_is_told(document, unseen):
    written = orjson.dumps(document)
    assert is_unseen(document, written) is unseen
    assert is_unseen(document, b"" if is_text_alone(written) else written) is unseen


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({"prompt": "p", "quality": "low", "size": "1024x1024"}, 272),
        ({"prompt": "p", "quality": "medium", "size": "1536x1024"}, 1584),
        ({"prompt": "p", "quality": "high", "size": "1024x1024"}, 4160),
        ({"prompt": "p"}, 6240),
        ({"prompt": "p", "quality": ["low"], "size": 7}, 6240),
        ({"prompt": "p", "partial_images": 2}, 6440),
        ({"prompt": "p", "partial_images": 10**9}, 6540),
        ({}, 6540),
    ],
    ids=repr,
)
def test_image_out_tokens_when_quality_or_size_is_not_known_then_the_dearest(document, tokens):
    assert image_out_tokens(document) == tokens


@settings(deadline=None)
@given(st.text(max_size=200), st.none() | st.floats(0.25, 4) | st.sampled_from(["slow", 0, -3, True]))
def test_speech_tokens_when_a_text_is_given_then_two_for_each_byte_at_least(text, speed):
    tokens = speech_tokens({"input": text, "speed": speed})
    assert tokens >= 2 * len(text.encode()) + 64
    assert speech_tokens({"input": text, "speed": 0.25}) >= tokens


def test_speech_tokens_when_there_is_no_text_then_a_base_is_left():
    assert speech_tokens({"input": None}) == 64
