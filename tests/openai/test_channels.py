import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.openai.channel_keys import ALL
from proxy.openai.channels import PLAIN, place_of, read_document, read_event, read_plain, read_usual, usual_path

AT = {"item_id": "i", "output_index": 2, "content_index": 1}
AUDIO = ("choices", 0, "message", "audio")
BASE64 = "QUJD" * 2000


def chunk(*choices, **more):
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": list(choices), **more}


def delta(index=0, /, **said):
    return {"index": index, "delta": said, "logprobs": None, "finish_reason": None}


def pieces(texts):
    return [(piece.key, piece.path, piece.text, piece.kind) for piece in texts.pieces]


def in_choice(name, text, *, index=0, place=0, kind="text"):
    return (("choices", index, name), ("choices", place, "delta", name), text, kind)


FUNCTION = ("choices", 0, "tool_calls", 3, "function", "arguments")
PIECES = {
    "content": ("chat", chunk(delta(role="assistant", content="a")), [in_choice("content", "a")]),
    "several choices": (
        "chat",
        chunk(delta(1, content="b"), delta(0, refusal="r")),
        [in_choice("content", "b", index=1), in_choice("refusal", "r", place=1)],
    ),
    "no index": (
        "chat",
        chunk({"delta": {"content": "a"}}, {"delta": {"content": "b"}}),
        [in_choice("content", "a"), in_choice("content", "b", index=1, place=1)],
    ),
    "reasoning": (
        "chat",
        chunk(delta(reasoning_content="x", reasoning="y", thought="z")),
        [in_choice("reasoning_content", "x"), in_choice("reasoning", "y"), in_choice("thought", "z")],
    ),
    "reasoning details": (
        "chat",
        chunk(
            delta(
                reasoning_details=[
                    {"type": "reasoning.text", "index": 4, "text": "t", "signature": "s"},
                    {"type": "reasoning.encrypted", "data": "QUJD"},
                ]
            )
        ),
        [
            (
                ("choices", 0, "reasoning_details", 4, "text"),
                ("choices", 0, "delta", "reasoning_details", 0, "text"),
                "t",
                "text",
            )
        ],
    ),
    "parts": (
        "chat",
        chunk(delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}])),
        [
            (
                ("choices", 0, "content", 0, "thinking", 0, "text"),
                ("choices", 0, "delta", "content", 0, "thinking", 0, "text"),
                "t",
                "text",
            )
        ],
    ),
    "tool call": (
        "chat",
        chunk(delta(tool_calls=[{"index": 3, "id": "call_1", "type": "function", "function": {"arguments": "{"}}])),
        [(FUNCTION, ("choices", 0, "delta", "tool_calls", 0, "function", "arguments"), "{", "json")],
    ),
    "custom tool": (
        "chat",
        chunk(delta(tool_calls=[{"index": 3, "custom": {"input": "ls"}}])),
        [
            (
                ("choices", 0, "tool_calls", 3, "custom", "input"),
                ("choices", 0, "delta", "tool_calls", 0, "custom", "input"),
                "ls",
                "text",
            )
        ],
    ),
    "tool's name": (
        "chat",
        chunk(delta(tool_calls=[{"index": 3, "function": {"name": "f"}}])),
        [((*FUNCTION[:-1], "name"), ("choices", 0, "delta", "tool_calls", 0, "function", "name"), "f", "text")],
    ),
    "function call": (
        "chat",
        chunk(delta(function_call={"arguments": "{"})),
        [
            (
                ("choices", 0, "function_call", "arguments"),
                ("choices", 0, "delta", "function_call", "arguments"),
                "{",
                "json",
            )
        ],
    ),
    "audio": (
        "chat",
        chunk(delta(audio={"id": "a", "transcript": "hi", "expires_at": 7})),
        [(("choices", 0, "audio", "transcript"), ("choices", 0, "delta", "audio", "transcript"), "hi", "text")],
    ),
    "completion": (
        "completions",
        chunk({"index": 1, "text": "a", "logprobs": {"tokens": ["a"]}}),
        [(("choices", 1, "text"), ("choices", 0, "text"), "a", "text")],
    ),
    "odd choices": ("chat", chunk(None, 3, {"delta": "x", "index": "0"}), None),
    "output text": (
        "responses",
        {"type": "response.output_text.delta", **AT, "delta": "a", "logprobs": [], "obfuscation": "x"},
        [(("output", 2, "content", 1, "response.output_text"), ("delta",), "a", "text")],
    ),
    "arguments": (
        "responses",
        {"type": "response.function_call_arguments.delta", "item_id": "i", "output_index": 0, "delta": "{"},
        [(("output", 0, "response.function_call_arguments"), ("delta",), "{", "json")],
    ),
    "no output index": (
        "responses",
        {"type": "response.mcp_call_arguments.delta", "item_id": "i", "delta": "{"},
        [(("output", "i", "response.mcp_call_arguments"), ("delta",), "{", "json")],
    ),
    "summary": (
        "responses",
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 1, "delta": "s"},
        [(("output", 0, "summary", 1, "response.reasoning_summary_text"), ("delta",), "s", "text")],
    ),
    "object delta": (
        "responses",
        {"type": "response.reasoning.delta", "delta": {"text": "s"}},
        [(("output", "response.reasoning", "text"), ("delta", "text"), "s", "text")],
    ),
    "realtime": (
        "realtime",
        {"type": "response.output_text.delta", "response_id": "r", "output_index": 0, "delta": "a"},
        [(("response", "r", "output", 0, "response.output_text"), ("delta",), "a", "text")],
    ),
    "transcript": (
        "audio",
        {"type": "transcript.text.delta", "delta": "a"},
        [(("output", "transcript.text"), ("delta",), "a", "text")],
    ),
    "segment": (
        "audio",
        {"type": "transcript.text.segment", "text": "a", "start": 0.0},
        [(("transcript", "segment"), ("text",), "a", "text")],
    ),
    "blocks": (
        "generic",
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}},
        [(("block", 1, "text"), ("delta", "text"), "a", "text")],
    ),
    "block of json": (
        "generic",
        {"type": "content_block_delta", "delta": {"partial_json": "{"}},
        [(("block", 0, "partial_json"), ("delta", "partial_json"), "{", "json")],
    ),
    "unknown": (
        "generic",
        {"id": "x", "token": {"text": "a", "id": 5}, "n": [1, 2], "e": [], "deep": [["b"]]},
        [
            (("token", "text"), ("token", "text"), "a", "text"),
            (("deep", 0, 0), ("deep", 0, 0), "b", "text"),
        ],
    ),
    "unknown in a known dialect": ("chat", {"response": "a"}, [(("response",), ("response",), "a", "text")]),
    "list": ("chat", [{"text": "a"}], [((0, "text"), (0, "text"), "a", "text")]),
}


@pytest.mark.parametrize("name", PIECES)
def test_event_when_it_holds_pieces_then_each_names_its_channel_and_place(name):
    dialect, document, expected = PIECES[name]
    texts = read_event(dialect, None, document)
    if expected is None:
        assert [piece.text for piece in texts.pieces] == ["x"]
    else:
        assert pieces(texts) == expected
        assert texts.wholes == []
    for piece in texts.pieces:
        value = document
        for step in piece.path:
            value = value[step]
        assert value == piece.text


def test_event_when_a_segment_names_its_speaker_then_that_is_a_text_of_its_own():
    texts = read_event("audio", None, {"type": "transcript.text.segment", "id": "s", "text": "a", "speaker": "b"})
    assert [(whole.path, whole.text) for whole in texts.wholes] == [(("speaker",), "b")]


CUSTOM_NAME = ("choices", 0, "tool_calls", 3, "custom", "name")
ENDS = {
    "finish": ("chat", chunk({"index": 2, "delta": {}, "finish_reason": "stop"}), [("choices", 2)]),
    "tool's name": ("chat", chunk(delta(tool_calls=[{"index": 3, "custom": {"name": "f"}}])), [CUSTOM_NAME]),
    "empty finish": ("chat", chunk({"index": 2, "delta": {}, "finish_reason": ""}), []),
    "text done": (
        "responses",
        {"type": "response.output_text.done", **AT},
        [("output", 2, "content", 1, "response.output_text")],
    ),
    "arguments done": (
        "responses",
        {"type": "response.function_call_arguments.done", "output_index": 2},
        [("output", 2, "response.function_call_arguments")],
    ),
    "part done": ("responses", {"type": "response.content_part.done", **AT}, [("output", 2, "content", 1)]),
    "item done": ("responses", {"type": "response.output_item.done", "output_index": 2}, [("output", 2)]),
    "completed": ("responses", {"type": "response.completed", "response": {"id": "r", "object": "response"}}, [ALL]),
    "failed": ("responses", {"type": "response.failed"}, [ALL]),
    "realtime done": (
        "realtime",
        {"type": "response.done", "response": {"id": "r", "object": "realtime.response"}},
        [("response", "r")],
    ),
    "realtime item done": (
        "realtime",
        {"type": "response.output_item.done", "response_id": "r", "output_index": 0},
        [("response", "r", "output", 0)],
    ),
    "input transcribed": (
        "realtime",
        {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i", "content_index": 0},
        [("output", "i", "content", 0, "conversation.item.input_audio_transcription")],
    ),
    "transcribed": ("audio", {"type": "transcript.text.done"}, [ALL]),
    "block": ("generic", {"type": "content_block_stop", "index": 1}, [("block", 1)]),
    "message": ("generic", {"type": "message_stop"}, [ALL]),
    "other": ("responses", {"type": "response.in_progress"}, []),
}


@pytest.mark.parametrize("name", ENDS)
def test_event_when_it_ends_channels_then_it_names_them(name):
    dialect, document, expected = ENDS[name]
    assert read_event(dialect, None, document).ends == expected


def test_event_when_its_type_stands_beside_the_data_then_the_name_counts():
    assert read_event("responses", b"response.completed", {"x": 1}).ends == [ALL]
    assert read_event("responses", b"response.x.delta", {"delta": "a"}).pieces[0].key == ("output", "response.x")


ITEM = {"id": "m", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "t"}]}
CALL = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}
RESPONSE = {
    "id": "r",
    "object": "response",
    "model": "m",
    "instructions": "echo",
    "tools": [{"description": "echo"}],
    "metadata": {"k": "echo"},
    "text": {"format": {"type": "text"}},
    "output": [ITEM, CALL],
    "usage": {"x": "y"},
}
WHOLES = {
    "snapshot": ("responses", {"type": "response.output_text.done", "text": "t"}, {("text",): "t"}),
    "arguments": (
        "responses",
        {"type": "response.function_call_arguments.done", "arguments": "{}"},
        {("arguments",): "{}"},
    ),
    "item": ("responses", {"type": "response.output_item.done", "item": ITEM}, {("item", "content", 0, "text"): "t"}),
    "response": (
        "responses",
        {"type": "response.completed", "response": RESPONSE},
        {
            ("response", "output", 0, "content", 0, "text"): "t",
            ("response", "output", 1, "name"): "f",
            ("response", "output", 1, "arguments"): "{}",
        },
    ),
    "name": ("chat", chunk(delta(name="f")), {("choices", 0, "delta", "name"): "f"}),
    "message": ("chat", chunk({"index": 0, "message": {"content": "t"}}), {("choices", 0, "message", "content"): "t"}),
    "beside choices": ("chat", chunk(provider="P", citations=["u"]), {("provider",): "P", ("citations", 0): "u"}),
    "beside a delta": ("audio", {"type": "transcript.text.delta", "delta": "", "note": "n"}, {("note",): "n"}),
    "error": ("generic", {"error": {"message": "no", "type": "x"}}, {("error", "message"): "no"}),
    "error event": ("generic", {"type": "error", "message": "no"}, {("message",): "no"}),
    "session": ("realtime", {"type": "session.created", "session": {"instructions": "echo"}}, {}),
    "beside a session": (
        "realtime",
        {"type": "session.updated", "session": {"a": "echo"}, "note": "n"},
        {("note",): "n"},
    ),
}


@pytest.mark.parametrize("name", WHOLES)
def test_event_when_it_holds_whole_texts_then_they_are_no_pieces(name):
    dialect, document, expected = WHOLES[name]
    texts = read_event(dialect, None, document)
    assert texts.pieces == []
    assert {whole.path: whole.text for whole in texts.wholes} == expected
    assert all((whole.kind == "json") is (whole.path[-1] == "arguments") for whole in texts.wholes)
    assert texts.failed is name.startswith("error")


@pytest.mark.parametrize(
    ("dialect", "document", "expected"),
    [
        ("chat", chunk(error={"message": "no"}), [("error", "message")]),
        ("embeddings", {"data": [{"embedding": "QUJD"}], "text": "x"}, []),
        ("embeddings", {"error": {"message": "no"}}, [("error", "message")]),
        ("generic", {"detail": "no such thing", "status": "s"}, [("detail",), ("status",)]),
        ("images", {"data": [{"url": "u", "revised_prompt": "p"}]}, [("data", 0, "revised_prompt")]),
        ("none", {"object": "realtime.client_secret", "value": "ek"}, []),
        ("none", {"object": "organization.admin_api_key", "value": "sk"}, []),
        ("none", {"object": "list", "data": [{"id": "x", "content": "c"}]}, [("data", 0, "content")]),
        ("none", {"object": 7, "name": "n"}, [("name",)]),
        ("none", ["a", "", 3], [(0,)]),
        ("generic", {"object": ["odd"], "type": ["odd"], "result": "short"}, [("result",)]),
        ("chat", {"choices": [{"message": {"audio": {"data": "QUJD", "transcript": "t"}}}]}, [(*AUDIO, "transcript")]),
        ("responses", {"output": [{"type": "image_generation_call", "result": BASE64}]}, []),
        ("responses", {"output": [{"type": "input_image", "image_url": "data:image/png;base64,iVBO" + BASE64}]}, []),
        (
            "chat",
            {"choices": [{"message": {"content": "data:;base64, the key"}}]},
            [("choices", 0, "message", "content")],
        ),
        ("generic", {"ids": [0.5, 1, "text"], "vector": [0.5, 1]}, [("ids", 2)]),
        ("images", {"data": [{"b64_json": "no image, a text"}]}, [("data", 0, "b64_json")]),
        ("responses", {"output": [{"type": "x", "result": "a b " * 2000}]}, [("output", 0, "result")]),
    ],
)
def test_document_when_it_is_whole_then_every_text_of_a_model_is_found(dialect, document, expected):
    texts = read_document(dialect, document) if "created" not in document else read_event(dialect, None, document)
    assert [whole.path for whole in texts.wholes] == expected


def test_media_when_they_come_then_they_are_named_and_not_read():
    image = {"type": "image_generation_call", "result": BASE64}
    assert read_document("responses", {"output": [image]}).missed == [("output", 0, "result")]
    assert read_document("images", {"data": [{"b64_json": "QUJD"}]}).missed == [("data", 0, "b64_json")]
    audio = read_event("chat", None, chunk(delta(audio={"data": "QUJD"})))
    assert audio.missed == [("choices", 0, "delta", "audio", "data")]
    speech = read_event("audio", None, {"type": "speech.audio.delta", "audio": "QUJD"})
    assert (speech.missed, speech.pieces, speech.wholes) == ([("speech.audio",)], [], [])
    sound = read_event("realtime", None, {"type": "response.audio.delta", "delta": "QUJD", "note": "n"})
    assert (sound.missed, sound.pieces, [one.text for one in sound.wholes]) == ([("response.audio",)], [], ["n"])
    said = read_event("realtime", None, {"type": "response.audio.delta", "delta": "no sound"})
    assert (said.missed, [piece.text for piece in said.pieces]) == ([], ["no sound"])


def test_plain_data_when_it_comes_then_it_is_one_channel():
    assert pieces(read_plain("generic", b"a \xff")) == [(PLAIN, (), "a \udcff", "text")]
    done, more = read_plain("chat", b"[DONE]"), read_plain("chat", b"[DONE] a")
    assert (done.ends, done.pieces, done.wholes) == ([ALL], [], [])
    assert (more.ends, more.pieces, [whole.text for whole in more.wholes]) == ([ALL], [], ["[DONE] a"])
    assert [whole.text for whole in read_plain("realtime", b"a").wholes] == ["a"]
    assert (read_plain("chat", b"").ends, read_plain("chat", b"").pieces) == ([], [])


@pytest.mark.parametrize("document", [{"text": "a"}, {"type": "x", "text": "a"}, ["a"]])
def test_message_of_a_session_when_its_shape_is_not_known_then_its_texts_come_whole(document):
    texts = read_event("realtime", None, document)
    assert (texts.pieces, [whole.text for whole in texts.wholes]) == ([], ["a"])
    delta = read_event("realtime", None, {"type": "response.output_text.delta", "item_id": "i", "delta": "a"})
    assert [piece.text for piece in delta.pieces] == ["a"]


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        (("choices", 0, "content"), "choices[0].content"),
        (("choices", 0, "tool_calls", 3, "function", "arguments"), "choices[0].tool_calls[3].function.arguments"),
        (("output", 2, "content", 1, "response.output_text"), "output[2].content[1].response.output_text"),
        (("output", "item-of-a-client", "response.x"), "output.*.response.x"),
        (("metadata", "SECRET"), "*.*"),
        ((0, "text"), "[0].text"),
        ((), ""),
    ],
)
def test_place_when_named_then_it_holds_nothing_that_a_client_could_choose(steps, place):
    assert place_of(steps) == place


MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "refusal", "audio", "object", "type", "annotations"]),
    st.none() | st.just([]) | st.sampled_from(["", "a", "response", "data:,a", "data:image/png;base64," + "iVBO" * 20]),
)
CHOICE = st.dictionaries(st.sampled_from(["index", "message", "finish_reason", "delta", "object"]), MESSAGE | st.none())


@given(st.lists(CHOICE | MESSAGE | st.text(max_size=2), max_size=3), st.sampled_from(["chat", "images", "generic"]))
@example([{"message": {"role": "assistant", "content": "a", "refusal": None}}, {"message": {"content": ""}}], "chat")
@example([{"message": {"content": "data:image/png;base64," + "iVBO" * 20}}], "chat")
@example([{"message": {"arguments": "a"}}], "chat")
@example([{"message": {"content": "a"}, "delta": {"content": "b"}}], "chat")
def test_document_when_it_is_usual_then_it_is_read_as_any_other(choices, dialect):
    document = {"id": "c", "object": "chat.completion", "created": 1, "choices": choices, "usage": {"total_tokens": 1}}
    usual, walked = read_document(dialect, document), read_document(dialect, {**document, "unusual": None})
    assert (usual.wholes, usual.missed) == (walked.wholes, walked.missed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "index", "content", "type", "object", "error", "response", "item_id", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from(["chat", "completions", "responses", "realtime", "audio", "images", "generic", "none"]))
def test_anything_when_read_then_nothing_raises_and_paths_lead_to_the_texts(document, dialect):
    for texts in (read_event(dialect, b"x.delta", document), read_document(dialect, document)):
        for piece in (*texts.pieces, *texts.wholes):
            value = document
            for step in piece.path:
                value = value[step]
            assert value == piece.text
            assert json.dumps(place_of(piece.path)).isascii()


USUAL = (
    chunk(delta(content=" hi")),
    chunk(delta(2, role="assistant", content="", reasoning_content="so"), usage=None, obfuscation="xyz"),
    chunk(delta(content="a key") | {"logprobs": {"content": [{"token": "a"}, {"token": " key"}], "refusal": None}}),
    chunk(delta(content="a") | {"logprobs": {"content": [{"token": "a"}, {"token": " key"}], "refusal": None}}),
    chunk(delta(content="a", reasoning="b")),
    chunk(delta(content="a") | {"finish_reason": "stop"}),
    chunk(delta(content="a") | {"index": None}),
    chunk(delta(content="a") | {"text": "b"}),
    chunk(delta(content="a"), delta(1, content="b")),
    chunk(delta(content="a"), note="b"),
    chunk(delta(content=["a"])),
    chunk(delta(title="a")),
    chunk(delta(data="a")),
    chunk(delta()),
    chunk({"index": 0, "delta": "a"}),
    chunk(None),
)


@pytest.mark.parametrize("document", USUAL)
def test_usual_chunk_when_it_is_one_piece_of_text_then_nothing_else_is_in_it(document):
    assert (read_usual(document) is not None) == (document in USUAL[:3])
    assert_same(document)


@given(JSON)
def test_usual_chunk_when_it_is_anything_then_it_is_read_as_any_event(document):
    assert_same(document)
    assert_same({"choices": [{"index": 0, "delta": document}]})
    assert_same({"choices": [document]})


def assert_same(document):
    if (usual := read_usual(document)) is not None:
        texts = read_event("chat", None, document)
        assert texts.pieces == [(usual[0], usual_path(usual[0]), usual[1], "text")]
        assert not (texts.wholes or texts.ends or texts.missed or texts.failed)


def test_document_when_it_is_nested_deeply_then_it_is_read_all_the_same():
    document: object = "t"
    for _ in range(1020):
        document = [document]
    [whole] = read_document("none", document).wholes
    assert (whole.text, len(whole.path)) == ("t", 1020)


def test_document_when_deeply_nested_then_the_time_depends_on_its_size_alone() -> None:
    def seconds(depth: int) -> float:
        document: list[object] = []
        for _ in range(20_000 // depth):
            nested: object = {"a": "b"}
            for _ in range(depth):
                nested = [nested]
            document.append(nested)
        begun = time.thread_time()
        read_document("chat", document)
        return time.thread_time() - begun

    assert min(seconds(900) for _ in range(3)) < 5 * min(seconds(30) for _ in range(3))


@pytest.mark.parametrize(("size", "last", "is_media"), [(4096, "", True), (600_000, "", True), (600_000, "!", False)])
def test_document_when_a_member_may_hold_media_then_all_of_it_is_looked_at(
    size: int, last: str, is_media: bool
) -> None:
    texts = read_document("generic", {"data": "QUJD" * (size // 4) + last})
    assert (texts.missed == [("data",)], texts.wholes == []) == (is_media, is_media)


def tokens(*texts):
    return {"content": [{"token": text, "logprob": -0.1, "bytes": list(text.encode())} for text in texts]}


@pytest.mark.parametrize(
    ("dialect", "document", "expected"),
    [
        ("chat", {"choices": [{"index": 2, "delta": {"content": "a key"}, "logprobs": tokens("a", " key")}]}, {}),
        (
            "chat", {"choices": [{"index": 2, "delta": {"content": ""}, "logprobs": tokens("a", " key")}]},
            {("choices", 2, "logprobs"): "a key"},
        ),
        (
            "chat", {"choices": [{"index": 2, "delta": {"content": "a"}, "logprobs": tokens("a", " key")}]},
            {("choices", 2, "logprobs"): "a key"},
        ),
        (
            "responses",
            {"type": "response.output_text.delta", "output_index": 1, "delta": "", "logprobs": [{"token": "k"}]},
            {("output", 1, "response.output_text", "logprobs"): "k"},
        ),
        ("responses", {"type": "response.output_text.delta", "delta": "k", "logprobs": [{"token": "k"}]}, {}),
    ],
)  # fmt: skip
def test_log_probabilities_when_the_text_beside_them_is_another_then_they_are_a_channel(dialect, document, expected):
    pieces = {piece.key: piece.text for piece in read_event(dialect, None, document).pieces}
    assert {key: text for key, text in pieces.items() if key[-1] == "logprobs"} == expected


def test_log_probabilities_when_an_answer_is_whole_and_its_text_another_then_they_are_a_text():
    choice = {"index": 0, "message": {"content": "a key"}, "logprobs": tokens("a", " key")}
    assert [whole.text for whole in read_document("chat", {"choices": [choice]}).wholes] == ["a key"]
    hidden = {**choice, "message": {"content": "b"}}
    assert {whole.path[-1]: whole.text for whole in read_document("chat", {"choices": [hidden]}).wholes} == {
        "logprobs": "a key", "content": "b",
    }  # fmt: skip
    part = {"type": "output_text", "text": "b", "logprobs": [{"token": "a"}]}
    texts = read_document("responses", {"object": "response", "output": [{"content": [part]}]})
    assert [whole.text for whole in texts.wholes] == ["a", "b"]
