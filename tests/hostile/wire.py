"""Hostile bytes: lengths that lie, chunks that are none, heads without end, and what is no HTTP at all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from tests.hostile.entry import EDITS, FORM, Hostile, form, hostile, multipart, part, request
from tests.simulators.common import tiny

_NOT_HTTP = "invalid_http"


def corpus() -> Iterator[Hostile]:
    """Everything below the requests."""
    yield from _lengths()
    yield from _sizes()
    yield from _broken()


def _with(*headers: str) -> bytes:
    return request("POST", EDITS, multipart(part("image", tiny(), "in.png")), *headers, content_type=FORM)


def _sizes() -> Iterator[Hostile]:
    yield hostile("header: five million bytes", lambda: _with("X: " + "a" * 5_000_000), 431, "headers_too_large")
    yield hostile(
        "header: a hundred thousand", lambda: _with(*(f"X-{i}: a" for i in range(100_000))), 431, "headers_too_large"
    )
    yield hostile(
        "header: a path of five million bytes", lambda: request("GET", "/" + "a" * 5_000_000), 431, "headers_too_large"
    )
    yield hostile(
        "upgrade: a web socket",
        functools.partial(
            request,
            "GET",
            EDITS,
            b"",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        ),
        405,
        "method_not_allowed",
    )


def _unmeasured(*headers: str, body: bytes = b"") -> Callable[[], bytes]:
    """A form whose length is told by these headers."""
    whole = body or multipart(part("model", b"clarity-upscaler"), part("image", tiny(), "in.png"))
    return lambda: request("POST", EDITS, whole, *headers, content_type=FORM, length=False)


def _lengths() -> Iterator[Hostile]:
    yield hostile("length: longer than the body", _unmeasured("Content-Length: 100000"), 408, "request_timeout")
    yield hostile("length: shorter than the body", _unmeasured("Content-Length: 100"), 400, "truncated_body")
    yield hostile("length: none", _unmeasured(), 400, "truncated_body", "invalid_multipart")
    for value in ("-1", "+5", "1e3", "0x10", "9" * 400, "1,1", "five", "", " 1 2"):
        yield hostile(f"length: {value[:8]!r}", _unmeasured(f"Content-Length: {value}"), 400, _NOT_HTTP)
    yield hostile("length: 10^18", _unmeasured("Content-Length: 1000000000000000000"), 413, "request_too_large")
    yield hostile("length: twice, alike", _unmeasured("Content-Length: 5", "Content-Length: 5"), 400, _NOT_HTTP)
    yield hostile("length: twice, different", _unmeasured("Content-Length: 5", "Content-Length: 500"), 400, _NOT_HTTP)
    yield hostile(
        "chunks: with a length too",
        _unmeasured("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
        _NOT_HTTP,
    )
    chunked = "Transfer-Encoding: chunked"
    for name, body in (
        ("garbage", b"garbage"),
        ("a negative size", b"-5\r\nabcde\r\n0\r\n\r\n"),
        ("a size of 2^64", b"1" + b"0" * 16 + b"\r\na"),
        ("no end of a line", b"5\r\nabcdeX0\r\n\r\n"),
    ):
        yield hostile(f"chunks: {name}", _unmeasured(chunked, body=body), 400, _NOT_HTTP, "truncated_body")
    yield hostile(
        "chunks: twice chunked",
        _unmeasured("Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
        400,
        _NOT_HTTP,
        "truncated_body",
        "invalid_multipart",
    )
    yield hostile("chunks: another encoding", _unmeasured("Transfer-Encoding: gzip", body=b"abc"), 400, _NOT_HTTP)
    yield hostile(
        "chunks: 210 MB of one byte each but for the end", _big_chunks, 413, "request_too_large", "file_too_large"
    )


def _big_chunks() -> bytes:
    head = request("POST", EDITS, b"", "Transfer-Encoding: chunked", content_type=FORM, length=False)
    begin = b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return (
        b"".join((head, b"%x\r\n" % len(begin), begin, b"\r\n", b"100000\r\n" + bytes(1 << 20) + b"\r\n"))
        + (b"100000\r\n" + bytes(1 << 20) + b"\r\n") * 60
    )


def _broken() -> Iterator[Hostile]:
    """What is no HTTP at all, or none of this century."""
    for name, message in (
        ("nonsense", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a TLS hello\r\n\r\n"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n"),
        ("a method of letters that is none", b"EVIL / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("a method in small letters", b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("a header without a colon", b"GET /healthz HTTP/1.1\r\nHost localhost\r\n\r\n"),
        ("a space before the colon", b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n"),
        ("a NUL in a header", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n"),
        ("a carriage return in a header", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\rY: b\r\n\r\n"),
        ("a NUL in the path", b"GET /a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("a space in the path", b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("a path of Latin-1", b"GET /\xe4 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("an empty path", b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("a target without a host", b"GET http:///healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("no host", b"GET /healthz HTTP/1.1\r\n\r\n"),
        ("two hosts", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"),
        ("a request's id over two lines", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\r\n b\r\n\r\n"),
    ):
        yield hostile(f"http: {name}", functools.partial(bytes, message), 400, _NOT_HTTP)
    yield hostile(
        "http: a tunnel",
        lambda: b"CONNECT 127.0.0.1:00000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        400,
        _NOT_HTTP,
        "unknown_url",
    )
    yield hostile(
        "http: a proxy's request",
        lambda: b"GET http://127.0.0.1:00000/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        404,
        "unknown_url",
    )
    yield hostile(
        "http: a smuggled second request",
        lambda: form(part("n", b"0")) + b"GET /smuggled HTTP/1.1\r\n\r\n",
        400,
        "integer_below_min_value",
    )
