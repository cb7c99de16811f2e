"""The findings of many rules in one text: their order, and where they are in characters."""

import heapq

from proxy.findings import Finding


def place(finding: Finding) -> tuple[int, int, str]:
    """Return the sort key of findings."""
    return finding.start, -finding.end, finding.rule_id


def merged(of_rules: list[list[Finding]]) -> list[Finding]:
    """Return the findings of all rules by position; those of each rule are in order. Many are not sorted in one call:
    half a million keep the interpreter for 50 ms."""
    found = [each for each in of_rules if each]
    if len(found) == 1:
        return found[0]
    return list(heapq.merge(*found, key=place))


def in_characters(data: bytes, findings: list[Finding]) -> None:
    """Convert offsets in bytes to offsets in characters, in one pass."""
    places = sorted(offset for finding in findings for offset in (finding.start, finding.end))
    characters: dict[int, int] = {}
    at = count = 0
    for offset in places:
        count += len(data[at:offset].decode("utf-8", "replace"))
        characters[offset], at = count, offset
    for index, found in enumerate(findings):  # one by one, as all at once they would be freed at once
        findings[index] = found._replace(start=characters[found.start], end=characters[found.end])
