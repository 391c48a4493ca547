"""Webhooks that report the progress of a prediction to the client."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from providers.worker.answers import slices, unprocessable
from providers.worker.predictions import Prediction

if TYPE_CHECKING:
    import httpx

LOGGER = logging.getLogger(__name__)

EVENTS = ("start", "output", "logs", "completed")
_INTERVAL_S = 0.5
_RETRIES = 12
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_RETRIED = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A client's webhook URL and its events.

    Events are sent one after another, so that they stay in order: `start`; `logs`, at most every 0.5 seconds; then
    `completed` with the output, which is retried until it is accepted. `output` is sent only if `completed` was not
    requested, because an engine produces its output once, at the end; it is retried likewise.
    """

    url: str
    events: frozenset[str] = frozenset(EVENTS)

    async def follow(self, prediction: Prediction) -> None:
        """Report a prediction from its start to its end."""
        # Imported on demand: most workers never send a webhook, and the import doubles the start time.
        await asyncio.to_thread(importlib.import_module, "httpx_aiohttp")
        import httpx
        from httpx_aiohttp import AiohttpTransport

        async with httpx.AsyncClient(transport=AiohttpTransport(), timeout=30.0) as client:
            if "start" in self.events and not prediction.ended.is_set():
                await self._once(client, prediction)
            while not prediction.ended.is_set():
                await prediction.changed.wait()
                prediction.changed.clear()
                if "logs" in self.events and not prediction.ended.is_set():
                    await self._once(client, prediction)
                    await _ended_within(prediction, _INTERVAL_S)
            if "completed" in self.events or ("output" in self.events and prediction.status == "succeeded"):
                await self._until_accepted(client, prediction)

    async def _once(self, client: httpx.AsyncClient, prediction: Prediction) -> None:
        import httpx

        try:
            await _post(client, self.url, prediction, timeout=5.0)
        except httpx.HTTPError as error:
            LOGGER.warning("cannot send a webhook: %s", type(error).__name__)

    async def _until_accepted(self, client: httpx.AsyncClient, prediction: Prediction) -> None:
        import httpx

        for attempt in range(_RETRIES + 1):
            try:
                status = await _post(client, self.url, prediction, timeout=30.0)
            except httpx.TransportError as error:
                outcome = type(error).__name__
            else:
                if 200 <= status < 300:
                    return
                outcome = f"HTTP {status}"
                if status not in _RETRIED:
                    break
            if attempt < _RETRIES:
                await asyncio.sleep(min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S))
        LOGGER.error("the final webhook of prediction %s was not accepted: %s", prediction.id, outcome)


def wanted(body: Mapping[str, object], *, allowed: bool) -> Webhook | None:
    """Return the webhook of a request, if any. Raises WorkerError (422) if it is invalid or not allowed."""
    url = body.get("webhook")
    if url is None:
        return None
    if not allowed:
        raise unprocessable(["body", "webhook"], "webhooks are disabled: start the worker with --webhooks")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise unprocessable(["body", "webhook"], "a webhook must be an http or https URL")
    events = body.get("webhook_events_filter")
    if events is None:
        return Webhook(url=url)
    if not isinstance(events, list) or not all(event in EVENTS for event in events):
        raise unprocessable(["body", "webhook_events_filter"], f"the events are {', '.join(EVENTS)}")
    return Webhook(url=url, events=frozenset(events))


async def _post(client: httpx.AsyncClient, url: str, prediction: Prediction, *, timeout: float) -> int:
    body = prediction.answer(echo=True)
    headers = {"content-type": "application/json", "content-length": str(sum(map(len, body)))}
    # Streamed and not read: the response body is untrusted and not needed.
    async with client.stream("POST", url, content=_sliced(body), headers=headers, timeout=timeout) as response:
        return response.status_code


async def _sliced(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in slices(pieces):
        # Transports accept any buffer.
        yield cast("bytes", chunk)


async def _ended_within(prediction: Prediction, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await prediction.ended.wait()
    except TimeoutError:
        return
