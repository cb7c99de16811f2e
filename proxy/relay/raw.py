"""Relay of anything without events: binary downloads, newline-delimited JSON, HTML. Constant memory, no delay.

A piece is written when it arrives. The record is made before the end can be seen downstream: before the piece that
fills Content-Length, or before the terminating chunk.
"""

from proxy.exchange import Downstream
from proxy.relay.answer import Answer


async def relay_raw(answer: Answer, downstream: Downstream) -> None:
    """Send the body as it arrives.

    Raises:
        UpstreamFailed: the provider's body was cut; the head has been sent already.
        ClientDisconnected: the client disconnected.
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
