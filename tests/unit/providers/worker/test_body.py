"""Request bodies: JSON whose pictures do not pass through the JSON decoder."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from providers.worker.answers import WorkerError
from providers.worker.body import DataUri, parse
from tests.support.workers import data_uri

PIECES = some.sampled_from(
    ["data:", "image/png", ";base64,", "QUJD", "QUJDRA==", "Q", '"', "\\", "/", ",", ":", "{", "}", " ", "ß", "\ud800"]
)
TEXTS = some.one_of(some.text(max_size=10), some.lists(PIECES, max_size=12).map("".join))
URIS = some.binary(max_size=40).map(data_uri)
VALUES = some.recursive(
    some.one_of(TEXTS, URIS, some.integers(), some.booleans(), some.none()),
    lambda inner: some.one_of(some.lists(inner, max_size=4), some.dictionaries(some.one_of(TEXTS, URIS), inner)),
    max_leaves=12,
)


def as_texts(value: object) -> object:
    """The value with each DataUri as the text that it was."""
    if isinstance(value, DataUri):
        return value.text()
    if isinstance(value, dict):
        return {key: as_texts(item) for key, item in value.items()}
    return [as_texts(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
@given(some.dictionaries(TEXTS, VALUES, max_size=4), some.booleans(), some.sampled_from([None, 1]))
def test_reads_what_json_reads(value: dict[str, object], escape: bool, indent: int | None) -> None:
    """Whatever lies in a body and however it is written, it is read as the JSON decoder reads it."""
    written = json.dumps(value, ensure_ascii=escape, indent=indent).encode(errors="surrogatepass")
    try:
        expected = json.loads(written.decode())
    except UnicodeDecodeError:
        with pytest.raises(WorkerError):
            parse(written)
    else:
        assert as_texts(parse(written)) == expected


def test_picture_is_cut_out() -> None:
    """A data URI that is a value is decoded, wherever it lies."""
    body = json.dumps({"input": {"image": data_uri(b"one"), "more": [data_uri(b"two", "image/webp")]}})

    assert parse(body.encode()) == {
        "input": {"image": DataUri("image/png", b"one"), "more": [DataUri("image/webp", b"two")]}
    }


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64,****",
        "data:image/png;base64,QUJ",
        "data:image/png;base64,QU JD",
        "data:image/png,QUJD",
        "data:;base64,QUJD",
        'he said "data:image/png;base64,QUJD',
    ],
)
def test_other_strings_stay(text: str) -> None:
    """A string that is not a whole base64 data URI is a string."""
    assert parse(json.dumps({"a": text, data_uri(b"key"): 1}).encode()) == {"a": text, data_uri(b"key"): 1}


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'{"a": Infinity}', b'{"a": 1' + b"0" * 5000 + b"}", b"\xff{}"])
def test_not_json(body: bytes) -> None:
    """What is not JSON, or not such that Python can hold it, is refused with 400."""
    with pytest.raises(WorkerError) as refused:
        parse(body)

    assert refused.value.status == 400


def test_a_large_picture_is_the_same() -> None:
    """Ten megabytes come out as they went in."""
    data = bytes(range(256)) * 40_000
    body = b'{"image":"data:image/png;base64,' + base64.b64encode(data) + b'"}'

    assert parse(body) == {"image": DataUri("image/png", data)}
