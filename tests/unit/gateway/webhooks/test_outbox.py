"""Messages belong to one process at a time, in SQLite and in Postgres."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, delete

from gateway.database.schema import JOBS
from gateway.webhooks.outbox import RetryDecision, WebhookMessage, receiver, settle, take
from tests.support.office import hurry, opened, post, rows

AGAIN = RetryDecision(state="pending", outcome="refused", wait_s=60.0)
DONE = RetryDecision(state="delivered", outcome="delivered")


def some(connection: Connection) -> list[WebhookMessage]:
    """Take what may be taken."""
    return take(connection, most=16, at_once=2, busy={})


async def test_taken_by_one(url: str | None, tmp_path: Path) -> None:
    """What one process has taken is not there for another one, until the first has had time enough."""
    async with opened(url, tmp_path) as one, opened(url, tmp_path) as two:
        await post(one, "https://a.example/hook", key="key_b")
        [taken] = await one.write(some)
        assert (taken.key, taken.tries, taken.event) == ("key_b", 1, "completed")
        assert await two.write(some) == []
        await hurry(one)
        [again] = await two.write(some)
        assert (again.id, again.tries) == (taken.id, 2)


async def test_whoever_lost_it_says_nothing_of_it(url: str | None, tmp_path: Path) -> None:
    """What came of a try counts only while nobody else has the message."""
    async with opened(url, tmp_path) as database:
        await post(database, "https://a.example/hook")
        [first] = await database.write(some)
        await hurry(database)
        [second] = await database.write(some)
        await database.write(lambda connection: settle(connection, second, DONE, "HTTP 200"))
        await database.write(lambda connection: settle(connection, first, AGAIN, "HTTP 500"))
        [row] = await rows(database)
        assert (row.state, row.answer, row.tries) == ("delivered", "HTTP 200", 2)


async def test_not_before_its_time(url: str | None, tmp_path: Path) -> None:
    """A message that has to wait is not taken."""
    async with opened(url, tmp_path) as database:
        await post(database, "https://a.example/hook")
        [taken] = await database.write(some)
        await database.write(lambda connection: settle(connection, taken, AGAIN, "HTTP 500"))
        assert await database.write(some) == []


async def test_a_few_for_one_receiver(url: str | None, tmp_path: Path) -> None:
    """One receiver has two at once, however many wait for it, and those of others come to their turn."""
    async with opened(url, tmp_path) as database:
        await post(database, "https://a_%.example/many", count=40)
        await post(database, "https://b.example/one")
        await post(database, "https://a_b.example/other")
        taken = await database.write(some)
        expected = ["https://a_%.example", "https://a_%.example", "https://b.example", "https://a_b.example"]
        assert [found.receiver for found in taken] == expected
        busy = {("key_a", "https://a_%.example"): 1}
        assert len(await database.write(lambda connection: take(connection, most=16, at_once=2, busy=busy))) == 1


async def test_no_more_than_asked_for(url: str | None, tmp_path: Path) -> None:
    """So many at most, whoever they are for."""
    async with opened(url, tmp_path) as database:
        for n in range(5):
            await post(database, f"https://{n}.example/hook")
        taken = await database.write(lambda connection: take(connection, most=3, at_once=2, busy={}))
        assert [found.url for found in taken] == [f"https://{n}.example/hook" for n in range(3)]


async def test_gone_with_their_job(url: str | None, tmp_path: Path) -> None:
    """When a job is forgotten, so are its messages; what came of one that is under way is then nobody's."""
    async with opened(url, tmp_path) as database:
        await post(database, "https://a.example/hook")
        [taken] = await database.write(some)
        await database.write(lambda connection: connection.execute(delete(JOBS)))
        await database.write(lambda connection: settle(connection, taken, DONE, "HTTP 200"))
        assert await rows(database) == []


def test_receivers() -> None:
    """A receiver is an address without its path, as it was written."""
    assert receiver("https://a.example/x?y#z") == "https://a.example"
    assert receiver("https://a.example:8443?y") == "https://a.example:8443"
    assert receiver("what is this") == "what is this"
