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
"""The waits after the first try, the second, …, in seconds. The try after the last wait is the final one."""

_GONE = 410
# The random share added to or subtracted from a wait, so that messages that failed together are spread out.
_JITTER = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecision:
    """`state` is the message's new state, `wait_s` the time until its next try, `outcome` the metrics' label."""

    state: State
    outcome: Outcome
    wait_s: float = 0.0


def next_attempt(*, event: str, tries: int, status: int | None, chance: float) -> RetryDecision:
    """Retry schedule: what follows try number `tries`. `status` is the response's, None without a response.

    `chance` is a random number from 0 to 1.
    """
    if status is not None and 200 <= status < 300:
        return RetryDecision(state="delivered", outcome="delivered")
    if status == _GONE:
        return RetryDecision(state="given_up", outcome="given_up")
    outcome: Outcome = "unreachable" if status is None else "refused"
    # Progress is never retried: it would be outdated.
    if event == "progress" or tries > len(WAITS_S):
        return RetryDecision(state="failed", outcome=outcome)
    return RetryDecision(state="pending", outcome=outcome, wait_s=WAITS_S[tries - 1] * (1 + _JITTER * (2 * chance - 1)))


HELD_S = 30.0
"""How long a message is reserved for the process that took it: twice the time limit of a try."""

_RECEIVER = re.compile(r"[^/?#]*//[^/?#]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookMessage:
    """A message taken by this process, for its try number `tries`. `key` is the id of the client's API key."""

    id: str
    job: str
    key: str
    url: str = field(repr=False)
    event: str
    body: str
    tries: int

    @property
    def receiver(self) -> str:
        """The receiver: scheme, host and port as the client wrote them."""
        return receiver(self.url)


def receiver(url: str) -> str:
    """A URL without its path."""
    match = _RECEIVER.match(url)
    return match[0] if match else url


def take(
    connection: Connection,
    *,
    most: int,
    at_once: int,
    busy: Mapping[tuple[str, str], int],
    turns: Turns | None = None,
    spare: int = 0,
) -> list[WebhookMessage]:
    """Take at most `most` due messages, and `spare` more of keys without a message in progress.

    Keys take turns, and no key has more than `at_once` messages in progress to one receiver. `busy` counts those by key
    and receiver; `turns` holds the keys' turns, and is updated.
    """
    now = database_time(connection)
    turns = turns or Turns()
    in_progress = Counter(busy)
    taken: list[WebhookMessage] = []
    queues: dict[str, deque[WebhookMessage]] = {}
    waiting = dict.fromkeys(connection.execute(_KEYS).scalars(), 1)
    while waiting:
        key = next(turns.order(waiting))
        if len(taken) >= most + (0 if turns.at_work[key] else spare):
            break
        if not queues.get(key):
            full = [name for (of, name), count in in_progress.items() if of == key and count >= at_once]
            queues[key] = deque(map(_delivery, connection.execute(_due(now, key, full, most + spare))))
            if not queues[key]:
                del waiting[key]
                continue
        message = queues[key].popleft()
        if in_progress[key, message.receiver] < at_once:
            in_progress[key, message.receiver] += 1
            turns.begin(key)
            taken.append(message)
            connection.execute(_HOLD, {"this": message.id, "until": now + HELD_S})
    return taken


def _delivery(row: Row[Any]) -> WebhookMessage:
    return WebhookMessage(
        id=row.id, job=row.job, key=row.key, url=row.url, event=row.event, body=row.body, tries=row.tries + 1
    )


def _keys() -> Select[Any]:
    """The keys with pending messages: one index step per key, however many messages there are."""
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
    """A key's due messages, except those to `full` receivers; locked against other processes."""
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
    """Record the outcome of a try, unless another process has taken the message since."""
    values: dict[str, object] = {"state": verdict.state, "answer": answer}
    if verdict.state == "pending":
        values["next_at"] = database_time(connection) + verdict.wait_s
    mine = update(DELIVERIES).where(DELIVERIES.c.id == delivery.id, DELIVERIES.c.tries == delivery.tries)
    connection.execute(mine.values(values))


def _escaped(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)
