"""What becomes of a message after a try."""

import pytest

from gateway.webhooks.outbox import WAITS_S, RetryDecision, next_attempt


def after(status: int | None, *, tries: int = 1, event: str = "completed", chance: float = 0.5) -> RetryDecision:
    """The verdict on a try."""
    return next_attempt(event=event, tries=tries, status=status, chance=chance)


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_taken(status: int) -> None:
    """Any 2xx is a message delivered."""
    assert after(status) == RetryDecision(state="delivered", outcome="delivered")


def test_gone() -> None:
    """410 ends it at once: the receiver says that it wants no more."""
    assert after(410) == RetryDecision(state="given_up", outcome="given_up")


@pytest.mark.parametrize(("status", "outcome"), [(None, "unreachable"), (500, "refused"), (404, "refused")])
def test_tried_again(status: int | None, outcome: str) -> None:
    """Everything else is tried again, in growing steps, over about a day, and then never again."""
    told = [after(status, tries=tries) for tries in range(1, len(WAITS_S) + 2)]
    assert [verdict.wait_s for verdict in told] == [*WAITS_S, 0.0]
    assert [verdict.state for verdict in told] == ["pending"] * len(WAITS_S) + ["failed"]
    assert {verdict.outcome for verdict in told} == {outcome}
    assert 12 * 3600 < sum(WAITS_S) < 24 * 3600


def test_not_all_at_one_time() -> None:
    """Waits differ by chance, by a fifth to either side."""
    assert after(500, chance=0.0).wait_s == pytest.approx(0.8 * WAITS_S[0])
    assert after(500, chance=1.0).wait_s == pytest.approx(1.2 * WAITS_S[0])


@pytest.mark.parametrize("status", [None, 500, 302])
def test_progress_is_told_once(status: int | None) -> None:
    """How far a job is, is not worth a second try."""
    assert after(status, event="progress").state == "failed"
