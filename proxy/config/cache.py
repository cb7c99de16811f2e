"""The section `cache`: how much of answers is kept, for how long. Whether a project's are, the project says."""

from pydantic import Field

from proxy.config.units import Bytes, Seconds, Section


class Cache(Section):
    """Answers of projects with `features.enableCache`, given again to the same request."""

    memory_bytes: Bytes = Field(
        67_108_864, description="Answers that a replica keeps in memory; beyond it those unused longest go."
    )
    entry_bytes: Bytes = Field(1_048_576, description="A larger answer is not kept.")
    ttl_s: Seconds = Field(3600.0, description="An answer is given again for so long.")
    shared: bool = Field(
        False,
        description="Share answers between replicas, in PostgreSQL. They are then at rest there: those alone in which "
        "the policy has looked and found nothing.",
    )
    shared_bytes: Bytes = Field(
        1_073_741_824, description="Shared answers of all projects; the oldest beyond it go within a minute."
    )
