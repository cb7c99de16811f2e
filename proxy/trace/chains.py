"""Groups a chain of responses, in which each one names its predecessor (`previous_response_id`), into one conversation.

    resp_1 <- resp_2 <- resp_3        all that continue resp_1 belong to the conversation `resp_1`, or to the one
                                      that a header or a body has named on the way

For spans, which cannot wait for a query, this process remembers the latest `MOST` answers. In stored traces, PostgreSQL
resolves the chain, across replicas and restarts (migrations/014). Chains are kept apart by project, so nobody learns
the name of another project's conversation from the id of a response.
"""

from typing import Final

MOST: Final = 16_384
"""Answers that are remembered, about 300 bytes each; beyond it the oldest are forgotten."""


class Chains:
    """The conversations of the latest responses. Shared by all requests; takes about a microsecond."""

    __slots__ = ("_conversations",)

    def __init__(self) -> None:
        self._conversations: dict[tuple[str | None, str], str] = {}

    def conversation(self, project_id: str | None, reference: str) -> str:
        """Return the conversation that a response continues; `reference` itself if it is unknown."""
        return self._conversations.get((project_id, reference), reference)

    def note(self, project_id: str | None, response_id: str, conversation: str) -> None:
        """Remember that a response belongs to a conversation."""
        if len(self._conversations) >= MOST:
            del self._conversations[next(iter(self._conversations))]
        self._conversations[project_id, response_id] = conversation
