"""The section `routing`: how a layer is chosen, and what happens when a provider fails.

Rule of the file: only what is decided for the whole process; what a project may use stands in `projects.config`, and
which models a layer has in the file that `layers_file` names.
"""

from typing import Annotated, Literal

from pydantic import Field

from proxy.config.units import Bytes, Count, Seconds, Section

Layer = Literal["L0", "L1", "L2", "L3"]
LAYERS: tuple[Layer, ...] = ("L0", "L1", "L2", "L3")
Attempts = Annotated[int, Field(ge=1, le=16)]
REFUSALS = ("i'm sorry, but i can't", "sorry, but i can't", "sorry, i can't", "i can't assist", "i can't help")


class Complexity(Section):
    """When a request counts as complex: a sum of points."""

    high_points: Count = Field(4, description="Complexity is high from this many points on.")
    medium_points: Count = Field(2, description="Complexity is medium from this many points on.")
    long_input_tokens: Count = Field(2000, description="A longer input gives one point.")
    very_long_input_tokens: Count = Field(16_000, description="A longer input gives two points more.")
    code_points: Annotated[int, Field(ge=0, le=16)] = Field(2, description="For code in the input.")
    tools_points: Annotated[int, Field(ge=0, le=16)] = Field(1, description="For tools that the model may call.")
    reasoning_points: Annotated[int, Field(ge=0, le=16)] = Field(
        2, description="For words that ask for reasoning: prove, step by step, trade-off ..."
    )


class Breaker(Section):
    """When a provider is not used for a while."""

    failures: Count = Field(5, description="Consecutive failures that open the breaker of a provider's credential.")
    window_s: Seconds = Field(10.0, description="Time over which the share of failures is counted.")
    window_attempts: Count = Field(20, description="Minimum of attempts in that time for their share to count.")
    failure_share: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="Share that opens the breaker.")
    open_s: Seconds = Field(5.0, description="Length of the first pause; doubled each time the probe fails.")
    open_max_s: Seconds = Field(60.0, description="Longest pause.")
    refused_s: Seconds = Field(300.0, description="A credential that was refused (401, 403) is not used for this long.")


class Escalation(Section):
    """When an answer is not good enough, for projects with `enableAutoEscalate`."""

    max_escalations: Annotated[int, Field(ge=0, le=3)] = Field(
        2, description="How often a weak answer is replaced by one of a higher layer, at most."
    )
    answer_bytes: Bytes = Field(
        1_048_576,
        description="Answers up to this size are held and checked; larger ones are delivered unchecked as they arrive.",
    )
    hold_s: Seconds = Field(
        60.0, description="One that is incomplete after this time is delivered unchecked as it arrives."
    )
    schema_steps: Count = Field(
        50_000,
        description="Steps of about a microsecond that one JSON schema may take; beyond them it is ignored.",
    )
    refusals: Annotated[tuple[str, ...], Field(max_length=100)] = Field(
        REFUSALS,
        description="A short answer that begins like this is a refusal, in any case, with `cannot` or `can't`.",
    )


class CrossCheck(Section):
    """How a second model reviews answers, for projects with `enableCrossCheck`."""

    review_s: Seconds = Field(30.0, description="A review that takes longer is given up; the answer is then unchecked.")
    review_output_tokens: Annotated[int, Field(ge=16, le=100_000)] = Field(
        2048, description="Most tokens of one review, reasoning included."
    )


class Routing(Section):
    """Layers, retries and fallbacks. Without several providers or layers, requests pass unchanged."""

    layers_file: str | None = Field(
        None, description="The models of the layers L0 to L3. Without it the default config/layers.yaml is used."
    )
    default_layer: Layer = Field("L0", description="Where `model: auto` begins, unless its project says otherwise.")
    high_layer: Layer = Field("L1", description="Where a complex request of quality `high` begins.")
    critical_layer: Layer = Field("L2", description="Where a request of quality `critical` begins.")
    complex_layer: Layer = Field("L1", description="Where a complex request without a hint begins.")
    complexity: Complexity = Field(Complexity(), description="When a request counts as complex.")
    max_attempts: Attempts = Field(
        3,
        description="Most attempts for one answer, all providers together. An escalation is a new answer.",
    )
    deadline_s: Seconds = Field(
        120.0, description="No further attempt is started later than this after the request arrived."
    )
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
    breaker: Breaker = Field(Breaker(), description="When a provider is not used for a while.")
    escalation: Escalation = Field(
        Escalation(), description="Answers that are not good enough; switched on by projects."
    )
    cross_check: CrossCheck = Field(CrossCheck(), description="Second opinions on answers; switched on by projects.")
