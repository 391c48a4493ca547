"""Random names."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from providers.http.ids import token_hex

EACH = 500


def test_all_differ() -> None:
    """Over many threads, and over the ends of what was drawn at once."""
    with ThreadPoolExecutor(4) as pool:
        drawn = [name for names in pool.map(lambda _: [token_hex(12) for _ in range(EACH)], range(8)) for name in names]

    assert len(set(drawn)) == 8 * EACH
    assert {len(name) for name in drawn} == {24}


def test_a_child_draws_its_own() -> None:
    """A process that forks does not share what it had drawn before."""
    token_hex(12)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, token_hex(12).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 24).decode()

    assert len(theirs) == 24
    assert theirs not in {token_hex(12) for _ in range(100)}
