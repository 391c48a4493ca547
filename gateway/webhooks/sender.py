"""Sends what the ledger has for callers' webhooks, beside the requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

import httpx

from gateway.database.writer import Database, LedgerDown
from gateway.telemetry import metrics
from gateway.telemetry.logs import event
from gateway.webhooks.outbox import WebhookMessage, next_attempt, settle, take
from gateway.webhooks.signing import SigningKeys
from providers.fairness import Turns
from providers.http.ssrf import UrlForbidden, UrlPolicy

AT_ONCE = 16
"""So many messages are under way at any moment, of keys in turn; of one key to one receiver a few, so that a slow one
holds up no other."""

_SPARE = 16
CONNECTIONS = AT_ONCE + _SPARE
"""With those of keys that had none under way: these do not wait for another key's slow receivers."""

_AT_ONE_RECEIVER = 2
_TRY_S = 15.0
# An answer is read so far, and for so long, out of courtesy: only its status counts.
_ANSWER_BYTES = 4096
_ANSWER_S = 1.0


class WebhookSender:
    """Delivers messages until it is cancelled. `messages_ready` is set whenever this process has written new ones.

    `client` is one of `strangers_client`, with the same guard. What another process has written, or is due again, is
    looked for every `look_s` seconds. The end of the process leaves `leave_s` seconds to what is under way. `chance`
    gives random numbers from 0 to 1.
    """

    def __init__(
        self,
        database: Database,
        client: httpx.AsyncClient,
        url_policy: UrlPolicy,
        secrets: SigningKeys,
        *,
        messages_ready: asyncio.Event,
        look_s: float = 2.0,
        leave_s: float = 1.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._client = client
        self._guard = url_policy
        self._secrets = secrets
        self._posted = messages_ready
        self._look_s = look_s
        self._leave_s = leave_s
        self._chance = chance
        self._under_way: dict[asyncio.Task[None], WebhookMessage] = {}
        self._turns = Turns()

    async def run(self) -> None:
        """Send what is due, now and whenever there is more."""
        try:
            while True:
                self._posted.clear()
                for delivery in await self._taken():
                    task = asyncio.create_task(self._try(delivery))
                    self._under_way[task] = delivery
                    self._turns.begin(delivery.key)
                    task.add_done_callback(self._done)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._look_s):
                        await self._posted.wait()
        finally:
            await self._leave()

    async def _taken(self) -> Sequence[WebhookMessage]:
        most = AT_ONCE - len(self._under_way)
        if most + _SPARE <= 0:
            return ()
        busy = Counter((delivery.key, delivery.receiver) for delivery in self._under_way.values())
        turns = self._turns.copy()
        try:
            return await self._database.write(
                lambda c: take(c, most=most, at_once=_AT_ONE_RECEIVER, busy=busy, turns=turns, spare=_SPARE)
            )
        except LedgerDown:  # there is a next time
            return ()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._turns.end(self._under_way.pop(task).key)
        self._posted.set()  # its place is free

    async def _leave(self) -> None:
        """Let what is under way come to its end; what does not is sent again by another process, under the same id."""
        if tasks := set(self._under_way):
            await asyncio.wait(tasks, timeout=self._leave_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(self, delivery: WebhookMessage) -> None:
        status, answer = None, "lost with its process"
        # What is sent once only was perhaps sent by a process that is gone.
        if delivery.event != "progress" or delivery.tries == 1:
            status, answer = await self._sent(delivery)
        verdict = next_attempt(event=delivery.event, tries=delivery.tries, status=status, chance=self._chance())
        metrics.TOLD.labels(verdict.outcome).inc()
        if verdict.state != "delivered":
            event(
                "webhook.not_delivered", logging.WARNING, job=delivery.job, message=delivery.id, tries=delivery.tries,
                answer=answer, state=verdict.state, again_s=round(verdict.wait_s) or None,
            )  # fmt: skip
        self._database.write_behind(lambda connection: settle(connection, delivery, verdict, answer))

    async def _sent(self, delivery: WebhookMessage) -> tuple[int | None, str]:
        """Send a message once; the answer's status, None where there was none, and a word for it."""
        try:
            async with asyncio.timeout(_TRY_S):
                status = await self._post(delivery)
        except UrlForbidden:
            return None, "not a public address"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:  # TimeoutError is an OSError
            return None, type(error).__name__
        except Exception as error:  # noqa: BLE001 - whatever it was, the message has its next try, and an end
            event("webhook.crashed", logging.ERROR, message=delivery.id, exc_info=True)
            return None, type(error).__name__
        return status, f"HTTP {status}"

    async def _post(self, delivery: WebhookMessage) -> int:
        body = delivery.body.encode()
        signed = self._secrets.headers(delivery.key, delivery.id, body, time.time())
        headers = {"content-type": "application/json", **signed}
        # What was allowed when it was asked for may not be any more.
        url = self._guard.check(delivery.url)
        async with self._client.stream("POST", url, content=body, headers=headers, timeout=_TRY_S) as response:
            read = 0
            with contextlib.suppress(httpx.HTTPError, OSError):
                async with asyncio.timeout(_ANSWER_S):
                    async for chunk in response.aiter_raw():
                        read += len(chunk)
                        if read > _ANSWER_BYTES:
                            break
            return response.status_code
