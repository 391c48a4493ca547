"""Pictures that a caller names by address: fetched after the cheap checks, and before anything is bought."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import httpx

from gateway.api.errors import ApiError, invalid, too_large
from gateway.api.form import FilePart, Form
from gateway.api.pictures import Address
from gateway.settings import GatewaySettings
from providers.base import Undecodable
from providers.download import Gone, fetch
from providers.fair_gate import FairGate
from providers.guard import Forbidden, Guard
from providers.http import Unanswered
from providers.wire import TooLarge

AT_ONCE = 64
"""So many pictures are fetched at any moment for all callers together."""

_SPARE = 16
CONNECTIONS = AT_ONCE + _SPARE
"""With those of keys that have none under way: these do not wait for another key's slow servers."""

_OF_ONE_CALL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """Fetches pictures for callers, whose keys take turns. `client` is one of `strangers_client`, with this guard."""

    client: httpx.AsyncClient
    guard: Guard
    settings: GatewaySettings
    places: FairGate = field(default_factory=lambda: FairGate(AT_ONCE, spare=_SPARE))

    def check(self, form: Form) -> None:
        """Refuse what may not be fetched by its text alone. Raises ApiError 400."""
        for file in form.files:
            if file.address is not None and file.address.held is None:
                self._check(file.address)

    async def fetched(self, form: Form, owner: str = "") -> Form:
        """The form with every picture in it, fetched at once. Its other pictures count against the whole's limit too.

        Raises ApiError: 400 for what may not or could not be fetched, 413 for what is too large. The first failure
        ends the other fetches, and so does the end of whoever waits.
        """
        self.check(form)
        places = asyncio.Semaphore(_OF_ONE_CALL)
        room = _Room(self.settings.max_body_bytes - sum(len(file.data) for file in form.files))

        async def one(file: FilePart) -> FilePart:
            if file.address is None or file.address.held is not None:
                return file
            async with places, self.places.place(owner):
                return replace(file, data=await self._fetch(file.address, room.take))

        tasks = [asyncio.create_task(one(file)) for file in form.files]
        try:
            async with asyncio.timeout(self.settings.url_timeout_s):
                files = await asyncio.gather(*tasks)
        except TimeoutError:
            late = next(
                file.address
                for file, task in zip(form.files, tasks, strict=True)
                if file.address is not None and (task.cancelled() or not task.done() or task.exception() is not None)
            )
            reason = f"{_host(late)} did not give the picture within {self.settings.url_timeout_s:g} seconds"
            raise _unreachable(late, reason) from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return replace(form, files=tuple(files))

    def _check(self, address: Address) -> None:
        if not self.settings.fetch_image_urls:
            message = (
                f"Invalid '{address.param}': this server does not fetch addresses. "
                "Send the picture as a file or a data URL."
            )
            raise invalid(address.param, message, "image_url_unsupported")
        try:
            self.guard.check(address.url)
        except Forbidden as reason:
            raise _refused(address, reason) from None

    async def _fetch(self, address: Address, took: Callable[[int], None]) -> bytes:
        cap = self.settings.max_upload_bytes
        try:
            return await fetch(self.client, address.url, guard=self.guard, cap=cap, took=took)
        except Forbidden as reason:
            raise _refused(address, reason) from None
        except TooLarge:
            message = f"The picture at '{address.param}' is too large: at most {cap} bytes are taken."
            raise too_large(message, param=address.param, code="file_too_large") from None
        except _Full:
            most = self.settings.max_body_bytes
            message = f"The pictures of this request are too large together: at most {most} bytes are taken."
            raise too_large(message, param=address.param) from None
        except Gone as gone:
            raise _unreachable(address, f"{_host(address)} answered HTTP {gone.status}") from None
        except Unanswered:
            raise _unreachable(address, f"{_host(address)} gave no whole answer") from None
        except Undecodable:
            raise _unreachable(address, f"{_host(address)} did not answer with a picture") from None


class _Full(Exception):
    """The pictures are too large together."""


class _Room:
    """How many bytes the pictures of one call may still take."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, size: int) -> None:
        """Raises _Full where there is no room for so many bytes more."""
        self._left -= size
        if self._left < 0:
            raise _Full


def _host(address: Address) -> str:
    """The host, which is all of an address that is ever told: the rest may have a key in it."""
    with contextlib.suppress(httpx.InvalidURL, UnicodeError, ValueError):
        return httpx.URL(address.url).raw_host.decode("ascii")[:80]
    return "the host"


def _refused(address: Address, reason: Forbidden) -> ApiError:
    message = f"Invalid '{address.param}': this address is not fetched: {reason}."
    return invalid(address.param, message, "image_url_refused")


def _unreachable(address: Address, reason: str) -> ApiError:
    message = f"Invalid '{address.param}': the picture could not be fetched: {reason}."
    return invalid(address.param, message, "image_url_unreachable")
