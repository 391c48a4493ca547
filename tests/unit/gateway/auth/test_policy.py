"""Whether calls need a key: every case of the decision."""

import pytest

from gateway.auth.keys import AuthPolicy, policy
from gateway.settings.types import Auth


@pytest.mark.parametrize(
    ("auth", "has_keys", "buys", "expected"),
    [
        ("auto", False, False, AuthPolicy.WHILE_KEYS_EXIST),
        ("auto", False, True, AuthPolicy.REQUIRED),
        ("auto", True, False, AuthPolicy.REQUIRED),
        ("auto", True, True, AuthPolicy.REQUIRED),
        ("required", False, False, AuthPolicy.REQUIRED),
        ("none", False, False, AuthPolicy.OFF),
        ("none", False, True, AuthPolicy.OFF),
    ],
)
def test_policy(auth: Auth, has_keys: bool, buys: bool, expected: AuthPolicy) -> None:
    """What costs money needs a key, unless the operator says otherwise."""
    assert policy(auth, has_keys=has_keys, buys=buys) is expected
