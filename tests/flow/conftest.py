"""Fixtures: the real proxy in front of a scripted provider."""

from tests.fakes.fixtures import black_hole, case, closed_port, launch, provider, session_database_url, sidegate

__all__ = ["black_hole", "case", "closed_port", "launch", "provider", "session_database_url", "sidegate"]
