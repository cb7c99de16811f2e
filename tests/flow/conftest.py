"""Fixtures: the real proxy in front of a scripted provider."""

from tests.fakes.fixtures import case, launch, provider, session_database_url, sidegate

__all__ = ["case", "launch", "provider", "session_database_url", "sidegate"]
