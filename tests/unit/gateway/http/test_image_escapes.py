"""Pictures in texts as clients spell them: percent signs, wrapped base64, other alphabets, and what stays refused."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.body import SLICE_BYTES, FormLimits
from gateway.http.errors import ApiError
from gateway.http.image_fields import percent_decoded, read_picture, unwrapped
from tests.support.bodies import BASE64, PNG

LIMITS = FormLimits()


@given(st.binary(max_size=300), st.integers(0, 255).map(chr))
def test_percent_signs_stand_for_bytes(data: bytes, safe: str) -> None:
    """Whatever is escaped and whatever is not, in any case."""
    text = quote(data, safe=safe if safe.isascii() and safe != "%" else "").encode()
    assert percent_decoded(text) == data
    assert percent_decoded(text.lower()) == unquote_to_bytes(text.lower())


@pytest.mark.parametrize("shift", range(5))
def test_escapes_at_the_end_of_a_slice(shift: int) -> None:
    """They are the same wherever a slice ends, with a line break in them too."""
    text = b"a" * shift + b"%41=%3d%0A" * (SLICE_BYTES // 4)
    assert percent_decoded(text) == unquote_to_bytes(text)
    assert percent_decoded(memoryview(text.replace(b"%4", b"%\r\n4"))) == unquote_to_bytes(text)


@pytest.mark.parametrize("text", [b"%", b"a%4", b"%zz", b"%%41", b"a%" + b"%41" * SLICE_BYTES, b"%4" * SLICE_BYTES])
def test_percent_signs_that_escape_nothing(text: bytes) -> None:
    """They are no text of ours."""
    assert percent_decoded(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"AAAABBBB", b"AAAABBBB"),
        (b"AAAA BBBB", b"AAAABBBB"),
        (b"AAAA   BBBB   CC==", b"AAAABBBBCC=="),
        (b"AAAA BBBB CCC", None),  # a `+` too few
        (b"AAA BBBB", None),
        (b"AAAA BB BB", None),
        (b"AAAA  BBBB CCCC", None),
        (b"AAAA BBBBB CCC", None),
    ],
)
def test_spaces_that_wrap(text: bytes, found: bytes | None) -> None:
    """Lines of one length are wrapped; anything else may have lost its plus signs."""
    assert unwrapped(text) == found


def wrapped(at: int, by: str) -> str:
    """Base64 in lines of this length."""
    text = BASE64.decode()
    return by.join(text[start : start + at] for start in range(0, len(text), at))


SPELLINGS = {
    "percent": "data:image/png," + quote(PNG),
    "percent in lower case": "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
    "percent without a type": "data:," + quote(PNG, safe=""),
    "base64 in percent signs": "data:image/png;base64," + quote(BASE64, safe=""),
    "every byte of base64 in percent signs": "data:image/png;base64," + "".join(f"%{byte:02x}" for byte in BASE64),
    "parameters": "data:image/png;charset=utf-8;name=a.png;base64," + BASE64.decode(),
    "spaces in the head": " DATA:image/png ; BASE64 ," + BASE64.decode(),
    "lines": "data:image/png;base64,\n" + wrapped(16, "\r\n"),
    "lines, indented": "data:image/png;base64,\n    " + wrapped(16, "\n    "),
    "spaces": wrapped(8, " "),
    "no padding": "data:image/png;base64," + BASE64.decode().rstrip("="),
    "URL-safe": pybase64.urlsafe_b64encode(PNG).decode(),
    "URL-safe without padding": "data:;base64," + pybase64.urlsafe_b64encode(PNG).decode().rstrip("="),
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_picture_in_every_spelling(text: str) -> None:
    """The bytes are the picture's."""
    assert read_picture("image", text.encode(), "image", LIMITS).data == PNG


REFUSED = {
    "SVG": ("data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'/%3E", r"image/svg\+xml"),
    "a text": ("data:,hello", "no png"),
    "no comma": ("data:image/png;base64", "comma"),
    "half an escape": ("data:image/png,%89PNG%0", "percent sign"),
    "plus signs that became spaces": (BASE64.decode().replace("+", " ").replace("A", " "), "expected a file"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_picture(text: str, words: str) -> None:
    """It is said what it is instead."""
    with pytest.raises(ApiError, match=words) as caught:
        read_picture("image", text.encode(), "images[1]", LIMITS)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "images[1]", "invalid_base64")


def test_the_largest_picture_in_percent_signs() -> None:
    """The limit is that of the picture, not of how it is written."""
    limits = FormLimits(max_file_bytes=1000)
    text = "data:image/png," + "%89" * 1000
    assert len(read_picture("image", text.encode(), "image", limits).data) == 1000
    with pytest.raises(ApiError, match="at most 1000 bytes"):
        read_picture("image", f"{text}%89".encode(), "image", limits)
