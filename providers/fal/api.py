"""Requests to fal that carry our key. They go to configured origins alone."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

import httpx

from providers.base import Undecodable, Unknown
from providers.clock import CLOCK, Clock
from providers.fal.responses import NAME
from providers.http.bodies import Body, Json, read_body, read_json
from providers.http.cause import host_in
from providers.http.client import Unanswered, polling, submitting

# fal-client refuses to send a time to start of a second or less.
_LEAST_START_S = 2


@dataclass(frozen=True, slots=True)
class Api:
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

        Without `signed` our key is not sent along. Raises Unanswered where there is no whole answer in `timeout_s`
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
            raise Unanswered(f"{NAME}: no answer in {timeout_s:g} seconds") from exc
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
