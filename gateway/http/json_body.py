"""A JSON body to its fields and images; the images never become part of the parsed document.

A picture in JSON is a base64 string of tens of megabytes. A JSON parser holds the interpreter's lock while it copies
such a string, and makes it four times as large when the prompt has an emoji. So the long strings are cut out first,
the small rest is parsed, and the pictures are decoded from where they stand.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import AsyncIterator, Iterator

from gateway.http.body import SLICE_BYTES, FormLimits, decoded, feed, off_loop
from gateway.http.errors import ApiError, invalid
from gateway.http.image_fields import FilePart, held_file, picture_name, read_picture
from normalization.parameters.coerce import is_absent
from normalization.parameters.nesting import excerpt, parse_json
from normalization.values import Value

LONG_BYTES = 16 << 10
"""Longer strings are cut out before parsing: most prompts stay, images never do."""

Contents = tuple[list[tuple[str, FilePart]], list[tuple[str, Value]]]


async def read_json(
    charset: str | None, content_length: int | None, chunks: AsyncIterator[bytes], limits: FormLimits
) -> Contents:
    """The files with their names, and the fields. Raises ApiError 400 for a body that is not a JSON object."""
    buffer = io.BytesIO()
    await feed(chunks, content_length, limits, buffer.write)
    return await off_loop(buffer.tell(), _contents, buffer, charset, limits)


def _contents(buffer: io.BytesIO, charset: str | None, limits: FormLimits) -> Contents:
    body = _utf8(buffer.getvalue(), charset)
    document = _Document(body, limits)
    files: list[tuple[str, FilePart]] = []
    fields: list[tuple[str, Value]] = []
    for name, value in document.items():
        if is_absent(value):
            continue
        image = picture_name(name)
        if image is None:
            fields.append((name, document.restored(value, name)))
            continue
        for param, text, is_id in _pictures(name, value):
            if len(files) == limits.max_files:
                raise invalid(name, f"The form has too many files: at most {limits.max_files}.", "too_many_files")
            if is_id:
                files.append((name, held_file(image[0], text, param)))
            else:
                files.append((name, read_picture(image[0], document.raw(text), param, limits)))
    return files, fields


class _Document:
    """The body's object, with marks in place of its long strings."""

    def __init__(self, body: bytes, limits: FormLimits) -> None:
        self._body = body
        self._limits = limits
        self._spans: list[tuple[int, int]] = []
        # Drawn anew each time, so that no text of a caller can pass for a mark.
        self._mark = f"{secrets.token_hex(16)}:"
        try:
            root = parse_json(decoded(self._cut(), "utf-8", None))
        except ValueError as error:
            raise _unreadable(str(error)) from error
        if not isinstance(root, dict):
            raise _unreadable("a JSON object is expected")
        self._root = root

    def items(self) -> Iterator[tuple[str, Value]]:
        for name, value in self._root.items():
            self._check_name(name)
            yield name, value

    def raw(self, text: str) -> bytes | memoryview:
        """The UTF-8 of a string of the document, from where it stands if it is a long one."""
        if not text.startswith(self._mark):
            return text.encode()
        start, end = self._spans[int(text[len(self._mark) :])]
        if self._body.find(b"\\", start, end) < 0:
            return memoryview(self._body)[start:end]
        plain = self._without_escaped_slashes(start, end)
        return plain if b"\\" not in plain else self._unescaped(start, end).encode()

    def restored(self, value: Value, param: str) -> Value:
        """The value with its long strings put back. Raises ApiError 400 for one above the limit of a text."""
        if isinstance(value, list):
            return [self.restored(item, param) for item in value]
        if isinstance(value, dict):
            for name in value:
                self._check_name(name)
            return {name: self.restored(item, param) for name, item in value.items()}
        if not isinstance(value, str) or not value.startswith(self._mark):
            return value
        start, end = self._spans[int(value[len(self._mark) :])]
        if end - start > self._limits.max_text_bytes:
            raise _too_long(param, self._limits)
        return self._unescaped(start, end)

    def _check_name(self, name: str) -> None:
        if name.startswith(self._mark):
            raise _unreadable(f"a name has more than {LONG_BYTES} bytes")

    def _without_escaped_slashes(self, start: int, end: int) -> bytes:
        """PHP writes every slash of the base64 as `\\/`: undone in pieces, so that other threads get their turn."""
        plain = io.BytesIO()
        while start < end:
            stop = min(start + SLICE_BYTES, end)
            stop += stop < end and self._body[stop - 1] == ord("\\")
            plain.write(self._body[start:stop].replace(b"\\/", b"/"))
            start = stop
        return plain.getvalue()

    def _unescaped(self, start: int, end: int) -> str:
        try:
            text = parse_json(decoded(self._body[start - 1 : end + 1], "utf-8", None))
        except ValueError as error:
            raise _unreadable(str(error)) from error
        assert isinstance(text, str)
        return text

    def _cut(self) -> bytes:
        """The body with a mark in place of each long string. Linear, and it stops when what remains is too long."""
        kept: list[bytes] = []
        body, copied, position, removed = self._body, 0, 0, 0
        while (start := body.find(b'"', position)) >= 0:
            end = self._end_of_string(start + 1)
            if end - start > LONG_BYTES:
                kept += (body[copied : start + 1], f'{self._mark}{len(self._spans)}"'.encode())
                self._spans.append((start + 1, end))
                copied = end + 1
                removed += end - start
            position = end + 1
            if position - removed > self._limits.max_text_bytes:
                break
        if len(body) - removed > self._limits.max_text_bytes:
            raise _too_long(None, self._limits)
        return b"".join((*kept, body[copied:]))

    def _end_of_string(self, start: int) -> int:
        """Where the quote stands that closes the string; the body's end if none does."""
        position = start
        while (end := self._body.find(b'"', position)) >= 0:
            if self._body[end - 1] != ord("\\"):
                return end
            before = self._body[position:end]
            if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
                return end
            if end - start > self._limits.max_text_bytes:
                raise _too_long(None, self._limits)  # a text, since base64 has no quotes: no need to look further
            position = end + 1
        return len(self._body)


def _pictures(name: str, value: Value) -> Iterator[tuple[str, str, bool]]:
    """The texts that stand for pictures, each with the parameter that a complaint names, and whether it is a file's."""
    if not isinstance(value, list):
        yield _picture(name, value)
        return
    for index, item in enumerate(value):
        yield _picture(f"{name}[{index}]", item)


def _picture(param: str, value: Value) -> tuple[str, str, bool]:
    expected, is_id = "a data URL, base64 data or an https address", False
    if isinstance(value, dict):
        given = {key: inner for key, inner in value.items() if not is_absent(inner)}
        unknown = next((key for key in given if key not in ("image_url", "file_id", "type")), None)
        if unknown is not None:
            param = f"{param}.{excerpt(unknown)}"
            raise invalid(param, f"Unknown parameter: '{param}'.", "unknown_parameter")
        if is_id := "file_id" in given:
            if "image_url" in given:
                message = f"Invalid '{param}': expected one of 'image_url' and 'file_id', not both."
                raise invalid(param, message, "parameter_conflict")
            param, value, expected = f"{param}.file_id", given["file_id"], "the name of a file"
        else:
            param, value = f"{param}.image_url", given.get("image_url")
        if not is_id and isinstance(value, dict) and value.keys() <= {"url", "detail"}:
            value = value.get("url")
    if not isinstance(value, str):
        raise invalid(param, f"Invalid type for '{param}': expected {expected}.", "invalid_type")
    return param, value, is_id


def _utf8(body: bytes, charset: str | None) -> bytes:
    found = json.detect_encoding(body[:8])
    if found == "utf-8-sig":
        return body[3:]
    encoding = charset or found if found == "utf-8" else found
    if encoding.lower() in ("utf-8", "utf8"):
        return body
    return decoded(body, encoding, None).encode()


def _too_long(param: str | None, limits: FormLimits) -> ApiError:
    subject = f"Invalid '{param}': string" if param else "The request body's text is"
    message = f"{subject} too long. Expected at most {limits.max_text_bytes} bytes beside the images."
    return invalid(param, message, "string_above_max_length")


def _unreadable(reason: str) -> ApiError:
    return invalid(None, f"The request body cannot be read as JSON: {reason}.", "invalid_json")
