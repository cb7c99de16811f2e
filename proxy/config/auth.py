"""The section `auth`: how callers are authenticated, and how soon a change of a key takes effect."""

from typing import Literal

from pydantic import Field

from proxy.config.units import Count, Seconds, Section


class Auth(Section):
    """Who may call models. The management API needs a key in both modes."""

    mode: Literal["trusted", "keys"] = Field(
        "trusted",
        description="`trusted`: the request names its caller, as for one application on loopback. "
        "`keys`: every request needs a key (`Authorization: Bearer sg-..`), which names its user and project.",
    )
    refresh_s: Seconds = Field(2.0, description="A revoked key or a changed role takes effect within this time.")
    outage_s: Seconds = Field(
        3600.0, description="While PostgreSQL is unavailable, known keys stay valid for this long; others get 503."
    )
    max_keys: Count = Field(10_000, description="Keys cached in memory; beyond it the least recently used are evicted.")
    guesses_per_minute: Count = Field(
        30, description="Wrong keys from one address per minute; beyond, unknown keys from there get 429 unchecked."
    )
    last_used_s: Seconds = Field(60.0, description="How often it is written down when keys were last used.")
