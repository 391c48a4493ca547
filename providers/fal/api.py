"""fal's HTTP API: requests that carry our key, to configured origins only; and uploads to its storage."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import httpx

from normalization.values import Image, Value
from providers.clock import CLOCK, Clock
from providers.errors import Failed, Undecodable, Unknown, Unreached
from providers.fal.responses import NAME, at, failure
from providers.http.bodies import Body, Json, json_body, read_body, read_json
from providers.http.errors import NoAnswer, host_in, polling, submitting
from providers.http.ssrf import UrlForbidden, UrlPolicy
from providers.kit.uploads import map_images

# fal-client refuses to send a time to start of a second or less.
_LEAST_START_S = 2


@dataclass(frozen=True, slots=True)
class FalApi:
    """What a request needs: the client, the key (None: not configured), and the clock that deadlines are read from."""

    http: httpx.AsyncClient
    key: str | None = field(repr=False)
    clock: Clock = CLOCK

    @property
    def authorization(self) -> dict[str, str]:
        """`Key` and not `Bearer`, which fal keeps for login tokens (fal-client: AuthCredentials)."""
        return {"authorization": f"Key {self.key}"}

    async def post(
        self, url: str, body: Body, headers: dict[str, str], *, until: float, cap: int
    ) -> tuple[httpx.Response, bytes | None]:
        """Post what may buy something, and return the answer with its body; None where that broke off or is too large.

        `until` is a reading of the clock. Raises Unreached where nothing was sent, and Unknown where no
        status came back.
        """
        seen: httpx.Response | None = None
        timeout = httpx.Timeout(None, connect=5.0, pool=5.0)
        try:
            async with self.clock.timeout_at(until):
                with submitting(NAME):
                    request = self.http.stream(
                        "POST", url, content=body, headers=headers | body.headers | self.authorization, timeout=timeout
                    )
                    async with request as response:
                        seen = response
                        return response, await read_body(response, cap)
        except (Unknown, Undecodable) as exc:
            if seen is None:
                raise Unknown(str(exc)) from exc
        except TimeoutError as exc:
            if seen is None:
                raise Unknown(f"{NAME}: no answer from {host_in(url)} in time") from exc
        return seen, None

    async def ask(
        self, method: str, url: str, *, timeout_s: float, cap: int, signed: bool = True
    ) -> tuple[httpx.Response, Json]:
        """Send what may be sent again, and return the answer with its JSON; None where it is none.

        Without `signed` our key is not sent along. Raises NoAnswer where there is no whole answer in `timeout_s`
        seconds, and Undecodable above `cap` bytes.
        """
        try:
            # httpx's own timeout starts anew with every byte.
            async with asyncio.timeout(timeout_s):
                with polling(NAME):
                    headers = self.authorization if signed else {}
                    async with self.http.stream(method, url, headers=headers) as response:
                        body = await read_body(response, cap)
        except TimeoutError as exc:
            raise NoAnswer(f"{NAME}: no answer in {timeout_s:g} seconds") from exc
        return response, await loose_json(body)


async def loose_json(body: bytes | None) -> Json:
    """Return a body's JSON, None where it is none."""
    try:
        return await read_json(body) if body else None
    except Undecodable:
        return None


def submit_headers(left_s: float) -> dict[str, str]:
    """Return what a submit asks of fal: fal.ai/docs, common parameters.

    One try (the gateway has other routes), this model and no other, and no start after the deadline.
    """
    return {
        "x-fal-no-retry": "1",
        "x-app-fal-disable-fallback": "true",
        "x-fal-request-timeout": str(max(_LEAST_START_S, math.ceil(left_s))),
    }


_ATTEMPTS = 2
_ANSWER_BYTES = 100_000
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Puts pictures where fal's models can fetch them, as fal's own JavaScript client does.

    Our key goes to `rest_url` alone; the address that is told there to put the picture at is a stranger's, so
    `url_policy` and the client for `downloads` see to it. An upload costs nothing, so it is tried twice. `timeout_s` is
    for one try.
    """

    api: FalApi
    downloads: httpx.AsyncClient
    url_policy: UrlPolicy
    rest_url: str
    timeout_s: float

    async def job_ref(self, payload: Mapping[str, Value]) -> dict[str, Value]:
        """Return `payload` with an address in the place of each picture.

        Raises Unreached where that fails: nothing was submitted. Raises Unusable, Throttled and the like as fal says.
        """
        return await map_images(payload, self._picture)

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
            there = self.url_policy.check(address)
            async with asyncio.timeout(self.timeout_s):
                with submitting(NAME):
                    # Of its answer the status is enough; the body may be endless.
                    async with self.downloads.stream(
                        "PUT", there, content=_chunks(image.data), headers=headers
                    ) as seen:
                        status = seen.status_code
        except UrlForbidden as exc:
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
