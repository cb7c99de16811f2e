"""Every mistake of a rule is told with its key and what to write instead."""

from typing import Any

import pytest

from proxy.policy.rule_checks import problems

GOOD: dict[str, Any] = {"id": "a", "category": "secret", "severity": "high", "pattern": "k-[a-z]{8}"}


def test_problems_of_a_good_rule_are_none() -> None:
    assert not list(problems(GOOD))
    assert not list(
        problems(
            {
                **GOOD,
                "pattern": "(?P<name>key)=(?P<secret>[a-z]{8})",
                "gate": "key=",
                "alphabet": "[a-z]",
                "exact": True,
                "max_length": 99,
                "boundary": "alone",
                "validators": ["machine_made"],
                "checksum": "crc32_base62",
                "placeholders": False,
                "allow": ["x{8}"],
                "not_named": ["public"],
                "match": ["key=abcdefgh"],
                "no_match": [],
            }
        )
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"patern": "x"}, "unknown key patern; did you mean pattern?"),
        ({7: "x"}, "unknown key 7"),
        ({"id": "A b"}, "`id` must be small letters, digits, - and _, at most 64"),
        ({"severity": "hihg"}, "`severity` must be one of high, medium, low; did you mean high?"),
        ({"category": ["pii"]}, "`category` must be one of secret, pii, keyword, command"),
        ({"pattern": 1}, "`pattern` must be a pattern"),
        ({"pattern": "a(?<=b)c"}, "`pattern` uses a look-around assertion, which no linear-time engine has"),
        ({"pattern": "(a)\\1"}, "`pattern` uses a back-reference, which no linear-time engine has"),
        ({"pattern": "a("}, "`pattern` is not an RE2 pattern: missing ): a("),
        ({"pattern": "a?"}, "`pattern` matches the empty text"),
        ({"pattern": "a\\Qb"}, "`pattern` cannot be followed in a stream: an escape that rules may not use"),
        ({"pattern": "a" + 5 * "b.{0,900}"}, "`pattern` may take more than 16384 bytes in one match"),
        ({"pattern": "a{{nothing}}"}, "`pattern` names a part that is not there: nothing"),
        ({"alphabet": "[^a]"}, "`alphabet` must be a class of ASCII characters, such as [A-Za-z0-9_-]"),
        ({"alphabet": 1}, "`alphabet` must be a class, such as [A-Za-z0-9_-]"),
        ({"exact": "yes"}, "`exact` must be true or false"),
        ({"exact": True}, "`exact` and `until` need an `alphabet`: the characters of the token"),
        ({"max_length": True}, "`max_length` must be a number between 1 and 65536"),
        ({"boundary": "words"}, "did you mean word?"),
        ({"validators": "card"}, "`validators` must be a list of names"),
        ({"validators": ["cards"]}, "did you mean card?"),
        ({"allow": "a"}, "`allow` must be a list of patterns"),
        ({"allow": ["a", "("]}, "`allow` is not an RE2 pattern: missing ): ("),
        ({"not_named": ["a"]}, "`not_named` needs a group (?P<name>...) in the pattern"),
        ({"match": [1]}, "`match` must be a list of texts"),
        ({"match": "a"}, "`match` must be a list of texts"),
    ],
)
def test_problems_of_a_wrong_rule(change: dict[Any, Any], complaint: str) -> None:
    (found,) = problems({**GOOD, **change})
    assert complaint in found
