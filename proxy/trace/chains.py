"""Chains of responses: `previous_response_id` names the last answer, and what groups them is the first.

    resp_1 <- resp_2 <- resp_3        all that continue resp_1 belong to the conversation `resp_1`, or to the one
                                      that a header or a body has named on the way

Remembered in this process for the latest `MOST` answers, for spans, which cannot wait. In what is stored, PostgreSQL
resolves the response that a record continues, across replicas and restarts (migrations/014). A project's chains are its
own: the name of another's conversation cannot be learned from the id of a response.
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
