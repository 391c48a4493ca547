"""API keys from the environment."""

import pytest

from gateway.access.keys import Keys


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ({"authorization": "Bearer first"}, True),
        ({"authorization": "bearer second"}, True),
        ({"authorization": "BEARER  first "}, True),
        ({"api-key": "second"}, True),
        ({"authorization": "Bearer wrong"}, False),
        ({"authorization": "Bearer "}, False),
        ({"authorization": "Basic first"}, False),
        ({"authorization": "first"}, False),
        ({"api-key": ""}, False),
        ({"authorization": "Bearer first,second"}, False),
        ({"authorization": "Bearer wröng"}, False),
        ({}, False),
    ],
)
def test_admits(headers: dict[str, str], admitted: bool) -> None:
    """A key is taken as a bearer in any case, or as api-key; nothing else is."""
    assert (Keys(" first ,second,").admits(headers) is not None) is admitted


@pytest.mark.parametrize("text", [None, "", " , "])
def test_no_keys(text: str | None) -> None:
    """Nothing, and nothing but commas, are no keys: and no keys admit nobody by key."""
    keys = Keys(text)

    assert not keys
    assert not keys.admits({"authorization": "Bearer "})


def test_keys_are_not_kept() -> None:
    """The keys themselves are not in memory where a repr or a dump of the object would show them."""
    keys = Keys("a-very-secret-key")

    assert "a-very-secret-key" not in repr(vars(keys))
