"""The gateway under attack: a real process, the simulated providers behind it, and a listener that nobody may call."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.hostile.entry import PORT, fields
from tests.simulators.base import Simulated, wiring
from tests.simulators.clouds import ALL, KEYS, quick
from tests.simulators.common import tiny
from tests.support.running import Served, serving
from tests.support.world import Canary

# Tells a hang from an answer.
ANSWER_S = 15.0
GROWTH = 64 << 20
_ENVIRON: Mapping[str, str] = {
    "DARKROOM_GATEWAY__BODY_TIMEOUT_S": "3",
    "DARKROOM_GATEWAY__DEADLINE_S": "10",
    "DARKROOM_GATEWAY__MAX_RESULT_BYTES": "20000000",
    "DARKROOM_GATEWAY__ATTEMPT_TIMEOUT_S": "5",
    "DARKROOM_GATEWAY__SUBMIT_TIMEOUT_S": "2",
    "DARKROOM_GATEWAY__POLL_TIMEOUT_S": "1",
    "DARKROOM_GATEWAY__BREAKER_FAILURES": "10000",
    "DARKROOM_GATEWAY__BREAKER_UNREACHED": "10000",
    "DARKROOM_PROVIDERS__LOCAL__WORKERS": "[]",
}
_WORDS_FROM_INSIDE = ("Traceback", "site-packages", ".py", 'File "', " at 0x", *(key for key in KEYS.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `body` is JSON where the answer says so, else text."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is attacked. `start` is the memory of its process, in bytes, after a few good calls."""

    served: Served
    sims: Mapping[str, Simulated]
    canary: Canary
    start: int

    def send(self, message: bytes) -> Answer:
        """Send bytes as they are, and read one answer, while they are still being sent if it comes early."""
        url = urlsplit(self.served.root)
        port = self.canary.url.rpartition(":")[2].encode()
        assert len(port) == len(PORT) - 1
        message = message.replace(PORT, b":" + port)
        with socket.create_connection((str(url.hostname), url.port or 0), timeout=ANSWER_S) as connection:
            sending = threading.Thread(target=_send, args=(connection, message), daemon=True)
            sending.start()
            response = http.client.HTTPResponse(connection)
            response.begin()
            text = response.read()
        sending.join(ANSWER_S)
        headers = {name.lower(): value for name, value in response.getheaders()}
        is_json = headers.get("content-type", "").startswith("application/json")
        return Answer(
            status=response.status, headers=headers, body=json.loads(text) if is_json else text.decode(errors="replace")
        )

    def called(self) -> dict[str, int]:
        """How many requests each provider has had."""
        return {name: len(sim.books.requests) for name, sim in self.sims.items()}

    def memory(self) -> int:
        """What the process has in memory now, in bytes."""
        shown = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(self.served.process.pid)], capture_output=True, check=True
        )
        return int(shown.stdout) * 1024

    def check(self) -> None:
        """The process is the same, answers, and has not grown."""
        assert self.served.process.poll() is None
        assert httpx.get(f"{self.served.root}/healthz", timeout=ANSWER_S).status_code == 200
        grown = self.memory() - self.start
        assert grown < GROWTH, f"{grown / 2**20:.0f} MiB more than at the start"
        assert not self.canary.seen, self.canary.seen


def is_envelope(answer: Answer) -> None:
    """The answer is OpenAI's error, in a sentence, with nothing from inside."""
    error = answer.body["error"]
    assert error.keys() - {"metadata"} == {"message", "type", "param", "code"}, error
    message = error["message"]
    assert isinstance(message, str)
    assert message.isprintable()
    assert message.endswith((".", "?")), message
    assert len(message) < 2000, len(message)
    assert error["type"] in {
        "invalid_request_error", "image_generation_user_error", "server_error", "rate_limit_error",
    }  # fmt: skip
    found = [word for word in _WORDS_FROM_INSIDE if word in json.dumps(answer.body)]
    assert not found, answer.body


@contextmanager
def attacked(folder: Path) -> Iterator[Target]:
    """Start it all, make a few good calls, and at the end see that the process ends as it should."""
    with ExitStack() as stack:
        canary = stack.enter_context(Canary().running())
        sims: dict[str, Simulated] = {name: quick(name) for name in ALL}
        for sim in sims.values():
            stack.enter_context(sim.running())
        served = stack.enter_context(serving(folder, environ={**_ENVIRON, **wiring(sims.values())}))
        target = Target(served=served, sims=sims, canary=canary, start=0)
        for name in (*ALL, *ALL):
            good = target.send(fields(prompt="a cup", routing=json.dumps({"only": [name]})))
            assert good.status == 200, good.body
        yield Target(served=served, sims=sims, canary=canary, start=target.memory())


def _send(connection: socket.socket, message: bytes) -> None:
    # It may have refused the beginning, and hung up on the rest.
    with contextlib.suppress(OSError):
        connection.sendall(message)


__all__ = ["ANSWER_S", "Answer", "Target", "attacked", "is_envelope", "tiny"]
