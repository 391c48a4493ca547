"""Finding a job again whose submit was never answered: in the list that fal keeps of our requests.

`GET /v1/models/requests/by-endpoint` of fal's platform API (fal.ai/docs, platform APIs; read in November 2026) lists
the requests of an endpoint, 100 a page, and gives the input of one with `expand=payloads`. What the time range is
measured by is not said, nor whether a request is listed before it ended, and inputs may be missing. So a request is
ours only if all of what we sent is in it, pictures too, and that none is listed proves nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode

from normalization.values import Image
from providers.base import PendingSubmit
from providers.errors import Expired, Undecodable, Unknown
from providers.fal.api import FalApi
from providers.fal.responses import NAME, at, is_request_id
from providers.http.bodies import Json
from providers.http.errors import NoAnswer, retry_after
from providers.kit.polling import Pace, PollAgain, poll

# What the clocks of fal and ours may differ by.
_SKEW_S = 30.0
# No job waits and runs for longer than that; what ended later is another one.
_LONGEST_S = 2 * 3600.0
_PAGE = 100
_PAGES = 20
_MOST_CANDIDATES = 50
_LIST_BYTES = 4_000_000
_BUSY = frozenset({408, 429})
_DIGITS = 16


async def marks(payload: Mapping[str, object]) -> str:
    """Return what an input is recognised by: a text to be stored, with nothing of the input in it."""
    return json.dumps(await asyncio.to_thread(fingerprint, payload))


def fingerprint(payload: Mapping[str, object]) -> dict[str, str]:
    """Return a short digest of each field of an input. Pictures count by their bytes, 2.0 is 2."""
    return {name: _digest(value) for name, value in payload.items()}


def _digest(value: object) -> str:
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _plain(value: object) -> object:
    if isinstance(value, Image):
        value = value.data
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The list of our requests, at fal's platform API at `url`.

    fal gets a submit after `patience_s` at most, and it is looked for in the list for `reconcile_s`. An answer may take
    `ask_timeout_s`, all in seconds, and the input of a request be `payload_bytes` long.
    """

    api: FalApi
    url: str
    patience_s: float
    ask_timeout_s: float
    payload_bytes: int
    reconcile_s: float

    async def find(self, sent: PendingSubmit, others: frozenset[str]) -> str | None:
        """Return the id of the one request that a submit must have become; None where that cannot be told.

        `sent.data` has the `model` and the `input`'s marks, `others` are requests of other jobs.
        """
        try:
            wanted = json.loads(sent.data.get("input", ""))
        except ValueError:
            return None
        # Without a mark everything would match.
        if not isinstance(wanted, dict) or not wanted:
            return None
        search = FalRecovery(history=self, model=sent.data.get("model", ""), sent=sent.at, wanted=wanted, others=others)
        clock = self.api.clock
        until = clock.now() + self.reconcile_s
        try:
            return await poll(search.look, pace=Pace(clock), key=NAME, deadline=until, first=0.0)
        except (Expired, Unknown, Undecodable):
            return None


@dataclass(slots=True, kw_only=True)
class FalRecovery:
    """A search for the request to `model` that began at `sent` (wall clock, in seconds) with the `wanted` input.

    `others` are requests that it is not.
    """

    history: History
    model: str
    sent: float
    wanted: Mapping[str, str]
    others: frozenset[str]
    _judged: dict[str, bool] = field(default_factory=dict, init=False)

    async def look(self) -> str | None:
        """Return the id of the one request that it must be; None while there is none, or one that cannot be judged.

        Raises Unknown where there are several, or the list is not to be had; Unanswered and Again.
        """
        candidates = await self._candidates()
        for request in sorted(candidates - self._judged.keys()):
            verdict = await self._judge(request)
            if verdict is not None:
                self._judged[request] = verdict
        matching = [request for request in candidates if self._judged.get(request)]
        if len(matching) > 1:
            raise Unknown(f"{NAME}: several requests have this input")
        return matching[0] if matching and candidates <= self._judged.keys() else None

    async def _candidates(self) -> frozenset[str]:
        """Return the ids of the endpoint's requests that were sent at the time."""
        found: set[str] = set()
        where: dict[str, str] = {}
        for _ in range(_PAGES):
            page = await self._ask(_LIST_BYTES, limit=str(_PAGE), **where)
            found.update(self._of_that_time(page))
            cursor = at(page, "next_cursor")
            if not isinstance(cursor, str) or not cursor or at(page, "has_more") is False:
                break
            where = {"cursor": cursor}
        else:
            raise Unknown(f"{NAME}: the list of requests is too long")
        candidates = frozenset(found) - self.others
        if len(candidates) > _MOST_CANDIDATES:
            raise Unknown(f"{NAME}: too many requests were sent at that time")
        return candidates

    def _of_that_time(self, page: Json) -> Iterator[str]:
        for item in _items(page):
            request, moment = at(item, "request_id"), _moment(at(item, "sent_at"))
            if not isinstance(request, str) or not is_request_id(request) or at(item, "endpoint_id") != self.model:
                continue
            # One without a time may be of that time.
            if moment is None or -_SKEW_S <= moment - self.sent <= self.history.patience_s + _SKEW_S:
                yield request

    async def _judge(self, request: str) -> bool | None:
        """Say whether a request has the input; None where its input cannot be seen."""
        try:
            page = await self._ask(self.history.payload_bytes, limit="1", request_id=request, expand="payloads")
        except Undecodable:
            return None
        inputs = [at(item, "json_input") for item in _items(page) if at(item, "request_id") == request]
        if len(inputs) != 1 or not isinstance(inputs[0], dict):
            return None
        # What fal adds to it is no matter, such as defaults.
        return self.wanted.items() <= fingerprint(inputs[0]).items()

    async def _ask(self, cap: int, **more: str) -> Json:
        window = {"start": _iso(self.sent - 2 * _SKEW_S)}
        if self.sent + _LONGEST_S < time.time():
            window["end"] = _iso(self.sent + _LONGEST_S)
        query = urlencode({"endpoint_id": self.model, **window, **more})
        url = f"{self.history.url}/v1/models/requests/by-endpoint?{query}"
        response, answer = await self.history.api.ask("GET", url, timeout_s=self.history.ask_timeout_s, cap=cap)
        if 400 <= response.status_code < 500 and response.status_code not in _BUSY:
            raise Unknown(f"{NAME}: our requests cannot be listed (HTTP {response.status_code})")
        if not response.is_success:
            raise PollAgain(retry_after(response, time.time()))
        if not isinstance(at(answer, "items"), list):
            raise NoAnswer(f"{NAME}: the list of requests is none")
        return answer


def _items(page: Json) -> list[Json]:
    items = at(page, "items")
    return items if isinstance(items, list) else []


def _moment(text: Json) -> float | None:
    """Return a time in seconds of the wall clock; None for what is none. Without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        return None if moment is None else (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
