"""Looking for a prediction whose submit was not answered: by the id that a webhook told, or in Replicate's list."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode

from providers.base import Sent, Undecodable, Unknown
from providers.clock import CLOCK, Clock
from providers.http import Unanswered
from providers.polling import Again
from providers.replicate_answer import NAME, job_id
from providers.replicate_api import Api, Missing, Page
from providers.replicate_match import SKEW_S, is_it, made_at
from providers.wire import Json

_PAUSE_S = 0.25
_MOST_PAGES = 20


class Search:
    """Looks for the prediction that `sent` made.

    Its request had arrived, if ever, `late_s` seconds after `sent.at`, and the list shows it by then. `taken` says of
    an id that it is the prediction of another submit. After `run`, `missed` says that the whole list was read at least
    once, and that nothing in it can be the prediction.
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
            if not query or self._reaches_back(page):
                self.missed = not doubtful
                self._absent = not doubtful and began >= self._sent.at + self._late_s
                return None
        self.missed = False
        return None

    def _first_page(self) -> str:
        first, last = self._sent.at - SKEW_S, self._sent.at + self._late_s + SKEW_S + 1
        return urlencode({"created_after": _stamp(first), "created_before": _stamp(last)}, safe=":")

    def _reaches_back(self, page: Page) -> bool:
        return any(made_at(entry) < self._sent.at - SKEW_S for entry in page.entries)


def _stamp(moment: float) -> str:
    # Whole seconds, and Z: a plus sign would have to be escaped.
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
