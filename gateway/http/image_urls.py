"""Images given by URL: downloaded after the cheap checks, and before anything is bought."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import httpx

from gateway.http.errors import ApiError, invalid, too_large
from gateway.http.form import FilePart, Form
from gateway.http.image_fields import ImageUrl
from gateway.settings import GatewaySettings
from normalization.images.sniff import instead
from normalization.parameters.nesting import excerpt
from providers.fairness import FairGate
from providers.http.bodies import TooLarge
from providers.http.download import EmptyBody, Fetched, RetryLater, UnexpectedRedirect, UrlExpired, get
from providers.http.errors import NoAnswer, host_in, why
from providers.http.ssrf import UrlForbidden, UrlPolicy

AT_ONCE = 64
"""The number of images that are downloaded at once, for all clients together."""

_SPARE = 16
CONNECTIONS = AT_ONCE + _SPARE
"""With slots reserved for API keys without a download, which need not wait for another key's slow servers."""

_OF_ONE_CALL = 4
# What servers call a file of which they know nothing.
_ANYTHING = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFetcher:
    """Downloads images; API keys take turns. `client` is one of `strangers_client`, with this guard."""

    client: httpx.AsyncClient
    url_policy: UrlPolicy
    settings: GatewaySettings
    places: FairGate = field(default_factory=lambda: FairGate(AT_ONCE, spare=_SPARE))

    def check(self, form: Form) -> None:
        """Refuse URLs that may not be fetched, by their text alone. Raises ApiError 400."""
        for file in form.files:
            if file.address is not None and file.address.held is None:
                self._check(file.address)

    async def fetched(self, form: Form, owner: str = "") -> Form:
        """The form with every image in it, downloaded at once. Its other images count against the total limit too.

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

    def _check(self, address: ImageUrl) -> None:
        if not self.settings.fetch_image_urls:
            message = (
                f"Invalid '{address.param}': this server does not fetch images by URL. "
                "Send the image as a file or a data URL."
            )
            raise invalid(address.param, message, "image_url_unsupported")
        try:
            self.url_policy.check(address.url)
        except UrlForbidden as reason:
            raise _refused(address, reason) from None

    async def _fetch(self, address: ImageUrl, took: Callable[[int], None]) -> bytes:
        cap = self.settings.max_upload_bytes
        hosts: list[str] = []
        try:
            found = await get(self.client, address.url, url_policy=self.url_policy, cap=cap, took=took, at=hosts.append)
        except UrlForbidden as reason:
            raise _refused(address, reason) from None
        except TooLarge:
            message = f"The image at '{address.param}' is too large: at most {cap} bytes are accepted."
            raise too_large(message, param=address.param, code="file_too_large") from None
        except _Full:
            most = self.settings.max_body_bytes
            message = f"The images of this request are too large together: at most {most} bytes are accepted."
            raise too_large(message, param=address.param) from None
        except (UrlExpired, UnexpectedRedirect, NoAnswer) as error:
            raise _unreachable(address, f"{_way(hosts)} {_what(error)}") from None
        if (other := _other(found)) is not None:
            raise _unreachable(address, f"{_way(hosts)} answered with {other}")
        return found.data


class _Full(Exception):
    """The images are too large together."""


class _Room:
    """The bytes that are left for the images of one request."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, size: int) -> None:
        """Raises _Full if that many more bytes exceed the limit."""
        self._left -= size
        if self._left < 0:
            raise _Full


def _way(hosts: Sequence[str]) -> str:
    """Who was asked last, and by whose word: of all redirects no more is told than whose they are."""
    first, last = hosts[0], hosts[-1]
    return first if last == first else f"{first} redirects to {last}, which"


def _what(error: UrlExpired | UnexpectedRedirect | NoAnswer) -> str:
    """What a host did instead of returning an image."""
    match error:
        case UnexpectedRedirect():
            return str(error)
        case UrlExpired(status=status):
            return f"answered HTTP {status}"
        case RetryLater(status=429, retry_after=wait):
            asked = "" if wait is None else f" and asks to wait for {wait:.0f} seconds (Retry-After)"
            return f"answered HTTP 429: it is asked too often{asked}"
        case RetryLater(status=status, retry_after=wait):
            asked = "" if wait is None else f" and asks to wait for {wait:.0f} seconds (Retry-After)"
            return f"answered HTTP {status}{asked}"
        case EmptyBody():
            return "answered with an empty body"
        case _:
            return f"gave no picture: {why(error)}"


def _other(found: Fetched) -> str | None:
    """What was returned instead of an image; None for an image, and for what is labelled as one.

    Many servers have no type, or a wrong one, for pictures: it is only told of what is none by its bytes.
    """
    if found.media_type.startswith("image/") or found.media_type in _ANYTHING:
        return None
    what = instead(found.data)
    if what is None:
        return None
    return f"{excerpt(found.media_type)}: {what}{'' if what.startswith('not ') else ', not an image'}"


def _host(address: ImageUrl) -> str:
    """The host, the only part of a URL that is ever reported: the rest may contain a secret."""
    with contextlib.suppress(httpx.InvalidURL, UnicodeError, ValueError):
        return host_in(address.url)
    return "the host"


def _refused(address: ImageUrl, reason: UrlForbidden) -> ApiError:
    message = f"Invalid '{address.param}': this URL is not fetched: {reason}."
    return invalid(address.param, message, "image_url_refused")


def _unreachable(address: ImageUrl, reason: str) -> ApiError:
    message = f"Invalid '{address.param}': the image could not be fetched: {reason}."
    return invalid(address.param, message, "image_url_unreachable")
