"""Policies for tests: the shipped rules are compiled once."""

from functools import cache

from proxy.config.policy import Policy as Settings
from proxy.config.project import SecuritySettings
from proxy.policy.policy import NO_SECURITY, Policy, detector_of, load_rules, own_rules

_MADE: dict[tuple[str, str], Policy] = {}


@cache
def shipped_rules():
    return load_rules(None)


@cache
def _detector():
    return detector_of(shipped_rules(), NO_SECURITY, ())


def policy_of(security: SecuritySettings = NO_SECURITY, **settings) -> Policy:
    made = Policy(Settings(**settings), security, *_detector())
    key = (made.version, security.model_dump_json())
    if key not in _MADE:
        _MADE[key] = _made(security, settings)
    return _MADE[key]


def _made(security: SecuritySettings, settings) -> Policy:
    own = security.blocked_keywords or security.secret_patterns or security.allow_list
    found = detector_of(shipped_rules(), security, own_rules(security)[0]) if own else _detector()
    return Policy(Settings(**settings), security, *found)
