"""The calls that are compared: one function per feature of the API, the same for both ways.

A call takes an official client and returns plain data, everything that an application could see: parsed fields, the
events of a stream in order, the raw bytes of a download, the request id.
"""

from collections.abc import Callable
from typing import Any

from openai import OpenAI

MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße an die 世界 👋"}]
TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
MODEL = "gpt-4o-mini"
Call = Callable[[OpenAI], Any]


def chat(client: OpenAI) -> Any:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0.5, seed=7, user="ada")
    return answer.model_dump(), answer._request_id


def chat_stream(client: OpenAI) -> Any:
    return [part.model_dump() for part in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)]


def chat_stream_usage(client: OpenAI) -> Any:
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options=options)
    return [part.model_dump() for part in stream]


def chat_stream_helper(client: OpenAI) -> Any:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        kinds = [event.type for event in stream]
        return kinds, stream.get_final_completion().model_dump()


def chat_tools(client: OpenAI) -> Any:
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=TOOLS).model_dump()


def chat_tools_stream(client: OpenAI) -> Any:
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=TOOLS, stream=True)
    return [part.model_dump() for part in stream]


def chat_many_options(client: OpenAI) -> Any:
    return client.chat.completions.create(
        model=MODEL, messages=MESSAGES, n=2, stop=["\n"], logprobs=True, response_format=SCHEMA, max_tokens=9,
        metadata={"a": "b"}, extra_body={"own": {"x": [1.0, 1e30, None]}}, extra_query={"q": "a b"},
        extra_headers={"X-A": "1"},
    ).model_dump()  # fmt: skip


def chat_raw(client: OpenAI) -> Any:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    return raw.status_code, raw.text, raw.headers["x-request-id"], raw.headers["openai-processing-ms"]


def chat_streamed_raw(client: OpenAI) -> Any:
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=MESSAGES, stream=True) as raw:
        return list(raw.iter_lines())


def responses(client: OpenAI) -> Any:
    return client.responses.create(model=MODEL, input="hi", previous_response_id="resp_0").model_dump()


def responses_stream(client: OpenAI) -> Any:
    return [event.model_dump() for event in client.responses.create(model=MODEL, input="hi", stream=True)]


def responses_stream_helper(client: OpenAI) -> Any:
    with client.responses.stream(model=MODEL, input="hi") as stream:
        return [event.type for event in stream], stream.get_final_response().model_dump()


def completions(client: OpenAI) -> Any:
    return client.completions.create(model="gpt-3.5-turbo-instruct", prompt=["a", "b"]).model_dump()


def completions_stream(client: OpenAI) -> Any:
    stream = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="a", stream=True)
    return [part.model_dump() for part in stream]


def embeddings(client: OpenAI) -> Any:
    return client.embeddings.create(model="text-embedding-3-small", input=["a", "b"]).model_dump()


def embeddings_floats(client: OpenAI) -> Any:
    return client.embeddings.create(model="m", input=[[1, 2], [3]], encoding_format="float").model_dump()


def moderations(client: OpenAI) -> Any:
    return client.moderations.create(input="x").model_dump()


def models(client: OpenAI) -> Any:
    return [model.model_dump() for model in client.models.list()], client.models.retrieve(MODEL).model_dump()


def images(client: OpenAI) -> Any:
    return client.images.generate(prompt="a cat", model="gpt-image-1").model_dump()


def image_edit(client: OpenAI) -> Any:
    return client.images.edit(image=("a.png", b"\x89PNG\x00\xff"), prompt="x", model="gpt-image-1").model_dump()


def speech(client: OpenAI) -> Any:
    return client.audio.speech.create(model="tts-1", voice="alloy", input="x").read()


def speech_streamed(client: OpenAI) -> Any:
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="x") as answer:
        return b"".join(answer.iter_bytes(1000))


def transcription(client: OpenAI) -> Any:
    return client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", b"RIFF\x00" * 99)).model_dump()


def files(client: OpenAI) -> Any:
    made = client.files.create(file=("ä b.jsonl", b'{"a":1}\n' * 5000), purpose="batch").model_dump()
    listed = [file.model_dump() for file in client.files.list(limit=3)]
    return made, listed, client.files.content("file-1").read(), client.files.delete("file-1").model_dump()


def unknown_endpoint(client: OpenAI) -> Any:
    return client.post("/brand/new", body={"a": 1}, cast_to=object, options={"params": {"x": "1"}})


CALLS: dict[str, Call] = {
    call.__name__: call
    for call in (
        chat, chat_stream, chat_stream_usage, chat_stream_helper, chat_tools, chat_tools_stream, chat_many_options,
        chat_raw, chat_streamed_raw, responses, responses_stream, responses_stream_helper, completions,
        completions_stream, embeddings, embeddings_floats, moderations, models, images, image_edit, speech,
        speech_streamed, transcription, files,
    )
}  # fmt: skip
