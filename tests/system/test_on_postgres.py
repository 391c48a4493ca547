"""What differs between databases, over a real Postgres."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from gateway.ledger.store import IdempotencyKeyReused
from tests.support.ledgers import ledger, order
from tests.support.postgres import Postgres, postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server for the tests of this module."""
    with postgres() as running:
        yield running


async def test_a_key_is_known_to_all(server: Postgres, tmp_path: Path) -> None:
    """The second call under a key has the first one's job, in whichever process; another request has none."""
    url = server.fresh("keys")
    async with ledger(tmp_path, url) as one, ledger(tmp_path, url) as two:
        first = order(idempotency_key="k")
        assert await one.accept(first) is None
        for process in (one, two):
            found = await process.accept(order(idempotency_key="k"))
            assert found is not None
            assert found.order.id == first.id
        with pytest.raises(IdempotencyKeyReused):
            await two.accept(order(idempotency_key="k", fingerprint="other"))
        assert await two.accept(order(idempotency_key="another")) is None


async def test_messages_hide_what_was_asked(server: Postgres, tmp_path: Path) -> None:
    """An error of the database has its statement, and none of its parameters: there are prompts among them."""
    twice = text("INSERT INTO secrets VALUES ('a', :prompt), ('a', :prompt)")
    for url in (server.fresh("hidden"), None):
        async with ledger(tmp_path, url) as opened:
            with pytest.raises(IntegrityError, match="INSERT INTO secrets") as caught:
                await opened.database.write(lambda connection: connection.execute(twice, {"prompt": "a private one"}))
            # Postgres itself tells the key that is there twice, which is not the prompt.
            assert "a private one" not in str(caught.value)
