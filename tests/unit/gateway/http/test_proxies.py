"""Forwarded headers: who is believed, and what is left of a chain of proxies."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import Headers

from gateway.http.host import networks, seen_through

TRUSTED = networks(["10.0.0.0/8", "2001:db8::/32"])


def scope(peer: str, **headers: str) -> dict[str, Any]:
    """A request from a peer."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "client": (peer, 4711), "scheme": "http", "headers": [(b"host", b"inside:8000"), *raw]}


def test_a_stranger_is_not_believed() -> None:
    """It is the same request, and not a copy of it."""
    came = scope("203.0.113.9", x_forwarded_for="1.2.3.4", x_forwarded_proto="https", x_forwarded_host="evil.example")

    assert seen_through(came, TRUSTED) is came
    assert seen_through(came, ()) is came


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"])
def test_a_trusted_proxy_is_believed(peer: str) -> None:
    """Client, scheme and host are those that it names."""
    came = scope(
        peer, x_forwarded_for="203.0.113.9", x_forwarded_proto="HTTPS", x_forwarded_host="images.example.org:8443"
    )

    seen = seen_through(came, TRUSTED)

    assert (seen["client"], seen["scheme"]) == (("203.0.113.9", 0), "https")
    assert Headers(scope=seen).getlist("host") == ["images.example.org:8443"]
    assert Headers(scope=came)["host"] == "inside:8000"


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("6.6.6.6, 203.0.113.9, 10.0.0.7", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.7", "10.1.2.3"),
        ("6.6.6.6, nonsense", "10.1.2.3"),
        ("", "10.1.2.3"),
        ("2001:db8::7, 2001:4860::1, 10.0.0.7", "2001:4860::1"),
    ],
)
def test_the_client_is_whom_the_last_trusted_proxy_saw(chain: str, client: str) -> None:
    """What stands further left was written by whoever came, and may be anything."""
    assert seen_through(scope("10.1.2.3", x_forwarded_for=chain), TRUSTED)["client"][0] == client


@pytest.mark.parametrize("host", ["a b", "evil.example/path", "a,b", "user@host", "x\r\ny", "", "host:port", "[::1"])
def test_a_host_that_is_none(host: str) -> None:
    """It goes into addresses that callers are given."""
    seen = seen_through(scope("10.1.2.3", x_forwarded_host=host), TRUSTED)

    assert Headers(scope=seen)["host"] == "inside:8000"


def test_one_of_several_values_is_a_strangers() -> None:
    """Said twice, it is not known who said which."""
    came = scope("10.1.2.3")
    came["headers"] += [
        *((b"x-forwarded-host", b"a.example"), (b"x-forwarded-host", b"b.example")),
        *((b"x-forwarded-proto", b"https"), (b"x-forwarded-proto", b"http")),
    ]

    seen = seen_through(came, TRUSTED)

    assert (Headers(scope=seen)["host"], seen["scheme"]) == ("inside:8000", "http")
