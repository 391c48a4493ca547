"""Heads of requests that try something: ids that would write into others' lines, targets of other forms, `Expect`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.support.keys import api_key
from tests.support.lines import Lines
from tests.support.raw import head, line
from tests.support.running import until
from tests.support.world import World, world

HOST = "host: 127.0.0.1"


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    """A gateway without keys."""
    with world() as started:
        yield started


@pytest.mark.parametrize(
    "given",
    [
        "a" * 65,
        "a" * 10_000,
        "größe-\N{BOMB}",
        "a b",
        "a%0d%0aset-cookie:b",
        '","level":"error',
        "<script>",
        "../..",
        "",
    ],
    ids=lambda given: ascii(given[:20]),
)
def test_ids_that_are_not_taken(there: World, lines: Lines, given: str) -> None:
    """The request has one of ours, in the answer and in the log, and the other one is in neither."""
    with line(there.url) as client:
        client.say(f"GET /v1/nowhere HTTP/1.1\r\n{HOST}\r\nx-request-id: {given}\r\n\r\n")
        answer = client.receive()

    assert re.fullmatch(r"req_[0-9a-f]{24}", answer.headers["x-request-id"])
    assert not given or given not in f"{answer.headers}{answer.body!r}"
    own = answer.headers["x-request-id"]
    # The line of another test's last request may come late.
    until(lambda: any(one["request_id"] == own for one in lines), "it is in the log")
    [logged] = [one for one in lines if one["request_id"] == own]
    assert len(str(logged)) < 500
    assert not given or given not in str(logged)


@pytest.mark.parametrize("ids", ["a\r\n b", "a\rset-cookie: b", "a\nset-cookie: b", "a\0b"], ids=ascii)
def test_ids_that_are_no_http(there: World, lines: Lines, ids: str) -> None:
    """Whatever would be a line of its own for somebody ends the connection."""
    with line(there.url) as client:
        client.say(f"GET /healthz HTTP/1.1\r\n{HOST}\r\nx-request-id: {ids}\r\n\r\n")
        answer = client.receive()
        assert (answer.status, answer.error["code"]) == (400, "invalid_http")
        assert "set-cookie" not in answer.headers
        assert client.ended()
    assert lines == []


def test_an_id_that_is_taken(there: World, lines: Lines) -> None:
    """The longest there may be."""
    given = "A-z_0.9" * 9 + "x"
    answer = httpx.get(f"{there.url}/v1/nowhere", headers={"x-request-id": given})

    assert len(given) == 64
    assert answer.headers["x-request-id"] == given
    until(lambda: [logged["request_id"] for logged in lines] == [given], "it is in the log")


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("//v1/models", 200, None),
        ("//v1///models/", 200, None),
        ("/v1/models//?", 200, None),
        ("//evil.example/v1/models", 404, "unknown_url"),
        ("/v1//models", 200, None),
        ("//", 404, "unknown_url"),
        ("/%2Fv1/models", 404, "unknown_url"),
        ("/v1/%2F/models", 404, "unknown_url"),
        ("/v1/images/jobs%2F", 404, "unknown_url"),
        ("/v1//images//jobs//%00", 400, "invalid_url"),
        ("/" + "a/" * 30_000, 404, "unknown_url"),
        ("/v1/models?" + "a" * 60_000, 400, "unknown_parameter"),
        ("/healthz?" + "a" * 60_000, 200, None),
        ("/" + "a" * 70_000, 431, "headers_too_large"),
        ("http://localhost/v1/models", 200, None),
        ("HTTP://LOCALHOST:1/v1/models", 200, None),
        ("http://localhost//v1/models", 200, None),
        ("http://evil.example/v1/models", 403, "loopback_only"),
        ("http://127.0.0.1@evil.example/v1/models", 403, "loopback_only"),
        ("http://evil.example@127.0.0.1/v1/models", 403, "loopback_only"),
        ("http:///v1/models", 400, "invalid_http"),
        ("v1/models", 400, "invalid_http"),
        ("*", 404, "unknown_url"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_targets(there: World, target: str, status: int, code: str | None) -> None:
    """Each is one address or none, whatever slashes name nothing, and no other host than the target's own."""
    with line(there.url) as client:
        client.say(f"GET {target} HTTP/1.1\r\n{HOST}\r\n\r\n")
        answer = client.receive()

    assert answer.status == status, answer.body[:300]
    if code is not None:
        assert answer.error["code"] == code
        assert len(answer.body) < 1000
    assert "location" not in answer.headers


def test_expect_without_a_body(there: World) -> None:
    """There is nothing to go on with: the answer comes alone, and the connection stays."""
    with line(there.url) as client:
        for _ in range(2):
            client.say(f"GET /healthz HTTP/1.1\r\n{HOST}\r\nexpect: 100-continue\r\n\r\n")
            assert client.receive().status == 200


def test_nobody_is_told_to_go_on_who_may_not() -> None:
    """Without a key, or under another host, the refusal is the first word: the body is never asked for."""
    key = api_key("one")
    environ = {"DARKROOM_API_KEYS": key, "DARKROOM_GATEWAY__ALLOWED_HOSTS": '["127.0.0.1"]'}
    expect = "expect: 100-continue"
    with world(environ=environ) as guarded:
        for root, headers, status in (
            (guarded.url, (expect,), 401),
            (guarded.url, (expect, "authorization: Bearer another"), 401),
            (
                guarded.url.replace("127.0.0.1", "evil.example"),
                (expect, f"authorization: Bearer {key}"),
                421,
            ),
        ):
            with line(guarded.url) as client:
                client.say(head(root, 1000, *headers))
                assert client.receive().status == status
                assert client.ended()
