"""The section `api`: how long figures of the management API are given again without asking PostgreSQL."""

from typing import Annotated

from pydantic import Field

from proxy.config.units import Bytes, Count, Section


class Api(Section):
    """Answers of analytics and quota status, kept in memory for the next who asks the same."""

    cache_s: Annotated[float, Field(ge=0, le=60)] = Field(
        1.0,
        description="An answer is given again for so long, unless this process changes what it is about. A trace takes "
        "as long to be seen at all. 0: each is made anew.",
    )
    cache_entries: Count = Field(256, description="Answers kept; beyond it those unused longest go.")
    cache_bytes: Bytes = Field(
        8_388_608, description="Size of all of them together; beyond it those unused longest go."
    )
