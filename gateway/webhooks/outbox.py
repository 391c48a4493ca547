"""The outbox of webhook messages in the ledger: claimed by one process at a time; and the schedule of retries."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, bindparam, func, select, update

from gateway.database.engine import database_time
from gateway.database.schema import DELIVERIES, JOBS
from providers.fairness import Turns

State = Literal["pending", "delivered", "given_up", "failed"]
Outcome = Literal["delivered", "refused", "unreachable", "given_up"]

WAITS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""The seconds after the first try, the second, …; after one more than there are waits a message has failed."""

_GONE = 410
# The share by which a wait is longer or shorter: what failed at one time is not all tried again at one time.
_JITTER = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecision:
    """`state` is the message's from now on, `wait_s` how long until its next try, `outcome` what metrics count."""

    state: State
    outcome: Outcome
    wait_s: float = 0.0


def next_attempt(*, event: str, tries: int, status: int | None, chance: float) -> RetryDecision:
    """What follows from try number `tries` of a message: its answer's status, None where there was no answer.

    `chance` is a random number from 0 to 1.
    """
    if status is not None and 200 <= status < 300:
        return RetryDecision(state="delivered", outcome="delivered")
    if status == _GONE:
        return RetryDecision(state="given_up", outcome="given_up")
    outcome: Outcome = "unreachable" if status is None else "refused"
    # By the next try, the share of a job that is done would be another one.
    if event == "progress" or tries > len(WAITS_S):
        return RetryDecision(state="failed", outcome=outcome)
    return RetryDecision(state="pending", outcome=outcome, wait_s=WAITS_S[tries - 1] * (1 + _JITTER * (2 * chance - 1)))


HELD_S = 30.0
"""For so long a message belongs to who took it: twice what a try may last. After that its process is gone."""

_RECEIVER = re.compile(r"[^/?#]*//[^/?#]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookMessage:
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


def take(
    connection: Connection,
    *,
    most: int,
    at_once: int,
    busy: Mapping[tuple[str, str], int],
    turns: Turns | None = None,
    spare: int = 0,
) -> list[WebhookMessage]:
    """Take at most `most` messages that are due, and `spare` more of keys that have none under way.

    Keys take turns, and no key has more than `at_once` under way to one receiver. `busy` says how many it has by key
    and receiver, `turns` by key and who was served last; what is taken is noted in it.
    """
    now = database_time(connection)
    turns = turns or Turns()
    under_way = Counter(busy)
    taken: list[WebhookMessage] = []
    lines: dict[str, deque[WebhookMessage]] = {}
    waiting = dict.fromkeys(connection.execute(_KEYS).scalars(), 1)
    while waiting:
        key = next(turns.order(waiting))
        if len(taken) >= most + (0 if turns.at_work[key] else spare):
            break
        if not lines.get(key):
            full = [name for (of, name), count in under_way.items() if of == key and count >= at_once]
            lines[key] = deque(map(_delivery, connection.execute(_due(now, key, full, most + spare))))
            if not lines[key]:
                del waiting[key]
                continue
        found = lines[key].popleft()
        if under_way[key, found.receiver] < at_once:
            under_way[key, found.receiver] += 1
            turns.begin(key)
            taken.append(found)
            connection.execute(_HOLD, {"this": found.id, "until": now + HELD_S})
    return taken


def _delivery(row: Row[Any]) -> WebhookMessage:
    return WebhookMessage(
        id=row.id, job=row.job, key=row.key, url=row.url, event=row.event, body=row.body, tries=row.tries + 1
    )


def _keys() -> Select[Any]:
    """The keys that have messages: one step in the index for each, however many messages there are."""
    column, pending = DELIVERIES.c.key, DELIVERIES.c.state == "pending"
    keys = select(func.min(column).label("key")).where(pending).cte("keys", recursive=True)
    following = select(func.min(column)).where(pending, column > keys.c.key).scalar_subquery()
    keys = keys.union_all(select(following).where(keys.c.key.is_not(None)))
    return select(keys.c.key).where(keys.c.key.is_not(None))


_KEYS = _keys()
_HOLD = (
    update(DELIVERIES)
    .where(DELIVERIES.c.id == bindparam("this"))
    .values(next_at=bindparam("until"), tries=DELIVERIES.c.tries + 1)
)


def _due(now: float, key: str, full: Collection[str], most: int) -> Select[Any]:
    """A key's messages that are due, without those to receivers that are `full`; locked against other processes."""
    columns = [DELIVERIES.c[name] for name in ("id", "job", "url", "event", "body", "tries")]
    return (
        select(*columns, JOBS.c.key)
        .join(JOBS, DELIVERIES.c.job == JOBS.c.id)
        .where(DELIVERIES.c.state == "pending", DELIVERIES.c.key == key, DELIVERIES.c.next_at <= now)
        .where(*[DELIVERIES.c.url.not_like(f"{_escaped(name)}%", escape="\\") for name in full])
        .order_by(DELIVERIES.c.next_at)
        .limit(most)
        .with_for_update(of=DELIVERIES, skip_locked=True)
    )


def settle(connection: Connection, delivery: WebhookMessage, verdict: RetryDecision, answer: str) -> None:
    """Write down what came of a try, unless somebody has taken the message since."""
    values: dict[str, object] = {"state": verdict.state, "answer": answer}
    if verdict.state == "pending":
        values["next_at"] = database_time(connection) + verdict.wait_s
    mine = update(DELIVERIES).where(DELIVERIES.c.id == delivery.id, DELIVERIES.c.tries == delivery.tries)
    connection.execute(mine.values(values))


def _escaped(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)
