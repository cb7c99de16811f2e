import json

import pytest

from proxy.trace.client import client_of
from tests.trace.exchanges import begun

KEY = b"sk-canary-0123456789"


def test_client_is_described_once_for_all_requests_with_its_head() -> None:
    x = begun()
    assert client_of(x, ()) is client_of(x, ())


@pytest.mark.parametrize("secrets", [(), (b"our-own-secret-key",)])
def test_client_that_puts_a_credential_into_its_name_is_described_without_it(secrets: tuple[bytes, ...]) -> None:
    x = begun()
    agent = b"bot our-own-secret-key" if secrets else b"bot " + KEY
    x.inbound.fields = {b"user-agent": agent, b"traceparent": b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"}
    told = json.loads(client_of(x, secrets))
    assert told["userAgent"] == "bot " + "*" * (len(agent) - 4)
    assert (told["w3cTraceId"], told["w3cParentId"]) == ("a" * 32, "b" * 16)
