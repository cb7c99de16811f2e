"""What a client is told of a refusal: place and rules, never the text."""

from proxy.nouns.findings import Finding, Sighting
from proxy.openai.error_body import render
from proxy.policy.refusal import MAX_RULES, denied, violation


def test_violation_when_rendered_then_it_names_place_and_rules():
    sighting = Sighting(Finding("github-token", "secret", "high", 3, 43), "block", "prompt", "messages[2].content")
    status, headers, body = render(violation(sighting, ["github-token", "ssn", "github-token"]))
    assert status == 400
    assert b'"code":"policy_violation"' in body and b'"type":"invalid_request_error"' in body
    assert b'"param":"messages[2].content"' in body
    assert b'"details":{"rules":["github-token","ssn"]}' in body
    assert b"x-should-retry" not in dict(headers)


def test_violation_when_many_rules_block_then_few_are_named():
    sighting = Sighting(Finding("r", "keyword", "high", 0, 1), "block", "prompt", "")
    error = violation(sighting, map(str, range(100)))
    assert (len(error.rules), error.param) == (MAX_RULES, None)


def test_denied_names_what_could_not_be_scanned():
    assert denied("file", "binary").param == "file"
    assert "cannot be scanned (media)" in denied("", "media").message
