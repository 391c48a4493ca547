"""Hostile JSON: too deep, too long, in other encodings, of other types."""

from __future__ import annotations

import base64
import codecs
import functools
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tests.hostile.entry import EDITS, Hostile, hostile, request
from tests.simulators.common import tiny
from tests.support.pictures import chunk

_PICTURE = "data:image/png;base64," + base64.b64encode(tiny()).decode()
_BAD = "invalid_json"


def corpus() -> Iterator[Hostile]:
    """Every document."""
    yield from _texts()
    yield from _encodings()
    yield from _values()
    yield from _pictures()


def _raw(body: bytes | Callable[[], bytes], content_type: str = "application/json") -> Callable[[], bytes]:
    return lambda: request("POST", EDITS, body if isinstance(body, bytes) else body(), content_type=content_type)


def edit(**values: Any) -> bytes:
    """An edit as JSON that would be served, were it not for these values."""
    document = {"model": "clarity-upscaler", "image": _PICTURE, **values}
    return request("POST", EDITS, json.dumps(document).encode(), content_type="application/json")


def _with(text: str) -> Callable[[], bytes]:
    """A good document with more in it, as JSON text."""
    return _raw(f'{{"model": "clarity-upscaler", "image": "{_PICTURE}", {text}}}'.encode())


def _texts() -> Iterator[Hostile]:
    yield hostile("json: nothing", _raw(b""), 400, _BAD)
    yield hostile("json: a space", _raw(b" "), 400, _BAD)
    yield hostile("json: not closed", _raw(b'{"model": "clarity-upscaler"'), 400, _BAD)
    yield hostile("json: a string not closed", _raw(b'{"model": "clarity'), 400, _BAD)
    yield hostile(
        "json: ten megabytes of a string not closed", _raw(lambda: b'{"image": "' + b"A" * 10_000_000), 400, _BAD
    )
    yield hostile("json: two documents", _raw(b"{}{}"), 400, _BAD)
    yield hostile("json: an array", _raw(b'[{"model": "clarity-upscaler"}]'), 400, _BAD)
    yield hostile("json: a string", _raw(b'"clarity-upscaler"'), 400, _BAD)
    yield hostile("json: null", _raw(b"null"), 400, _BAD)
    yield hostile("json: a hundred thousand arrays", _with('"a": ' + "[" * 100_000 + "]" * 100_000), 400, _BAD)
    yield hostile(
        "json: a hundred thousand objects", _with('"a": ' + '{"a":' * 100_000 + "1" + "}" * 100_000), 400, _BAD
    )
    yield hostile("json: 18 arrays", _with('"a": ' + "[" * 18 + "]" * 18), 400, _BAD)
    yield hostile("json: a million opening brackets", _raw(b"[" * 1_000_000), 400, _BAD)
    yield hostile("json: NaN", _with('"scale_factor": NaN'), 400, _BAD)
    yield hostile("json: -Infinity", _with('"scale_factor": -Infinity'), 400, _BAD)
    yield hostile("json: 1e400", _with('"scale_factor": 1e400'), 400, _BAD)
    yield hostile("json: 5000 digits", _with('"seed": ' + "9" * 5000), 400, _BAD)
    yield hostile("json: half a million digits", _with('"seed": ' + "9" * 500_000), 400, _BAD)
    yield hostile("json: half of a pair", _with('"prompt": "\\ud800"'), 400, _BAD)
    yield hostile("json: half of a pair in a name", _with('"\\udfff": 1'), 400, _BAD)
    yield hostile("json: a name twice", _with('"n": 1, "n": 2'), 400, _BAD)
    yield hostile("json: a name twice, escaped", _with('"n": 1, "\\u006e": 2'), 400, _BAD)
    yield hostile("json: a name of a megabyte", _with(f'"{"a" * 1_000_000}": 1'), 400, _BAD)
    yield hostile("json: a control character in a string", _with('"prompt": "a\nb"'), 400, _BAD)
    yield hostile("json: an escape that is none", _with('"prompt": "\\x41"'), 400, _BAD)
    yield hostile("json: a comment", _with('/* */ "n": 1'), 400, _BAD)
    yield hostile("json: single quotes", _raw(b"{'model': 'clarity-upscaler'}"), 400, _BAD)
    yield hostile("json: a comma too many", _with('"n": 1,'), 400, _BAD)
    yield hostile("json: a script", _raw(b")]}',\n{}"), 400, _BAD)
    yield hostile(
        "json: two megabytes of text", _with(f'"prompt": "{"a" * 2_000_000}"'), 400, "string_above_max_length"
    )
    yield hostile(
        "json: two megabytes of names",
        _with(",".join(f'"f{i}": 1' for i in range(170_000))),
        400,
        "string_above_max_length",
    )
    yield hostile(
        "json: a million escaped quotes",
        _with(f'"prompt": "{chr(92)}{chr(34)}' * 700_000),
        400,
        "string_above_max_length",
        _BAD,
    )
    yield hostile(
        "json: backslashes, ten megabytes",
        _raw(lambda: b'{"prompt": "' + b"\\" * 10_000_000 + b'"}'),
        400,
        "string_above_max_length",
        _BAD,
    )
    yield hostile("json: a form", _raw(b"model=clarity-upscaler"), 400, _BAD)


def _encodings() -> Iterator[Hostile]:
    good = f'{{"image": "{_PICTURE}", "model": "clarity-upscaler", "n": 0}}'
    for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        yield hostile(f"json: {name} without a mark, and n=0", _raw(good.encode(name)), 400, "integer_below_min_value")
    yield hostile(
        "json: UTF-16 cut in a character",
        _raw(codecs.BOM_UTF16_LE + good.encode("utf-16-le")[:-1]),
        400,
        "invalid_encoding",
    )
    yield hostile(
        "json: UTF-32 beyond the last character",
        _raw(codecs.BOM_UTF32_LE + b"\xff\xff\xff\xff" * 100),
        400,
        "invalid_encoding",
    )
    yield hostile("json: a mark and nothing", _raw(codecs.BOM_UTF8), 400, _BAD)
    yield hostile("json: a thousand marks", _raw(codecs.BOM_UTF8 * 1000 + b"{}"), 400, _BAD)
    yield hostile(
        "json: Latin-1 that says so, and is none",
        _raw(b"\xe4{}", "application/json; charset=utf-8"),
        400,
        "invalid_encoding",
        _BAD,
    )
    yield hostile(
        "json: an unknown charset", _raw(good.encode(), "application/json; charset=zip"), 400, "unsupported_charset"
    )
    yield hostile("json: overlong UTF-8", _raw(b'{"model": "\xc0\xaf\xc0\xaf"}'), 400, "invalid_encoding")
    yield hostile("json: not UTF-8", _raw(b'{"model": "\xff\xfe"}'), 400, "invalid_encoding")
    yield hostile(
        "json: a parameter twice in its type",
        _raw(b"{}", "application/json; charset=a; charset=b"),
        415,
        "unsupported_media_type",
    )


def _values() -> Iterator[Hostile]:
    value: Any
    for value in (-1, 0, 10**9, 1.5, "two", [], [1], {}, True, 10**39):
        yield hostile(
            f"json n: {str(value)[:12]}",
            functools.partial(edit, n=value),
            400,
            "invalid_type",
            "integer_above_max_value",
            "integer_below_min_value",
        )
    for value in (1, [], {}, ["clarity-upscaler"], True):
        yield hostile(f"json model: {value}", functools.partial(edit, model=value), 400, "invalid_type")
    yield hostile("json model: a prototype", lambda: edit(model="__proto__"), 404, "model_not_found")
    yield hostile("json prompt: an object", lambda: edit(prompt={"$gt": ""}), 400, "invalid_type")
    yield hostile("json size: a number", lambda: edit(size=1024), 400, "invalid_type", "invalid_value")
    yield hostile(
        "json: denied, in capitals and all", lambda: edit(webhook="http://127.0.0.1:00000/"), 400, "parameter_refused"
    )
    yield hostile(
        "json: provider_options of a prototype",
        lambda: edit(provider_options={"__proto__": {"a": 1}}),
        400,
        "invalid_value",
    )
    yield hostile("json: provider_options of a list", lambda: edit(provider_options=[{"fal": 1}]), 400, "invalid_type")
    yield hostile(
        "json: routing of a prototype",
        lambda: edit(routing={"constructor": {}}),
        400,
        "unknown_parameter",
        "invalid_value",
    )


def _bomb() -> str:
    """A profile that inflates to 100 MB, within base64, within JSON."""
    data = tiny()
    picture = data[:33] + chunk(b"iCCP", b"b\0\0" + zlib.compress(bytes(100 << 20))) + data[33:]
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def _pictures() -> Iterator[Hostile]:
    kind, base, file = "invalid_type", "invalid_base64", "invalid_image_file"
    for value in (1, True, 1.5):
        yield hostile(f"json image: {value}", functools.partial(edit, image=value), 400, kind)
    yield hostile("json image: a list of lists", lambda: edit(image=[[_PICTURE]]), 400, kind)
    yield hostile("json image: an object of nothing", lambda: edit(image={}), 400, kind)
    yield hostile("json image: an address that is a number", lambda: edit(image={"image_url": 1}), 400, kind)
    yield hostile("json image: an address that is a list", lambda: edit(image={"image_url": [_PICTURE]}), 400, kind)
    yield hostile(
        "json image: objects in objects", lambda: edit(image={"image_url": {"url": {"url": _PICTURE}}}), 400, kind
    )
    yield hostile("json image: an unknown key", lambda: edit(image={"path": "/etc/passwd"}), 400, "unknown_parameter")
    yield hostile("json image: a file's id", lambda: edit(image={"file_id": "file-1"}), 400, "file_id_unsupported")
    yield hostile("json image: text", lambda: edit(image="a cat"), 400, base)
    yield hostile("json image: nothing behind the comma", lambda: edit(image="data:image/png;base64,"), 400, base)
    yield hostile("json image: percent signs", lambda: edit(image="data:image/svg+xml,%3Csvg/%3E"), 400, base)
    yield hostile("json image: a web page", lambda: edit(image="data:text/html;base64,PGh0bWw+"), 400, file)
    yield hostile("json image: a bomb in base64", lambda: edit(image=_bomb()), 400, file)
    yield hostile(
        "json image: base64 in base64", lambda: edit(image=base64.b64encode(_PICTURE.encode()).decode()), 400, file
    )
    yield hostile(
        "json image: seventy megabytes of base64", lambda: edit(image="A" * (72 << 20)), 413, "file_too_large"
    )
    yield hostile("json image: thirty-three", lambda: edit(image=[_PICTURE] * 33), 400, "too_many_files")
    yield hostile("json image: two for a model of one", lambda: edit(image=[_PICTURE] * 2), 400, "too_many_images")
    yield hostile("json image: none", lambda: edit(image=None), 400, "missing_required_parameter")
    yield hostile("json mask: text", lambda: edit(mask="a cat"), 400, base)
