"""Which addresses are at a configured one, so that our key may go there."""

import pytest

from providers.http.client import beneath

BASE = "https://egress.example.org/replicate/v2"


@pytest.mark.parametrize(
    "address",
    [
        "https://egress.example.org/replicate/v2/predictions/a",
        "https://EGRESS.example.org:443/replicate/v2/predictions/a?b=%2e%2e/",
    ],
)
def test_below(address: str) -> None:
    """What stands below its path, however the origin is written."""
    assert beneath(address, BASE)
    assert beneath(address, f"{BASE}/")
    assert beneath(address, "https://egress.example.org")


@pytest.mark.parametrize(
    "address",
    [
        "https://egress.example.org/other/a",
        "https://egress.example.org/replicate/v2",
        "https://egress.example.org/replicate/v22/a",
        "https://egress.example.org/replicate/v2/../../other/a",
        "https://egress.example.org/replicate/v2/%2e%2e/%2E./other/a",
        "https://egress.example.org/replicate/v2/..%2fother",
        "https://egress.example.org/replicate/v2/..;/other",
        "https://egress.example.org/replicate/v2/..\\other",
        "https://egress.example.org/replicate/v2//other",
        "https://egress.example.org:8443/replicate/v2/a",
        "http://egress.example.org/replicate/v2/a",
        "https://user:word@egress.example.org/replicate/v2/a",
        "https://egress.example.org.evil.example/replicate/v2/a",
        "//egress.example.org/replicate/v2/a",
        "/replicate/v2/a",
        "https://[",
    ],
)
def test_elsewhere(address: str) -> None:
    """Another path of the same origin is somebody else, and so is what two servers may read in two ways."""
    assert not beneath(address, BASE)
