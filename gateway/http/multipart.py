"""multipart/form-data to its parts, in memory, while the body is still arriving."""

from __future__ import annotations

import binascii
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from gateway.http.body import FormLimits, feed, off_loop
from gateway.http.errors import ApiError, invalid
from gateway.http.headers import HeaderValue, last, read_header
from gateway.http.image_fields import encoded_room, file_too_large, from_base64, picture_name
from normalization.parameters.nesting import excerpt
from providers.http.bodies import ByteBuffer

# What may follow a boundary on its line: the line's end, the dashes of a body without parts, padding.
_BEHIND = rb"(?=[\r\- \t])"


class Preamble:
    """Passes a body on from its first boundary, and throws away what comes before it, as it comes.

    `skipped` says that there was something, `passed` that the boundary has been found.
    """

    def __init__(self, boundary: bytes, write: Callable[[bytes], object]) -> None:
        self.skipped = self.passed = False
        self._line = b"\r\n--" + boundary
        self._whole = re.compile(re.escape(self._line) + _BEHIND)
        self._write = write
        # A boundary begins a line, and the body is the beginning of one.
        self._tail = b"\r\n"

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if self.passed:
            self._write(data)
            return
        data = self._tail + data
        if (found := self._whole.search(data)) is not None:
            self.passed = True
            self._write(data[found.start() + 2 :])
            return
        kept = self._begun_at(data)
        self.skipped = self.skipped or kept > 0
        self._tail = data[kept:]

    def _begun_at(self, data: bytes) -> int:
        """Where the line of a boundary begins that is not all there; the end of the data where none does."""
        start = data.rfind(b"\r", max(0, len(data) - len(self._line)))
        return start if start >= 0 and self._line.startswith(data[start:]) else len(data)


_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)
_IDENTITY = ("", "7bit", "8bit", "binary")
_DISPOSITION, _TYPE, _ENCODING = "content-disposition", "content-type", "content-transfer-encoding"
_SPELT = {_DISPOSITION: "Content-Disposition", _TYPE: "Content-Type", _ENCODING: "Content-Transfer-Encoding"}

Kind = Literal["file", "text", "picture"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part, decoded. A part with a picture's name that does not say that it is a file is of the kind `image`."""

    kind: Kind
    name: str
    filename: str | None
    charset: str
    data: bytes = field(repr=False)


async def read_multipart(
    boundary: str, content_length: int | None, chunks: AsyncIterator[bytes], limits: FormLimits
) -> list[Part]:
    """The parts in the order sent. Raises ApiError 400 for what is no complete multipart body, 413 over a limit."""
    reader = _Reader(limits)
    try:
        parser = MultipartParser(
            boundary.encode(),
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.header_name,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_headers_finished": reader.headers_finished,
                "on_part_data": reader.data,
                "on_part_end": reader.end,
                "on_end": reader.finish,
            },
            max_header_size=limits.max_header_bytes,
        )
        preamble = Preamble(boundary.encode(), parser.write)
        await feed(chunks, content_length, limits, preamble.write)
    except FormParserError as error:
        raise _unreadable(f"{reader.place} is not valid multipart/form-data ({error})") from error
    if preamble.skipped and not preamble.passed:
        raise _unreadable(
            f"none of its lines (which end in CRLF) is the boundary '--{excerpt(boundary)}' that the Content-Type names"
        )
    if not reader.finished:
        raise invalid(None, "The request body was cut short: its closing boundary is missing.", "truncated_body")
    raws = reader.parts
    raws.reverse()
    parts: list[Part] = []
    while raws:  # one after the other, so that what a part was decoded from can go before the next
        parts.append(await _decode(raws.pop()))
    return parts


@dataclass(frozen=True, slots=True)
class _Heading:
    """What a part's headers say."""

    kind: Kind
    name: str
    filename: str | None
    charset: str
    encoding: str


class _Reader:
    """Takes the parser's events and keeps the parts; every limit is checked before the bytes are kept."""

    def __init__(self, limits: FormLimits) -> None:
        self.parts: list[tuple[_Heading, bytes]] = []
        self.finished = False
        self._limits = limits
        self._begun = 0
        self._files = 0
        self._name = bytearray()
        self._value = bytearray()
        self._headers: dict[str, str] = {}
        self._heading = _Heading("text", "", None, "", "")
        self._room = 0
        self._data = ByteBuffer()

    def begin(self) -> None:
        self._begun += 1
        if self._begun > self._limits.max_parts:
            raise invalid(None, f"The form has too many parts: at most {self._limits.max_parts}.", "too_many_parts")
        self._headers = {}

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        name, value = _text(self._name).lower(), _text(self._value)
        self._name, self._value = bytearray(), bytearray()
        # Of what nobody reads there may be any number.
        if name in _SPELT and self._headers.setdefault(name, value) != value:
            raise _unreadable(f"{self.place} has two different headers {_SPELT[name]}")

    @property
    def place(self) -> str:
        """Where the reader is, in words: the part, by its name too where that is known, and its header."""
        if not self._begun:
            return "it"
        try:
            named = f" ('{excerpt(_name_of(read_header(self._headers.get(_DISPOSITION, ''))[1]))}')"
        except ValueError:
            named = ""
        header = f"the header '{excerpt(_text(self._name))}' of " if self._name else ""
        return f"{header}part {self._begun}{named}"

    def headers_finished(self) -> None:
        try:
            self._heading = heading = _heading(self._headers)
        except ValueError as error:
            raise _unreadable(f"the Content-Disposition of part {self._begun} {error}") from error
        self._data = ByteBuffer()
        if heading.kind == "text":
            self._room = self._limits.max_text_bytes
            return
        self._files += 1
        if self._files > self._limits.max_files:
            message = f"The form has too many files: at most {self._limits.max_files}."
            raise invalid(heading.name, message, "too_many_files")
        plain = heading.kind == "file" and heading.encoding in _IDENTITY
        self._room = self._limits.max_file_bytes if plain else encoded_room(self._limits)

    def data(self, data: bytes, start: int, end: int) -> None:
        self._room -= end - start
        if self._room < 0:
            raise _over(self._heading, self._limits)
        self._data.add(memoryview(data)[start:end])

    def end(self) -> None:
        self.parts.append((self._heading, self._data.bytes()))

    def finish(self) -> None:
        self.finished = True


def _heading(headers: Mapping[str, str]) -> _Heading:
    """The name and kind of a part; nothing but its name has to be readable.

    Raises ValueError where there is no name, with what is wrong with the Content-Disposition, and ApiError 400 for an
    encoding that is not taken.
    """
    disposition = read_header(headers.get(_DISPOSITION, ""))[1]
    try:
        media_type, parameters = read_header(headers.get(_TYPE, ""))
    except ValueError:
        media_type, parameters = "", ()
    name = _name_of(disposition)
    filename = _filename(disposition)
    kind: Kind = "picture" if picture_name(name) else "text"
    if filename is not None or media_type.startswith("image/"):
        kind = "file"
    encoding = headers.get(_ENCODING, "").strip().lower()
    if encoding not in (*_IDENTITY, "base64", *(("quoted-printable",) if kind == "text" else ())):
        message = f"The Content-Transfer-Encoding '{excerpt(encoding)}' of '{excerpt(name)}' is not taken for a {kind}."
        raise invalid(name, message, "unsupported_transfer_encoding")
    return _Heading(kind, name, filename, last(parameters, "charset") or "utf-8", encoding)


def _name_of(disposition: tuple[HeaderValue, ...]) -> str:
    """A part's name. Raises ValueError, with what is wrong, where not every program would read the same one."""
    names = [one for one in disposition if one.name == "name"]
    if len(names) > 1:
        raise ValueError("has more than one name")
    if not names or not (name := _unescape(names[0].value)):
        raise ValueError("has no name")
    if not names[0].plain:
        raise ValueError(f"has a name that cannot be read ('{excerpt(name)}'): write a quote in it as %22")
    return name


def _filename(disposition: tuple[HeaderValue, ...]) -> str | None:
    """The last `filename*` that can be read, else the last `filename`: nothing depends on it but that there is one."""
    encoded = last(disposition, "filename*")
    if (extended := _EXTENDED.fullmatch(encoded or "")) is not None:
        return unquote(extended[2], encoding=extended[1], errors="replace")
    plain = last(disposition, "filename")
    found = encoded if plain is None else plain
    return None if found is None else _unescape(found)


def _unescape(text: str) -> str:
    """The three characters that browsers and the SDKs escape in names, and no others."""
    return text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _text(header: bytearray) -> str:
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")


async def _decode(raw: tuple[_Heading, bytes]) -> Part:
    """A part without its Content-Transfer-Encoding; a picture's own size is for the form to check."""
    heading, data = raw
    if heading.encoding == "quoted-printable":
        data = binascii.a2b_qp(data)
    elif heading.encoding == "base64":
        plain = await off_loop(len(data), from_base64, data)
        if plain is None:
            raise invalid(heading.name, f"Invalid '{heading.name}': it is not valid base64.", "invalid_base64")
        data = plain
    return Part(kind=heading.kind, name=heading.name, filename=heading.filename, charset=heading.charset, data=data)


def _over(heading: _Heading, limits: FormLimits) -> ApiError:
    if heading.kind != "text":
        return file_too_large(heading.name, limits)
    message = f"Invalid '{heading.name}': string too long. Expected a string of at most {limits.max_text_bytes} bytes."
    return invalid(heading.name, message, "string_above_max_length")


def _unreadable(reason: str) -> ApiError:
    return invalid(None, f"The request body cannot be read: {reason}.", "invalid_multipart")
