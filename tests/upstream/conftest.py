"""Every asynchronous test of this package runs on both event loops: transports differ in more than speed."""

import asyncio

import uvloop


def pytest_asyncio_loop_factories():
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
