"""Looking for a prediction whose submit was not answered: by the id that a webhook told, or in Replicate's list."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode

from providers.base import Sent, Undecodable, Unknown
from providers.clock import CLOCK, Clock
from providers.http.bodies import Json
from providers.http.client import Unanswered
from providers.kit.polling import Again
from providers.replicate.api import Api, Missing, Page
from providers.replicate.match import SKEW_S, is_it, is_like, made_at
from providers.replicate.responses import NAME, job_id

_PAUSE_S = 0.25
_MOST_PAGES = 20
# How wrong this machine's clock may have been as the submit was written down: a zone that was mistaken, at the most.
_WRONG_S = 24 * 3600.0


class Search:
    """Looks for the prediction that `sent` made.

    Its request had arrived, if ever, `late_s` seconds after `sent.at`, and the list shows it by then. `taken` says of
    an id that it is the prediction of another submit. After `run`, `missed` says that the whole list was read at least
    once, and that nothing in it can be the prediction.

    `sent.at` is what this machine's clock showed, and that may have been wrong. So a prediction with our input that was
    made at another time is not found, and is a doubt all the same: with one in the list nothing is surely absent.
    """

    def __init__(
        self, api: Api, sent: Sent, *, late_s: float, taken: Callable[[str], bool], clock: Clock = CLOCK
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
            except Again as exc:
                pause = max(pause, exc.retry_after or 0.0)
            except (Unanswered, Missing, Undecodable, TimeoutError):
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


def _reaches(page: Page, moment: float) -> bool:
    """Whether a page has a prediction from before a moment of the wall clock: all that follow are older."""
    return any(made_at(entry) < moment for entry in page.entries)


def _stamp(moment: float) -> str:
    # Whole seconds, and Z: a plus sign would have to be escaped.
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
