"""Image fields of a form: their names, and images sent as text (data URLs, base64), whatever escapes surround them."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field

import pybase64

from gateway.file_names import parsed
from gateway.http.body import SLICE_BYTES, FormLimits
from gateway.http.errors import ApiError, invalid, too_large
from normalization.parameters.nesting import excerpt
from providers.http.bodies import ByteBuffer

_NAME = re.compile(r"(images?|image_url|mask|markup)(?:\[([0-9]{0,4})\])?")
_ADDRESS = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]{0,20})://")
# The longest address that is taken: those that are signed have a thousand or two.
_LONGEST_ADDRESS = 8192
_HEAD_BYTES = 1024
# An id of OpenAI's, such as file-6F2ksmvXxt4VdoqmHRw6kL, or a name of ours. No picture's base64 begins like the one,
# and none has a dot.
_ID = re.compile(r"file[-_][A-Za-z0-9_-]+\Z|[A-Za-z0-9_-]{32,}\.[a-z]+\Z")
_LONGEST_ID = 256
_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\t\r\n"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BASE64 = re.compile(rb";\s*base64\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUrl:
    """The URL of an image. `param` is the name of the field in errors about it.

    `held` is the name of a file of ours that it is, `query` what stood behind that: then nothing is fetched.
    """

    url: str = field(repr=False)
    param: str
    held: str | None = field(default=None, repr=False)
    query: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """One file of a form. `name` is `image`, `mask` or `markup` for every spelling of these, else the field's own name.

    With an `address`, `data` is empty until it has been fetched.
    """

    name: str
    filename: str | None = None
    data: bytes = field(default=b"", repr=False)
    address: ImageUrl | None = None


def picture_name(name: str) -> tuple[str, int | None] | None:
    """`image`, `mask` or `markup`, and the index in `image[2]`; None for a name that is not an image's."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return match[1] if match[1] in ("mask", "markup") else "image", int(match[2]) if match[2] else None


def encoded_room(limits: FormLimits) -> int:
    """The longest text of an image of the largest size, in bytes: all of it percent-encoded in a data URL."""
    return limits.max_file_bytes * 3 + _HEAD_BYTES


def file_too_large(param: str, limits: FormLimits) -> ApiError:
    message = f"The file '{param}' is too large: at most {limits.max_file_bytes} bytes are accepted."
    return too_large(message, param=param, code="file_too_large")


def read_picture(name: str, data: bytes | memoryview, param: str, limits: FormLimits) -> FilePart:
    """The image in a data URL or bare base64, or its URL, or the stored file that it names.

    Raises ApiError naming `param` for anything else.
    """
    if len(data) <= _LONGEST_ID and (text := bytes(data).decode("latin-1").strip()) and _ID.match(text):
        return held_file(name, text, param)
    if (url := _address(data, param)) is not None:
        return FilePart(name=name, address=ImageUrl(url=url, param=param))
    image = _decoded(data, param)
    if not image:
        message = f"Invalid '{param}': expected a file, a data URL, base64 data or an https URL."
        raise invalid(param, message, "invalid_base64")
    if len(image) > limits.max_file_bytes:
        raise file_too_large(param, limits)
    return FilePart(name=name, data=image)


def held_file(name: str, text: str, param: str) -> FilePart:
    """The stored image of this name. Raises ApiError 400 for an id that is not this server's, such as OpenAI's."""
    if parsed(text) is None:
        message = (
            f"Invalid '{param}': '{excerpt(text)}' is not the id of an image on this server, and OpenAI's file ids "
            "are not supported. Send the image as a file, a data URL or an https URL, or name an image of this "
            "server by the last part of its URL under /files/."
        )
        raise invalid(param, message, "file_id_unsupported")
    return FilePart(name=name, address=ImageUrl(url=text, param=param, held=text))


def is_binary(data: bytes) -> bool:
    """Whether these are a file's own bytes rather than a text that encodes or names one."""
    return bool(data[:_HEAD_BYTES].translate(None, _PRINTABLE))


def _address(data: bytes | memoryview, param: str) -> str | None:
    """The URL that a text is; None for other texts."""
    match = _ADDRESS.match(bytes(data[:_HEAD_BYTES]).lstrip())
    if match is None:
        return None
    if match[1].lower() not in (b"http", b"https"):
        message = f"Invalid '{param}': an image is fetched from http(s) URLs only, not from {match[1].decode()}://."
        raise invalid(param, message, "image_url_unsupported")
    if len(data) > _LONGEST_ADDRESS:
        message = f"Invalid '{param}': the URL is longer than {_LONGEST_ADDRESS} bytes."
        raise invalid(param, message, "image_url_refused")
    return bytes(data).decode(errors="replace").strip()


def _decoded(data: bytes | memoryview, param: str) -> bytes | None:
    """The bytes in a data URL (RFC 2397) or in bare base64; None for what is neither."""
    start = bytes(data[:_HEAD_BYTES])
    head = start.lstrip()
    view = memoryview(data)[len(start) - len(head) :]
    if head[:5].lower() != b"data:":
        return from_base64(view)
    if (comma := head.find(b",")) < 0:
        raise invalid(param, f"Invalid '{param}': a data URL has a comma before its data.", "invalid_base64")
    kind, body = head[5:comma].strip(), view[comma + 1 :]
    if _BASE64.search(kind):
        if (image := from_base64(body)) is None and (plain := percent_decoded(body)) is not None:
            image = from_base64(plain)
        return image
    image = percent_decoded(body)
    if image is None:
        message = f"Invalid '{param}': the data URL has a percent sign that escapes no byte. Send it as ;base64."
        raise invalid(param, message, "invalid_base64")
    if not is_binary(image):
        told = f" of the type {excerpt(kind.decode(errors='replace'))}" if kind else ""
        message = f"Invalid '{param}': the data URL{told} has a text in it, and no png, jpeg, webp, gif or avif."
        raise invalid(param, message, "invalid_base64")
    return image


def from_base64(data: bytes | memoryview) -> bytes | None:
    """The bytes that base64 text stands for; None where it is none, or may be another's."""
    try:
        return pybase64.b64decode(data, validate=True)
    except binascii.Error:
        pass
    # White space, the URL-safe alphabet and missing padding are rare: only they pay for a copy.
    text = unwrapped(bytes(data).translate(_URL_SAFE, b"\t\r\n\f").strip())
    if text is None:
        return None
    text = text.rstrip(b"=")
    try:
        return pybase64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None


_BROKEN = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# So many bytes of an escape may stand at the end of a slice before it goes on in the next one.
_ESCAPE_BEGUN = 2
# Base64 takes so many characters for three bytes.
_GROUP = 4
# The widest indentation of a line.
_WIDEST_GAP = 64


def percent_decoded(text: bytes | memoryview) -> bytes | None:
    """The bytes that a percent-encoded text stands for (RFC 3986, 2.1); None for a `%` that escapes nothing.

    Line breaks and tabs are no part of it, as in browsers. It goes in slices: the decoder, which is the one for
    quoted-printable, keeps the interpreter to itself while it works on one.
    """
    view, decoded, carried = memoryview(text), ByteBuffer(), b""
    for start in range(0, len(view), SLICE_BYTES):
        stop = start + SLICE_BYTES
        piece = carried + bytes(view[start:stop]).translate(None, b"\t\r\n")
        cut = piece.rfind(b"%", max(0, len(piece) - _ESCAPE_BEGUN)) if stop < len(view) else -1
        piece, carried = (piece[:cut], piece[cut:]) if cut >= 0 else (piece, b"")
        if _BROKEN.search(piece):
            return None
        decoded.add(binascii.a2b_qp(piece.replace(b"=", b"%3D").replace(b"%", b"=")))
    return decoded.bytes()


def unwrapped(text: bytes) -> bytes | None:
    """Base64 without the spaces that wrap it; None where they may be `+` that a form has turned into spaces.

    What wraps base64 makes lines of equal length, a multiple of four, and leaves the whole one.
    """
    width = text.find(b" ")
    if width < 0:
        return text
    rest = text[width : width + _WIDEST_GAP]
    gap = len(rest) - len(rest.lstrip(b" "))
    between = [text[width + at :: width + gap] for at in range(gap)]
    spaces = sum(len(column) for column in between)
    regular = all(not column.strip(b" ") for column in between) and text.count(b" ") == spaces
    if width % _GROUP or not regular or (len(text) - spaces) % _GROUP:
        return None
    return text.replace(b" ", b"")
