"""Relay of anything without events: binary downloads, newline-delimited JSON, pages. Flat memory, nothing delayed.

A piece is written when it arrives. The record is made before the end can be seen downstream: before the piece that
fills Content-Length, or before the terminating chunk.
"""

from proxy.exchange import Downstream
from proxy.relay.answer import Answer


async def relay_raw(answer: Answer, downstream: Downstream) -> None:
    """Pass the body on as it comes.

    Raises:
        UpstreamFailed: the provider broke off; the head is sent already.
        ClientDisconnected: the client left.
    """
    meter, sent = answer.attempt.meter, 0
    await downstream.start(answer.status, answer.reply.reason, answer.headers, answer.length)
    while chunk := await answer.reply.read():
        answer.count(chunk)
        sent += len(chunk)
        if sent == answer.length:
            meter.terminated = True
            answer.seal()
        await downstream.write(chunk)
    meter.terminated = True
    answer.seal()
    await downstream.finish()
