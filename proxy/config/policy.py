"""The section `policy`: what is scanned, and the actions for findings."""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from proxy.config.units import Bytes, Count, Seconds, Section

Action = Literal["allow", "flag", "redact", "block"]
CATEGORIES: Final = ("secret", "pii", "keyword", "command")

_SELECTOR: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}(?:\.(?:high|medium|low))?")


def _check_selector(name: str) -> str:
    """Accept the id of a rule, a category, and a category with a severity. Ids are known only once rules are read."""
    category, dot, _ = name.partition(".")
    if not _SELECTOR.fullmatch(name) or (dot and category not in CATEGORIES):
        raise ValueError(
            f"must be the id of a rule, a category ({', '.join(CATEGORIES)}) or both halves of, say, secret.high"
        )
    return name


Selector = Annotated[str, AfterValidator(_check_selector)]
Actions = dict[Selector, Action]


class Policy(Section):
    """The content policy, in both directions. Projects can override it in `projects.config`."""

    scan_prompts: bool = Field(True, description="Scan every text of a request before it is sent.")
    scan_outputs: bool = Field(True, description="Scan every generated text before the client gets it.")
    redact_secrets: bool = Field(
        True,
        description="Mask findings with the action `redact`, also in captured content; if off, they are only flagged.",
    )
    rules_file: str | None = Field(
        None, description="Own rules, layered over the default ones: the same id replaces a rule, a new one is added."
    )
    prompt_actions: Actions = Field(
        default_factory=dict,
        description="allow, flag, redact or block, by rule id, category.severity or category; the most specific wins. "
        "Defaults: secret.high and pii.high block, secret.medium redact, everything else flag.",
    )
    output_actions: Actions = Field(
        default_factory=dict,
        description="For answers. Defaults: secret.high, secret.medium and pii.high redact, everything else flag.",
    )
    unscannable: Literal["allow", "deny"] = Field(
        "allow", description="Parts without readable text (images, audio, archives): pass and record them, or refuse."
    )
    on_fault: Literal["closed", "open"] = Field(
        "closed", description="When scanning itself fails: refuse with 500 policy_unavailable, or pass and count it."
    )
    header: bool = Field(True, description="Report findings in the request in the header x-sidegate-policy.")
    thread_bytes: Bytes = Field(
        16_384,
        description="Requests with more text are scanned on a thread, so that no other request waits; so are smaller "
        "ones that turn out to take more than 3 ms. This much takes 100 us if it is clean.",
    )
    nested_bytes: Bytes = Field(
        1_048_576,
        description="Nested text decoded per request, each of JSON in strings, base64 and escapes of letters; the "
        "rest is not.",
    )
    hold_s: Seconds = Field(
        1.0,
        description="An event with undecided text is sent without it once others have waited for this long.",
    )
    hold_bytes: Bytes = Field(524_288, description="The same if more than this waits behind it.")
    max_channels: Count = Field(
        1024,
        description="Channels of one answer (choices, tool calls, parts) whose text is followed across events; further "
        "ones are scanned event by event, which the trace records. Each costs some 2 KB.",
    )
    max_findings: Count = Field(100, description="Findings recorded per trace; more are only counted.")
    max_projects: Count = Field(
        1000, description="Compiled policies of projects; beyond it the least recently used are compiled again."
    )
    compile_wait_s: Seconds = Field(
        10.0,
        description="A request waits this long for a new policy of its project; then the previous one is used, and "
        "without one the request is refused.",
    )
