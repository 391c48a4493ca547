"""Hostile requests by what stands before the body: methods, paths, queries and headers."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Callable, Iterator

from tests.hostile.entry import EDITS, FORM, Hostile, hostile, multipart, part, request
from tests.simulators.common import tiny


def corpus() -> Iterator[Hostile]:
    """Every head."""
    yield from _paths()
    yield from _queries()
    yield from _headers()


def _get(path: str, *headers: str, method: str = "GET") -> Callable[[], bytes]:
    return functools.partial(request, method, path, b"", *headers)


def _paths() -> Iterator[Hostile]:
    unknown = "unknown_url"
    for path in (
        "/.env",
        "/.git/config",
        "/openai/v1/../../etc/passwd",
        "//evil.example/v1/models",
        "/v1/requests/../../etc/passwd",
        "/v1/requests/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/metrics/../healthz",
        "/openai/v1/images/jobs/%2e%2e/edits/x",
        "/" + "a" * 60_000,
        "/%ff%fe",
        "/cgi-bin/luci",
        "/openai/v1/images/edits;jsessionid=1",
        "/v1/%c0%af%c0%af",
        "/static/..%5c..%5cwindows",
    ):
        yield hostile(f"path: {path[:44]}", _get(path), 404, unknown)
    for path in ("/openai/v1/images/edits/", "//openai/v1/images/edits", "/v1//images/edits"):
        yield hostile(f"path: {path}", _get(path), 405, "method_not_allowed")
    for path in ("/v1/images/edits%2f", "/v1%2f/images/edits", "%2f/v1/images/edits"):
        yield hostile(f"path: {path}", _get(f"/{path.lstrip('/')}", method="POST"), 404, unknown)
    for path in ("/%00", "/hooks/%00/%00/%00", "/v1/keys%0A", "/openai/v1/images/edits%0a", "/v1/models%C2%85", "/%7f"):
        yield hostile(f"path: {path}, a control character", _get(path), 400, "invalid_url")
    for name in ("%00", "img_%0d%0aSet-Cookie:a"):
        for folder in ("v1/images/jobs", "v1/requests", "files", "v1/models"):
            yield hostile(f"{folder}: {name}", _get(f"/{folder}/{name}"), 400, "invalid_url")
    for name in (
        "img_0",
        "%2e%2e",
        "a" * 65,
        "%F0%9F%92%A3",
        "1%20or%201=1",
        "null",
        "-1",
    ):
        yield hostile(f"a job's id: {name[:20]}", _get(f"/v1/images/jobs/{name}"), 404, "job_not_found")
        yield hostile(f"a request's id: {name[:20]}", _get(f"/v1/requests/{name}"), 404, "request_not_found")
        yield hostile(f"a file's name: {name[:20]}", _get(f"/files/{name}"), 404, "file_not_found")
    yield hostile("a file's name: encoded dots", _get("/files/%2e%2e%2fdarkroom.db"), 404, "file_not_found", unknown)
    yield hostile("a file's name: dots", _get("/files/../darkroom.db"), 404, "file_not_found", unknown)
    yield hostile("a file's name: backslashes", _get("/files/..%5cdarkroom.db"), 404, "file_not_found")
    yield hostile("a file's name: an absolute path", _get("/files/%2fetc%2fpasswd"), 404, "file_not_found", unknown)
    yield hostile(
        "a file's name: an address", _get("/files/http:%2f%2f127.0.0.1:00000"), 404, "file_not_found", unknown
    )
    for name in ("../../etc/passwd", "a" * 5000, "..%2f..%2fmodels", "__proto__"):
        yield hostile(f"a model's id: {name[:20]}", _get(f"/v1/models/{name}"), 404, "model_not_found")
    for path in ("/hooks/fal/att_1/x", "/hooks/replicate/att_1/" + "0" * 64, "/hooks/nobody/a/b"):
        body = b'{"status": "OK", "payload": {"images": [{"url": "http://127.0.0.1:00000/"}]}}'
        yield hostile(f"forged webhook: {path[:24]}", functools.partial(request, "POST", path, body), 404, unknown)
    yield hostile("cancel a stranger's job", _get("/v1/images/jobs/img_0/cancel", method="POST"), 404, "job_not_found")
    yield hostile(
        "forget a stranger's request",
        _get("/v1/requests/..%2f/payload", method="DELETE"),
        404,
        "request_not_found",
        unknown,
    )
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"):
        yield hostile(f"method: {method} on an edit", _get(EDITS, method=method), 405, "method_not_allowed")
    yield hostile("method: POST on a file", _get("/files/a.png", method="POST"), 405, "method_not_allowed")


def _queries() -> Iterator[Hostile]:
    for value in ("0", "-1", "101", "1e2", "9" * 5000, "%D9%A1", "", "1;drop", "None", "%00"):
        yield hostile(f"limit: {value[:12]}", _get(f"/v1/requests?limit={value}"), 400, "invalid_value")
        yield hostile(f"limit of jobs: {value[:12]}", _get(f"/v1/images/jobs?limit={value}"), 400, "invalid_value")
    for value in ("%27%20OR%201=1", "img_0", "a" * 70, "%00", ""):
        yield hostile(f"after: {value[:16]}", _get(f"/v1/images/jobs?after={value}"), 400, "invalid_value")
    for value in ("yesterday", "NaN", "-1", "1e9", "9" * 400, "0000-00-00", "2026-13-01", "%00", "inf"):
        yield hostile(f"created_after: {value[:12]}", _get(f"/v1/requests?created_after={value}"), 400, "invalid_value")
    for value in ("-1", "1e3", "99999", "NaN", ""):
        yield hostile(f"wait: {value}", _get(f"/v1/images/jobs/img_0?wait={value}"), 400, "invalid_value")
    yield hostile("status: any", _get("/v1/images/jobs?status=any%27"), 400, "invalid_value")
    yield hostile("model: a NUL", _get("/v1/images/jobs?model=%00"), 400, "invalid_value")
    yield hostile("model: 5 kB", _get("/v1/images/jobs?model=" + "a" * 5000), 400, "invalid_value")


def _good(*headers: str, content_type: str = FORM) -> bytes:
    body = multipart(part("model", b"clarity-upscaler"), part("image", tiny(), "in.png"))
    return request("POST", EDITS, body, *headers, content_type=content_type)


def _headers() -> Iterator[Hostile]:
    for value in (
        "nonsense",
        "{",
        '{"order": 1}',
        '{"only": ["nobody"]}',
        '{"max_cost": 1e999}',
        "[]",
        "[" * 5000,
        "\xff",
    ):
        yield hostile(
            f"x-darkroom-routing: {value[:20]!a}",
            functools.partial(_good, f"X-Darkroom-Routing: {value}"),
            400,
            "invalid_value",
            "invalid_type",
            "unknown_parameter",
        )
    for value in ("", "a b", "a" * 256, "\xe4", "a\tb", "a" * 30_000):
        yield hostile(
            f"idempotency-key: {value[:12]!a}, {len(value)}",
            functools.partial(_good, f"Idempotency-Key: {value}"),
            400,
            "invalid_idempotency_key",
        )
    yield hostile(
        "prefer: respond-async and stream",
        lambda: _streamed('Prefer: a=""; b, ,;=,respond-async;x'),
        400,
        "parameter_conflict",
    )
    yield hostile("host: a stranger's", _host("evil.example"), 403, "loopback_only")
    yield hostile("host: rebound", _host("127.0.0.1.evil.example:80"), 403, "loopback_only")
    for target in ("http://evil.example/v1/models", "http://evil.example@127.0.0.1/v1/models", "ws://[::2]/v1/models"):
        yield hostile(f"target: {target}", _get(target), 403, "loopback_only")
    yield hostile("host: nothing", _host(""), 403, "loopback_only")
    yield hostile("host: brackets", _host("[::1"), 403, "loopback_only")
    yield hostile("host: a user before it", _host("127.0.0.1@evil.example"), 403, "loopback_only")
    yield hostile("host: a port that is none", _host("evil.example:99999999"), 403, "loopback_only")
    yield hostile(
        "origin: a stranger's", functools.partial(_good, "Origin: https://evil.example"), 403, "loopback_only"
    )
    yield hostile("origin: null", functools.partial(_good, "Origin: null"), 403, "loopback_only")
    yield hostile("origin: brackets", functools.partial(_good, "Origin: http://[::1"), 403, "loopback_only")
    yield hostile("content-encoding: gzip", lambda: _packed("gzip"), 415, "unsupported_media_type")
    yield hostile("content-encoding: br", lambda: _packed("br"), 415, "unsupported_media_type")
    yield hostile(
        "content-encoding: a chain", lambda: _packed("gzip, gzip, gzip, deflate"), 415, "unsupported_media_type"
    )
    yield hostile(
        "header: 60 kB of authorization, and n=0",
        lambda: _wrong("Authorization: Bearer " + "a" * 60_000),
        400,
        "integer_below_min_value",
        "headers_too_large",
    )
    yield hostile(
        "header: x-request-id with markup, and n=0",
        lambda: _wrong("X-Request-Id: <script>" + "a" * 5000),
        400,
        "integer_below_min_value",
    )
    yield hostile(
        "header: x-forwarded-for, and n=0",
        lambda: _wrong("X-Forwarded-For: 127.0.0.1, ::1", "X-Real-Ip: a\xff"),
        403,
        "loopback_only",
    )
    yield hostile(
        "upgrade: HTTP/2",
        _get("/nowhere", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AA"),
        404,
        "unknown_url",
    )


def _host(value: str) -> Callable[[], bytes]:
    return lambda: _good().replace(b"Host: 127.0.0.1", f"Host: {value}".encode())


def _streamed(*headers: str) -> bytes:
    body = multipart(part("stream", b"true"), part("image", tiny(), "in.png"))
    return request("POST", EDITS, body, *headers, content_type=FORM)


def _packed(how: str) -> bytes:
    body = gzip.compress(multipart(part("image", tiny(), "in.png")))
    return request("POST", EDITS, body, f"Content-Encoding: {how}", content_type=FORM)


def _wrong(*headers: str) -> bytes:
    body = multipart(part("n", b"0"), part("image", tiny(), "in.png"))
    return request("POST", EDITS, body, *headers, content_type=FORM)
