import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ClientDisconnected, UpstreamFailed
from proxy.relay.raw import relay_raw
from tests.relay.peers import Client, Reply, announced, answer_to

AUDIO = (b"Content-Type", b"audio/mpeg")


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8), st.booleans())
async def test_body_when_cut_anyhow_then_it_arrives_as_it_came_and_sealed_before_its_end(pieces, with_length):
    body = b"".join(pieces)
    headers = (AUDIO, announced(body)) if with_length and body else (AUDIO,)
    client = Client()
    answer = answer_to(client, Reply(pieces, headers), dialect="audio")
    await relay_raw(answer, client)
    assert client.pieces == pieces
    assert client.length == (len(body) if with_length and body else None)
    assert answer.attempt.meter.response_bytes == len(body)
    assert answer.attempt.meter.terminated
    sealed = client.journal.index("seal")
    if client.length is None:
        assert client.journal[sealed + 1 :] == ["end"]
    else:
        assert client.journal[sealed + 1 : sealed + 2] == ["byte"]


async def test_body_when_its_length_is_announced_then_only_the_last_piece_follows_the_record():
    client = Client()
    await relay_raw(answer_to(client, Reply([b"aa", b"bb", b"cc"], (AUDIO, announced(b"aabbcc")))), client)
    assert client.journal == ["head", "byte", "seal", "byte", "seal", "end"]
    assert client.pieces == [b"aa", b"bb", b"cc"]


async def test_body_when_the_provider_breaks_off_then_the_error_escapes_and_nothing_is_sealed():
    client = Client()
    answer = answer_to(client, Reply([b"aa", UpstreamFailed("cut")], (AUDIO,)))
    with pytest.raises(UpstreamFailed):
        await relay_raw(answer, client)
    assert client.journal == ["head", "byte"]
    assert not answer.attempt.meter.terminated


async def test_body_when_the_client_leaves_then_the_error_escapes_and_what_was_read_is_counted():
    client = Client(leaves_after=3)
    answer = answer_to(client, Reply([b"aa", b"bb", b"cc"], (AUDIO,)))
    with pytest.raises(ClientDisconnected):
        await relay_raw(answer, client)
    assert answer.attempt.meter.response_bytes == 4
