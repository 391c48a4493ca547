"""Pictures by address: several at once, what they may take together, and what is told when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.http.errors import ApiError
from gateway.http.form import FilePart, Form
from gateway.http.image_fields import ImageUrl
from gateway.http.image_urls import AT_ONCE, ImageFetcher
from gateway.settings import GatewaySettings
from gateway.settings.loader import SHIPPED, load
from providers.http.download import downloads_client
from providers.http.ssrf import UrlPolicy
from tests.simulators.common import Served, serve

SETTINGS = load(SHIPPED, {}).gateway


class Shelf:
    """A server of pictures: `/5` gives five bytes after a while, `/slow` nothing, `/404` that status."""

    def __init__(self) -> None:
        self.now = self.most = self.come = self.left = 0

    async def give(self, request: Request) -> Response:
        """Answer, and count how many wait at once, and who left before."""
        what = request.path_params["what"]
        self.come += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if what == "slow":
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                self.left += 1
            await asyncio.sleep(0.05)
        finally:
            self.now -= 1
        return Response(status_code=404) if what == "404" else Response(b"x" * int(what) if what.isdigit() else b"")


@asynccontextmanager
async def shelf(settings: GatewaySettings = SETTINGS) -> AsyncIterator[tuple[Shelf, Served, ImageFetcher]]:
    """A shelf, where it is, and what fetches from there."""
    books = Shelf()
    with serve(Starlette(routes=[Route("/{what}", books.give)])) as served:
        url_policy = UrlPolicy(allow=frozenset({served.origin}), discreet=True)
        async with downloads_client(url_policy) as client:
            yield books, served, ImageFetcher(client=client, url_policy=url_policy, settings=settings)


def form(served: Served, *names: str, data: bytes = b"") -> Form:
    """A form with pictures at these names of the shelf, and one that was sent."""
    files = [
        FilePart(name="image", address=ImageUrl(url=f"{served.url}/{name}?key=secret", param=f"image[{number}]"))
        for number, name in enumerate(names)
    ]
    return Form(files=(FilePart(name="image", data=data), *files))


async def refused(fetching: ImageFetcher, asked: Form) -> ApiError:
    """What a form is refused with."""
    with pytest.raises(ApiError) as caught:
        await fetching.fetched(asked)
    assert "secret" not in caught.value.message
    return caught.value


async def test_pictures_come_at_once_and_in_their_order() -> None:
    """Each in the place of its address, a few at a time; what was sent stays as it is."""
    async with shelf() as (books, served, fetching):
        sizes = [str(size) for size in range(1, 13)]
        found = await fetching.fetched(form(served, *sizes, data=b"sent"))

    assert [len(file.data) for file in found.files] == [4, *range(1, 13)]
    assert not found.addressed
    assert 2 <= books.most <= 4


async def test_pictures_are_bounded_one_by_one_and_together() -> None:
    """The limit of a picture, and that of a request over all of its pictures, those that were sent among them."""
    settings = limited(max_upload_bytes=50, max_body_bytes=120)
    async with shelf(settings) as (_, served, fetching):
        assert not (await fetching.fetched(form(served, "50", "50", data=b"x" * 20))).addressed
        one = await refused(fetching, form(served, "5", "51"))
        all_of_them = await refused(fetching, form(served, "50", "50", data=b"x" * 21))

    assert (one.status, one.code, one.param) == (413, "file_too_large", "image[1]")
    assert (all_of_them.status, all_of_them.code) == (413, "request_too_large")


async def test_the_first_failure_ends_the_others() -> None:
    """Nothing is waited for that no picture can come of any more; the one that failed is named."""
    async with shelf() as (books, served, fetching):
        error = await refused(fetching, form(served, "slow", "404", "slow"))
        for _ in range(200):
            await asyncio.sleep(0.01)
            if books.left == 2:
                break

    assert (error.status, error.code, error.param) == (400, "image_url_unreachable", "image[1]")
    assert error.message.endswith("127.0.0.1 answered HTTP 404.")
    assert books.left == 2


async def test_whoever_is_late_is_named() -> None:
    """One deadline for all pictures of a request."""
    async with shelf(limited(url_timeout_s=0.3)) as (_, served, fetching):
        error = await refused(fetching, form(served, "5", "slow"))

    assert (error.status, error.code, error.param) == (400, "image_url_unreachable", "image[1]")
    assert "127.0.0.1 did not give the picture within 0.3 seconds" in error.message


async def test_nothing_is_asked_for_when_one_may_not_be_fetched() -> None:
    """All addresses are judged by their text before the first is fetched."""
    async with shelf() as (books, served, fetching):
        good = form(served, "5")
        bad = FilePart(name="mask", address=ImageUrl(url="https://10.0.0.1/secret", param="mask"))
        error = await refused(fetching, replace(good, files=(*good.files, bad)))

    assert (error.status, error.code, error.param) == (400, "image_url_refused", "mask")
    assert books.come == 0


async def test_the_end_of_whoever_waits_ends_the_fetch() -> None:
    """Cancelled, it leaves no connection behind."""
    async with shelf() as (books, served, fetching):
        task = asyncio.create_task(fetching.fetched(form(served, "slow")))
        for _ in range(200):
            await asyncio.sleep(0.01)
            if books.now:
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(200):
            await asyncio.sleep(0.01)
            if books.left:
                break

    assert books.left == 1


def limited(**changes: float) -> GatewaySettings:
    """The settings with other limits."""
    return SETTINGS.model_copy(update=changes)


async def test_another_keys_slow_servers_hold_up_nobody() -> None:
    """Where one key's pictures have every place, those of another key come at once all the same."""
    async with shelf() as (books, served, fetching):
        slow = [
            asyncio.create_task(fetching.fetched(form(served, "slow", "slow", "slow", "slow"), "much"))
            for _ in range(AT_ONCE // 4 + 2)
        ]
        while books.come < AT_ONCE:  # noqa: ASYNC110 - they come over sockets
            await asyncio.sleep(0.01)
        found = await fetching.fetched(form(served, "5", "6"), "little")
        assert [len(file.data) for file in found.files] == [0, 5, 6]
        assert (books.come, books.left) == (AT_ONCE + 2, 0)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert fetching.places.free == AT_ONCE
