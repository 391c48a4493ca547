"""The ledger of a gateway as its own API tells it, and whether what it says is there can be had."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.chaos.calls import Colour
from tests.chaos.clients import is_picture_of

_OPEN = ("queued", "in_progress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One upstream call as the ledger has it. `unit` is its seed, `job` the id of the provider's job."""

    provider: str
    unit: int
    state: str
    outcome: str | None
    cost: float
    job: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A job as the ledger has it. `pictures` is how many of the right ones were fetched from it."""

    id: str
    seed: int
    state: str
    code: str | None
    images: int
    attempts: tuple[Attempt, ...]
    said: str = ""
    """What the API says of a completed job whose pictures cannot all be had, without them."""


def settle(url: str, seconds: float) -> float:
    """Wait until no job is open any more; how long that took, in seconds. Fails after so many."""
    began = time.monotonic()
    while left := [entry["id"] for state in _OPEN for entry in _listed(url, status=state)]:
        assert time.monotonic() - began < seconds, f"still open after {seconds:g} s: {left}"
        time.sleep(0.2)
    return time.monotonic() - began


def read(url: str, colours: Mapping[int, Colour]) -> list[Entry]:
    """Everything in the ledger; the pictures of each job are fetched. `colours` are those of the calls, by seed."""
    with httpx.Client(base_url=url, timeout=30) as http:
        return [_entry(http, row["id"], colours) for row in _listed(url)]


def _listed(url: str, **filters: str) -> Iterator[Mapping[str, Any]]:
    query = {"limit": "100", **filters}
    while True:
        page = httpx.get(f"{url}/v1/requests", params=query, timeout=30).raise_for_status().json()
        yield from page["data"]
        if not page["has_more"]:
            return
        query["after"] = page["next"]


def _entry(http: httpx.Client, job: str, colours: Mapping[int, Colour]) -> Entry:
    row = http.get(f"/v1/requests/{job}").raise_for_status().json()
    seed = int(row["parameters"]["seed"])
    done = row["status"] == "completed"
    pictures, said = _pictures(http, job, colours[seed]) if done else (0, "")
    return Entry(
        id=job,
        seed=seed,
        state=row["status"],
        code=row["error"]["code"] if row["error"] else None,
        images=pictures,
        attempts=tuple(_attempt(seed, attempt) for attempt in row["attempts"]),
        said=said,
    )


def _pictures(http: httpx.Client, job: str, colour: Colour) -> tuple[int, str]:
    """How many pictures of a job can be had, and are what was asked for; and what is said where some cannot."""
    whole = http.get(f"/openai/v1/images/jobs/{job}").raise_for_status().json()
    items: Sequence[Mapping[str, Any]] = whole["result"]["data"] if whole["result"] else ()
    good = [is_picture_of(item["b64_json"], colour) for item in items]
    said = json.dumps({**whole, "result": [{**item, "b64_json": len(item["b64_json"])} for item in items]})
    return sum(good), said if not items or not all(good) else ""


def _attempt(seed: int, row: Mapping[str, Any]) -> Attempt:
    return Attempt(
        provider=row["provider"],
        unit=seed + row["image"],
        state=row["status"],
        outcome=row["outcome"],
        cost=row["cost"],
        job=row["upstream_id"],
    )
