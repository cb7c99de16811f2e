"""The keys of authentication: whom to believe on the data port, and how soon a change of a key counts here."""

from typing import Literal

from pydantic import Field

from proxy.config.units import Count, Seconds, Section


class Auth(Section):
    """Who may call models. The management API needs a key in both modes."""

    mode: Literal["trusted", "keys"] = Field(
        "trusted",
        description="`trusted`: whoever reaches the data port is believed, as beside one application on loopback. "
        "`keys`: every request needs a key (`Authorization: Bearer sg-..`), which names its user and project.",
    )
    refresh_s: Seconds = Field(
        2.0, description="A key that was revoked, or a role that was changed, counts here within this time."
    )
    outage_s: Seconds = Field(
        3600.0, description="While PostgreSQL is away, a key last seen valid stays so for this long; others get 503."
    )
    max_keys: Count = Field(10_000, description="Keys kept in memory; of more, those used last.")
    guesses_per_minute: Count = Field(
        30, description="Wrong keys from one address in a minute; beyond, unknown keys from there get 429 unseen."
    )
    last_used_s: Seconds = Field(60.0, description="How often it is written down when keys were last used.")
