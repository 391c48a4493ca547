"""JSON bodies: pictures in every form, types kept, long strings, and what is no document."""

from __future__ import annotations

import json

import pybase64
import pytest

from gateway.http.form import FilePart, Form, FormLimits
from tests.support.bodies import BASE64, DATA_URL, IMAGE, named, read, read_json, refused


@pytest.mark.parametrize(
    ("document", "files"),
    [
        ({"images": [{"image_url": DATA_URL.decode()}, {"image_url": BASE64.decode()}]}, [IMAGE, IMAGE]),
        ({"images": [{"type": "input_image", "image_url": {"url": DATA_URL.decode()}}]}, [IMAGE]),
        ({"image": DATA_URL.decode()}, [IMAGE]),
        ({"image": [BASE64.decode(), {"image_url": DATA_URL.decode()}]}, [IMAGE, IMAGE]),
        ({"image_url": DATA_URL.decode(), "mask": BASE64.decode()}, [IMAGE, named("mask")]),
        ({"image": None, "mask": {"image_url": DATA_URL.decode()}}, [named("mask")]),
        (
            {"image[1]": BASE64.decode(), "image[0]": pybase64.b64encode(b"0").decode()},
            [named("image", None, b"0"), IMAGE],
        ),
        ({"images": []}, []),
    ],
)
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
        (b'{"images": [{"image_url": "ftp://x/a.png"}]}', "images[0].image_url", "image_url_unsupported"),
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
)
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


def large(**values: object) -> bytes:
    """A document with these values."""
    return json.dumps(values).encode()


def test_long_strings_in_json_are_kept() -> None:
    """Long texts and pictures come through whole, wherever they stand, with escapes and with PHP's escaped slashes."""
    picture = b"\xff\xfe\xfd" * 20_000
    encoded = pybase64.b64encode(picture).decode()
    prompt = 'a "quoted" \\ ☃ ' * 2_000
    document = large(q='"', images=[{"image_url": f"data:image/png;base64,{encoded}"}], p=prompt, o={"deep": [prompt]})
    expected = Form(
        files=(named("image", None, picture),),
        fields=(("q", '"'), ("p", prompt), ("o", {"deep": [prompt]})),
        typed=True,
    )

    assert read(document, "application/json", limits=LARGE) == expected
    assert read(document.replace(b"/", rb"\/"), "application/json", limits=LARGE) == expected
    lines = document.replace(encoded[:64].encode(), encoded[:64].encode() + rb"\r\n", 1)
    assert read(lines, "application/json", limits=LARGE) == expected


@pytest.mark.parametrize(
    ("document", "param", "code"),
    [
        (large(p="x" * 100_001), "p", "string_above_max_length"),
        (large(o=[{"a": "x" * 100_001}]), "o", "string_above_max_length"),
        (large(p="\\" * 100_001), "p", "string_above_max_length"),
        (large(p='"' * 100_001), None, "string_above_max_length"),
        (large(p=["x"] * 30_000), None, "string_above_max_length"),
        (large(**{"x" * 20_000: 1}), None, "invalid_json"),
        (large(o={"x" * 20_000: 1}), None, "invalid_json"),
        (b'{"p": "' + b"x" * 20_000 + b'\n"}', None, "invalid_json"),
        (b'{"p": "' + b"x" * 20_000 + b'\\ud800"}', None, "invalid_json"),
        (b'{"p": "' + b"x" * 20_000, None, "invalid_json"),
        (large(image=pybase64.b64encode(b"x" * ((1 << 20) + 1)).decode()), "image", "file_too_large"),
    ],
    ids=range(11),
)
def test_long_strings_in_json_have_limits(document: bytes, param: str | None, code: str) -> None:
    """A long string that is no picture is held to the limit of a text, and a long name is no name."""
    error = refused(document, "application/json", LARGE)

    assert (error.param, error.code) == (param, code)
