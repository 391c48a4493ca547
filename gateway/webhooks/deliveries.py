"""The messages that wait in the ledger: taken by one process at a time, and what came of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, select, update

from gateway.database.engine import database_time
from gateway.database.schema import DELIVERIES, JOBS
from gateway.webhooks.schedule import Verdict

HELD_S = 30.0
"""For so long a message belongs to who took it: twice what a try may last. After that its process is gone."""

_RECEIVER = re.compile(r"[^/?#]*//[^/?#]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message that this process has taken, for its try number `tries`. `key` is the id of the API key it is for."""

    id: str
    job: str
    key: str
    url: str = field(repr=False)
    event: str
    body: str
    tries: int

    @property
    def receiver(self) -> str:
        """Whom it goes to: scheme, host and port as the caller wrote them."""
        return receiver(self.url)


def receiver(url: str) -> str:
    """An address without its path."""
    found = _RECEIVER.match(url)
    return found[0] if found else url


def take(connection: Connection, *, most: int, at_once: int, busy: Mapping[str, int]) -> list[Delivery]:
    """Take at most `most` messages that are due. No receiver has more than `at_once` under way; `busy` has some."""
    now = database_time(connection)
    under_way = Counter(busy)
    taken: list[Delivery] = []
    while len(taken) < most:
        full = [name for name, count in under_way.items() if count >= at_once]
        chosen: list[Delivery] = []
        for row in connection.execute(_due(now, full, most)):
            found = _delivery(row)
            if under_way[found.receiver] < at_once and len(taken) + len(chosen) < most:
                under_way[found.receiver] += 1
                chosen.append(found)
        if not chosen:
            break
        mine = update(DELIVERIES).where(DELIVERIES.c.id.in_([found.id for found in chosen]))
        connection.execute(mine.values(next_at=now + HELD_S, tries=DELIVERIES.c.tries + 1))
        taken += chosen
    return taken


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id, job=row.job, key=row.key, url=row.url, event=row.event, body=row.body, tries=row.tries + 1
    )


def _due(now: float, full: Collection[str], most: int) -> Select[Any]:
    """The messages that are due, without those to receivers that are `full`; locked against other processes."""
    columns = [DELIVERIES.c[name] for name in ("id", "job", "url", "event", "body", "tries")]
    return (
        select(*columns, JOBS.c.key)
        .join(JOBS, DELIVERIES.c.job == JOBS.c.id)
        .where(DELIVERIES.c.state == "pending", DELIVERIES.c.next_at <= now)
        .where(*[DELIVERIES.c.url.not_like(f"{_escaped(name)}%", escape="\\") for name in full])
        .order_by(DELIVERIES.c.next_at)
        .limit(most)
        .with_for_update(of=DELIVERIES, skip_locked=True)
    )


def settle(connection: Connection, delivery: Delivery, verdict: Verdict, answer: str) -> None:
    """Write down what came of a try, unless somebody has taken the message since."""
    values: dict[str, object] = {"state": verdict.state, "answer": answer}
    if verdict.state == "pending":
        values["next_at"] = database_time(connection) + verdict.wait_s
    mine = update(DELIVERIES).where(DELIVERIES.c.id == delivery.id, DELIVERIES.c.tries == delivery.tries)
    connection.execute(mine.values(values))


def _escaped(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)
