"""The policy at work in one exchange: each kind of body, large texts in a thread, faults as configured."""

import asyncio
import base64
import gc
import json
import logging
import threading

import pytest

from proxy.config.policy import Policy as Settings
from proxy.config.schema import Limits
from proxy.errors import PolicyUnavailable, PolicyViolation
from proxy.exchange import Capture, Inbound, Message, ParsedRequest, first_values
from proxy.nouns.findings import Verdict
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.phases import screening as module
from proxy.phases.screening import ScreenedClient, Screening
from proxy.policy.scan import Scanned
from tests.policy.policies import policy_of
from tests.policy.secrets import EMAIL, HIGH, MEDIUM

JSON = ((b"Content-Type", b"application/json"),)
IMAGE = "data:image/png;base64," + base64.b64encode(b"\x89PNG" * 20).decode()


def screening(**settings) -> Screening:
    return Screening(policy_of(**settings), Settings(**settings), Limits(), Verdict("v", 50))


def inbound(path="/v1/chat/completions", headers=JSON) -> Inbound:
    operation = match("POST", path, False)
    return Inbound("POST", path, path, headers, first_values(headers), operation, None, None, True)


def chat(content: str, **more) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **more}).encode()


def parsed(body: bytes, path="/v1/chat/completions") -> ParsedRequest:
    return parse_json(body, match("POST", path, False), limits=Limits(), force_stream_usage=True)


@pytest.fixture
def scans_on_main(monkeypatch):
    """Of each scan, whether the main thread made it."""
    on_main = []

    def watched(*arguments, **options):
        on_main.append(threading.current_thread() is threading.main_thread())
        return scan(*arguments, **options)

    scan = module.scan
    monkeypatch.setattr(module, "scan", watched)
    return on_main


async def test_request_when_clean_then_it_is_the_same_object():
    request = parsed(chat("hello"))
    assert await screening().request(request, inbound(), None) is request


async def test_request_when_masked_then_numbers_and_what_was_added_stay_and_the_document_follows():
    body = chat(f"k {MEDIUM}", stream=True, n=1).replace(b'"n": 1', b'"n": 12345678901234567890123')
    request = await screening().request(parsed(body), inbound(), None)
    sent = json.loads(request.body or b"")
    assert sent["n"] == 12345678901234567890123
    assert sent["stream_options"] == {"include_usage": True}
    assert request.document is not None
    assert request.document["messages"] == sent["messages"] == [{"role": "user", "content": "k ghp_********"}]
    assert request.input_text_bytes() < parsed(body).input_text_bytes()


@pytest.mark.parametrize("body", [b'["%b"]', b'{"a": "%b"', b'"%b"', b"\xff %b"], ids=["list", "torn", "text", "latin"])
async def test_request_when_its_json_is_no_object_then_it_is_scanned_all_the_same(body):
    request = parsed(body % MEDIUM.encode(), "/v1/new")
    changed = await screening().request(request, inbound("/v1/new"), None)
    assert changed.body == (body % b"ghp_********").replace(b'["ghp', b'["ghp')


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32-le"])
async def test_request_when_its_json_is_not_in_plain_utf_8_then_what_is_sent_keeps_its_encoding(encoding):
    text = json.dumps({"a": [MEDIUM, 12345678901234567890123]})
    changed = await screening().request(parsed(text.encode(encoding), "/v1/new"), inbound("/v1/new"), None)
    assert changed.body is not None
    assert json.loads(changed.body.decode(encoding)) == {"a": ["ghp_********", 12345678901234567890123]}
    clean = json.dumps({"a": "text"}).encode(encoding)
    assert (await screening().request(parsed(clean, "/v1/new"), inbound("/v1/new"), None)).body == clean
    with pytest.raises(PolicyViolation):
        await screening().request(parsed(json.dumps([HIGH]).encode(encoding), "/v1/new"), inbound("/v1/new"), None)


async def test_request_when_prompts_are_not_scanned_then_everything_passes():
    request = parsed(chat(HIGH))
    off = screening(scan_prompts=False)
    assert await off.request(request, inbound(), None) is request
    assert await off.message(HIGH) == HIGH
    assert await off.upload(None) is None
    off.missed("message", "binary")
    assert off.verdict.missed == {}


async def test_request_when_large_then_it_is_scanned_in_a_thread(scans_on_main):
    small = screening()
    await small.request(parsed(chat("x")), inbound(), None)
    await small.request(parsed(chat("x" * 300_000)), inbound(), None)
    assert scans_on_main == [True, False]


async def test_request_when_large_then_no_finding_is_counted_on_the_event_loop(monkeypatch):
    """Half a million of them kept it for a third of a second."""
    threads = []

    def watched(scanned, verdict):
        threads.append(threading.current_thread() is threading.main_thread())
        enter(scanned, verdict)

    enter = Scanned.enter
    monkeypatch.setattr(Scanned, "enter", watched)
    large = screening()
    with pytest.raises(PolicyViolation) as refused:
        await large.request(parsed(chat(f"{HIGH}\n" * 2000)), inbound(), None)
    assert threads == [False]
    assert refused.value.rules
    assert sum(large.verdict.counts.values()) == 2000
    assert len(large.verdict.sightings) == large.verdict.max_kept
    assert large.verdict.scanned_characters["prompt"] > 2000 * len(HIGH)


@pytest.fixture
def impatient(monkeypatch):
    """No scan of more than a few characters is quick enough for the event loop."""
    monkeypatch.setattr(module, "USUAL_S", -1.0)


async def test_request_when_small_but_slow_then_it_is_scanned_in_a_thread_and_counted_once(impatient, scans_on_main):
    slow = screening()
    request = await slow.request(
        parsed(b'{"a": "%b' % MEDIUM.encode() + b" " * 3000, "/v1/new"), inbound("/v1/new"), None
    )
    assert request.body is not None and b"ghp_********" in request.body
    assert scans_on_main == [True, False]
    assert list(slow.verdict.counts.values()) == [1]
    assert slow.verdict.missed == {("prompt", "malformed"): 1}


@pytest.mark.parametrize("text", [HIGH, HIGH + " " * 3000, json.dumps({"text": HIGH})], ids=["short", "long", "json"])
async def test_message_when_it_is_slow_and_blocked_then_it_is_recorded_once(impatient, text):
    slow = screening()
    with pytest.raises(PolicyViolation):
        await slow.message(text)
    assert [number for (_, _, action), number in slow.verdict.counts.items() if action == "block"] == [1]
    assert not await slow.may_quote([text])


async def test_request_when_captured_then_what_was_found_is_masked_in_what_is_kept():
    body = chat(f"{HIGH} {EMAIL}")
    capture = Capture(1000, request=body)
    with pytest.raises(PolicyViolation):
        await screening().request(parsed(body), inbound(), capture)
    assert capture.request is not None and json.loads(capture.request)["model"] == "m"
    assert HIGH.encode() not in capture.request and EMAIL.encode() not in capture.request


async def test_request_when_media_are_denied_then_it_is_refused_by_their_place():
    request = parsed(chat("x", image=IMAGE))
    assert await screening().request(request, inbound(), None) is request
    with pytest.raises(PolicyViolation) as caught:
        await screening(unscannable="deny").request(request, inbound(), None)
    assert caught.value.param == "image"


@pytest.fixture
def broken(monkeypatch):
    def scan(*_, **__):
        raise ValueError(f"something about {HIGH}")

    monkeypatch.setattr(module, "scan", scan)


async def test_fault_when_closed_then_the_request_is_refused_and_nothing_is_quoted(broken, caplog):
    caplog.set_level(logging.ERROR)
    closed, capture = screening(), Capture(1000, request=b"x")
    with pytest.raises(PolicyUnavailable) as caught:
        await closed.request(parsed(chat(HIGH)), inbound(), capture)
    assert (caught.value.http_status, caught.value.code) == (500, "policy_unavailable")
    assert closed.verdict.faults == 1
    assert capture.request is None
    assert HIGH not in caplog.text and HIGH not in repr(caplog.records[0].__dict__)
    with pytest.raises(PolicyUnavailable):
        await closed.message(HIGH)


async def test_fault_when_open_then_the_request_passes_and_is_counted(broken):
    opened, request = screening(on_fault="open"), parsed(chat(HIGH))
    assert await opened.request(request, inbound(), None) is request
    assert await opened.message(HIGH) == HIGH
    assert opened.verdict.faults == 2


async def test_upload_when_its_scan_fails_then_it_ends_even_if_faults_pass(monkeypatch):
    def fail(*_):
        raise ValueError

    upload = await screening(on_fault="open").upload(None)
    assert upload is not None
    monkeypatch.setattr(module.UploadScan, "feed", fail)
    with pytest.raises(PolicyUnavailable):
        await upload.feed(b"x")


async def test_upload_when_fed_then_what_may_be_sent_comes_back():
    upload = await screening().upload(None)
    assert upload is not None
    sent = await upload.feed(f"key {MEDIUM} ".encode()) + await upload.finish()
    assert sent == f"key {'ghp_'.ljust(len(MEDIUM), '*')} ".encode()
    with pytest.raises(PolicyViolation):
        await upload.feed(f"key {HIGH} ".encode())


async def test_upload_when_fed_then_a_thread_scans_it_and_the_loop_gets_what_was_found(monkeypatch):
    threads, scan = set(), module.UploadScan.feed

    def feed(*arguments):
        threads.add(threading.get_ident())
        return scan(*arguments)

    monkeypatch.setattr(module.UploadScan, "feed", feed)
    one = screening()
    upload = await one.upload(None)
    assert upload is not None
    await upload.feed(f"key {MEDIUM} and ".encode())
    with pytest.raises(PolicyViolation):
        await upload.feed(f"key {HIGH} ".encode())
    assert threads
    assert threading.get_ident() not in threads
    assert sorted(action for _, _, action in one.verdict.counts) == ["block", "redact"]
    assert one.verdict.scanned_characters["prompt"] == len(f"key {MEDIUM} and key {HIGH} ")


MESSAGES = {
    "clean": ('{"type": "x",  "n": 1e3}', '{"type": "x",  "n": 1e3}'),
    "masked": (f'{{"item": {{"text": "{MEDIUM}"}}, "n": 1.10}}', '{"item":{"text":"ghp_********"},"n":1.1}'),
    "twice": ('{"a": "x", "a": "y"}', '{"a":"y"}'),
    "no JSON": (f"no {MEDIUM} json", "no ghp_******** json"),
    "half a pair": ("cut \ud83d", "cut \ud83d"),
    "one text": (f'"{MEDIUM}"', '"ghp_********"'),
}


@pytest.mark.parametrize(("text", "sent"), MESSAGES.values(), ids=MESSAGES.keys())
async def test_message_when_scanned_then_it_passes_or_is_masked(text, sent):
    assert await screening().message(text) == sent


class Client:
    def __init__(self, *messages: Message) -> None:
        self.messages, self.sent = list(messages), []

    async def receive(self) -> Message:
        return self.messages.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)


async def test_client_when_a_message_is_blocked_then_it_hears_why_and_the_next_one_passes():
    clean, binary, close = Message("text", "{}"), Message("binary", b"x"), Message("close", "", 1000)
    client = Client(Message("text", json.dumps({"item": {"text": HIGH}})), clean, binary, close)
    screened, seen = ScreenedClient(client, screening()), screening()
    screened = ScreenedClient(client, seen)
    assert [await screened.receive() for _ in range(3)] == [clean, binary, close]
    (told,) = client.sent
    error = json.loads(told.data)["error"]
    assert (error["code"], error["param"]) == ("policy_violation", "item.text")
    assert HIGH not in told.data
    assert seen.verdict.missed == {("prompt", "binary"): 1}
    await screened.send(close)
    assert client.sent[-1] is close


async def test_client_when_binary_messages_are_denied_then_they_do_not_pass():
    close = Message("close", "", 1000)
    client = Client(Message("binary", b"x"), close)
    assert await ScreenedClient(client, screening(unscannable="deny")).receive() is close
    assert len(client.sent) == 1


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        (Message("ping", MEDIUM.encode()), Message("ping", b"ghp_********")),
        (Message("pong", b"\xff " + MEDIUM.encode()), Message("pong", b"\xff ghp_********")),
        (Message("close", MEDIUM, 1000), Message("close", "ghp_********", 1000)),
        (Message("close", HIGH, 4000), Message("close", "", 4000)),
    ],
    ids=["ping", "pong", "reason", "forbidden reason"],
)
async def test_client_when_a_control_frame_has_a_secret_then_the_provider_does_not_get_it(message, sent):
    assert await ScreenedClient(Client(message), screening()).receive() == sent


async def test_client_when_control_frames_are_clean_then_they_pass_as_they_are():
    messages = [Message("ping", b""), Message("pong", b"\xff\x00"), Message("close", "bye", 1000)]
    screened = ScreenedClient(Client(*messages), one := screening())
    assert all([await screened.receive() is message for message in messages])
    assert not one.verdict.counts


async def test_client_when_a_ping_is_forbidden_then_it_hears_why_and_the_next_message_passes():
    client = Client(Message("ping", HIGH.encode()), clean := Message("text", "{}"))
    assert await ScreenedClient(client, screening()).receive() is clean
    assert json.loads(client.sent[0].data)["error"]["code"] == "policy_violation"


async def test_header_when_something_was_found_then_it_names_action_rules_and_version():
    one = screening()
    assert one.header() is None
    await one.request(parsed(chat(f"{MEDIUM} {EMAIL}")), inbound(), None)
    assert one.header() == (b"x-sidegate-policy", b"redact; rules=github-token; version=v")
    hidden = screening(header=False)
    await hidden.request(parsed(chat(EMAIL)), inbound(), None)
    assert hidden.header() is None


async def test_request_when_cancelled_in_a_thread_then_it_ends_with_that_and_what_was_found_is_recorded(monkeypatch):
    begun, may_end, scan = threading.Event(), threading.Event(), module.scan

    def slowly(*arguments, **options):
        begun.set()
        may_end.wait(5)
        return scan(*arguments, **options)

    monkeypatch.setattr(module, "scan", slowly)
    watched, thresholds = screening(thread_bytes=1), gc.get_threshold()
    task = asyncio.ensure_future(watched.request(parsed(chat(f"mine is {MEDIUM}")), inbound(), None))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    assert gc.get_threshold()[2] > 1 << 20
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(watched.verdict.sightings) == 1
    assert gc.get_threshold()[2] < 1 << 20
    gc.set_threshold(*thresholds)
