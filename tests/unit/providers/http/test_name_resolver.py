"""Names that callers choose, and whose name servers never answer."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from providers.http.ssrf import UrlPolicy


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set once the name servers of `*.slow.example` answer."""
    answering, ask = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **more: Any) -> Any:
        if host.endswith(".slow.example"):
            answering.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return ask(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield answering
    answering.set()


async def test_slow_names_hold_up_nothing_else(answers: threading.Event) -> None:
    """While 40 lookups hang there is a thread for other work, for a provider's name, and for another caller's name."""
    resolver = UrlPolicy(allow=frozenset({"localhost:80"})).resolver()
    slow = [asyncio.create_task(resolver.resolve(f"{n}.slow.example")) for n in range(40)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await asyncio.to_thread(int)
        assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        found = await resolver.resolve("localhost", 80)
    assert {(result["hostname"], result["port"]) for result in found} == {("localhost", 80)}
    assert {result["host"] for result in found} <= {"127.0.0.1", "::1"}
    assert not any(task.done() for task in slow)
    answers.set()
    assert {type(error) for error in await asyncio.gather(*slow, return_exceptions=True)} == {socket.gaierror}
    await resolver.close()
