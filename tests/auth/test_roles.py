from itertools import pairwise
from typing import get_args

from proxy.auth.roles import OPERATOR, PERMISSIONS, ROLES, Permission, rank


def test_each_role_includes_those_before_it() -> None:
    sets = [PERMISSIONS[role] for role in ROLES]
    assert all(lower < higher for lower, higher in pairwise(sets))
    assert sets[-1] < OPERATOR == frozenset(get_args(Permission))


def test_roles_are_those_of_the_mission() -> None:
    assert "models:call" not in PERMISSIONS["viewer"] and "models:call" in PERMISSIONS["developer"]
    assert (
        "quota:write" not in PERMISSIONS["developer"]
        and {"quota:write", "keys:write", "members:write"} <= PERMISSIONS["admin"]
    )
    assert "project:write" not in PERMISSIONS["admin"] and "project:write" in PERMISSIONS["owner"]
    assert [rank(role) for role in (None, *ROLES)] == [-1, 0, 1, 2, 3]
