"""Hostile forms: broken multipart, parts that are too many or too deep, and values that no parameter takes."""

from __future__ import annotations

import base64
import binascii
import functools
import gzip
from collections.abc import Callable, Iterator

from tests.hostile.entry import EDITS, FORM, Hostile, fields, form, hostile, joined, multipart, part, request
from tests.simulators.common import tiny


def corpus() -> Iterator[Hostile]:
    """Every form."""
    yield from _bodies()
    yield from _parts()
    yield from _values()


def _typed(content_type: str | None, body: Callable[[], bytes] | None = None) -> Callable[[], bytes]:
    """A good form under another Content-Type, or another body under it."""
    whole = body or (lambda: multipart(part("image", tiny(), "in.png"), part("model", b"clarity-upscaler")))
    return lambda: request("POST", EDITS, whole(), content_type=content_type)


def _bodies() -> Iterator[Hostile]:
    bad = "invalid_multipart"
    yield hostile("form: no Content-Type", _typed(None), 415, "unsupported_media_type")
    yield hostile("form: a Content-Type of no kind", _typed("multipart"), 415, "unsupported_media_type")
    yield hostile("form: text", _typed("text/plain"), 415, "unsupported_media_type")
    yield hostile(
        "form: XML",
        _typed("application/xml", lambda: b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"),
        415,
        "unsupported_media_type",
    )
    yield hostile(
        "form: urlencoded, 10^5 fields",
        _typed("application/x-www-form-urlencoded", lambda: b"a=1&" * 100_000),
        415,
        "unsupported_media_type",
    )
    yield hostile(
        "form: pickle",
        _typed("application/x-python-pickle", lambda: b"cos\nsystem\n(S'id'\ntR."),
        415,
        "unsupported_media_type",
    )
    yield hostile("form: no boundary", _typed("multipart/form-data"), 400, bad)
    yield hostile("form: an empty boundary", _typed('multipart/form-data; boundary=""'), 400, bad)
    yield hostile("form: a boundary of 300 bytes", _typed("multipart/form-data; boundary=" + "a" * 300), 400, bad)
    yield hostile("form: a boundary of Latin-1", _typed("multipart/form-data; boundary=gr\xfc\xdfe"), 400, bad)
    yield hostile(
        "form: two boundaries",
        _typed("multipart/form-data; boundary=a; boundary=frontier"),
        415,
        "unsupported_media_type",
    )
    yield hostile("form: another boundary", _typed("multipart/form-data; boundary=elsewhere"), 400, bad)
    yield hostile("form: no body", _typed(FORM, lambda: b""), 400, "truncated_body", bad)
    yield hostile(
        "form: only its end", _typed(FORM, lambda: b"--frontier--\r\n"), 400, "missing_required_parameter", bad
    )
    yield hostile("form: a megabyte of zeros", _typed(FORM, lambda: bytes(1 << 20)), 400, bad)
    yield hostile("form: the end is missing", _typed(FORM, lambda: _good()[:-16]), 400, "truncated_body")
    yield hostile("form: cut in its picture", _typed(FORM, lambda: _good()[:150]), 400, "truncated_body")
    yield hostile("form: only the first boundary", _typed(FORM, lambda: b"--frontier\r\n"), 400, "truncated_body")
    yield hostile("form: gzip without saying so", _typed(FORM, lambda: gzip.compress(_good())), 400, bad)
    yield hostile("form: a form within a form", lambda: joined([_nested()]), 400, "invalid_encoding")
    yield hostile("form: JSON under a form's type", _typed(FORM, lambda: b'{"model": "clarity-upscaler"}'), 400, bad)
    yield hostile(
        "form: 201 MB", lambda: request("POST", EDITS, bytes(201 << 20), content_type=FORM), 413, "request_too_large"
    )
    yield hostile("form: a picture of 51 MB", lambda: form(picture=bytes(51 << 20)), 413, "file_too_large")
    yield hostile(
        "form: four pictures of 49 MB",
        lambda: joined([part("image[]", bytes(49 << 20), "a.png")] * 4),
        400,
        "too_many_images",
    )


def _good() -> bytes:
    return multipart(part("model", b"clarity-upscaler"), part("image", tiny(), "in.png"))


def _nested() -> bytes:
    inner = _good().replace(b"frontier", b"inner")
    return (
        b'Content-Disposition: form-data; name="files"\r\nContent-Type: multipart/mixed; boundary=inner\r\n\r\n' + inner
    )


def _headed(*lines: bytes, value: bytes = b"x") -> Callable[[], bytes]:
    """A good form with one more part, its head as given."""
    return lambda: form(b"".join(line + b"\r\n" for line in lines) + b"\r\n" + value)


def _parts() -> Iterator[Hostile]:
    bad = "invalid_multipart"
    name = b'Content-Disposition: form-data; name="prompt"'
    yield hostile("part: no header", _headed(), 400, bad)
    yield hostile("part: no name", _headed(b"Content-Disposition: form-data"), 400, bad)
    yield hostile("part: an empty name", _headed(b'Content-Disposition: form-data; name=""'), 400, bad)
    yield hostile("part: a header of a megabyte", _headed(name, b"X: " + b"a" * (1 << 20)), 400, bad)
    yield hostile("part: a header name of 5 kB", _headed(name, b"X" * 5000 + b": a"), 400, bad)
    yield hostile("part: ten thousand headers", _headed(name, *(b"X-%d: a" % i for i in range(10_000))), 400, bad)
    yield hostile("part: two dispositions", _headed(name, b'Content-Disposition: form-data; name="n"'), 400, bad)
    yield hostile("part: two names", _headed(b'Content-Disposition: form-data; name="prompt"; name="n"'), 400, bad)
    yield hostile(
        "part: a quote that does not close", _headed(b'Content-Disposition: form-data; name="prompt'), 400, bad
    )
    yield hostile("part: a header without colon", _headed(name, b"Nonsense"), 400, bad)
    yield hostile("part: a header with a NUL", _headed(name, b"X\0Y: a"), 400, bad)
    yield hostile(
        "part: bare line feeds",
        lambda: request("POST", EDITS, _good().replace(b"\r\n", b"\n"), content_type=FORM),
        400,
        bad,
    )
    yield hostile(
        "part: an unknown charset",
        _headed(name, b"Content-Type: text/plain; charset=rot13"),
        400,
        "unsupported_charset",
    )
    yield hostile(
        "part: a charset that imports",
        _headed(name, b"Content-Type: text/plain; charset=../../os"),
        400,
        "unsupported_charset",
    )
    yield hostile(
        "part: not in its charset",
        _headed(name, b"Content-Type: text/plain; charset=utf-8", value=b"\xff\xfe"),
        400,
        "invalid_encoding",
    )
    yield hostile(
        "part: UTF-16 cut in a character",
        _headed(name, b"Content-Type: text/plain; charset=utf-16", value=b"\xff"),
        400,
        "invalid_encoding",
    )
    yield hostile(
        "part: UTF-7",
        _headed(name, b"Content-Type: text/plain; charset=utf-7", value=b"+ADw-script+AD4-"),
        400,
        "unsupported_charset",
    )
    yield hostile(
        "part: an unknown transfer encoding",
        _headed(name, b"Content-Transfer-Encoding: gzip"),
        400,
        "unsupported_transfer_encoding",
    )
    yield hostile(
        "part: base64 that is none",
        _headed(name, b"Content-Transfer-Encoding: base64", value=b"$$$"),
        400,
        "invalid_base64",
    )
    yield hostile(
        "part: two million soft line breaks",
        _headed(name, b"Content-Transfer-Encoding: quoted-printable", value=b"=\r\n" * 2_000_000),
        400,
        "string_above_max_length",
    )
    yield hostile(
        "part: a picture as quoted-printable",
        lambda: joined(
            [part("image", binascii.b2a_qp(tiny()), "a.png", "Content-Transfer-Encoding: quoted-printable")]
        ),
        400,
        "unsupported_transfer_encoding",
    )
    yield hostile(
        "part: a picture of base64 garbage", lambda: joined([part("image", b"%%%not base64%%%")]), 400, "invalid_base64"
    )
    yield hostile(
        "part: a picture that is a web page in base64",
        lambda: joined([part("image", b"data:text/html;base64," + base64.b64encode(b"<html><script>"))]),
        400,
        "invalid_image_file",
    )
    yield hostile(
        "part: a thousand parameters, 200 times",
        lambda: joined([b'Content-Disposition: form-data; name="a"' + b';b="x' * 800 + b"\r\n\r\nx"] * 200),
        400,
        bad,
    )
    yield hostile(
        "form: what is hardly the boundary, a million times",
        _typed(FORM, lambda: b"\r\n--frontiers" * 1_000_000),
        400,
        bad,
    )
    yield hostile("part: ten thousand parts", lambda: form(*[part("x", b"1")] * 10_000), 400, "too_many_parts")
    yield hostile(
        "part: a hundred thousand empty ones", lambda: form(*[part("x", b"")] * 100_000), 400, "too_many_parts"
    )
    yield hostile("part: 33 pictures", lambda: joined([part("image[]", tiny(), "a.png")] * 33), 400, "too_many_files")
    yield hostile(
        "part: two pictures for a model of one",
        lambda: joined([part("image", tiny(), "a.png")] * 2),
        400,
        "too_many_images",
    )
    yield hostile(
        "part: two masks", lambda: form(*[part("mask", tiny(), "a.png")] * 2), 400, "unknown_parameter", "invalid_value"
    )
    yield hostile(
        "part: a file where none is taken",
        lambda: form(part("prompt", b"hello", "../../etc/passwd")),
        400,
        "unknown_parameter",
    )
    yield hostile(
        "part: a file name with line ends",
        lambda: form(part("weights", b"x", "a%0D%0ASet-Cookie: b=c")),
        400,
        "unknown_parameter",
    )
    yield hostile(
        "part: no picture", lambda: joined([part("model", b"clarity-upscaler")]), 400, "missing_required_parameter"
    )
    yield hostile(
        "part: a picture named with a NUL",
        lambda: joined([part("image\0", tiny(), "a.png")]),
        400,
        "unknown_parameter",
    )


def _deep(levels: int) -> str:
    return "a" + "[b]" * levels


def _values() -> Iterator[Hostile]:
    for value in ("0", "-1", "1000000000", "99", "-0.5", "9" * 5000):
        yield hostile(
            f"n: {value[:12]}",
            functools.partial(fields, n=value),
            400,
            "integer_above_max_value",
            "integer_below_min_value",
            "invalid_type",
        )
    for value in ("1e309", " ", "[1]", '{"a": 1}', "NaN", "Infinity", "0x10", "1_0", "\u0661", "\uff11", "1\0", "true"):
        yield hostile(f"n: {value!a}", functools.partial(fields, n=value), 400, "invalid_type")
    yield hostile("n: twice", lambda: form(part("n", b"1"), part("n", b"2")), 400, "invalid_type")
    yield hostile("n: an array in brackets", lambda: form(part("n[]", b"1"), part("n[]", b"2")), 400, "invalid_type")
    yield hostile("n: an object in brackets", lambda: form(part("n[a]", b"1")), 400, "invalid_type")
    for value in (
        "99999999x1",
        "0x0",
        "-1x-1",
        "1e3x1e3",
        "\u0661x\u0661",
        "1024 x",
        "1024x1024x1024",
        "\0",
        "x" * 10_000,
    ):
        yield hostile(
            f"size: {value[:16]!a}",
            functools.partial(fields, size=value),
            400,
            "invalid_value",
            "output_too_large",
            "string_above_max_length",
            "no_route",
        )
    for value in ("NaN", "nan", "inf", "-1", "1e400", "0", "1e-400", "4,5", "--4"):
        yield hostile(
            f"scale_factor: {value}",
            functools.partial(fields, scale_factor=value),
            400,
            "invalid_type",
            "decimal_above_max_value",
            "decimal_below_min_value",
            "invalid_value",
            "no_route",
        )
    yield hostile(
        "scale_factor: larger than any output",
        lambda: fields(scale_factor="1000000"),
        400,
        "output_too_large",
        "decimal_above_max_value",
    )
    for value in (str(2**70), "-1", "1.5", "seed"):
        yield hostile(
            f"seed: {value[:12]}",
            functools.partial(fields, seed=value),
            400,
            "integer_above_max_value",
            "integer_below_min_value",
            "invalid_type",
        )
    for value in ("exe", "svg", "png\0", "../../png", "image/png"):
        yield hostile(f"output_format: {value!a}", functools.partial(fields, output_format=value), 400, "invalid_value")
    for name in ("webhook", "webhook_completed", "lora_links", "custom_sd_model"):
        yield hostile(
            f"refused field: {name}",
            functools.partial(fields, **{name: "http://127.0.0.1:00000/"}),
            400,
            "parameter_refused",
        )
    yield hostile(
        "refused field: in provider_options",
        lambda: form(part("provider_options[replicate][webhook]", b"http://127.0.0.1:00000/")),
        400,
        "parameter_refused",
    )
    yield hostile(
        "field of a provider: image",
        lambda: form(part("provider_options[fal][image_url]", b"http://127.0.0.1:00000/")),
        400,
        "parameter_conflict",
        "parameter_refused",
    )
    yield hostile("prompt: 1.1 MB", lambda: fields(prompt=b"a" * 1_100_000), 400, "string_above_max_length")
    for value in (
        "../../../etc/passwd",
        "clarity-upscaler\0",
        "clarity-upscaler/",
        "//",
        "fal/../replicate",
        "a" * 100_000,
        "{{7*7}}",
        "${jndi:ldap://127.0.0.1:00000/a}",
        "' OR 1=1 --",
        "nobody/clarity-upscaler",
    ):
        yield hostile(f"model: {value[:24]!a}", functools.partial(_with_model, value), 404, "model_not_found")
    yield hostile(
        "model: a list",
        lambda: joined([part("model[]", b"a"), part("model[]", b"b"), part("image", tiny(), "a")]),
        400,
        "invalid_type",
    )
    yield hostile("brackets: a thousand deep", lambda: form(part(_deep(1000), b"1")), 400, "invalid_value")
    yield hostile("brackets: seventeen deep", lambda: form(part(_deep(17), b"1")), 400, "invalid_value")
    yield hostile(
        "brackets: a value and an object", lambda: form(part("a", b"1"), part("a[b]", b"2")), 400, "invalid_value"
    )
    yield hostile(
        "brackets: a list and an object", lambda: form(part("a[]", b"1"), part("a[b]", b"2")), 400, "invalid_value"
    )
    for value in ("nobody", '{"nobody": {}}', "[]", '{"fal": 1}', "{" * 10_000, '{"fal": {"a": NaN}}'):
        yield hostile(
            f"provider_options: {value[:20]}",
            functools.partial(fields, provider_options=value),
            400,
            "invalid_type",
            "invalid_value",
        )
    for value in (
        "nonsense",
        '{"order": 1}',
        '{"only": ["nobody"]}',
        '{"max_cost": -1}',
        '{"max_cost": NaN}',
        '{"a": 1}',
        '{"sort": "random"}',
        "[" * 10_000,
        "null",
    ):
        yield hostile(
            f"routing: {value[:20]}",
            functools.partial(fields, routing=value),
            400,
            "invalid_type",
            "invalid_value",
            "unknown_parameter",
            "decimal_below_min_value",
        )
    yield hostile("background and stream", lambda: fields(background="true", stream="true"), 400, "parameter_conflict")
    yield hostile("stream: perhaps", lambda: fields(stream="perhaps"), 400, "invalid_type")
    yield hostile("response_format: a path", lambda: fields(response_format="file:///etc/passwd"), 400, "invalid_value")
    yield hostile(
        "output_compression: 10^20", lambda: fields(output_compression="1" + "0" * 20), 400, "integer_above_max_value"
    )


def _with_model(name: str) -> bytes:
    return joined([part("model", name.encode()), part("image", tiny(), "in.png")])
