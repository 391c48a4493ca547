"""A reverse proxy that says nothing of whom it speaks for, as nginx is with `proxy_pass` and nothing else.

What it sends is what nginx 1.22 sends then: HTTP/1.0, the upstream's own address as `Host`, `Connection: close`, and of
the caller nothing at all.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

_MOST = 1 << 16
_DROPPED = (b"host:", b"connection:", b"keep-alive:", b"te:", b"upgrade:", b"proxy-connection:")


@contextmanager
def plain_proxy(upstream: str) -> Iterator[str]:
    """The address of a proxy before `upstream`, until the block ends."""
    parts = urlsplit(upstream)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_accept, args=(listening, parts.hostname, parts.port), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _accept(listening: socket.socket, host: str, port: int) -> None:
    while True:
        try:
            caller, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(caller, host, port), daemon=True).start()


def _serve(caller: socket.socket, host: str, port: int) -> None:
    """Pass on one request and its answer. The next one takes another connection."""
    with caller, contextlib.suppress(OSError), socket.create_connection((host, port)) as upstream:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := caller.recv(_MOST)):
                return
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        request, *lines = head.split(b"\r\n")
        method, target, _ = request.split(b" ", 2)
        kept = [line for line in lines if not line.lower().startswith(_DROPPED)]
        own = [b"%s %s HTTP/1.0" % (method, target), b"Host: %s:%d" % (host.encode(), port), b"Connection: close"]
        upstream.sendall(b"\r\n".join([*own, *kept]) + b"\r\n\r\n" + rest)
        threading.Thread(target=_pump, args=(caller, upstream), daemon=True).start()
        _pump(upstream, caller)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_MOST):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
