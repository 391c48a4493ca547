"""What Replicate's webhooks say, once their signature is found good (Standard Webhooks, with the account's secret)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from providers.base import WebhookEvent
from providers.clock import CLOCK, Clock
from providers.errors import Undecodable
from providers.http.bodies import read_json
from providers.http.errors import NoAnswer
from providers.kit.polling import PollAgain, parse_progress
from providers.kit.webhooks import StandardWebhook, standard_webhook
from providers.replicate.api import PredictionMissing
from providers.replicate.responses import ENDED, job_id

# How often, at most, a message whose signature is wrong makes us ask whether the secret has changed; and how soon a
# question is asked again that was not answered.
_RENEW_S = 60.0
_RETRY_S = 5.0


class ReplicateWebhook:
    """Reads webhooks. `ask` fetches the account's secret."""

    def __init__(self, ask: Callable[[], Awaitable[str]], clock: Clock = CLOCK) -> None:
        self._ask = ask
        self._clock = clock
        self._secret = ""
        self._next = -_RENEW_S
        self._lock = asyncio.Lock()

    async def heard(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
        """Return what a message says; None where it is not surely Replicate's, or names no prediction."""
        message = standard_webhook(headers, body, now=time.time())
        if message is None or not await self._is_theirs(message):
            return None
        try:
            prediction = await read_json(body)
        except Undecodable:
            return None
        if not isinstance(prediction, dict) or not (name := job_id(prediction)):
            return None
        ended = prediction.get("status") in ENDED
        return WebhookEvent(id=name, progress=parse_progress(prediction.get("logs")), ended=ended)

    async def _is_theirs(self, message: StandardWebhook) -> bool:
        secret = self._secret
        if message.is_from(secret):
            return True
        async with self._lock:
            if self._secret == secret and self._clock.now() >= self._next:
                await self._renew()
        return self._secret != secret and message.is_from(self._secret)

    async def _renew(self) -> None:
        self._next = self._clock.now() + _RETRY_S
        try:
            self._secret = await self._ask()
        except (NoAnswer, PollAgain, PredictionMissing, Undecodable):
            return
        self._next = self._clock.now() + _RENEW_S
