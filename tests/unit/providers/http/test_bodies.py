"""JSON with pictures in it, both ways."""

from __future__ import annotations

import base64
import gzip
import json
import os
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalization.values import Header, Image, Value
from providers.errors import Rejected, Undecodable
from providers.http.bodies import Json, detail, encoded_size, excerpt, json_body, parse_json, read_body, read_json
from tests.support.fake_cog import data_uri


def picture(data: bytes) -> Image:
    return Image(data=data, header=Header(format="png", width=1, height=1))


def plainly(value: Value) -> object:
    """Write a payload the slow way: with each picture as a string."""
    if isinstance(value, Image):
        return "data:image/png;base64," + base64.b64encode(value.data).decode()
    if isinstance(value, list):
        return [plainly(item) for item in value]
    if isinstance(value, dict):
        return {key: plainly(item) for key, item in value.items()}
    return value


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
payloads = st.dictionaries(
    st.text(),
    st.recursive(
        scalars | st.binary(max_size=40).map(picture),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    ),
    max_size=4,
)


@pytest.mark.slow
@given(payloads)
async def test_a_body_is_the_json_of_its_payload(payload: dict[str, Value]) -> None:
    """Whatever lies around the pictures, the bytes are what the slow way would write."""
    body = json_body(payload)
    sent = b"".join([chunk async for chunk in body])
    assert json.loads(sent) == plainly(payload)
    assert body.headers == {"content-type": "application/json", "content-length": str(len(sent))}


async def test_a_large_body_is_sent_in_pieces_and_again() -> None:
    """A picture above the size that is encoded on the event loop arrives whole, a second time too."""
    data = os.urandom(3_000_000)
    body = json_body({"image": picture(data), "images": [picture(b"a"), picture(data)]})
    for _ in range(2):
        chunks = [bytes(chunk) async for chunk in body]
        assert max(map(len, chunks)) <= 256 * 1024
        assert json.loads(b"".join(chunks)) == plainly(
            {"image": picture(data), "images": [picture(b"a"), picture(data)]}
        )


async def test_the_size_is_known_before_the_encoding() -> None:
    """What a payload will weigh decides whether it is worth encoding."""
    assert encoded_size({"image": picture(b"1234"), "more": {"list": [picture(b"1"), "x"]}}) == 8 + 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_what_json_cannot_say_is_rejected(value: float) -> None:
    """A number that JSON does not have is the caller's mistake, not a broken gateway."""
    with pytest.raises(Rejected):
        json_body({"scale": value})


def slowly(body: bytes) -> object:
    """Decode an answer the slow way."""

    def walk(value: object) -> object:
        if isinstance(value, str) and value.startswith("data:") and ";base64," in value:
            try:
                return base64.b64decode("".join(value.partition(";base64,")[2].split()), validate=True)
            except ValueError:
                return value
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return value

    return walk(json.loads(body))


tricky = st.sampled_from(
    [
        'x"data:image/png;base64,AAAA"y',
        '\\"data:image/png;base64,AAAA',
        "data:image/png;base64,not base64!",
        "data:image/png;base64,AAA",
        "data:text/plain,hello",
        "data:",
        "data:;base64,",
        "data:image/png;base64,é",
        '","data:image/png;base64,AAAA',
    ]
)
answers = st.recursive(
    scalars | tricky | st.binary(max_size=40).map(data_uri),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | tricky, inner, max_size=4),
    max_leaves=12,
)


@given(answers, st.booleans(), st.booleans())
def test_an_answer_is_decoded_as_the_slow_way_would(value: object, ascii_only: bool, spaced: bool) -> None:
    """Cutting the pictures out of the raw bytes changes nothing but the time."""
    body = json.dumps(value, ensure_ascii=ascii_only, separators=(", ", ": ") if spaced else (",", ":")).encode()
    assert parse_json(body) == slowly(body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"output":"data:image\\/png;base64,\\/\\/\\/\\/"}', {"output": b"\xff\xff\xff"}),
        (b'{"output":"data:image/png;base64,AA\\nAA"}', {"output": b"\0\0\0"}),
        (b'["data:application/octet-stream;base64,AAAA"]', [b"\0\0\0"]),
        (b'["data:image/png;charset=x;base64,AAAA"]', [b"\0\0\0"]),
        (b'"data:image/png;base64,AAAA"', b"\0\0\0"),
    ],
    ids=["escaped slashes", "line breaks", "octet stream", "parameters", "bare"],
)
def test_data_uris_are_found_in_every_dress(body: bytes, value: Json) -> None:
    """Encoders differ in what they escape, and the picture is the same."""
    assert parse_json(body) == value


def test_more_pictures_than_are_cut_out_are_decoded_all_the_same() -> None:
    """An answer of a thousand small pictures is read, by the ordinary way."""
    assert parse_json(json.dumps([data_uri(b"abc")] * 1000).encode()) == [b"abc"] * 1000


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a":', b"\xff\xfe\x00", b"[" * 100_000, b"9" * 10_000])
def test_what_is_not_json_is_undecodable(body: bytes) -> None:
    """A broken answer is an error of ours to speak of, never a crash."""
    with pytest.raises(Undecodable):
        parse_json(body)


async def test_a_large_answer_is_read_beside_the_event_loop() -> None:
    """A picture above the inline size comes back whole."""
    data = os.urandom(2_000_000)
    assert await read_json(json.dumps({"output": [data_uri(data)]}).encode()) == {"output": [data]}


def cpu_ms(work: Callable[[], object], rounds: int = 5) -> float:
    def once() -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    return 1000 * min(once() for _ in range(rounds))


def test_a_picture_does_not_pass_through_the_json_decoder() -> None:
    """25 MB take several times less processor time than with the standard library, which holds the interpreter."""
    body = json.dumps({"output": data_uri(os.urandom(25_000_000))}).encode()
    ours, slow = cpu_ms(lambda: parse_json(body)), cpu_ms(lambda: slowly(body), 2)
    print(f"25 MB answer: {ours:.1f} ms, standard library {slow:.1f} ms")
    assert ours * 3 < slow


def chunked(data: bytes) -> AsyncIterator[bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 10):
            yield data[start : start + 10]

    return chunks()


async def test_a_body_is_read_up_to_its_cap() -> None:
    """The cap holds with and without a declared length, and after decompression."""
    assert await read_body(httpx.Response(200, content=chunked(b"x" * 100)), 100) == b"x" * 100
    bomb = gzip.compress(b"x" * 101)
    for response in (
        httpx.Response(200, content=chunked(b"x" * 101)),
        httpx.Response(200, content=chunked(b"x"), headers={"content-length": "101"}),
        httpx.Response(200, content=chunked(bomb), headers={"content-encoding": "gzip"}),
    ):
        with pytest.raises(Undecodable, match="larger than 100 bytes"):
            await read_body(response, 100)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words stay", "plain words stay"),
        ("two\nlines\x1b[31m\x00", "two lines [31m"),
        ("bad image data:image/png;base64,iVBORw0KGgo= given", "bad image data:… given"),
        ("see https://x.example/a.png?sig=secret&b=1 now", "see https://x.example/a.png?… now"),
        ("key r8_0123456789abcdef0123456789abcdef01234567 is bad", "key … is bad"),
    ],
)
def test_an_excerpt_shows_no_picture_and_no_key(text: str, shown: str) -> None:
    """Foreign text goes into logs and attempts, so what is secret or huge is cut out."""
    assert excerpt(text) == shown


@given(st.text(max_size=500), st.integers(2, 50))
def test_an_excerpt_is_short_and_printable(text: str, limit: int) -> None:
    """Whatever a provider writes, one line of the log stays one line."""
    shown = excerpt(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"detail": "Already running a prediction"}', "Already running a prediction"),
        (
            b'{"detail": [{"loc": ["body", "input", "seed"], "msg": "too small", "input": "s"}]}',
            "input.seed: too small",
        ),
        (b'{"error": {"message": "no", "type": "x"}}', "no"),
        (b'{"title": "Bad", "detail": "worse"}', "worse"),
        (b'{"prompt": "a secret"}', ""),
        (b"<html>", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_the_message_of_an_error_is_found(body: bytes, text: str) -> None:
    """Only the documented places are shown: the rest of an error may echo the input."""
    assert detail(body) == text
