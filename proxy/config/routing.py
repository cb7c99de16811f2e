"""The section `routing`: how a layer is chosen, and what happens when a provider fails.

Rule of the file: only what is decided for the whole process; what a project may use stands in `projects.config`, and
which models a layer has in the file that `layers_file` names.
"""

from typing import Annotated, Literal

from pydantic import Field

from proxy.config.units import Count, Seconds, Section

Layer = Literal["L0", "L1", "L2", "L3"]
LAYERS: tuple[Layer, ...] = ("L0", "L1", "L2", "L3")
Attempts = Annotated[int, Field(ge=1, le=16)]


class Complexity(Section):
    """When a request counts as complex: each thing found gives points."""

    high_points: Count = Field(4, description="From so many points on the complexity is high.")
    medium_points: Count = Field(2, description="From so many points on it is medium.")
    long_input_tokens: Count = Field(2000, description="A longer input gives one point.")
    very_long_input_tokens: Count = Field(16_000, description="A longer input gives two points more.")
    code_points: Annotated[int, Field(ge=0, le=16)] = Field(2, description="For code in the input.")
    tools_points: Annotated[int, Field(ge=0, le=16)] = Field(1, description="For tools that the model may call.")
    reasoning_points: Annotated[int, Field(ge=0, le=16)] = Field(
        2, description="For words that ask for reasoning: prove, step by step, trade-off ..."
    )


class Breaker(Section):
    """When a provider is left alone for a while."""

    failures: Count = Field(5, description="So many failures in a row open the breaker of a provider's credential.")
    window_s: Seconds = Field(10.0, description="Time over which the share of failures is counted.")
    window_attempts: Count = Field(20, description="Least attempts in that time for their share to count.")
    failure_share: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="Share that opens the breaker.")
    open_s: Seconds = Field(5.0, description="Length of the first pause; doubled each time the probe fails.")
    open_max_s: Seconds = Field(60.0, description="Longest pause.")
    refused_s: Seconds = Field(300.0, description="A credential that was refused (401, 403) is not used for this long.")


class Routing(Section):
    """Layers, retries and fallbacks. Without several providers or layers, requests pass as they are."""

    layers_file: str | None = Field(
        None, description="The models of the layers L0 to L3. Without it the shipped config/layers.yaml is used."
    )
    default_layer: Layer = Field("L0", description="Where `model: auto` begins, unless its project says otherwise.")
    high_layer: Layer = Field("L1", description="Where a complex request of quality `high` begins.")
    critical_layer: Layer = Field("L2", description="Where a request of quality `critical` begins.")
    complex_layer: Layer = Field("L1", description="Where a complex request without a hint begins.")
    complexity: Complexity = Field(Complexity(), description="When a request counts as complex.")
    max_attempts: Attempts = Field(3, description="Most attempts for one request, all providers together.")
    deadline_s: Seconds = Field(120.0, description="No further attempt is begun this long after the request came.")
    retry_after_max_s: Annotated[float, Field(ge=0, le=60)] = Field(
        2.0, description="A provider that asks for a longer wait is not asked again; the next one is."
    )
    retry_ambiguous: bool = Field(
        False,
        description="Also ask again when a request was sent and no answer came. It may then be paid twice.",
    )
    retry_budget: Count = Field(
        10, description="Retries in stock; each takes one, each success gives back a tenth, half must be left."
    )
    peek_s: Annotated[float, Field(ge=0, le=600)] = Field(
        10.0, description="A stream's first event is waited for so long before its head is sent; 0 does not wait."
    )
    breaker: Breaker = Field(Breaker(), description="When a provider is left alone for a while.")
