"""How clients make calls: with the official SDK and its own retries, each kind with as much care as it has."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from openai import APIConnectionError, APIStatusError, AsyncOpenAI
from PIL import Image as Pillow

from tests.chaos.calls import LARGE_SIDES, SMALL_SIDES, Call, Colour

# How long a careful client goes on, in seconds, and how often it asks again after an answer that is final.
_CARE_S = 90.0
_ASK_AGAIN = 1
_PAUSE_S = 0.3
_ENLARGED = {(2 * width, 2 * height) for width, height in (SMALL_SIDES, LARGE_SIDES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client got for a call. `status` is None where it got nothing; `right` and `wrong` count pictures.

    `final` says that the same call would be given the same answer.
    """

    call: Call
    status: int | None = None
    code: str | None = None
    job: str | None = None
    final: bool = False
    right: int = 0
    wrong: int = 0

    @property
    def is_nothing(self) -> bool:
        """Whether it is neither a picture nor an error that was told."""
        return not self.right and self.code is None


class Client:
    """All clients of a run: one SDK, and a plain HTTP client that asks for jobs."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._sdk = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=2)
        self._http = httpx.AsyncClient(timeout=10)

    async def aclose(self) -> None:
        await self._sdk.close()
        await self._http.aclose()

    async def make(self, call: Call) -> Answer:
        """Make a call, the way its kind is made."""
        if call.kind == "keyed":
            return await self._careful(call)
        answer, body = await self._once(call)
        if call.kind == "background" and answer.status == 202:
            return await self._watched(call, str(body["id"]))
        return answer

    async def _once(self, call: Call) -> tuple[Answer, Mapping[str, Any]]:
        """One call of the SDK: up to three requests."""
        sdk = self._sdk.with_options(timeout=call.timeout_s)
        try:
            raw = await sdk.images.with_raw_response.edit(**call.fields())
        except APIConnectionError:
            return Answer(call=call), {}
        except APIStatusError as error:
            job = error.response.headers.get("x-darkroom-job")
            final = error.response.headers.get("x-should-retry") == "false" or error.status_code in (400, 422)
            return Answer(call=call, status=error.status_code, code=error.code, job=job, final=final), {}
        body: Mapping[str, Any] = raw.http_response.json()
        if call.kind == "background":
            return Answer(call=call, status=raw.http_response.status_code), body
        return _answered(call, 200, body, raw.headers.get("x-darkroom-job")), body

    async def _careful(self, call: Call) -> Answer:
        """Repeat a call under its key until there is a picture, or an answer that stays."""
        until = asyncio.get_running_loop().time() + _CARE_S
        finals: list[Answer] = []
        while True:
            answer, _ = await self._once(call)
            finals += [answer] if answer.final else []
            if answer.status == 200 or len(finals) > _ASK_AGAIN or asyncio.get_running_loop().time() >= until:
                return finals[-1] if finals and answer.status is None else answer
            await asyncio.sleep(_PAUSE_S)

    async def _watched(self, call: Call, job: str) -> Answer:
        """Ask for a background job until it has ended."""
        until = asyncio.get_running_loop().time() + _CARE_S
        while asyncio.get_running_loop().time() < until:
            body: Mapping[str, Any] = {}
            try:
                response = await self._http.get(f"{self._base_url}/images/jobs/{job}", params={"wait": "2"})
                if response.status_code in (404, 410):
                    return Answer(call=call, status=response.status_code, code="job_not_found", job=job)
                body = response.json() if response.status_code == 200 else {}
            except (httpx.TransportError, ValueError):
                await asyncio.sleep(_PAUSE_S)
            if body.get("result"):
                return _answered(call, 200, body["result"], job)
            if body.get("error"):
                return Answer(call=call, status=200, code=body["error"]["code"], job=job)
        return Answer(call=call, job=job)


def _answered(call: Call, status: int, body: Mapping[str, Any], job: str | None) -> Answer:
    right = sum(is_picture_of(item["b64_json"], call.colour) for item in body["data"])
    return Answer(call=call, status=status, job=job, right=right, wrong=len(body["data"]) - right)


def is_picture_of(text: str, colour: Colour) -> bool:
    """Whether this is, in base64, the enlarged picture of this colour."""
    try:
        data = base64.b64decode(text, validate=True)
        with Pillow.open(io.BytesIO(data)) as picture:
            return picture.size in _ENLARGED and picture.convert("RGB").getpixel((20, 10)) == colour
    except (binascii.Error, OSError):
        return False
