import asyncio
import gc

import pytest

from proxy.config.schema import Limits
from proxy.errors import InvalidRequest, Overloaded
from proxy.exchange import Inbound, first_values
from proxy.openai.operations import match
from proxy.phases.intake import ByteBudget, Intake, slim

CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n'
)
JSON = (b"Content-Type", b"application/json")
MULTIPART = (b"Content-Type", b"multipart/form-data; boundary=b")


class Body:
    """`intake.RequestBody` over pieces; an exception among them is raised in its place."""

    def __init__(self, *pieces):
        self._pieces = pieces
        self.limits = []
        self.held_at = []
        self.budget = None

    async def read(self, limit_bytes):
        return b"".join([piece async for piece in self.stream(limit_bytes)])

    async def stream(self, limit_bytes):
        self.limits.append(limit_bytes)
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            if self.budget is not None:
                self.held_at.append(self.budget.used_bytes)
            await asyncio.sleep(0)
            yield piece


def intake(body, *headers, path="/v1/chat/completions", method="POST", announced=None, budget=None, has_body=True):
    inbound = Inbound(
        method=method,
        target=path,
        path=path,
        headers=headers,
        fields=first_values(headers),
        operation=match(method, path, False),
        peer=None,
        content_length=announced,
        has_body=has_body,
    )
    body.budget = budget
    return Intake(inbound, body, Limits(json_body_bytes=100, upload_body_bytes=1000), budget or ByteBudget(1 << 20))


async def sent(taken, request):
    outgoing = taken.outgoing(request)
    return outgoing if outgoing is None or isinstance(outgoing, bytes) else [piece async for piece in outgoing]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/batches/b/cancel", "/v1/unknown"])
async def test_json_when_no_byte_of_it_comes_then_it_goes_on_as_no_body(path):
    taken = intake(Body(), JSON, path=path)
    request = await taken.parse(force_usage=True)
    assert (request.document, request.model, await sent(taken, request)) == (None, None, b"")


async def test_json_when_it_comes_in_pieces_then_it_is_understood_and_goes_on_as_it_was():
    body = Body(CHAT[:10], CHAT[10:])
    taken = intake(body, JSON, announced=len(CHAT))
    request = await taken.parse(force_usage=True)
    assert (request.model, request.request_bytes, await sent(taken, request)) == ("gpt-4o", len(CHAT), CHAT)
    assert body.limits == [100]


@pytest.mark.parametrize(
    ("path", "headers", "kind"),
    [
        ("/v1/chat/completions", (JSON,), "json"),
        ("/v1/chat/completions", ((b"content-type", b"Application/JSON; charset=utf-8"),), "json"),
        ("/v1/chat/completions", (), "json"),
        ("/v1/anything", (JSON,), "json"),
        ("/v1/anything", ((b"content-type", b"application/merge-patch+json"),), "json"),
        ("/v1/anything", (), "raw"),
        ("/v1/anything", ((b"content-type", b"application/sdp"),), "raw"),
        ("/v1/audio/transcriptions", (MULTIPART,), "raw"),
    ],
)
async def test_body_when_of_a_kind_then_json_is_held_and_the_rest_streams(path, headers, kind):
    taken = intake(Body(CHAT[:9], CHAT[9:]), *headers, path=path)
    request = await taken.parse(force_usage=False)
    assert await sent(taken, request) == (CHAT if kind == "json" else [CHAT[:9], CHAT[9:]])
    assert (request.model is not None) is (kind == "json")


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("/v1/chat/completions", ((b"content-type", b"text/plain"),), "unsupported_media_type"),
        ("/v1/chat/completions", (MULTIPART,), "unsupported_media_type"),
        ("/v1/chat/completions", (JSON, (b"Content-Encoding", b"gzip")), "unsupported_content_encoding"),
        ("/v1/files", (MULTIPART, (b"Content-Encoding", b"br")), "unsupported_content_encoding"),
        (
            "/v1/files",
            (MULTIPART, (b"Content-Encoding", b"identity"), (b"content-encoding", b"gzip")),
            "unsupported_content_encoding",
        ),
    ],
)
async def test_body_when_it_cannot_be_read_then_415_before_a_byte_is_taken(path, headers, code):
    body = Body(CHAT)
    with pytest.raises(InvalidRequest) as caught:
        await intake(body, *headers, path=path).parse(force_usage=False)
    assert (caught.value.http_status, caught.value.code) == (415, code)
    assert body.limits == []


async def test_body_when_said_to_be_identity_then_it_is_read():
    taken = intake(Body(CHAT), JSON, (b"Content-Encoding", b"Identity"))
    assert (await taken.parse(force_usage=False)).model == "gpt-4o"


async def test_request_when_it_has_no_body_then_none_is_read_or_sent():
    body = Body()
    taken = intake(body, method="GET", path="/v1/models", has_body=False)
    request = await taken.parse(force_usage=False)
    assert (await sent(taken, request), body.limits) == (None, [])


async def test_upload_when_it_has_passed_then_its_form_is_known():
    body = Body(FORM[:50], FORM[50:90], FORM[90:])
    taken = intake(body, MULTIPART, path="/v1/audio/transcriptions", announced=len(FORM))
    request = await taken.parse(force_usage=False)
    assert (request.model, request.request_bytes, taken.streamed_bytes) == (None, len(FORM), 0)
    assert b"".join(await sent(taken, request)) == FORM
    learned = taken.learned(request)
    assert (learned.model, learned.request_bytes, taken.streamed_bytes) == ("whisper-1", len(FORM), len(FORM))
    assert body.limits == [1000]


async def test_upload_when_raw_then_only_its_size_is_learned():
    taken = intake(Body(b"abc", b"de"), path="/v1/anything")
    request = await taken.parse(force_usage=False)
    await sent(taken, request)
    assert (taken.learned(request).request_bytes, taken.learned(request).model) == (5, None)


async def test_upload_when_it_breaks_a_rule_on_its_way_then_the_sender_gets_the_error():
    taken = intake(Body(b"abc", InvalidRequest("too large", status=413)), path="/v1/anything")
    request = await taken.parse(force_usage=False)
    with pytest.raises(InvalidRequest):
        await sent(taken, request)
    assert taken.streamed_bytes == 3


@pytest.mark.parametrize("announced", [len(CHAT), None])
async def test_budget_when_a_body_is_held_then_it_counts_until_the_end(announced):
    budget = ByteBudget(1000)
    taken = intake(Body(CHAT[:10], CHAT[10:]), JSON, announced=announced, budget=budget)
    await taken.parse(force_usage=False)
    assert budget.used_bytes == len(CHAT)
    taken.close()
    taken.close()
    assert budget.used_bytes == 0


async def test_budget_when_the_length_is_announced_then_it_is_reserved_before_a_byte_comes():
    budget = ByteBudget(1000)
    body = Body(CHAT)
    await intake(body, JSON, announced=len(CHAT), budget=budget).parse(force_usage=False)
    assert body.held_at == [len(CHAT)]


async def test_budget_when_the_length_is_unknown_then_every_piece_counts_as_it_comes():
    budget = ByteBudget(88)  # 99 for small ones
    budget.take(75)
    body = Body(CHAT[:10], CHAT[10:20], CHAT[20:30], CHAT[30:])
    taken = intake(body, JSON, budget=budget)
    with pytest.raises(Overloaded):
        await taken.parse(force_usage=False)
    assert body.held_at == [75, 85, 95]
    taken.close()
    assert budget.used_bytes == 75


async def test_budget_when_large_bodies_use_it_up_then_small_ones_have_an_eighth_more():
    budget = ByteBudget(800_000)
    budget.take(800_000)
    budget.take(65_536)
    with pytest.raises(Overloaded):
        budget.take(1, held=65_536)
    budget.take(34_464)
    with pytest.raises(Overloaded):
        budget.take(1)
    budget.give(100_000)
    with pytest.raises(Overloaded):
        budget.take(70_000)


@pytest.mark.parametrize("announced", [None, len(CHAT)])
async def test_budget_when_a_body_is_larger_than_all_of_it_then_413_because_waiting_is_in_vain(announced):
    taken = intake(Body(CHAT[:10], CHAT[10:]), JSON, announced=announced, budget=ByteBudget(len(CHAT) - 1))
    with pytest.raises(InvalidRequest, match=f"larger than {len(CHAT) - 1} bytes") as caught:
        await taken.parse(force_usage=False)
    assert caught.value.http_status == 413
    taken.close()


async def test_budget_when_it_is_used_up_then_503_says_when_to_come_again():
    budget = ByteBudget(80)
    await intake(Body(CHAT), JSON, announced=len(CHAT), budget=budget).parse(force_usage=False)
    refused = intake(Body(CHAT), JSON, announced=len(CHAT), budget=budget)
    with pytest.raises(Overloaded) as caught:
        await refused.parse(force_usage=False)
    assert (caught.value.code, caught.value.retry_after_s) == ("too_many_buffered_bytes", 1.0)
    refused.close()
    assert budget.used_bytes == len(CHAT)


@pytest.mark.parametrize(
    ("path", "headers", "announced", "refused"),
    [
        ("/v1/chat/completions", (JSON,), 100, False),
        ("/v1/chat/completions", (JSON,), 101, True),
        ("/v1/files", (MULTIPART,), 1000, False),
        ("/v1/files", (MULTIPART,), 1001, True),
        ("/v1/anything", (), 1001, True),
    ],
)
async def test_body_when_announced_too_large_then_413_before_anything_else(path, headers, announced, refused):
    budget, body = ByteBudget(announced if not refused else 10), Body(CHAT)
    taken = intake(body, *headers, path=path, announced=announced, budget=budget)
    try:
        await taken.parse(force_usage=False)
    except InvalidRequest as error:
        assert refused
        assert (error.http_status, error.code) == (413, "request_too_large")
        assert (body.limits, budget.used_bytes) == ([], 0)
    else:
        assert not refused


async def test_budget_when_parsing_fails_then_closing_gives_it_back():
    budget = ByteBudget(1000)
    taken = intake(Body(b"{"), JSON, announced=1, budget=budget)
    with pytest.raises(InvalidRequest):
        await taken.parse(force_usage=False)
    taken.close()
    assert budget.used_bytes == 0


async def test_budget_when_an_upload_streams_then_it_does_not_count():
    budget = ByteBudget(1)
    taken = intake(Body(FORM), MULTIPART, path="/v1/files", announced=len(FORM), budget=budget)
    await sent(taken, await taken.parse(force_usage=False))
    assert budget.used_bytes == 0


@pytest.mark.parametrize(("thread_bytes", "others_go_on"), [(len(CHAT), False), (len(CHAT) - 1, True)])
async def test_json_when_larger_than_what_is_parsed_at_once_then_others_go_on_meanwhile(thread_bytes, others_go_on):
    gone_on = []

    class AtOnce(Body):
        async def read(self, limit_bytes):
            asyncio.get_running_loop().call_soon(gone_on.append, True)
            return CHAT

    body = AtOnce()
    taken = Intake(
        intake(body, JSON, announced=len(CHAT))._inbound,
        body,
        Limits(json_thread_bytes=thread_bytes),
        ByteBudget(1 << 20),
    )
    request = await taken.parse(force_usage=True)
    assert (request.model, bool(gone_on)) == ("gpt-4o", others_go_on)


async def test_json_when_large_then_its_bytes_are_kept_and_the_decoded_document_is_not():
    text = b"x" * 70_000
    large = CHAT.replace(b"hi", text)
    body = Body(large)
    taken = Intake(intake(body, JSON)._inbound, body, Limits(), ByteBudget(1 << 20))
    request = await taken.parse(force_usage=True)
    assert request.document is not None
    request = slim(request)
    assert (request.document, request.body, request.model) == (None, large, "gpt-4o")
    assert request.input_text_bytes() >= len(text)


async def test_slim_when_there_are_many_messages_then_they_are_let_go():
    large = b'{"model":"gpt-4o","messages":[' + b",".join([b'{"role":"user","content":"hi"}'] * 20_000) + b"]}"
    body = Body(large)
    taken = Intake(intake(body, JSON)._inbound, body, Limits(), ByteBudget(1 << 20))
    request = await taken.parse(force_usage=True)
    messages = request.document["messages"]
    request = taken.slim(request)
    assert (request.document, request.input_text_bytes()) == (None, 120_000)
    async with asyncio.timeout(5):
        while messages:
            await asyncio.sleep(0.001)


async def test_json_of_many_elements_when_another_is_decoded_then_it_waits_for_its_turn():
    dense = b'{"model":"gpt-4o","messages":[' + b"{}," * 100_000 + b"{}]}"
    budget = ByteBudget(1 << 24)

    def take(body):
        return Intake(intake(Body(body), JSON)._inbound, Body(body), Limits(), budget)

    first, second, third = take(dense), take(dense), take(CHAT)
    before = gc.get_threshold()
    request = await first.parse(force_usage=True)
    assert budget.decoding.locked()
    assert gc.get_threshold()[2] > 1 << 20
    waiting = asyncio.ensure_future(second.parse(force_usage=True))
    assert (await third.parse(force_usage=True)).model == "gpt-4o"
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert first.slim(request).document is None
    assert (await waiting).document is not None
    assert budget.decoding.locked()
    assert gc.get_threshold()[2] > 1 << 20
    second.close()
    second.close()
    assert not budget.decoding.locked()
    assert gc.get_threshold() == (*before[:2], 600)
    gc.set_threshold(*before)


async def test_form_when_it_is_left_while_a_piece_is_scanned_then_only_what_was_scanned_before_counts():
    taken = intake(Body(FORM[:40], FORM[40:]), MULTIPART, path="/v1/audio/transcriptions")
    request = await taken.parse(force_usage=True)
    fed = []

    class Slow:
        async def feed(self, piece):
            taken.observer.feed(piece)  # as a thread does, whose end nobody waits for
            fed.append(piece)
            if len(fed) == 2:
                await asyncio.sleep(60)
            return piece

        async def finish(self):
            return b""

    taken.screen = Slow()
    sending = asyncio.ensure_future(sent(taken, request))
    while len(fed) < 2:
        await asyncio.sleep(0)
    sending.cancel()
    assert (taken.learned(request).model, taken.streamed_bytes) == (None, len(FORM))
