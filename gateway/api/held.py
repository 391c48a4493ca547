"""Pictures that were made here, named by their file or by its address: read from the store, and never fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from urllib.parse import parse_qsl

from gateway.api import problems
from gateway.api.files import check_signature, not_found
from gateway.file_names import parsed
from gateway.http.errors import ApiError, too_large
from gateway.http.form import FilePart, Form
from gateway.http.image_fields import Address
from gateway.state import State
from gateway.storage import Damaged, StoreFailed


def known(form: Form, origins: Iterable[str]) -> Form:
    """The form, with the addresses of our own files told from those of others; `origins` are ours."""
    roots = tuple(f"{origin}/files/" for origin in origins)

    def one(file: FilePart) -> FilePart:
        address = file.address
        root = next((root for root in roots if address is not None and address.url.startswith(root)), None)
        if address is None or root is None:
            return file
        name, _, query = address.url.removeprefix(root).partition("?")
        return file if parsed(name) is None else replace(file, address=replace(address, held=name, query=query))

    return replace(form, files=tuple(map(one, form.files)))


async def taken(state: State, form: Form, room: Callable[[int], object] = lambda _: None) -> Form:
    """The form with the pictures in it that are files of ours.

    Whoever could fetch a file may use it, and nobody else. `room` hears of each file's bytes before these are read, and
    raises where there is none for them. Raises ApiError: 404 for one that is not there, or not any
    more, 403 where its signature is missing, 413 over a limit, 503 while the store is away.
    """
    left = state.config.gateway.max_body_bytes - sum(len(file.data) for file in form.files)
    files = list(form.files)
    for at, file in enumerate(files):
        if file.address is not None and file.address.held is not None:
            files[at] = replace(file, data=await _read(state, file.address, file.address.held, left, room))
            left -= len(files[at].data)
    return replace(form, files=tuple(files))


async def _read(state: State, address: Address, name: str, left: int, room: Callable[[int], object]) -> bytes:
    """A file's bytes, of which there may be `left`."""
    settings = state.config.gateway
    try:
        if settings.files_signed:
            check_signature(state, name, dict(parse_qsl(address.query)))
        found = await state.files.open(name)
        if found is None:
            raise not_found()
        if found.size > settings.max_upload_bytes:
            message = f"The file '{address.param}' is too large: at most {settings.max_upload_bytes} bytes are taken."
            raise too_large(message, code="file_too_large")
        if found.size > left:
            most = settings.max_body_bytes
            raise too_large(f"The pictures of this request are too large together: at most {most} bytes are taken.")
        room(found.size)
        if (file := await state.files.get(name)) is None:  # its time was over meanwhile
            raise not_found()
    except (StoreFailed, Damaged) as error:
        raise problems.told(error) from error
    except ApiError as error:
        error.param = address.param
        raise
    return file.data
