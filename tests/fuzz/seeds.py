"""Where fuzzing begins: the corpus of hostile inputs, and good ones, without their HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.hostile import addresses, documents, forms, pictures
from tests.hostile.entry import Hostile
from tests.support.bodies import DATA_URL, PNG, multipart, part
from tests.support.pictures import FEATURES, feature

_LARGEST = 16 << 10


def seeds(name: str) -> Iterator[bytes]:
    """Inputs of a property, none of them large."""
    return (seed for seed in _SEEDS[name]() if len(seed) <= _LARGEST)


def _bodies(entries: Iterator[Hostile]) -> Iterator[bytes]:
    for entry in entries:
        yield entry.message().partition(b"\r\n\r\n")[2]


def _form() -> Iterator[bytes]:
    yield b"\0\xff" + multipart(part("image", PNG, "a.png"), part("model", b"clarity-upscaler"), part("a[b]", b"1"))
    yield b"\0\x03" + multipart(
        part("image", DATA_URL), part("n", b"2", None, "Content-Type: text/plain; charset=utf-16")
    )
    yield (
        b"\1\xff"
        + json.dumps({"image": DATA_URL.decode(), "n": 1, "images": [{"image_url": DATA_URL.decode()}]}).encode()
    )
    yield from (b"\0\x7f" + body for body in _bodies(forms.corpus()))
    yield from (b"\1\x7f" + body for body in _bodies(documents.corpus()))


def _sniff() -> Iterator[bytes]:
    yield from map(feature, FEATURES)
    for body in _bodies(pictures.corpus()):
        # The picture is the last part but its boundary.
        yield body.partition(b"image/png\r\n\r\n")[2].removesuffix(b"\r\n--frontier--\r\n")


def _table() -> Iterator[bytes]:
    for text in (
        "size=1024x1024\nscale_factor=4\nn=2\nseed=7\noutput_format=webp\nbackground=#fff",
        'n:=2\nscale_factor:=2.5\nprompt:="a"\ncreativity:=0.3\noutput_compression:=80\nsize_mode=pad',
        "provider_options[fal][a]=1\nrouting[only][]=fal\nstream=yes\ndynamic=6\nhandfix=disabled",
    ):
        yield from (bytes((model, typed)) + text.encode() for model in range(8) for typed in (0, 1))


def _guard() -> Iterator[bytes]:
    for address in (
        *addresses.INNER,
        *addresses.SCHEMES,
        "https://example.com/a?b#c",
        "https://8.8.8.8/",
        "https://ex\xe4.de/",
    ):
        yield address.replace(":00000", "").encode()


def _wire() -> Iterator[bytes]:
    documents_ = (
        {
            "request_id": "a" * 36,
            "status": "COMPLETED",
            "metrics": {"inference_time": 1.5},
            "images": [{"url": "https://a/b"}],
        },
        {"id": "abc", "status": "failed", "error": "NSFW", "output": ["https://a/b"], "metrics": {"predict_time": 2}},
        {"detail": [{"loc": ["body", "n"], "msg": "bad", "type": "value_error"}], "error_type": "request_timeout"},
        {
            "jobId": "a",
            "status": "FAILED",
            "error": "x",
            "progress": 50,
            "creditCost": 2,
            "result": {"images": ["https://a"]},
        },
        {
            "detail": "Your rate limit resets in ~30s.",
            "retry_after": 3,
            "title": "Invalid version",
            "invalid_fields": [],
        },
        {"output": "data:image/png;base64,iVBORw0KGgo=", "image": {"url": "x"}, "details": {"a": ["b"]}},
    )
    for number, document in enumerate(documents_):
        yield bytes((number,)) + json.dumps(document).encode()


_SEEDS = {"form": _form, "sniff": _sniff, "table": _table, "guard": _guard, "wire": _wire}
