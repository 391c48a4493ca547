"""Delivers webhook messages from the ledger to clients, in the background."""

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
"""Messages in progress at any moment, of keys in turn; only a few of one key to one receiver, so that a slow receiver
does not block others."""

_SPARE = 16
CONNECTIONS = AT_ONCE + _SPARE
"""Includes a reserve for keys with no message in progress, which never wait for another key's slow receivers."""

_AT_ONE_RECEIVER = 2
_TRY_S = 15.0
# The limits for reading a response body, as a courtesy: only the status counts.
_ANSWER_BYTES = 4096
_ANSWER_S = 1.0


class WebhookSender:
    """Delivers messages until cancelled. `messages_ready` is set whenever this process has written new ones.

    `client` is an `untrusted_client` with the same `url_policy`. Messages from other processes and due retries are
    polled every `look_s` seconds. At shutdown, messages in progress have `leave_s` seconds to finish. `chance` returns
    random numbers from 0 to 1.
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
        self._in_progress: dict[asyncio.Task[None], WebhookMessage] = {}
        self._turns = Turns()

    async def run(self) -> None:
        """Send due messages, now and whenever there are new ones."""
        try:
            while True:
                self._posted.clear()
                for delivery in await self._taken():
                    task = asyncio.create_task(self._try(delivery))
                    self._in_progress[task] = delivery
                    self._turns.begin(delivery.key)
                    task.add_done_callback(self._done)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._look_s):
                        await self._posted.wait()
        finally:
            await self._leave()

    async def _taken(self) -> Sequence[WebhookMessage]:
        most = AT_ONCE - len(self._in_progress)
        if most + _SPARE <= 0:
            return ()
        busy = Counter((delivery.key, delivery.receiver) for delivery in self._in_progress.values())
        turns = self._turns.copy()
        try:
            return await self._database.write(
                lambda c: take(c, most=most, at_once=_AT_ONE_RECEIVER, busy=busy, turns=turns, spare=_SPARE)
            )
        except LedgerDown:  # polled again later
            return ()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._turns.end(self._in_progress.pop(task).key)
        self._posted.set()  # its slot is free

    async def _leave(self) -> None:
        """Let messages in progress finish; the rest are sent again by another process, under the same id."""
        if tasks := set(self._in_progress):
            await asyncio.wait(tasks, timeout=self._leave_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(self, delivery: WebhookMessage) -> None:
        status, answer = None, "lost when its process ended"
        # A message that is sent only once may have been sent by a process that has ended.
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
        """Send a message once; return the response's status, None without a response, and a description."""
        try:
            async with asyncio.timeout(_TRY_S):
                status = await self._post(delivery)
        except UrlForbidden:
            return None, "not a public address"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:  # TimeoutError is an OSError
            return None, type(error).__name__
        except Exception as error:  # noqa: BLE001 - after any error the message is retried on schedule
            event("webhook.crashed", logging.ERROR, message=delivery.id, exc_info=True)
            return None, type(error).__name__
        return status, f"HTTP {status}"

    async def _post(self, delivery: WebhookMessage) -> int:
        body = delivery.body.encode()
        signed = self._secrets.headers(delivery.key, delivery.id, body, time.time())
        headers = {"content-type": "application/json", **signed}
        # Checked again: the URL may not be allowed anymore.
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
