"""Relay of answers that were read before: a stream as one chunked write, anything else with its length.

The record is made before the body is sent, as everywhere. Rule of the file: nothing is read, counted or edited here.
"""

from proxy.exchange import Downstream
from proxy.relay.answer import Answer


async def relay_collected(answer: Answer, downstream: Downstream) -> None:
    """Send a complete answer. Raises ClientDisconnected."""
    reply = answer.reply
    body = await reply.read()
    answer.note_first_byte()
    answer.keep(body)
    if not answer.is_events:
        answer.seal()
        await downstream.send(answer.status, reply.reason, answer.headers, body)
        return
    await downstream.start(answer.status, reply.reason, answer.headers, None)
    answer.seal()
    await downstream.write(body)
    await downstream.finish()
