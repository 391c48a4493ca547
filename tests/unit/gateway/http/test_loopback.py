"""What counts as this machine for a call without a key."""

import pytest
from starlette.datastructures import Headers

from gateway.http.errors import ApiError
from gateway.http.host import check_local

LOCAL = ("127.0.0.1", 5000)


def check(client: tuple[str, int] | None, **headers: str) -> None:
    """Check a call over a connection from there."""
    check_local({"type": "http", "client": client}, Headers({"host": "127.0.0.1:8000", **headers}))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine(address: str) -> None:
    """A connection from any of its loopback addresses, to a loopback name."""
    check((address, 5000))
    check((address, 5000), host="localhost:8000", origin="http://localhost:3000")
    check((address, 5000), host="[::1]:8000")


@pytest.mark.parametrize("address", ["192.0.2.1", "172.17.0.1", "10.0.0.5", "::ffff:192.0.2.1", "2001:db8::1", "x", ""])
def test_another_machine(address: str) -> None:
    """What a caller says of the host does not make it this machine: a server may listen elsewhere too."""
    with pytest.raises(ApiError) as caught:
        check((address, 5000))
    assert (caught.value.status, caught.value.code) == (403, "loopback_only")


def test_a_connection_that_has_no_address() -> None:
    """Who is at the other end of a socket in a file cannot be told."""
    with pytest.raises(ApiError):
        check(None)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "images.example.org"},
        {"host": ""},
        {"host": "127.0.0.1@evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
    ],
)
def test_a_page_and_a_proxy(headers: dict[str, str]) -> None:
    """A page in the browser and whoever a proxy speaks for come from elsewhere."""
    with pytest.raises(ApiError):
        check(LOCAL, **headers)
