"""The floor under a reader's speed, and how many callers there may be with so many file handles."""

from __future__ import annotations

import pytest

from gateway.http.backpressure import ClientReader
from gateway.process import bounded

FLOOR, PATIENCE_S = 1000.0, 10.0


def cut_at(*taken: float, unsent: int = 50_000) -> int | None:
    """The second at which a client is cut that takes so many bytes in each one; None where it is not."""
    reader, total = ClientReader(FLOOR, PATIENCE_S), 0.0
    reader.is_late(0.0, 0, unsent)
    for second, size in enumerate(taken, 1):
        total += size
        if reader.is_late(float(second), int(total), unsent):
            return second
    return None


@pytest.mark.parametrize(
    ("taken", "cut"),
    [
        ([0] * 100, 10),
        ([500] * 100, 20),
        ([900] * 101, 100),
        ([1000] * 1000, None),
        ([5000] * 1000, None),
        ([0, 0, 0, 4000] * 100, None),
        # What was taken fast before buys nothing.
        ([100_000] + [0] * 100, 11),
        # A piece now and then is not enough.
        ([0, 0, 0, 0, 1000] * 100, 12),
    ],
    ids=["nothing", "half", "a bit less", "just enough", "fast", "in bursts", "fast and then nothing", "drips"],
)
def test_the_floor(taken: list[float], cut: int | None) -> None:
    """Who takes less is cut, the sooner the less it takes."""
    assert cut_at(*taken) == cut


def test_a_client_that_waits_for_us() -> None:
    """While nothing is written for it, it is behind with nothing."""
    reader = ClientReader(FLOOR, PATIENCE_S)
    reader.is_late(0, 0, 100)
    assert not reader.is_late(9, 0, 100)
    assert not reader.is_late(9.5, 100, 0)
    assert not reader.is_late(1000, 100, 70_000)
    assert not reader.is_late(1009, 100, 70_000)
    assert reader.is_late(1010, 100, 70_000)


@pytest.mark.parametrize(
    ("wanted", "handles", "most"), [(2000, 65_536, 2000), (2000, 1024, 193), (2000, 96, 8), (4, 96, 4), (2000, 8, 1)]
)
def test_handles(wanted: int, handles: int, most: int) -> None:
    """There are handles for everybody who is let in, with its job's."""
    assert bounded(wanted, handles) == most
