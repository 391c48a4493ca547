"""Reading from a log how much of a job is done."""

from __future__ import annotations

import pytest

from providers.kit.polling import MonotonicProgress, parse_progress


@pytest.mark.parametrize(
    ("logs", "done"),
    [
        (" 42%|####      | 21/50 [00:01<00:02, 12.3it/s]", 0.42),
        ("Tile 3: 100%|##########| 3/3", 1.0),
        ("  5%|▌| 1/20\r 10%|█| 2/20\n 15%|█▌| 3/20", 0.15),
        ("progress: 12.5 %", 0.125),
        ("  5%|▌| 1/20\nProgress 70%", 0.7),
        ("Progress 70%\n 80%|", 0.8),
        ("  0%|          | 0/20", 0.0),
        ("999%|", None),
        ("99%|\n200%|", 0.99),
        ("1234%|", None),
        ("GPU memory at 97%", None),
        ("%|", None),
        ("x" * 100_000, None),
        ("50%|" + "x" * 100_000, None),
        ("", None),
        (None, None),
        (b"50%|", None),
        ([" 50%|"], None),
    ],
)
def test_the_last_bar_of_a_log_counts(logs: object, done: float | None) -> None:
    """Bars and a word of progress are understood, percentages of something else are not."""
    assert parse_progress(logs) == done


def test_it_never_goes_back() -> None:
    """A second bar that begins anew is not told until it is further than the first one was."""
    told: list[float] = []
    forward = MonotonicProgress(told.append)
    for done in (0.0, 0.5, None, 0.4, 0.5, 1.0, 0.1):
        forward(done)
    assert told == [0.5, 1.0]
