"""Breakers, cool-downs and parked providers, with a clock that the test turns."""

import pytest

from gateway.routing.breaker import Breakers, BreakerSettings
from providers.errors import Failed, ProviderError, Rejected, Throttled, Undecodable, Unreached, Unusable


class Clock:
    """A clock that stands until it is turned."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def turning() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture
def breakers(turning: Clock) -> Breakers:
    """Breakers with the default policy."""
    return Breakers(BreakerSettings(), turning)


def fail(breakers: Breakers, error: ProviderError, times: int = 1, route: str = "fal") -> None:
    """Let attempts at a route fail."""
    for _ in range(times):
        with pytest.raises(type(error)), breakers.attempt("m", route, "fal"):
            raise error


def standing(breakers: Breakers, route: str = "fal", provider: str = "fal") -> tuple[str, float]:
    """A route's standing."""
    return breakers.standing("m", route, provider)


@pytest.mark.parametrize(("error", "times"), [(Unreached("x"), 3), (Failed("x"), 5), (Undecodable("x"), 5)])
def test_consecutive_failures(breakers: Breakers, error: ProviderError, times: int) -> None:
    """Requests that never left and answered errors are counted apart, each to its own number."""
    fail(breakers, error, times - 1)
    assert standing(breakers) == ("well", 0)

    fail(breakers, error)

    assert standing(breakers) == ("ejected", 30)
    assert standing(breakers, "other") == ("well", 0)


def test_failures_apart(breakers: Breakers) -> None:
    """Neither kind of failure adds to the count of the other."""
    fail(breakers, Unreached("x"), 2)
    fail(breakers, Failed("x"), 4)

    assert standing(breakers) == ("well", 0)


def test_a_success_forgives(breakers: Breakers) -> None:
    """A success in between starts the count anew."""
    for _ in range(4):
        fail(breakers, Unreached("x"), 2)
        with breakers.attempt("m", "fal", "fal"):
            pass

    assert standing(breakers)[0] == "well"


def test_more_than_half(breakers: Breakers, turning: Clock) -> None:
    """More than half of ten answers within 30 s eject a route too; what is older does not count."""
    for number in range(4):
        with breakers.attempt("m", "fal", "fal"):
            pass
        fail(breakers, Failed("x"), 2 if number else 1)
    assert standing(breakers)[0] == "ejected"

    turning.now += 31
    slow = Breakers(BreakerSettings(), turning)
    for _ in range(4):
        with slow.attempt("m", "fal", "fal"):
            pass
        fail(slow, Failed("x"), 2)
        turning.now += 31
    assert standing(slow)[0] == "well"


def test_bad_input_is_not_its_fault(breakers: Breakers) -> None:
    """What a caller did wrong says nothing of the route's health."""
    fail(breakers, Rejected("x"), 50)

    assert standing(breakers) == ("well", 0)


def test_ejections_grow_and_end(breakers: Breakers, turning: Clock) -> None:
    """Each failed probe ejects for longer, up to a cap; a good one ends it all."""
    fail(breakers, Unreached("x"), 3)
    lengths = []
    for _ in range(12):
        state, left = standing(breakers)
        assert state == "ejected"
        lengths.append(left)
        turning.now += left
        assert standing(breakers)[0] == "well"
        fail(breakers, Failed("x"))
    turning.now += 300
    with breakers.attempt("m", "fal", "fal"):
        pass

    assert lengths == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]
    assert standing(breakers) == ("well", 0)
    fail(breakers, Failed("x"), 4)
    assert standing(breakers) == ("well", 0)


def test_one_probe_at_a_time(breakers: Breakers, turning: Clock) -> None:
    """While one request probes an ejected route, others see it as ejected; afterwards its outcome counts."""
    fail(breakers, Unreached("x"), 3)
    turning.now += 31
    with breakers.attempt("m", "fal", "fal"):
        assert standing(breakers)[0] == "ejected"

    assert standing(breakers)[0] == "well"


def test_a_probe_that_is_cancelled(breakers: Breakers, turning: Clock) -> None:
    """A probe that ends without an outcome leaves the place to the next one."""
    fail(breakers, Unreached("x"), 3)
    turning.now += 31
    with pytest.raises(KeyboardInterrupt), breakers.attempt("m", "fal", "fal"):
        raise KeyboardInterrupt

    assert standing(breakers)[0] == "well"


@pytest.mark.parametrize(("after", "left"), [(12.0, 12.0), (None, 5.0), (9999.0, 300.0), (0.0, 0.0)])
def test_throttled(breakers: Breakers, turning: Clock, after: float | None, left: float) -> None:
    """A throttled route cools down for as long as the provider says, within reason."""
    fail(breakers, Throttled("x", retry_after=after))

    assert standing(breakers) == (("cooling", left) if left else ("well", 0))
    turning.now += left
    assert standing(breakers) == ("well", 0)


def test_parked(breakers: Breakers, turning: Clock) -> None:
    """Where our account is refused, every route of the provider is parked, and no other one's."""
    fail(breakers, Unusable("no credit"))

    assert standing(breakers, "another") == ("parked", 300)
    assert standing(breakers, "fal", "replicate")[0] == "well"
    turning.now += 301
    assert standing(breakers) == ("well", 0)
