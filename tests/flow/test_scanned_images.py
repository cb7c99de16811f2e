"""An image in base64, streamed character by character in several choices: nothing in it is decided for a while."""

import base64
import json
import random

from proxy.config.policy import Policy as Settings
from proxy.openai.sse import EventReader
from proxy.openai.sse_frame import reframed
from proxy.policy.output_scan import OutputScan
from proxy.policy.ready import Policies
from proxy.relay.scanned import ScannedStream


def test_images_of_three_choices_leave_as_they_came() -> None:
    policy, chance = Policies(Settings()).prepare(), random.Random("image")
    verdict = policy.verdict(100)
    scan = ScannedStream("chat", OutputScan(policy, verdict, Settings(), print), reframed, clock=lambda: 0.0)
    texts = [base64.b64encode(chance.randbytes(900)).decode() for _ in range(3)]
    sent, received = b"", b""
    for characters in zip(*texts, strict=True):
        for index, content in enumerate(characters):
            choice = {"index": index, "delta": {"content": content}, "logprobs": None, "finish_reason": None}
            document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [choice]}
            raw = b"data: " + json.dumps(document).encode() + b"\n\n"
            sent += raw
            received += b"".join(scan.take(raw, EventReader(1 << 20).feed(raw)[0].data, None, document))
    assert received + b"".join(scan.end()) == sent
    assert not verdict.hurried
