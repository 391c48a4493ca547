"""What becomes of a message after a try: pure, for there is a day between the first and the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["pending", "delivered", "given_up", "failed"]
Outcome = Literal["delivered", "refused", "unreachable", "given_up"]

WAITS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""The seconds after the first try, the second, …; after one more than there are waits a message has failed."""

_GONE = 410
# The share by which a wait is longer or shorter: what failed at one time is not all tried again at one time.
_JITTER = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`state` is the message's from now on, `wait_s` how long until its next try, `outcome` what metrics count."""

    state: State
    outcome: Outcome
    wait_s: float = 0.0


def judge(*, event: str, tries: int, status: int | None, chance: float) -> Verdict:
    """What follows from try number `tries` of a message: its answer's status, None where there was no answer.

    `chance` is a random number from 0 to 1.
    """
    if status is not None and 200 <= status < 300:
        return Verdict(state="delivered", outcome="delivered")
    if status == _GONE:
        return Verdict(state="given_up", outcome="given_up")
    outcome: Outcome = "unreachable" if status is None else "refused"
    # By the next try, the share of a job that is done would be another one.
    if event == "progress" or tries > len(WAITS_S):
        return Verdict(state="failed", outcome=outcome)
    return Verdict(state="pending", outcome=outcome, wait_s=WAITS_S[tries - 1] * (1 + _JITTER * (2 * chance - 1)))
