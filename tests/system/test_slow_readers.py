"""Clients that take their answer slowly: below the floor they are cut off, and none of them costs much memory."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from gateway.file_names import new_name
from normalization.values import Header, Image
from tests.support.running import Serve, Served, until

_LARGE = 40 << 20


def stored(served: Served) -> str:
    """The path of a large file in a gateway's store."""
    whole = bytes(1 << 20) * (_LARGE >> 20)
    name = new_name(Image(data=whole, header=Header(format="png", width=2, height=2)))
    folder = served.log.parent / "data" / "files"
    (folder / name).write_bytes(whole)
    return f"/files/{name}"


def ask(served: Served, path: str, stack: ExitStack) -> socket.socket:
    """Ask for a file, and read nothing of it so far."""
    place = httpx.URL(served.root)
    made = stack.enter_context(socket.socket())
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect((place.host, place.port))
    made.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
    return made


def resident(served: Served) -> int:
    """The memory of its process, in bytes."""
    text = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) << 10


def test_unread_downloads_cost_little(serve: Serve) -> None:
    """Thirty unread files of 40 MiB each take a few of them together, and not thirty times 40 MiB."""
    served = serve(ready=503, DARKROOM_PROVIDERS__LOCAL__WORKERS="[]")
    path = stored(served)
    assert len(httpx.get(served.root + path).content) == _LARGE
    before = resident(served)
    with ExitStack() as stack:
        for _ in range(30):
            ask(served, path, stack)
        until(lambda: served.metric("darkroom_request_bytes_held") == 30 << 20, "all are being sent")
        assert resident(served) - before < 60 << 20


def test_the_floor_under_a_reader(serve: Serve) -> None:
    """One that takes a little all the time is cut off; one that takes enough is not."""
    served = serve(
        ready=503,
        DARKROOM_PROVIDERS__LOCAL__WORKERS="[]",
        DARKROOM_GATEWAY__SEND_TIMEOUT_S="2",
        DARKROOM_GATEWAY__MIN_ANSWER_BYTES_PER_S="1000000",
    )
    path = stored(served)
    with ExitStack() as stack:
        slow = ask(served, path, stack)
        slow.settimeout(20)
        began = time.monotonic()
        taken = 0
        while piece := _read(slow, 20_000):
            taken += len(piece)
            time.sleep(0.1)
        assert taken < _LARGE
        assert time.monotonic() - began < 60
    assert served.metric("darkroom_cut_off_total", **{"while": "answer"}) == 1
    assert len(httpx.get(served.root + path).content) == _LARGE


def _read(connection: socket.socket, size: int) -> bytes:
    try:
        return connection.recv(size)
    except ConnectionError:
        return b""
