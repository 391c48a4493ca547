"""multipart/form-data to its parts, in memory, while the body is still arriving."""

from __future__ import annotations

import binascii
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from gateway.api.body import FormLimits, feed, off_loop
from gateway.api.errors import ApiError, invalid
from gateway.api.pictures import encoded_room, file_too_large, from_base64, picture_name
from normalization.nesting import excerpt
from providers.gather import Gathered

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'[;\s]+({_WORD})\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^;"]*))\s*', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)
_IDENTITY = ("", "7bit", "8bit", "binary")

Kind = Literal["file", "text", "picture"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part, decoded. A part with a picture's name that does not say that it is a file is of the kind `picture`."""

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
        await feed(chunks, content_length, limits, parser.write)
    except FormParserError as error:
        raise _unreadable(f"it is not valid multipart/form-data ({error})") from error
    if not reader.finished:
        raise invalid(None, "The request body was cut short: its closing boundary is missing.", "truncated_body")
    raws = reader.parts
    raws.reverse()
    parts: list[Part] = []
    while raws:  # one after the other, so that what a part was decoded from can go before the next
        parts.append(await _decode(raws.pop()))
    return parts


def parse_header(text: str) -> tuple[str, dict[str, str]]:
    """`value; name=text; …` as the value and its parameters, both names in lower case. Raises ValueError."""
    text = text.rstrip("; \t")
    value = text.partition(";")[0]
    parameters: dict[str, str] = {}
    position = len(value)
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None or match[1].lower() in parameters:
            raise ValueError("a header of a part cannot be read")
        quoted, token = match[2], match[3]
        parameters[match[1].lower()] = _ESCAPE.sub(r"\1", quoted) if quoted is not None else token.strip()
        position = match.end()
    return value.strip().lower(), parameters


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
        self._data = Gathered()

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
        if name in self._headers:
            raise _unreadable(f"a part has the header '{excerpt(name)}' twice")
        self._headers[name] = value

    def headers_finished(self) -> None:
        self._heading = heading = _heading(self._headers)
        self._data = Gathered()
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


def _heading(headers: dict[str, str]) -> _Heading:
    """The name and kind of a part. Raises ApiError 400 where the headers do not say."""
    try:
        _, disposition = parse_header(headers.get("content-disposition", ""))
        media_type, parameters = parse_header(headers.get("content-type", ""))
    except ValueError as error:
        raise _unreadable(str(error)) from error
    name = _unescape(disposition.get("name", ""))
    if not name:
        raise _unreadable("a part has no name")
    filename = _filename(disposition)
    kind: Kind = "picture" if picture_name(name) else "text"
    if filename is not None or media_type.startswith("image/"):
        kind = "file"
    encoding = headers.get("content-transfer-encoding", "").strip().lower()
    if encoding not in (*_IDENTITY, "base64", *(("quoted-printable",) if kind == "text" else ())):
        message = f"The Content-Transfer-Encoding '{excerpt(encoding)}' of '{excerpt(name)}' is not taken for a {kind}."
        raise invalid(name, message, "unsupported_transfer_encoding")
    return _Heading(kind, name, filename, parameters.get("charset") or "utf-8", encoding)


def _filename(disposition: dict[str, str]) -> str | None:
    extended = _EXTENDED.fullmatch(disposition.get("filename*", ""))
    if extended:
        return unquote(extended[2], encoding=extended[1], errors="replace")
    plain = disposition.get("filename", disposition.get("filename*"))
    return None if plain is None else _unescape(plain)


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
