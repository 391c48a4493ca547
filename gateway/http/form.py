"""Bytes to a form: the fields and files of a request, whichever of the accepted encodings they came in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from gateway.http.body import FormLimits, decoded, off_loop
from gateway.http.errors import ApiError, invalid
from gateway.http.headers import HeaderValue, last, read_header
from gateway.http.image_fields import FilePart, file_too_large, is_binary, picture_name, read_picture
from gateway.http.json_body import read_json
from gateway.http.multipart import Part, read_multipart
from normalization.values import Value

__all__ = ["FilePart", "Form", "FormLimits", "read_form"]

_MAX_BOUNDARY_BYTES = 256
# What is read of a Content-Type beside the type: each can be said once.
_READ = ("boundary", "charset")
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a request carries.

    `files` are in the order sent, except that `image[0]`, `image[1]` … go by their numbers. `fields` are in the order
    sent, with brackets and repetitions as they came; empty ones and nulls are left out. `typed` says that the values
    have their own types (JSON) instead of being text.
    """

    files: tuple[FilePart, ...] = ()
    fields: tuple[tuple[str, Value], ...] = ()
    typed: bool = False

    @property
    def addressed(self) -> bool:
        """Whether a picture is still to be fetched."""
        return any(file.address is not None and not file.data for file in self.files)


async def read_form(
    content_type: str, content_length: int | None, chunks: AsyncIterator[bytes], limits: FormLimits
) -> Form:
    """Read a whole body.

    `image`, `image[]`, `image[N]`, `images`, `image_url` and `mask` likewise may be files, data URLs, bare base64 or
    addresses; nothing is fetched here.
    Raises ApiError: 413 as soon as a limit is passed, 415 for a type that is not taken, 400 for everything that cannot
    be read, a body that was cut short included. It takes less memory than twice the body (three times for JSON whose
    slashes are escaped, and for a picture in percent signs).
    """
    try:
        media_type, parameters = read_header(content_type)
    except ValueError as error:
        raise _unsupported_type() from error
    read = [one.name for one in parameters if one.name in _READ]
    if len(read) != len(set(read)):
        raise _unsupported_type()
    if media_type == "multipart/form-data":
        parts = await read_multipart(_boundary(parameters), content_length, chunks, limits)
        return await _form(parts, limits)
    if media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json")):
        files, fields = await read_json(last(parameters, "charset") or None, content_length, chunks, limits)
        return Form(files=_ordered(files), fields=tuple(fields), typed=True)
    raise _unsupported_type()


async def _form(parts: list[Part], limits: FormLimits) -> Form:
    files: list[tuple[str, FilePart]] = []
    fields: list[tuple[str, Value]] = []
    parts.reverse()
    while parts:  # one after the other, so that the text of a picture can go before the next is decoded
        part = parts.pop()
        if part.kind == "text":
            text = decoded(part.data, part.charset, part.name).removeprefix(_BOM)
            if text:
                fields.append((part.name, text))
        elif not _is_absent(part):
            files.append((part.name, await _file(part, limits)))
    return Form(files=_ordered(files), fields=tuple(fields))


def _is_absent(part: Part) -> bool:
    """Whether a file's part is empty, as a browser sends it when no file was chosen."""
    return part.data.isspace() or not part.data if part.kind == "picture" else not (part.data or part.filename)


async def _file(part: Part, limits: FormLimits) -> FilePart:
    image = picture_name(part.name)
    name = image[0] if image else part.name
    if part.kind == "file" or is_binary(part.data):
        if len(part.data) > limits.max_file_bytes:
            raise file_too_large(part.name, limits)
        return FilePart(name=name, filename=part.filename, data=part.data)
    return await off_loop(len(part.data), read_picture, name, part.data, part.name, limits)


def _ordered(files: Sequence[tuple[str, FilePart]]) -> tuple[FilePart, ...]:
    """The files, pictures by the numbers in their names where each of them has one."""
    named = [(picture_name(name) or ("", None), file) for name, file in files]
    if all(number is not None for (name, number), _ in named if name == "image"):
        named.sort(key=lambda entry: entry[0][1] or 0)
    return tuple(file for _, file in named)


def _boundary(parameters: tuple[HeaderValue, ...]) -> str:
    boundary = last(parameters, "boundary") or ""
    if not boundary or len(boundary) > _MAX_BOUNDARY_BYTES or not (boundary.isascii() and boundary.isprintable()):
        message = "The Content-Type multipart/form-data needs a boundary that separates the parts of the body."
        raise invalid(None, message, "invalid_multipart")
    return boundary


def _unsupported_type() -> ApiError:
    message = "The Content-Type is not taken here: send multipart/form-data or application/json."
    return ApiError(415, message, code="unsupported_media_type")
