"""fal's storage: where pictures go that are too large to travel inside of a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import cast

import httpx

from normalization.values import Image, Value
from providers.base import Failed, Unknown, Unreached
from providers.fal.api import Api, loose_json
from providers.fal.responses import NAME, at, failure
from providers.http.bodies import json_body
from providers.http.cause import host_in
from providers.http.client import submitting
from providers.http.ssrf import Forbidden, Guard

_ATTEMPTS = 2
_ANSWER_BYTES = 100_000
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Puts pictures where fal's models can fetch them, as fal's own JavaScript client does.

    Our key goes to `rest_url` alone; the address that is told there to put the picture at is a stranger's, so `guard`
    and the client for `downloads` see to it. An upload costs nothing, so it is tried twice. `timeout_s` is for one try.
    """

    api: Api
    downloads: httpx.AsyncClient
    guard: Guard
    rest_url: str
    timeout_s: float

    async def placed(self, payload: Mapping[str, Value]) -> dict[str, Value]:
        """Return `payload` with an address in the place of each picture.

        Raises Unreached where that fails: nothing was submitted. Raises Unusable, Throttled and the like as fal says.
        """
        return {name: await self._value(value) for name, value in payload.items()}

    async def _value(self, value: Value) -> Value:
        if isinstance(value, Image):
            return await self._picture(value)
        if isinstance(value, list):
            return [await self._value(item) for item in value]
        return await self.placed(value) if isinstance(value, dict) else value

    async def _picture(self, image: Image) -> str:
        lost = said = ""
        for _ in range(_ATTEMPTS):
            try:
                return await self._upload(image)
            except (Unknown, Unreached, Failed) as exc:
                lost, said = exc.told.removeprefix(f"{NAME}: "), exc.said
        raise Unreached(f"{NAME}: the picture could not be uploaded ({lost})", said=said)

    async def _upload(self, image: Image) -> str:
        body = json_body({"file_name": f"picture.{image.format}", "content_type": image.media_type})
        url = f"{self.rest_url}/storage/upload/initiate?storage_type=fal-cdn-v3"
        until = self.api.clock.now() + self.timeout_s
        response, raw = await self.api.post(url, body, {}, until=until, cap=_ANSWER_BYTES)
        answer = await loose_json(raw)
        if not response.is_success:
            raise failure(response, answer, now=time.time(), ended=False)
        there, name = at(answer, "upload_url"), at(answer, "file_url")
        if not isinstance(there, str) or not isinstance(name, str) or not name.startswith(("https://", "http://")):
            raise Unknown(f"{NAME}: the storage named no address")
        await self._put(there, image)
        return name

    async def _put(self, address: str, image: Image) -> None:
        headers = {"content-type": image.media_type, "content-length": str(len(image.data))}
        try:
            there = self.guard.check(address)
            async with asyncio.timeout(self.timeout_s):
                with submitting(NAME):
                    # Of its answer the status is enough; the body may be endless.
                    async with self.downloads.stream(
                        "PUT", there, content=_chunks(image.data), headers=headers
                    ) as seen:
                        status = seen.status_code
        except Forbidden as exc:
            raise Unreached(f"{NAME}: the storage's address may not be used: {exc}") from exc
        except TimeoutError as exc:
            raise Unknown(f"{NAME}: no answer from {host_in(there)} in time") from exc
        if not 200 <= status < 300:
            raise Unknown(f"{NAME}: the storage at {host_in(there)} answered HTTP {status}")


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(data), _CHUNK_BYTES):
        # Every transport takes any buffer; a view saves the copy that a slice of bytes would be.
        yield cast("bytes", view[start : start + _CHUNK_BYTES])
