"""Multipart bodies: every heading that clients write, in chunks of any size, cut anywhere, and too large."""

from __future__ import annotations

import pybase64
import pytest

from gateway.http.form import FilePart, Form
from normalization.values import Value
from tests.support.bodies import BASE64, PNG, multipart, named, part, read, refused

IN_BASE64 = "Content-Transfer-Encoding: base64"
QUOTED_PRINTABLE = "Content-Transfer-Encoding: quoted-printable"
FORM_DATA = b"Content-Disposition: form-data; "


def headed(header: bytes, data: bytes = PNG) -> bytes:
    """A part with exactly this header."""
    return header + b"\r\n\r\n" + data


@pytest.mark.parametrize(
    ("sent", "files"),
    [
        ([part("image", PNG, "upload", "Content-Type: application/octet-stream")], [named("image", "upload")]),
        (
            [part("image[]", PNG, "x.png"), part("image[]", b"2", "y.png")],
            [named("image", "x.png"), named("image", "y.png", b"2")],
        ),
        (
            [part("image[1]", b"1", "b"), part("image[0]", b"0", "a")],
            [named("image", "a", b"0"), named("image", "b", b"1")],
        ),
        (
            [part("image[1]", b"1", "b"), part("image", b"0", "a")],
            [named("image", "b", b"1"), named("image", "a", b"0")],
        ),
        (
            [part("mask[]", PNG, "m.png"), part("image", PNG, "i.png")],
            [named("mask", "m.png"), named("image", "i.png")],
        ),
        ([part("control", PNG, "c.png")], [named("control", "c.png")]),
        ([part("image", PNG, "ж %22é%22;x.png")], [named("image", 'ж "é";x.png')]),
        ([part("image", PNG, r"a\"b.png")], [named("image", 'a"b.png')]),
        ([part("image", PNG)], [named("image")]),
        ([part("image", b"GIF89a\x01\x00")], [named("image", None, b"GIF89a\x01\x00")]),
        ([part("style", PNG, None, "Content-Type: image/png")], [named("style")]),
        ([part("image", BASE64, "a.png", IN_BASE64)], [named("image", "a.png")]),
        ([part("image", PNG, "a.png", "Content-Transfer-Encoding: BINARY")], [named("image", "a.png")]),
        ([headed(b"CONTENT-disposition:form-data;filename=a.png;name=image")], [named("image", "a.png")]),
        ([headed(FORM_DATA + b"name=image; filename*=utf-8''%C3%A9.png")], [named("image", "é.png")]),
        ([headed(FORM_DATA + b"name=image; filename=e; filename*=UTF-8'de'%C3%A9")], [named("image", "é")]),
        ([headed(FORM_DATA + b'name="image"; filename="\xe9.png"')], [named("image", "é.png")]),
        ([headed(FORM_DATA + b'name="x; filename=y"', b"text")], []),
        ([part("image", b"", "")], []),
        ([part("image", b" \r\n"), part("mask", b"")], []),
        ([part("image", b"", "empty.png")], [named("image", "empty.png", b"")]),
    ],
)
def test_files_come_under_every_name_and_heading(sent: list[bytes], files: list[FilePart]) -> None:
    """However a client names and describes a file, it arrives with its bytes under its plain name."""
    assert read(multipart(*sent)).files == tuple(files)


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ([part("n", b"4"), part("prompt", "ein Bär ☃".encode())], [("n", "4"), ("prompt", "ein Bär ☃")]),
        ([part("n", b""), part("size", b"auto")], [("size", "auto")]),
        (
            [part("arr[]", b"1"), part("arr[]", b"2"), part("o[a]", b"x")],
            [("arr[]", "1"), ("arr[]", "2"), ("o[a]", "x")],
        ),
        ([part("p", "é".encode("latin-1"), None, "Content-Type: text/plain; charset=ISO-8859-1")], [("p", "é")]),
        ([part("p", "☃".encode("utf-16"), None, 'Content-Type: text/plain; charset="utf-16"')], [("p", "☃")]),
        ([part("p", b"\xef\xbb\xbfx", None, "Content-Type: application/json")], [("p", "x")]),
        ([part("p", b"=C3=A9=\r\n!", None, QUOTED_PRINTABLE)], [("p", "é!")]),
        ([part("p", b"w6k=", None, IN_BASE64)], [("p", "é")]),
        ([part("a%22b;c", b"1")], [('a"b;c', "1")]),
        ([part("a;b;c;d", b"1"), part("größe", b"2")], [("a;b;c;d", "1"), ("größe", "2")]),
        ([b"Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=n\r\n\r\n4"], [("n", "4")]),
        ([part("image_size", b"hd"), part("images_per_row", b"2")], [("image_size", "hd"), ("images_per_row", "2")]),
        ([], []),
    ],
)
def test_fields_come_as_the_text_that_was_typed(sent: list[bytes], fields: list[tuple[str, Value]]) -> None:
    """Text arrives under its name and in its order, out of every charset and encoding; an empty one is absent."""
    assert read(multipart(*sent)) == Form(fields=tuple(fields))


def test_chunk_boundaries_do_not_matter() -> None:
    """The same bytes in chunks of any size, with or without a Content-Length, give the same form."""
    body = multipart(part("n", b"4"), part("image", PNG + b"\r\n--frontie\r\n-frontier", "a.png"), part("a[b]", b"x"))
    whole = read(body, length=len(body))

    assert whole.files[0].data == PNG + b"\r\n--frontie\r\n-frontier"
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
        (part("image", b"=", "a", QUOTED_PRINTABLE), "image", "unsupported_transfer_encoding"),
        (part("p", b"$", None, IN_BASE64), "p", "invalid_base64"),
    ],
)
def test_unreadable_parts_are_refused_by_name(sent: bytes, param: str, code: str) -> None:
    """A part whose encoding is unknown or broken is named."""
    error = refused(multipart(sent))

    assert (error.status, error.param, error.code) == (400, param, code)


@pytest.mark.parametrize(
    ("sent", "status", "param", "code"),
    [
        ([part("image", b"x" * 1001, "a")], 413, "image", "file_too_large"),
        ([part("image", b"\x00" + b"x" * 1000)], 413, "image", "file_too_large"),
        ([part("image", pybase64.b64encode(b"x" * 1001))], 413, "image", "file_too_large"),
        ([part("image", pybase64.b64encode(b"x" * 5000))], 413, "image", "file_too_large"),
        ([part("f", pybase64.b64encode(b"x" * 1001), "a", IN_BASE64)], 413, "f", "file_too_large"),
        ([part("prompt", b"x" * 501)], 400, "prompt", "string_above_max_length"),
        ([part("image[]", PNG, "a")] * 4, 400, "image[]", "too_many_files"),
        ([part("n", b"1")] * 8, 400, None, "too_many_parts"),
        ([part("image", b"x" * 1000, "a"), part("n", b"1" * 20_000)], 413, None, "request_too_large"),
    ],
)
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


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        (b'name=image; filename="my "best" photo.png"', 'my "best" photo.png'),
        (b'name=image; filename="a"b; size=1', "a"),
        (b'name=image; filename="photo.png', "photo.png"),
        (b'name=image; filename="C:\\photos\\"', "C:\\photos\\"),
        (b'filename="C:\\photos\\"; name=image', "C:\\photos\\"),
        (b'name=image; filename="a;b \\"c\\".png"', 'a;b "c".png'),
        (b"name=image; filename=a; filename=b", "b"),
        (b"name=image; filename*=utf-8''a; filename=b", "a"),
        (b"name=image; filename=b; filename*=nonsense", "b"),
    ],
)
def test_a_files_name_as_far_as_it_can_be_read(disposition: bytes, filename: str) -> None:
    """It ends at its last quote; the last one counts, and one with a charset before one without."""
    assert read(multipart(headed(FORM_DATA + disposition))).files == (named("image", filename),)


def test_text_before_the_first_boundary_in_chunks_of_any_size() -> None:
    """What looks like a boundary there is none, wherever the chunks end."""
    body = multipart(part("n", b"4"))
    before = b"hello\r\n--front\r\n--frontiers\r\n\r--frontier\r\r\n"

    for size in range(1, len(before) + 20):
        assert read(before + body, chunk=size).fields == (("n", "4"),)
    for end in range(len(before)):
        assert refused((before + body)[:end]).code in ("invalid_multipart", "truncated_body")
