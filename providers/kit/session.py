"""HTTP requests to a provider's API with its credentials: timeouts, caps, and exceptions as errors, in one place.

No message names an address, a header or a body: only the provider, the host and what happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

from providers.errors import Undecodable, Unknown
from providers.http.bodies import Body, read_body
from providers.http.errors import NoAnswer, host_in, polling, submitting

_CONNECT_S = 5.0


class HttpSession:
    """Requests of one adapter to the origins of its settings, and to no other: each carries `credentials`.

    `credentials` are the headers that hold the API key. An answer may have `most_bytes` after decompression. Redirects
    are answers like any other: they are not followed.
    """

    def __init__(
        self, provider: str, client: httpx.AsyncClient, credentials: Mapping[str, str], *, most_bytes: int
    ) -> None:
        self._provider = provider
        self._client = client
        self._credentials = dict(credentials)
        self._most_bytes = most_bytes

    async def post_json(
        self, url: str, body: Body, *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> tuple[httpx.Response, bytes]:
        """Post a JSON body and return the answer, whatever its status, with its body.

        Raises Unreached where the request certainly never left, Unknown where the answer was lost or did not come
        within `timeout_s` seconds, Undecodable where it is larger than `most_bytes`.
        """
        sent = {**(headers or {}), **body.headers, **self._credentials}
        return await self._send(self._client.build_request("POST", url, content=body, headers=sent), timeout_s)

    async def post_file(
        self, url: str, file: tuple[str, bytes, str], *, timeout_s: float
    ) -> tuple[httpx.Response, bytes]:
        """Post a file (name, content, media type) as the form field `file`. Returns and raises as `post_json`."""
        request = self._client.build_request("POST", url, files={"file": file}, headers=self._credentials)
        return await self._send(request, timeout_s)

    async def _send(self, request: httpx.Request, timeout_s: float) -> tuple[httpx.Response, bytes]:
        request.extensions["timeout"] = httpx.Timeout(timeout_s, connect=_CONNECT_S, pool=_CONNECT_S).as_dict()
        try:
            async with asyncio.timeout(timeout_s):
                with submitting(self._provider):
                    response = await self._client.send(request, stream=True)
                    try:
                        return response, await read_body(response, self._most_bytes)
                    finally:
                        await response.aclose()
        except TimeoutError as exc:
            late = f"the answer from {host_in(request.url)} did not come within {timeout_s:g} s"
            raise Unknown(f"{self._provider}: {late}") from exc

    async def get(self, url: str, *, timeout_s: float) -> tuple[httpx.Response, bytes]:
        """Request something that changes nothing, such as a job's status, and return the answer with its body.

        Raises NoAnswer where no whole answer came within `timeout_s` seconds: the request may be repeated.
        """
        try:
            async with asyncio.timeout(timeout_s):
                with polling(self._provider):
                    async with self._client.stream("GET", url, headers=self._credentials) as response:
                        return response, await read_body(response, self._most_bytes)
        except (TimeoutError, Undecodable) as exc:
            raise NoAnswer(f"{self._provider}: no whole answer") from exc
