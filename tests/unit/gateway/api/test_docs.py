"""`/docs`: a page of our own, without any foreign address, that needs no API key itself."""

from __future__ import annotations

import re

import httpx
import pytest

from gateway.api.openapi.pages import pages
from gateway.app import build
from gateway.settings.loader import SHIPPED, load
from tests.support.keys import api_key

PATHS = {"/docs": "text/html", "/docs/page.css": "text/css", "/docs/page.js": "text/javascript"}


async def get(path: str, **environ: str) -> httpx.Response:
    """Ask an application that is not running: what is public needs nothing of it."""
    transport = httpx.ASGITransport(build(load(SHIPPED, environ), environ))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get(path)


@pytest.mark.parametrize(("path", "media_type"), PATHS.items())
async def test_it_is_public(path: str, media_type: str) -> None:
    """It has no information of its own; the document that it shows needs an API key."""
    answer = await get(path, DARKROOM_API_KEYS=api_key("for-nobody"))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_comes_from_elsewhere(path: str) -> None:
    """Neither by an address in the page, nor by what its policy would allow; and no markup is made of text."""
    answer = await get(path)

    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert not re.search(r"https?:|//[a-z0-9.-]+\.[a-z]|@import|url\(", answer.text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", answer.text)
    assert not re.search(r"""<script>|<style|\son[a-z]+=|\sstyle=""", answer.text)


async def test_its_parts_are_all_there() -> None:
    """Every address that the page loads is served; and it shows the document."""
    page = await get("/docs")

    parts = set(re.findall(r'(?:src|href)="(/[^"]+)"', page.text))
    assert parts == {"/docs/page.css", "/docs/page.js", "/openapi.json"}
    assert "/openapi.json" in (await get("/docs/page.js")).text


def test_the_setting_takes_it_away() -> None:
    """With `docs = false` there is neither the document nor the page."""
    served = {
        docs: {route.path for route in build(load(SHIPPED, environ), {})._app.router.table}  # type: ignore[attr-defined]
        for docs, environ in ((True, {}), (False, {"DARKROOM_GATEWAY__DOCS": "false"}))
    }

    assert served[True] - served[False] == {"/openapi.json", *PATHS}
    assert {route.path for route in pages(load(SHIPPED, {}), "0", []).guarded} == {"/openapi.json", *PATHS}
