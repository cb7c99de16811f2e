"""The section `cache`: the size and lifetime of the answer cache. Projects enable it."""

from pydantic import Field

from proxy.config.units import Bytes, Seconds, Section


class Cache(Section):
    """The answer cache of projects with `features.enableCache`."""

    memory_bytes: Bytes = Field(
        67_108_864, description="Answers in a replica's memory; beyond it the least recently used are evicted."
    )
    entry_bytes: Bytes = Field(1_048_576, description="A larger answer is not stored.")
    ttl_s: Seconds = Field(3600.0, description="Lifetime of an answer.")
    shared: bool = Field(
        False,
        description="Share answers between replicas, in PostgreSQL. Only answers that the policy has "
        "scanned without a finding are stored there.",
    )
    shared_bytes: Bytes = Field(
        1_073_741_824, description="Shared answers of all projects; beyond it the oldest are deleted within a minute."
    )
