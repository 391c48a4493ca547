"""Whether calls need a key: every case of the decision."""

import pytest

from gateway.auth.keys import Policy, policy
from gateway.settings.types import Auth


@pytest.mark.parametrize(
    ("auth", "has_keys", "buys", "expected"),
    [
        ("auto", False, False, Policy.WHILE_KEYS_EXIST),
        ("auto", False, True, Policy.REQUIRED),
        ("auto", True, False, Policy.REQUIRED),
        ("auto", True, True, Policy.REQUIRED),
        ("required", False, False, Policy.REQUIRED),
        ("none", False, False, Policy.OFF),
        ("none", False, True, Policy.OFF),
    ],
)
def test_policy(auth: Auth, has_keys: bool, buys: bool, expected: Policy) -> None:
    """What costs money needs a key, unless the operator says otherwise."""
    assert policy(auth, has_keys=has_keys, buys=buys) is expected
