"""The section `api`: how long answers of the management API are cached."""

from typing import Annotated

from pydantic import Field

from proxy.config.units import Bytes, Count, Section


class Api(Section):
    """Answers of analytics and quota status, cached in memory."""

    cache_s: Annotated[float, Field(ge=0, le=60)] = Field(
        1.0,
        description="An answer is reused for this long, unless this process changes what it is about. A trace takes "
        "as long to become visible. 0: no caching.",
    )
    cache_entries: Count = Field(256, description="Answers kept; beyond it the least recently used are evicted.")
    cache_bytes: Bytes = Field(
        8_388_608, description="Their total size; beyond it the least recently used are evicted."
    )
