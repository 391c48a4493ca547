"""Why no route can serve, in the order of what can be done about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.routing.selection import Excluded


def told(excluded: Sequence[Excluded]) -> str:
    """Every reason in one text: first what will pass, then what the caller can change, then what the operator can.

    What the caller has left out himself comes last, in a sentence of its own. Ends without a full stop.
    """
    own = [one for one in excluded if one.own]
    others = sorted((one for one in excluded if not one.own), key=_rank)
    reasons = "; ".join(f"{one.route.name} {one.reason}" for one in others)
    return ". ".join(filter(None, (reasons, _summed(own))))


def _rank(excluded: Excluded) -> int:
    if excluded.retry_after is not None:
        return 0
    return 1 if excluded.param is not None else 2


def _summed(excluded: Iterable[Excluded]) -> str:
    """The routes that are left out for the same reason, together."""
    by_reason: dict[str, list[str]] = {}
    for one in excluded:
        by_reason.setdefault(one.reason, []).append(one.route.name)
    return "; ".join(_clause(names, reason) for reason, names in by_reason.items())


def _clause(names: list[str], reason: str) -> str:
    if len(names) == 1:
        return f"{names[0]} {reason}"
    return f"{', '.join(names[:-1])} and {names[-1]} {_plural(reason)}"


def _plural(reason: str) -> str:
    return f"are {reason.removeprefix('is ')}" if reason.startswith("is ") else reason
