"""Messages on their way to callers' servers, over real HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from standardwebhooks import WebhookVerificationError

from gateway.webhooks.outbox import WAITS_S
from tests.simulators.receiver import Receiver
from tests.support.office import SECRETS, hurry, opened, post, rows, until, until_states, working
from tests.support.world import Canary


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A caller's server."""
    with Receiver().running() as running:
        yield running


@pytest.fixture
def canary() -> Iterator[Canary]:
    """A server that nobody may call."""
    with Canary().running() as running:
        yield running


async def test_delivered(receiver: Receiver, tmp_path: Path) -> None:
    """A message comes once, as it was written, signed for its caller, and with nothing of ours."""
    async with opened(None, tmp_path) as database, working(database, receiver.origin):
        await post(database, f"{receiver.url}/hook?token=1", key="key_a")
        [row] = await until_states(database, "delivered")
        [message] = receiver.messages
        told = message.verified(SECRETS.of_caller("key_a"))
        assert (told["type"], told["data"]["id"], told["data"]["status"]) == (
            "image.job.completed",
            row.job,
            "completed",
        )
        assert (message.id, message.body.decode(), row.answer) == (row.id, row.body, "HTTP 200")
        assert message.headers["content-type"] == "application/json"
        assert not {"authorization", "cookie"} & message.headers.keys()
        with pytest.raises(WebhookVerificationError):
            message.verified(SECRETS.of_caller("key_b"))


async def test_it_wakes_up(receiver: Receiver, tmp_path: Path) -> None:
    """What this process has written is sent when it is written, and not when it would be looked for next."""
    async with opened(None, tmp_path) as database, working(database, receiver.origin, look_s=3600) as messages_ready:
        await asyncio.sleep(0.1)
        await post(database, f"{receiver.url}/hook")
        messages_ready.set()
        await until_states(database, "delivered")


async def test_tried_until_it_is_taken(receiver: Receiver, canary: Canary, tmp_path: Path) -> None:
    """A message is sent again under its id until it is taken; where a receiver leads elsewhere, nobody follows."""
    receiver.answers.extend([500, 307, 404])
    receiver.elsewhere = f"{canary.url}/steal"
    origin = canary.url.removeprefix("http://")
    async with opened(None, tmp_path) as database, working(database, receiver.origin, origin) as messages_ready:
        await post(database, f"{receiver.url}/hook")
        for tries in range(1, 4):
            await until_states(database, "pending", tries=tries)
            await hurry(database)
            messages_ready.set()
        await until_states(database, "delivered", tries=4)
        assert [message.status for message in receiver.messages] == [500, 307, 404, 200]
        assert len({message.id for message in receiver.messages}) == 1
        for message in receiver.messages:
            message.verified(SECRETS.of_caller("key_a"))
        assert canary.seen == []


async def test_gone_is_gone(receiver: Receiver, tmp_path: Path) -> None:
    """After a 410 there is no further try."""
    receiver.usual = 410
    async with opened(None, tmp_path) as database, working(database, receiver.origin) as messages_ready:
        await post(database, f"{receiver.url}/hook")
        await until_states(database, "given_up")
        await hurry(database)
        messages_ready.set()
        await post(database, f"{receiver.url}/other")
        await until_states(database, "given_up", "given_up")
        assert len(receiver.at("/hook")) == 1


async def test_an_end_comes(receiver: Receiver, tmp_path: Path) -> None:
    """After the last wait there is one more try, and then none."""
    receiver.usual = 503
    async with opened(None, tmp_path) as database:
        await post(database, f"{receiver.url}/hook")
        await hurry(database, tries=len(WAITS_S))
        async with working(database, receiver.origin):
            [row] = await until_states(database, "failed", tries=len(WAITS_S) + 1)
        assert row.answer == "HTTP 503"


async def test_progress_is_sent_once(receiver: Receiver, tmp_path: Path) -> None:
    """Progress is not tried again, not even where its first process was lost with it."""
    receiver.usual = 503
    async with opened(None, tmp_path) as database:
        await post(database, f"{receiver.url}/lost", event="progress")
        await hurry(database, tries=1)
        await post(database, f"{receiver.url}/refused", event="progress")
        async with working(database, receiver.origin):
            await until_states(database, "failed", "failed")
        assert [message.path for message in receiver.messages] == ["/refused"]


async def test_nobody_there(tmp_path: Path) -> None:
    """Where nobody listens a message waits for its next try."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        origin = f"127.0.0.1:{closed.getsockname()[1]}"
    async with opened(None, tmp_path) as database, working(database, origin):
        await post(database, f"http://{origin}/hook")
        [row] = await until_states(database, "pending", tries=1)
        assert row.answer == "ConnectError"


async def test_a_slow_one_holds_up_nobody(receiver: Receiver, tmp_path: Path) -> None:
    """A receiver that is slow has two messages at a time; those of others pass by all that wait for it."""
    receiver.slow_s = 30.0
    with Receiver().running() as other:
        origins = receiver.origin, other.origin
        async with opened(None, tmp_path) as database, working(database, *origins, leave_s=0.0) as messages_ready:
            await post(database, f"{receiver.url}/slow", count=60)
            messages_ready.set()
            await post(database, f"{other.url}/hook", count=20)
            messages_ready.set()
            await until(lambda: len(other.messages) == 20)
            assert (receiver.at_once, len(receiver.messages)) == (2, 2)


async def test_an_endless_answer(receiver: Receiver, tmp_path: Path) -> None:
    """Of an answer only the status counts: what follows is not read to its end."""
    async with opened(None, tmp_path) as database, working(database, receiver.origin):
        await post(database, f"{receiver.url}/endless")
        await until_states(database, "delivered")


@pytest.mark.parametrize(
    "address", ["http://{canary}/x", "https://127.0.0.1/x", "https://localhost/x", "https://[::1]/x", "ftp://a/x"]
)
async def test_private_addresses(address: str, canary: Canary, tmp_path: Path) -> None:
    """No message goes to an address of ours: neither one that says so, nor a name that leads there."""
    async with opened(None, tmp_path) as database, working(database):
        await post(database, address.format(canary=canary.url.removeprefix("http://")))
        [row] = await until_states(database, "pending", tries=1)
        assert row.answer == "not a public address"
        assert canary.seen == []


async def test_each_is_sent_once(receiver: Receiver, url: str | None, tmp_path: Path) -> None:
    """Three postmen with connections of their own share a database: no message goes out twice."""
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(opened(url, tmp_path)) for _ in range(3)]
        for n in range(40):
            await post(databases[0], f"http://localhost:{receiver.url.rpartition(':')[2]}/{n}", count=5)
        names = (receiver.origin, f"localhost:{receiver.url.rpartition(':')[2]}")
        woken = [await stack.enter_async_context(working(database, *names)) for database in databases]
        assert len(woken) == 3
        await until_states(databases[0], *["delivered"] * 200)
        assert max(Counter(message.id for message in receiver.messages).values()) == 1
        assert len(receiver.messages) == 200
        assert {row.tries for row in await rows(databases[0])} == {1}


async def test_the_last_words(receiver: Receiver, tmp_path: Path) -> None:
    """A postman who is stopped lets what is under way come to its end."""
    receiver.slow_s = 0.3
    async with opened(None, tmp_path) as database:
        async with working(database, receiver.origin, leave_s=30.0) as messages_ready:
            await post(database, f"{receiver.url}/slow")
            messages_ready.set()
            await until(lambda: receiver.messages)
        await until_states(database, "delivered")
