"""The front door's reading of any body: real clients, the common limits, memory, and no byte that breaks it."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import aiohttp
import openai
import pybase64
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.errors import ApiError
from gateway.http.form import FilePart, Form, FormLimits, read_form
from gateway.http.image_fields import ImageUrl, read_picture
from tests.support.bodies import (
    BASE64,
    DATA_URL,
    IMAGE,
    LIMITS,
    MULTIPART,
    PNG,
    multipart,
    named,
    part,
    read,
    refused,
)

JSON = "application/json"


@pytest.mark.parametrize(
    "text",
    [
        DATA_URL,
        BASE64,
        b" \n" + DATA_URL + b"\n",
        BASE64.rstrip(b"="),
        BASE64[:20] + b"\r\n" + BASE64[20:],
        BASE64.replace(b"+", b"-").replace(b"/", b"_"),
        b"DATA:image/png;name=a;Base64," + BASE64,
    ],
)
@pytest.mark.parametrize("name", ["image", "image[]", "image[0]", "images", "image_url"])
def test_pictures_in_text_parts_are_decoded(name: str, text: bytes) -> None:
    """A picture as a data URL or as base64 in any dialect arrives as if it had been sent as a file."""
    assert read(multipart(part(name, text))) == Form(files=(IMAGE,))


@pytest.mark.parametrize("name", ["image", "image[]", "image[0]", "images", "image_url", "mask"])
def test_addresses_are_kept_as_they_are(name: str) -> None:
    """An address in the place of a picture is read as one, and not fetched by the reader."""
    url = "HTTPS://example.com/a.png?b=c#d"
    kind = "mask" if name == "mask" else "image"
    for form in (read(multipart(part(name, f" {url}\n".encode()))), read(json.dumps({name: url}).encode(), JSON)):
        assert form.addressed
        assert form.files == (FilePart(name=kind, address=ImageUrl(url=url, param=name)),)
    form = read(json.dumps({"images": [{"image_url": url}, {"image_url": {"url": url}}]}).encode(), JSON)
    assert [file.address for file in form.files] == [
        ImageUrl(url=url, param="images[0].image_url"),
        ImageUrl(url=url, param="images[1].image_url"),
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"file:///etc/passwd", "image_url_unsupported"),
        (b"ftp://example.com/a.png", "image_url_unsupported"),
        (b"data:image/png,abc", "invalid_base64"),
        (b"data:image/png;base64", "invalid_base64"),
        (b"data:image/png;base64,", "invalid_base64"),
        (b"data:image/png;base64,$$$$", "invalid_base64"),
        (b"a cat", "invalid_base64"),
        (b"A", "invalid_base64"),
    ],
)
def test_texts_that_are_no_picture_are_refused(text: bytes, code: str) -> None:
    """No text passes for a picture, and only an http address for where one is: a 400 that names the field."""
    for error in (
        refused(multipart(part("image", text))),
        refused(json.dumps({"image": text.decode()}).encode(), "application/json"),
    ):
        assert (error.status, error.param, error.code) == (400, "image", code)


def test_an_address_has_an_end() -> None:
    """What goes on like an address without end is refused, and never looked at as one."""
    with pytest.raises(ApiError) as caught:
        read_picture("image", b"https://example.com/" + b"a" * 8192, "images[3]", FormLimits())
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "images[3]", "image_url_refused")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=é", 400),
        ("multipart/form-data; boundary=" + "b" * 257, 400),
        *((other, 415) for other in ("", "text/plain", "application/xjson", "multipart/mixed; boundary=x", "ж")),
        ("application/x-www-form-urlencoded", 415),
        ('a/b; c="', 415),
    ],
)
def test_other_types_are_refused_with_the_accepted_ones(content_type: str, status: int) -> None:
    """A type that is not taken is a 415 naming those that are; multipart without a usable boundary is a 400."""
    error = refused(multipart(part("n", b"1")), content_type)

    assert error.status == status
    assert "multipart/form-data" in error.message
    assert status == 400 or "application/json" in error.message


async def test_nothing_is_read_of_a_body_that_says_it_is_too_large() -> None:
    """A Content-Length above the limit is a 413 before the first chunk is asked for."""

    async def chunks() -> AsyncIterator[bytes]:
        yield pytest.fail("the body was read")

    with pytest.raises(ApiError) as caught:
        await read_form(MULTIPART, LIMITS.max_body_bytes + 1, chunks(), LIMITS)
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")


async def test_a_chunked_body_is_left_at_the_limit() -> None:
    """A body that does not say its length is not read on once it has passed the limit, JSON or multipart."""
    for content_type, start in ((MULTIPART, b"\r\n"), ("application/json", b" ")):
        taken = 0

        async def chunks(start: bytes = start) -> AsyncIterator[bytes]:
            nonlocal taken
            while True:
                taken += 1000
                yield start * (1000 // len(start))

        with pytest.raises(ApiError) as caught:
            await read_form(content_type, None, chunks(), LIMITS)
        assert caught.value.status == 413
        assert taken == LIMITS.max_body_bytes + 1000


async def _real(form: aiohttp.FormData) -> tuple[bytes, str]:
    writer = form()
    return await writer.as_bytes(), str(writer.headers["Content-Type"])


def test_aiohttp_forms_are_read() -> None:
    """The form that Open WebUI's client library writes: its text parts carry a type, its names are percent-encoded."""
    form = aiohttp.FormData()
    form.add_field("image[]", PNG, filename="a b.png", content_type="image/png")
    form.add_field("prompt", '☃ "quoted"\r\nline')
    form.add_field("n", "2")
    body, content_type = asyncio.run(_real(form))

    assert read(body, content_type) == Form(
        files=(named("image", "a%20b.png"),), fields=(("prompt", '☃ "quoted"\r\nline'), ("n", "2"))
    )


@contextmanager
def recorder() -> Iterator[tuple[str, list[tuple[bytes, str]]]]:
    """A server on this machine that keeps the bodies and types that it is sent."""
    sent: list[tuple[bytes, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((body, self.headers["Content-Type"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"created": 1, "data": []}')

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it is called with
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", sent
        finally:
            server.shutdown()
            thread.join()


def test_openai_sdk_forms_are_read() -> None:
    """What the official SDK writes for files, lists, booleans and extra_body comes out as it was meant."""
    extra = {"scale": 4, "tile": True, "arr": [1, 2], "obj": {"a": 1, "b": {"c": True}}, "l": [{"a": 1}, {"a": 2}]}
    with recorder() as (url, sent), openai.OpenAI(api_key="k", base_url=url) as client:
        client.images.edit(image=[("ä.png", PNG, "image/png"), PNG], mask=PNG, prompt="☃", n=2, extra_body=extra)
    form = read(*sent[0], limits=FormLimits())

    assert sorted((file.name, str(file.filename), file.data) for file in form.files) == [
        ("image", "upload", PNG),
        ("image", "ä.png", PNG),
        ("mask", "upload", PNG),
    ]
    assert sorted(form.fields) == [
        *(("arr[]", "1"), ("arr[]", "2"), ("l[][a]", "1"), ("l[][a]", "2"), ("n", "2"), ("obj[a]", "1")),
        *(("obj[b][c]", "true"), ("prompt", "☃"), ("scale", "4"), ("tile", "true")),
    ]


@pytest.mark.parametrize("kind", ["file", "text", "json", "php"])
def test_memory_stays_near_the_body(kind: str) -> None:
    """Reading a picture takes the picture and the body that it came in; with PHP's escaped slashes one copy more."""
    picture = bytes(range(256)) * (10_000_000 // 256)
    encoded = pybase64.b64encode(picture)
    body, content_type = {
        "file": (multipart(part("image", picture, "a.png")), MULTIPART),
        "text": (multipart(part("image", DATA_URL[:22] + encoded)), MULTIPART),
        "json": ('{"prompt": "😀", "image": "'.encode() + encoded + b'"}', "application/json"),
        "php": (b'{"image": "' + encoded.replace(b"/", rb"\/") + b'"}', "application/json"),
    }[kind]
    tracemalloc.start()
    form = read(body, content_type, limits=FormLimits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert form.files[0].data == picture
    assert peak < {"file": 1.2, "text": 2, "json": 2, "php": 2.9}[kind] * len(body)


def _outcome(body: bytes, content_type: str) -> None:
    try:
        read(body, content_type)
    except ApiError as error:
        refusal = error
    else:
        return
    assert 400 <= refusal.status < 500
    assert refusal.message.endswith(".")


FRAGMENTS = st.sampled_from(
    [
        *(b"--frontier", b"--frontier\r\n", b"--", b"\r\n", b"\r\n\r\n", b'"', b";", b"=", b"\\", b"%22", b"charset="),
        *(b"Content-Disposition: form-data; name=", b"Content-Type: text/plain; charset=", b"utf-16", b"base64"),
        *(b"Content-Transfer-Encoding: ", b"quoted-printable", DATA_URL, part("n", b"1"), part("image", PNG, "a")),
        *(b'{"image":"', b'"}', b"{", b"}", b"[", b"]", b",", b":", b'{"images":[{"image_url":"', b'"}]}'),
    ]
)


@settings(max_examples=300)
@given(
    st.binary() | st.lists(FRAGMENTS | st.binary(max_size=5), max_size=12).map(b"".join),
    st.sampled_from([MULTIPART, "application/json", "application/json; charset=utf-16"]),
)
def test_no_bytes_break_the_reader(body: bytes, content_type: str) -> None:
    """Whatever the body is, it is a form or an error of the caller's."""
    _outcome(body, content_type)
    _outcome(multipart(body), content_type)


@settings(max_examples=300)
@given(
    st.text() | st.text().map("multipart/form-data; boundary={}".format) | st.text().map("application/json;{}".format)
)
def test_no_content_type_breaks_the_reader(content_type: str) -> None:
    """Whatever the type is, it is a form or an error of the caller's."""
    _outcome(multipart(part("n", b"1")), content_type)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(
    lambda name: name.replace("\\", "").replace("%", "") + "x"
)


@given(st.lists(st.tuples(NAMES, st.text(st.characters(exclude_categories=["Cs"]), min_size=1)), max_size=5))
def test_any_field_arrives_as_it_was_sent(fields: list[tuple[str, str]]) -> None:
    """Names and texts of any characters come through multipart as browsers encode it, and through JSON, unchanged."""
    sent = [part(name.replace('"', "%22"), value.encode()) for name, value in fields]
    unmarked = ((name, value.removeprefix("\ufeff")) for name, value in fields)

    form = read(multipart(*sent), limits=FormLimits())
    assert form.fields == tuple((name, value) for name, value in unmarked if value)
    document = json.dumps(dict(fields), ensure_ascii=len(fields) % 2 == 0).encode()
    assert read(document, "application/json", limits=FormLimits()).fields == tuple(dict(fields).items())
