"""Random names that need not be asked of the kernel one by one: each of its answers costs a change of threads.

What is a secret by itself (a key, a file's name) is drawn by the standard library's `secrets` instead.
"""

from __future__ import annotations

import os
import threading

_DRAWN_BYTES = 1024


class _Drawn(threading.local):
    """Random bytes that nobody has had yet, a thread's own."""

    rest = b""


_DRAWN = _Drawn()


def token_hex(size: int) -> str:
    """`size` random bytes as hexadecimal digits, from the kernel's generator: nobody can foresee them."""
    if len(_DRAWN.rest) < size:
        _DRAWN.rest = os.urandom(_DRAWN_BYTES)
    token, _DRAWN.rest = _DRAWN.rest[:size], _DRAWN.rest[size:]
    return token.hex()


def _forget() -> None:
    _DRAWN.rest = b""


# Two processes must not go on with the same bytes. Only the thread that forks lives on in the child.
os.register_at_fork(after_in_child=_forget)
