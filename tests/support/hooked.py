"""Gateways that tell callers, and that providers can reach: in one process, or as real ones."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from tests.simulators.base import Simulated, asking, wiring
from tests.simulators.common import tiny
from tests.simulators.receiver import Receiver
from tests.support.world import PATIENCE, SELF

PUBLIC: Mapping[str, str] = {"DARKROOM_GATEWAY__PUBLIC_URL": f"http://{SELF}"}


def around(sims: Mapping[str, Simulated], *receivers: Receiver, **more: str) -> dict[str, str]:
    """The environment of a gateway with these providers, which may tell these receivers."""
    found = {**PATIENCE, **wiring(sims.values()), **more}
    name = "DARKROOM_GATEWAY__URL_ALLOW"
    found[name] = json.dumps([*json.loads(found[name]), *(receiver.origin for receiver in receivers)])
    return asking(found)


@contextmanager
def caller(url: str, *, key: str | None = None) -> Iterator[httpx.Client]:
    """A client of a gateway, with an API key where there is one."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=f"{url}/openai/v1", headers=headers, timeout=60) as client:
        yield client


def ask(client: httpx.Client, *, headers: Mapping[str, str] | None = None, **fields: str) -> httpx.Response:
    """Send the usual edit, with these fields."""
    given = {"model": "clarity-upscaler", "prompt": "a cup", **fields}
    return client.post("/images/edits", data=given, files={"image": ("in.png", tiny())}, headers=headers)


def begin(client: httpx.Client, receiver: Receiver, path: str = "/hook", **fields: str) -> str:
    """Begin a job of which the receiver is told; the job's id."""
    answer = ask(client, headers=None, background="true", webhook_url=f"{receiver.url}{path}", **fields)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def ended(client: httpx.Client, job: str) -> Any:
    """Wait for a job's end, and return it."""
    deadline = time.monotonic() + 60
    while True:
        found = client.get(f"/images/jobs/{job}?wait=20").json()
        if found["status"] in ("completed", "failed", "cancelled"):
            return found
        assert time.monotonic() < deadline, found
