"""Every kind of bad weather at a provider: the caller's answer, the attempts, the bills, and where no request went."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from tests.service.rows import ROWS, Row
from tests.simulators.clouds import KEYS
from tests.simulators.common import Fault, size
from tests.support.world import CANARY, Answer, World, world

pytestmark = pytest.mark.early
_AT_ONCE = 8
_TO_THE_END = {"DARKROOM_GATEWAY__DEADLINE_S": "25"}
IDS = [f"{row.victim}-{row.name}" for row in ROWS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What one row came to. `billed` and `taken` are the victim's jobs and the rescue's."""

    row: Row
    answer: Answer
    billed: tuple[int, int]
    taken: tuple[int, int]
    strayed: list[str]

    @property
    def bought_again(self) -> int:
        """Jobs that were bought after one whose outcome nobody knew."""
        first = self.answer.attempts[0]["outcome"]
        return sum(self.taken) - 1 if first in {"unknown", "unfinished", "unfetched"} and sum(self.taken) > 1 else 0


@pytest.fixture(scope="module")
def plays(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[Played]]]:
    """All rows that are to be tested, each in a world of its own, several at once: most of them wait."""
    chosen = {item.name for item in request.session.items}
    rows = [row for row in ROWS if f"test_bad_weather[{_id(row)}]" in chosen] or list(ROWS)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        slowest_first = sorted(rows, key=lambda row: not row.slow)
        yield {_id(row): pool.submit(_play, row) for row in slowest_first}


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_bad_weather(row: Row, plays: Mapping[str, Future[Played]]) -> None:
    """The caller gets one good answer or one true error, nothing is bought twice, and no secret leaves."""
    played = plays[_id(row)].result()
    answer, expect = played.answer, row.expect
    told = f"{answer.status} {answer.code} {answer.attempts} {played}"
    assert (answer.status, answer.code) == (expect.status, expect.code), told
    names = (row.victim, row.rescue)
    assert answer.story == [f"{name} {outcome}" for name, outcome in zip(names, expect.outcomes, strict=False)], told
    assert played.billed == expect.billed, told
    assert played.bought_again == 0, told
    assert played.strayed == []
    assert not [key for key in KEYS.values() if key in answer.text]
    if expect.status == 200:
        assert [size(picture) for picture in answer.images] == [(48, 32)]
    if expect.status == 504:
        assert answer.headers["x-should-retry"] == "false"
    if sum(played.billed) > 1:
        # What was paid for nothing is told.
        assert answer.attempts[0]["outcome"] in {"failed", "undecodable", "expired"}
    if expect.retry_after:
        assert expect.retry_after[0] <= int(answer.headers["retry-after"]) <= expect.retry_after[1]


def test_nothing_is_bought_twice(plays: Mapping[str, Future[Played]]) -> None:
    """Over the whole weather: after an unknown outcome no second job was taken anywhere, whoever retries."""
    played = [future.result() for future in plays.values()]
    unknown = [one for one in played if one.answer.attempts[0]["outcome"] in {"unknown", "unfinished", "unfetched"}]
    twice = sum(one.bought_again for one in played)
    print(f"\n{len(played)} kinds of weather, {len(unknown)} with an unknown outcome, {twice} double-billed requests")
    assert unknown
    assert twice == 0


def _id(row: Row) -> str:
    return f"{row.victim}-{row.name}"


def _play(row: Row) -> Played:
    names = [row.victim] if row.alone else [row.victim, row.rescue]
    # That nobody knows is known once the search for the job is over, and the caller is answered by the deadline.
    environ = {**_TO_THE_END, **row.environ} if row.expect.code == "upstream_outcome_unknown" else row.environ
    with world(*names, environ=environ) as there:
        row.prepare(there)
        _script(row, there)
        # A caller who is told to come again in 7 seconds is not waited for.
        answer = there.edit(routing=json.dumps({"order": [row.victim]}), retries=0 if row.alone else 2)
        return Played(
            row=row,
            answer=answer,
            billed=(there.billed(row.victim), 0 if row.alone else there.billed(row.rescue)),
            taken=(there.taken(row.victim), 0 if row.alone else there.taken(row.rescue)),
            strayed=there.strayed(),
        )


def _script(row: Row, there: World) -> None:
    faults = there.sims[row.victim].faults
    made = [_aimed(fault, there) for fault in row.faults]
    faults.script(row.op, *made)
    if row.always:
        faults.always(row.op, made[-1])


def _aimed(fault: Fault, there: World) -> Fault:
    location = fault.headers.get("location", "").replace(CANARY, there.canary.url.removeprefix("http://"))
    return replace(fault, headers={**fault.headers, "location": location}) if location else fault
