"""The webhooks of the simulated Replicate, after https://replicate.com/docs/topics/webhooks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.simulators.postman import Letter, Postman
from tests.simulators.replicate_job import ENDED, Prediction

EVENTS = frozenset({"start", "output", "logs", "completed"})
# What is told where nobody says what to tell.
USUAL = ("output", "completed")
_LOOK_S = 0.005


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def signed(secret: str, name: str, body: bytes, at: float) -> dict[str, str]:
    """The headers of a message that was signed at a time in seconds of the wall clock."""
    content = f"{name}.{int(at)}.".encode() + body
    made = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), content, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(made).decode()}"
    return {"webhook-id": name, "webhook-timestamp": str(int(at)), "webhook-signature": signature}


@dataclass
class Hooks:
    """The account's secret, and what it is to tell of its predictions. Of logs it tells every `logs_every_s` at most.

    `postman` has the switches for what goes wrong, `clock_s` is by how much its clock is ahead.
    """

    postman: Postman = field(default_factory=Postman)
    secret: str = field(default_factory=new_secret)
    logs_every_s: float = 0.02
    clock_s: float = 0.0

    def rotate(self) -> None:
        """Take a new secret, as the owner of an account may."""
        self.secret = new_secret()

    def refused(self, body: Mapping[str, Any]) -> str | None:
        """What is wrong with the webhook of a submit. Plain HTTP is for this machine alone."""
        address, events = body.get("webhook"), body.get("webhook_events_filter", USUAL)
        if address is not None and not str(address).startswith(("https://", "http://127.0.0.1:")):
            return "- webhook: Does not match format 'https-uri'\n"
        return "- webhook_events_filter: Not an event\n" if set(events) - EVENTS else None

    def follow(self, job: Prediction, base_url: str) -> None:
        """Tell of a prediction, from now on."""
        if job.webhook:
            self.postman.carry(self._letters(job, base_url))

    async def _letters(self, job: Prediction, base_url: str) -> AsyncIterator[Letter]:
        while job.status == "starting":  # noqa: ASYNC110 - the clock moves it on
            await asyncio.sleep(_LOOK_S)
        if "start" in job.events and job.status != "aborted":
            yield self._letter("start", job, base_url)
        told = job.logs
        while job.status not in ENDED:
            if "logs" in job.events and job.logs != told:
                told = job.logs
                yield self._letter("logs", job, base_url)
                await asyncio.sleep(self.logs_every_s)
            await asyncio.sleep(_LOOK_S)
        if "output" in job.events and job.status == "succeeded":
            yield self._letter("output", job, base_url)
        if "completed" in job.events:
            yield self._letter("completed", job, base_url)

    def _letter(self, event: str, job: Prediction, base_url: str) -> Letter:
        assert job.webhook
        body = json.dumps(job.shown(base_url, looked=False)).encode()
        sign = partial(self._headers, f"msg_{secrets.token_hex(12)}", body)
        return Letter(event=event, address=job.webhook, body=body, sign=sign, last=event == "completed")

    def _headers(self, name: str, body: bytes, forged: bool) -> dict[str, str]:
        return signed(new_secret() if forged else self.secret, name, body, time.time() + self.clock_s)
