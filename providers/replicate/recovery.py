"""Finding a prediction whose submit was not answered: by the id from a webhook, or in Replicate's list.

It is recognised by what was recorded before its submit. An input is recorded without its images and texts: of those
there is only the SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode

from normalization.values import Image, Value
from providers.base import PendingSubmit
from providers.clock import CLOCK, Clock
from providers.errors import Undecodable, Unknown
from providers.http.bodies import Json
from providers.http.errors import NoAnswer
from providers.kit.polling import PollAgain
from providers.replicate.api import PredictionMissing, PredictionPage, ReplicateApi
from providers.replicate.responses import NAME, job_id

# So far may the clocks of Replicate and of this machine be apart.
SKEW_S = 5.0

_PICTURE, _TEXT = "picture:", "text:"


def written(payload: Mapping[str, Value]) -> str:
    """Return what an input is known by, as JSON text."""
    return json.dumps(_reduced(dict(payload)), separators=(",", ":"), sort_keys=True)


def is_it(entry: Mapping[str, Json], sent: PendingSubmit, within_s: float) -> bool | None:
    """Say whether a listed prediction is the one that `sent` made; None where that cannot be told.

    It was made at most `within_s` seconds after `sent.at`. Our webhook at it settles the matter; else its input does,
    to the byte of its pictures, for a prediction of the same parameters may be another caller's.
    """
    moment = made_at(entry)
    if moment < sent.at - SKEW_S or moment > sent.at + within_s + SKEW_S:
        return False
    version = sent.upstream.options.get("version")
    named = entry.get("version" if version else "model")
    if isinstance(named, str) and named != (version or sent.upstream.model):
        return False
    address = entry.get("webhook")
    if job_id(entry) and address and address == sent.data.get("webhook"):
        return True
    same = _same(_loads(sent.data.get("input", "")), _reduced(entry.get("input")))
    # The same input under another's webhook may be another's, or ours under an address that was written otherwise.
    whole = job_id(entry) and isinstance(named, str) and not math.isnan(moment) and not address
    return same if whole or same is False else None


def is_like(entry: Mapping[str, Json], sent: PendingSubmit) -> bool:
    """Say whether a listed prediction has the input or the webhook that `sent` had, whenever it was made."""
    address = entry.get("webhook")
    if address and address == sent.data.get("webhook"):
        return True
    return _same(_loads(sent.data.get("input", "")), _reduced(entry.get("input"))) is True


def made_at(entry: Mapping[str, Json]) -> float:
    """Return when a prediction was made, in seconds of the wall clock; NaN where it does not say."""
    text = entry.get("created_at")
    try:
        moment = datetime.fromisoformat(text if isinstance(text, str) else "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _loads(text: str) -> Json:
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _reduced(value: Value | Json) -> Json:
    """Return a value with the digests of its pictures and texts in their place."""
    if isinstance(value, Image | bytes):
        return _PICTURE + hashlib.sha256(value.data if isinstance(value, Image) else value).hexdigest()
    if isinstance(value, str):
        return _TEXT + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    if isinstance(value, dict):
        return {name: _reduced(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_reduced(item) for item in value]
    return value


def _same(ours: Json, theirs: Json) -> bool | None:
    """Say whether an input that Replicate lists is ours; it may have been filled up with defaults.

    None where one side has what cannot be compared with the other: it was removed, or replaced by an address.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(value, theirs.get(name)) for name, value in ours.items()]
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return False
        pairs = list(zip(ours, theirs, strict=True))
    else:
        return ours == theirs if _kind(ours) == _kind(theirs) != "" else None
    verdicts = [_same(*pair) for pair in pairs]
    return False if False in verdicts else None if None in verdicts else True


def _kind(value: Json) -> str:
    """Return what a leaf may be compared with; "" where that is nothing."""
    if isinstance(value, str):
        return value.partition(":")[0]
    if value is None or isinstance(value, bool):
        return type(value).__name__
    return "number" if isinstance(value, int | float) else ""


_PAUSE_S = 0.25
_MOST_PAGES = 20
# How wrong this machine's clock may have been as the submit was written down: a zone that was mistaken, at the most.
_WRONG_S = 24 * 3600.0


class ReplicateRecovery:
    """Looks for the prediction that `sent` made.

    Its request had arrived, if ever, `late_s` seconds after `sent.at`, and the list shows it by then. `taken` says of
    an id that it is the prediction of another submit. After `run`, `missed` says that the whole list was read at least
    once, and that nothing in it can be the prediction.

    `sent.at` is what this machine's clock showed, and that may have been wrong. So a prediction with our input that was
    made at another time is not found, and is a doubt all the same: with one in the list nothing is surely absent.
    """

    def __init__(
        self,
        api: ReplicateApi,
        sent: PendingSubmit,
        *,
        late_s: float,
        taken: Callable[[str], bool],
        clock: Clock = CLOCK,
    ) -> None:
        self._clock = clock
        self._api = api
        self._sent = sent
        self._late_s = late_s
        self._taken = taken
        # It comes from outside, and becomes a part of an address.
        self._heard = job_id({"id": sent.heard})
        self.missed = False
        self._absent = False

    async def run(self, until: float, *, pause: float = 0.0) -> dict[str, Json] | None:
        """Look, after a pause, again and again; return the prediction, None where there surely is none.

        That is sure where the whole list was read when the prediction had to be in it. Raises Unknown at `until`, a
        reading of the clock. `pause` is in seconds.
        """
        usual = _PAUSE_S
        while self._clock.now() + pause < until:
            await self._clock.sleep(pause)
            pause, usual = usual, 2 * usual
            try:
                async with self._clock.timeout_at(until):
                    found = await (self._api.prediction(self._heard) if self._heard else self._listed())
            except PollAgain as exc:
                pause = max(pause, exc.retry_after or 0.0)
            except (NoAnswer, PredictionMissing, Undecodable, TimeoutError):
                continue
            else:
                if found is None and not self._absent:
                    continue
                return found
        raise Unknown(f"{NAME}: the job was not found, and it may run")

    async def _listed(self) -> dict[str, Json] | None:
        """Read the list once, and return the prediction in it."""
        began = time.time()
        found: list[dict[str, Json]] = []
        doubtful, query = False, self._first_page()
        for _ in range(_MOST_PAGES):
            page = await self._api.listed(query)
            # One who is not sure of the time cannot say that something is not there.
            doubtful = doubtful or not abs(page.clock - time.time()) <= SKEW_S
            for entry in page.entries:
                verdict = not self._taken(job_id(entry)) and is_it(entry, self._sent, self._late_s)
                found += [entry] if verdict else []
                doubtful = doubtful or verdict is None
            if found:
                return min(found, key=lambda entry: abs(made_at(entry) - self._sent.at))
            query = page.following
            if not query or _reaches(page, self._sent.at - SKEW_S):
                self.missed = not doubtful
                over = began >= self._sent.at + self._late_s
                self._absent = self.missed and over and not await self._at_another_time()
                return None
        self.missed = False
        return None

    async def _at_another_time(self) -> bool:
        """Whether a prediction like ours was made at a time that is not the submit's, or that cannot be told."""
        first = self._sent.at - _WRONG_S
        query = urlencode({"created_after": _stamp(first)}, safe=":")
        for _ in range(_MOST_PAGES):
            page = await self._api.listed(query)
            if any(is_like(entry, self._sent) and not self._taken(job_id(entry)) for entry in page.entries):
                return True
            query = page.following
            if not query or _reaches(page, first):
                return False
        return True

    def _first_page(self) -> str:
        first, last = self._sent.at - SKEW_S, self._sent.at + self._late_s + SKEW_S + 1
        return urlencode({"created_after": _stamp(first), "created_before": _stamp(last)}, safe=":")


def _reaches(page: PredictionPage, moment: float) -> bool:
    """Whether a page has a prediction from before a moment of the wall clock: all that follow are older."""
    return any(made_at(entry) < moment for entry in page.entries)


def _stamp(moment: float) -> str:
    # Whole seconds, and Z: a plus sign would have to be escaped.
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
