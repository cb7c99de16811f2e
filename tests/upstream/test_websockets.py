import threading

import pytest

from proxy.config import schema
from proxy.errors import UpstreamFailed
from proxy.exchange import UpstreamRequest
from proxy.upstream import websockets as module
from proxy.upstream.websockets import Websockets


async def test_client_when_a_first_websocket_is_wanted_then_it_is_made_and_closed_with_the_rest(unused_tcp_port):
    base = f"http://127.0.0.1:{unused_tcp_port}/v1"
    websockets = Websockets(schema.Upstream(base_url=base), schema.UpstreamClient(), schema.Timeouts(), 1000)
    await websockets.close()
    for code in ("upstream_connect_failed", "upstream_connect_failed"):
        with pytest.raises(UpstreamFailed) as caught:
            await websockets.connect(UpstreamRequest("GET", f"{base}/realtime", (), None))
        assert caught.value.code == code
    await websockets.close()


async def test_client_when_a_first_websocket_is_wanted_then_nothing_is_loaded_in_the_event_loop(
    monkeypatch, unused_tcp_port
):
    loaded = {}

    def noting(name, load):
        def run(*given):
            loaded[name] = threading.current_thread() is threading.main_thread()
            return load(*given)

        return run

    monkeypatch.setattr(module, "imported", noting("aiohttp's client", module.imported))
    monkeypatch.setattr(module.Origin, "tls", noting("certificates", module.Origin.tls))
    base = f"https://127.0.0.1:{unused_tcp_port}/v1"
    websockets = Websockets(schema.Upstream(base_url=base), schema.UpstreamClient(), schema.Timeouts(), 1000)
    with pytest.raises(UpstreamFailed):
        await websockets.connect(UpstreamRequest("GET", f"{base}/realtime", (), None))
    await websockets.close()
    assert loaded == {"aiohttp's client": False, "certificates": False}
