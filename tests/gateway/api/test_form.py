"""The front door's reading of bodies: every encoding that clients send, every limit, and no byte that breaks it."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator

import aiohttp
import httpx
import openai
import pybase64
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.errors import ApiError
from gateway.api.form import FilePart, Form, FormLimits, read_form
from normalization.values import Value

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\r\n--not-the-boundary\r\n"
BASE64 = pybase64.b64encode(PNG)
DATA_URL = b"data:image/png;base64," + BASE64
MULTIPART = "multipart/form-data; boundary=frontier"
LIMITS = FormLimits(max_body_bytes=20_000, max_file_bytes=1_000, max_text_bytes=500, max_files=3, max_parts=6)
IMAGE = FilePart(name="image", data=PNG)


def part(name: str, value: bytes, filename: str | None = None, *headers: str) -> bytes:
    """One part as most clients write it, with more headers after its disposition."""
    named = "" if filename is None else f'; filename="{filename}"'
    lines = [f'Content-Disposition: form-data; name="{name}"{named}', *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + value


def multipart(*parts: bytes) -> bytes:
    """A whole body."""
    return b"".join(b"--frontier\r\n" + one + b"\r\n" for one in parts) + b"--frontier--\r\n"


def read(
    body: bytes,
    content_type: str = MULTIPART,
    *,
    limits: FormLimits = LIMITS,
    chunk: int = 1 << 16,
    length: int | None = None,
) -> Form:
    """The form of a body that comes in chunks of this many bytes."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), chunk):
            yield body[start : start + chunk]

    return asyncio.run(read_form(content_type, length, chunks(), limits))


def read_json(document: object) -> Form:
    """The form of a JSON document."""
    return read(json.dumps(document).encode(), "application/json")


def refused(
    body: bytes, content_type: str = MULTIPART, limits: FormLimits = LIMITS, length: int | None = None
) -> ApiError:
    """The error for a body, seen to be an answer that stands alone."""
    with pytest.raises(ApiError) as caught:
        read(body, content_type, limits=limits, length=length)
    assert caught.value.message.endswith(".")
    return caught.value


def named(name: str, filename: str | None = None, data: bytes = PNG) -> FilePart:
    """A file as it is to come out."""
    return FilePart(name=name, filename=filename, data=data)


@pytest.mark.parametrize(
    ("sent", "files"),
    [
        ([part("image", PNG, "upload", "Content-Type: application/octet-stream")], [named("image", "upload")]),
        ([part("image[]", PNG, "x.png"), part("image[]", b"2", "y.png")], [named("image", "x.png"), named("image", "y.png", b"2")]),
        ([part("image[1]", b"1", "b"), part("image[0]", b"0", "a")], [named("image", "a", b"0"), named("image", "b", b"1")]),
        ([part("image[1]", b"1", "b"), part("image", b"0", "a")], [named("image", "b", b"1"), named("image", "a", b"0")]),
        ([part("mask[]", PNG, "m.png"), part("image", PNG, "i.png")], [named("mask", "m.png"), named("image", "i.png")]),
        ([part("control", PNG, "c.png")], [named("control", "c.png")]),
        ([part("image", PNG, "ж %22é%22;x.png")], [named("image", 'ж "é";x.png')]),
        ([part("image", PNG, r"a\"b.png")], [named("image", 'a"b.png')]),
        ([part("image", PNG)], [named("image")]),
        ([part("image", b"GIF89a\x01\x00")], [named("image", None, b"GIF89a\x01\x00")]),
        ([part("style", PNG, None, "Content-Type: image/png")], [named("style")]),
        ([part("image", BASE64, "a.png", "Content-Transfer-Encoding: base64")], [named("image", "a.png")]),
        ([part("image", PNG, "a.png", "Content-Transfer-Encoding: BINARY")], [named("image", "a.png")]),
        ([b"CONTENT-disposition:form-data;filename=a.png;name=image\r\n\r\n" + PNG], [named("image", "a.png")]),
        ([b"Content-Disposition: form-data; name=image; filename*=utf-8''%C3%A9.png\r\n\r\n" + PNG], [named("image", "é.png")]),
        ([b'Content-Disposition: form-data; name="image"; filename="e"; filename*=UTF-8\'de\'%C3%A9\r\n\r\nx'], [named("image", "é", b"x")]),
        ([b'Content-Disposition: form-data; name="image"; filename="\xe9.png"\r\n\r\nx'], [named("image", "é.png", b"x")]),
        ([part("image", b"", "")], []),
        ([part("image", b" \r\n")], []),
        ([part("image", b"", "empty.png")], [named("image", "empty.png", b"")]),
    ],
)  # fmt: skip
def test_files_come_under_every_name_and_heading(sent: list[bytes], files: list[FilePart]) -> None:
    """However a client names and describes a file, it arrives with its bytes under its plain name."""
    assert read(multipart(*sent)) == Form(files=tuple(files))


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


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"https://example.com/a.png", "image_url_unsupported"),
        (b" HTTP://example.com/a.png", "image_url_unsupported"),
        (b"file:///etc/passwd", "image_url_unsupported"),
        (b"data:image/png,abc", "invalid_base64"),
        (b"data:image/png;base64", "invalid_base64"),
        (b"data:image/png;base64,", "invalid_base64"),
        (b"data:image/png;base64,$$$$", "invalid_base64"),
        (b"a cat", "invalid_base64"),
        (b"A", "invalid_base64"),
    ],
)
def test_texts_that_are_no_picture_are_refused(text: bytes, code: str) -> None:
    """An address is never fetched and no text passes for a picture: both are a 400 that names the field."""
    for error in (
        refused(multipart(part("image", text))),
        refused(json.dumps({"image": text.decode()}).encode(), "application/json"),
    ):
        assert (error.status, error.param, error.code) == (400, "image", code)


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ([part("n", b"4"), part("prompt", "ein Bär ☃".encode())], [("n", "4"), ("prompt", "ein Bär ☃")]),
        ([part("n", b""), part("size", b"auto")], [("size", "auto")]),
        ([part("arr[]", b"1"), part("arr[]", b"2"), part("o[a][b]", b"x")], [("arr[]", "1"), ("arr[]", "2"), ("o[a][b]", "x")]),
        ([part("p", "é".encode("latin-1"), None, "Content-Type: text/plain; charset=ISO-8859-1")], [("p", "é")]),
        ([part("p", "☃".encode("utf-16"), None, 'Content-Type: text/plain; charset="utf-16"')], [("p", "☃")]),
        ([part("p", b"\xef\xbb\xbfx", None, "Content-Type: application/json")], [("p", "x")]),
        ([part("p", b"=C3=A9=\r\n!", None, "Content-Transfer-Encoding: quoted-printable")], [("p", "é!")]),
        ([part("p", b"w6k=", None, "Content-Transfer-Encoding: base64")], [("p", "é")]),
        ([part("a%22b;c", b"1")], [('a"b;c', "1")]),
        ([part("a;b;c;d", b"1"), part("größe", b"2")], [("a;b;c;d", "1"), ("größe", "2")]),
        ([b"Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=n\r\n\r\n4"], [("n", "4")]),
        ([part("image_size", b"hd"), part("images_per_row", b"2")], [("image_size", "hd"), ("images_per_row", "2")]),
        ([], []),
    ],
)  # fmt: skip
def test_fields_come_as_the_text_that_was_typed(sent: list[bytes], fields: list[tuple[str, Value]]) -> None:
    """Text arrives under its name and in its order, out of every charset and encoding; an empty one is absent."""
    assert read(multipart(*sent)) == Form(fields=tuple(fields))


def test_chunk_boundaries_do_not_matter() -> None:
    """The same bytes in chunks of any size, with or without a Content-Length, give the same form."""
    body = multipart(part("n", b"4"), part("image", PNG + b"\r\n--frontie\r\n--frontier", "a.png"), part("a[b]", b"x"))
    whole = read(body, length=len(body))

    assert whole.files[0].data == PNG + b"\r\n--frontie\r\n--frontier"
    for size in range(1, len(body)):
        assert read(body, chunk=size) == whole


def test_a_body_cut_short_is_never_a_form() -> None:
    """Cut at any byte before the end of the closing boundary, a body is a 400; after it nothing more is needed."""
    body = multipart(part("n", b"4"), part("image", PNG, "a.png"), part("mask", PNG, "m.png"))
    complete = len(body) - len(b"\r\n")

    for end in range(complete):
        error = refused(body[:end])
        assert (error.status, error.code) == (400, "truncated_body")
    for end in range(complete, len(body) + 1):
        assert read(body[:end]) == read(body)
    assert read(body + b"an epilogue") == read(body)


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        b'{"prompt": "a"}',
        multipart(b"no headers"),
        multipart(b"Content-Type: text/plain\r\n\r\nx"),
        multipart(b"Content-Disposition: form-data\r\n\r\nx"),
        multipart(b'Content-Disposition: form-data; name=""\r\n\r\nx'),
        multipart(b'Content-Disposition: form-data; name="a\r\n\r\nx'),
        multipart(b"Content-Disposition: form-data; name=a; name=b\r\n\r\nx"),
        multipart(part("a", b"x", None, "Content-Disposition: form-data; name=b")),
        multipart(part("a", b"x", None, "X-Long: " + "x" * 5000)),
        multipart(part("a", b"x", None, *(f"X-{index}: x" for index in range(20)))),
    ],
)
def test_garbage_is_a_400(body: bytes) -> None:
    """What cannot be read as multipart is refused as a whole."""
    error = refused(body)

    assert (error.status, error.code) == (400, "invalid_multipart")


@pytest.mark.parametrize(
    ("sent", "param", "code"),
    [
        (part("p", b"\xff\xfe\xfd"), "p", "invalid_encoding"),
        (part("p", b"x", None, "Content-Type: text/plain; charset=punycode"), "p", "unsupported_charset"),
        (part("p", b"x", None, "Content-Transfer-Encoding: x-uuencode"), "p", "unsupported_transfer_encoding"),
        (part("image", b"=", "a", "Content-Transfer-Encoding: quoted-printable"), "image", "unsupported_transfer_encoding"),
        (part("p", b"$", None, "Content-Transfer-Encoding: base64"), "p", "invalid_base64"),
    ],
)  # fmt: skip
def test_unreadable_parts_are_refused_by_name(sent: bytes, param: str, code: str) -> None:
    """A part whose encoding is unknown or broken is named."""
    error = refused(multipart(sent))

    assert (error.status, error.param, error.code) == (400, param, code)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        *(("multipart/form-data", 400), ("multipart/form-data; boundary=", 400), ("multipart/form-data; boundary=é", 400)),
        *(("multipart/form-data; boundary=" + "b" * 257, 400), ("", 415), ("text/plain", 415), ("application/xjson", 415)),
        *(("application/x-www-form-urlencoded", 415), ("multipart/mixed; boundary=x", 415), ('a/b; c="', 415), ("ж", 415)),
    ],
)  # fmt: skip
def test_other_types_are_refused_with_the_accepted_ones(content_type: str, status: int) -> None:
    """A type that is not taken is a 415 naming those that are; multipart without a usable boundary is a 400."""
    error = refused(multipart(part("n", b"1")), content_type)

    assert error.status == status
    assert "multipart/form-data" in error.message
    assert status == 400 or "application/json" in error.message


@pytest.mark.parametrize(
    ("sent", "status", "param", "code"),
    [
        ([part("image", b"x" * 1001, "a")], 413, "image", "file_too_large"),
        ([part("image", b"\x00" + b"x" * 1000)], 413, "image", "file_too_large"),
        ([part("image", pybase64.b64encode(b"x" * 1001))], 413, "image", "file_too_large"),
        ([part("image", pybase64.b64encode(b"x" * 5000))], 413, "image", "file_too_large"),
        ([part("f", pybase64.b64encode(b"x" * 1001), "a", "Content-Transfer-Encoding: base64")], 413, "f", "file_too_large"),
        ([part("prompt", b"x" * 501)], 400, "prompt", "string_above_max_length"),
        ([part("image[]", PNG, "a")] * 4, 400, "image[]", "too_many_files"),
        ([part("n", b"1")] * 7, 400, None, "too_many_parts"),
        ([part("image", b"x" * 1000, "a"), part("n", b"1" * 20_000)], 413, None, "request_too_large"),
    ],
)  # fmt: skip
def test_limits_hold_in_multipart(sent: list[bytes], status: int, param: str | None, code: str) -> None:
    """One more than each limit is refused, under the name of what was too much."""
    error = refused(multipart(*sent))

    assert (error.status, error.param, error.code) == (status, param, code)


def test_what_is_at_the_limit_is_taken() -> None:
    """A limit is the largest size that is still taken."""
    sent = [part("image", b"x" * 1000, "a"), part("image", pybase64.b64encode(b"\x00" * 1000)), part("p", b"x" * 500)]

    form = read(multipart(*sent))

    assert [len(file.data) for file in form.files] == [1000, 1000]
    assert form.fields == (("p", "x" * 500),)


async def test_nothing_is_read_of_a_body_that_says_it_is_too_large() -> None:
    """A Content-Length above the limit is a 413 before the first chunk is asked for."""

    async def chunks() -> AsyncIterator[bytes]:
        pytest.fail("the body was read")
        yield b""

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


def test_openai_sdk_forms_are_read() -> None:
    """What the official SDK writes for files, lists, booleans and extra_body comes out as it was meant."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        sent.append(request)
        return httpx.Response(200, json={"created": 1, "data": []})

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        client = openai.OpenAI(api_key="k", base_url="http://gateway.test/v1", http_client=http)
        client.images.edit(
            image=[("ä.png", PNG, "image/png"), PNG],
            mask=PNG,
            prompt="☃",
            n=2,
            extra_body={
                "scale": 4,
                "tile": True,
                "arr": [1, 2],
                "obj": {"a": 1, "b": {"c": True}},
                "l": [{"a": 1}, {"a": 2}],
            },
        )
    form = read(sent[0].content, sent[0].headers["content-type"])

    assert sorted(form.files, key=lambda file: str(file.filename)) == [
        named("mask", "upload"),
        named("image", "upload"),
        named("image", "ä.png"),
    ] or {(file.name, file.data) for file in form.files} == {("image", PNG), ("mask", PNG)}
    assert dict(form.fields) | {"l": None} == {
        "prompt": "☃", "n": "2", "scale": "4", "tile": "true", "arr[]": "2",
        "obj[a]": "1", "obj[b][c]": "true", "l[][a]": "2", "l": None,
    }  # fmt: skip
    assert [value for name, value in form.fields if name == "l[][a]"] == ["1", "2"]


@pytest.mark.parametrize(
    ("document", "files"),
    [
        ({"images": [{"image_url": DATA_URL.decode()}, {"image_url": BASE64.decode()}]}, [IMAGE, IMAGE]),
        ({"images": [{"type": "input_image", "image_url": {"url": DATA_URL.decode()}}]}, [IMAGE]),
        ({"image": DATA_URL.decode()}, [IMAGE]),
        ({"image": [BASE64.decode(), {"image_url": DATA_URL.decode()}]}, [IMAGE, IMAGE]),
        ({"image_url": DATA_URL.decode(), "mask": BASE64.decode()}, [IMAGE, named("mask")]),
        ({"image": None, "mask": {"image_url": DATA_URL.decode()}}, [named("mask")]),
        ({"image[1]": BASE64.decode(), "image[0]": pybase64.b64encode(b"0").decode()}, [named("image", None, b"0"), IMAGE]),
        ({"images": []}, []),
    ],
)  # fmt: skip
def test_pictures_in_json_become_files(document: dict[str, object], files: list[FilePart]) -> None:
    """Each form of a picture in JSON gives the same file as multipart would."""
    assert read_json(document) == Form(files=tuple(files), typed=True)


def test_json_values_keep_their_types() -> None:
    """Everything but pictures, nulls and empty texts stays as the caller typed it."""
    document = {"n": 2, "s": "4", "f": 1.5, "b": True, "o": {"a": [1, None]}, "size": None, "user": "", "text": "é☃"}

    assert read_json(document) == Form(
        fields=(("n", 2), ("s", "4"), ("f", 1.5), ("b", True), ("o", {"a": [1, None]}), ("text", "é☃")), typed=True
    )


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=UTF-8", "Application/JSON", "application/vnd.x+json"]
)
def test_json_types_are_recognised(content_type: str) -> None:
    """JSON is JSON under any of its type names."""
    assert read(b'{"n": 1}', content_type) == Form(fields=(("n", 1),), typed=True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32-le"])
def test_json_in_other_unicode_forms_is_read(encoding: str) -> None:
    """The encodings that a JSON reader can tell by itself need no charset."""
    document = json.dumps({"prompt": "é☃"}, ensure_ascii=False).encode(encoding)

    assert read(document, "application/json").fields == (("prompt", "é☃"),)


@pytest.mark.parametrize(
    ("document", "param", "code"),
    [
        (b'{"images": [{"file_id": "f"}]}', "images[0].file_id", "file_id_unsupported"),
        (b'{"mask": {"file_id": "f"}}', "mask.file_id", "file_id_unsupported"),
        (b'{"images": [{"image_url": "http://x/a.png"}]}', "images[0].image_url", "image_url_unsupported"),
        (b'{"images": [{"path": "x"}]}', "images[0].path", "unknown_parameter"),
        (b'{"images": [{}]}', "images[0].image_url", "invalid_type"),
        (b'{"images": [4]}', "images[0]", "invalid_type"),
        (b'{"image": true}', "image", "invalid_type"),
        (b'{"images": ["AA==", "AA==", "AA==", "AA=="]}', "images", "too_many_files"),
        (b'{"image": "' + pybase64.b64encode(b"x" * 1001) + b'"}', None, "string_above_max_length"),
        (b'{"n": 1, "n": 2}', None, "invalid_json"),
        (b'{"n": NaN}', None, "invalid_json"),
        (b'{"n": 1e999}', None, "invalid_json"),
        (b'{"n": "\\ud800"}', None, "invalid_json"),
        (b'{"n": ' + b"[" * 400, None, "invalid_json"),
        (b'{"n": "\xff"}', None, "invalid_encoding"),
        (b'{"n": 1', None, "invalid_json"),
        (b'{"n": "1', None, "invalid_json"),
        (b"[1]", None, "invalid_json"),
        (b"", None, "invalid_json"),
        (b'{"n": "' + b"x" * 600 + b'"}', None, "string_above_max_length"),
    ],
)  # fmt: skip
def test_json_that_cannot_be_used_is_refused(document: bytes, param: str | None, code: str) -> None:
    """Each mistake in a JSON body is a 400 that says where and what."""
    error = refused(document, "application/json")

    assert (error.status, error.param, error.code) == (400, param, code)


def test_json_charsets_are_honoured_or_refused() -> None:
    """A declared charset is used; one that is not known is named in the refusal."""
    document = '{"p": "é"}'.encode("latin-1")

    assert read(document, "application/json; charset=iso-8859-1").fields == (("p", "é"),)
    error = refused(document, "application/json; charset=rot13")
    assert error.code == "unsupported_charset"
    assert "rot13" in error.message


LARGE = FormLimits(max_body_bytes=4 << 20, max_file_bytes=1 << 20, max_text_bytes=100_000)


def _large_json(**values: object) -> bytes:
    return json.dumps(values).encode()


def test_long_strings_in_json_are_kept() -> None:
    """Long texts and pictures come through whole, wherever they stand, with escapes and with PHP's escaped slashes."""
    picture = b"\xff\xfe\xfd" * 20_000
    encoded = pybase64.b64encode(picture).decode()
    prompt = 'a "quoted" \\ ☃ ' * 2_000
    document = _large_json(images=[{"image_url": f"data:image/png;base64,{encoded}"}], p=prompt, o={"deep": [prompt]})
    expected = Form(
        files=(named("image", None, picture),), fields=(("p", prompt), ("o", {"deep": [prompt]})), typed=True
    )

    assert read(document, "application/json", limits=LARGE) == expected
    assert read(document.replace(b"/", rb"\/"), "application/json", limits=LARGE) == expected
    lines = document.replace(encoded[:64].encode(), encoded[:64].encode() + rb"\r\n", 1)
    assert read(lines, "application/json", limits=LARGE) == expected


@pytest.mark.parametrize(
    ("document", "param", "code"),
    [
        (_large_json(p="x" * 100_001), "p", "string_above_max_length"),
        (_large_json(o=[{"a": "x" * 100_001}]), "o", "string_above_max_length"),
        (_large_json(p="\\" * 100_001), "p", "string_above_max_length"),
        (_large_json(p='"' * 100_001), None, "string_above_max_length"),
        (_large_json(p=["x"] * 30_000), None, "string_above_max_length"),
        (_large_json(**{"x" * 20_000: 1}), None, "invalid_json"),
        (_large_json(o={"x" * 20_000: 1}), None, "invalid_json"),
        (b'{"p": "' + b"x" * 20_000 + b'\n"}', None, "invalid_json"),
        (b'{"p": "' + b"x" * 20_000 + b'\\ud800"}', None, "invalid_json"),
        (b'{"p": "' + b"x" * 20_000, None, "invalid_json"),
        (_large_json(image=pybase64.b64encode(b"x" * ((1 << 20) + 1)).decode()), "image", "file_too_large"),
    ],
    ids=range(11),
)  # fmt: skip
def test_long_strings_in_json_have_limits(document: bytes, param: str | None, code: str) -> None:
    """A long string that is no picture is held to the limit of a text, and a long name is no name."""
    error = refused(document, "application/json", LARGE)

    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize("kind", ["file", "text", "json"])
def test_memory_stays_below_twice_the_body(kind: str) -> None:
    """Reading a picture of ten megabytes takes little more than the picture and the text that it came in."""
    picture = bytes(range(256)) * (10_000_000 // 256)
    encoded = pybase64.b64encode(picture)
    body, content_type = {
        "file": (multipart(part("image", picture, "a.png")), MULTIPART),
        "text": (multipart(part("image", DATA_URL[:22] + encoded)), MULTIPART),
        "json": ('{"prompt": "😀", "image": "'.encode() + encoded + b'"}', "application/json"),
    }[kind]
    tracemalloc.start()
    form = read(body, content_type, limits=FormLimits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert form.files[0].data == picture
    assert peak < {"file": 1.2, "text": 2, "json": 2}[kind] * len(body)


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
    [b"--frontier", b"--frontier\r\n", b"--", b"\r\n", b"\r\n\r\n", part("n", b"1"), part("image", PNG, "a"), b'"', b";", b"="]
    + [b"Content-Disposition: form-data; name=", b"Content-Type: text/plain; charset=", b"utf-16", b"base64", b"\\", b"%22"]
    + [b"Content-Transfer-Encoding: ", b"quoted-printable", DATA_URL, b'{"image":"', b'"}', b"{", b"[", b"]", b",", b":"]
)  # fmt: skip


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
    escaped = [(name.replace('"', "%22"), value) for name, value in fields]
    unmarked = tuple((name, value.removeprefix("\ufeff")) for name, value in fields)

    assert read(multipart(*(part(name, value.encode()) for name, value in escaped))).fields == tuple(
        (name, value) for name, value in unmarked if value
    )
    assert read_json(dict(fields)).fields == tuple(dict(fields).items())
