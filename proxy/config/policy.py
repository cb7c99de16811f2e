"""The keys of the policy: what is scanned, and what is done about what is found."""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from proxy.config.units import Bytes, Count, Seconds, Section

Action = Literal["allow", "flag", "redact", "block"]
CATEGORIES: Final = ("secret", "pii", "keyword", "command")
SEVERITIES: Final = ("high", "medium", "low")

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
    """What may not leave, in either direction. A project may decide otherwise, in `projects.config`."""

    scan_prompts: bool = Field(True, description="Look at every text of a request before it is sent.")
    scan_outputs: bool = Field(True, description="Look at every text that is generated before the client gets it.")
    redact_secrets: bool = Field(
        True, description="Mask where the action is `redact`, also in captured content; off only flags there."
    )
    rules_file: str | None = Field(
        None, description="Own rules, laid over the shipped ones: the same id replaces a rule, a new one adds to them."
    )
    prompt_actions: Actions = Field(
        default_factory=dict,
        description="allow, flag, redact or block, by rule id, category.severity or category; the narrowest wins. Laid "
        "over: secret.high and pii.high block, secret.medium redact, everything else flag.",
    )
    output_actions: Actions = Field(
        default_factory=dict,
        description="The same for answers, over: secret.high, secret.medium and pii.high redact, everything else flag.",
    )
    unscannable: Literal["allow", "deny"] = Field(
        "allow", description="Parts without readable text (images, audio, archives): pass and say so, or refuse."
    )
    on_fault: Literal["closed", "open"] = Field(
        "closed", description="When scanning itself fails: refuse with 500 policy_unavailable, or pass and count it."
    )
    header: bool = Field(True, description="Tell in x-sidegate-policy what was found in the request, if anything was.")
    thread_bytes: Bytes = Field(
        16_384,
        description="Requests with more text are scanned in a thread, so that no other request waits; this much takes "
        "at most 20 ms, where it is groups of digits, and 50 us where it is clean.",
    )
    nested_bytes: Bytes = Field(
        1_048_576,
        description="Text that is decoded once more per request: JSON inside strings, base64; the rest is not.",
    )
    hold_s: Seconds = Field(
        1.0,
        description="An event whose text may yet become a finding leaves without that when others waited this long.",
    )
    hold_bytes: Bytes = Field(262_144, description="The same when more than this waits behind it.")
    max_channels: Count = Field(
        1024,
        description="Channels of one answer (choices, tool calls, parts) whose text is followed across events; further "
        "ones are scanned event by event, and the trace says so. Each costs some 2 KB.",
    )
    max_findings: Count = Field(100, description="Findings kept per trace; more are counted.")
    max_projects: Count = Field(
        1000, description="Projects with a policy of their own kept ready; the longest unused are made anew."
    )
    compile_wait_s: Seconds = Field(
        10.0,
        description="A request waits this long for a new policy of its project; then the former one serves, or, where "
        "there is none, it is a fault.",
    )
