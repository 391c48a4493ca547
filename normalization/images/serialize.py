"""Headers and finishing steps as JSON, and back: for processes that may be of different versions.

What a newer version wrote beside the fields that are known here is passed over, and a field that an older one did not
write has its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from normalization.values import Header, JoinAlpha, Resize, Size, Step, Transcode, fields_of

T = TypeVar("T")


def known(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from those of the values that are fields of it. Raises TypeError where one that it needs is missing.

    A default that it has for a field has to say of an older row what is true of it.
    """
    names: Mapping[str, object] = getattr(kind, "__dataclass_fields__")  # noqa: B009 - types do not say it has them
    return kind(**{name: value for name, value in values.items() if name in names})


def header_from(values: Mapping[str, Any]) -> Header:
    """A header from its fields as JSON."""
    return known(Header, {**values, "density": _pair(values.get("density"))})


def step_to(step: Step, alpha: Any = None) -> dict[str, Any]:
    """A step as JSON. `alpha` is what stands for its alpha channel, where it has one."""
    if isinstance(step, JoinAlpha):
        return {"step": "JoinAlpha", **fields_of(step), "alpha": alpha}
    return {"step": type(step).__name__, **asdict(step)}


def step_from(values: Mapping[str, Any], alpha: bytes | None = None) -> Step | None:
    """The step again, with this alpha channel; None for one that only a newer version knows."""
    match values["step"]:
        case "Resize":
            return known(Resize, {**values, "size": known(Size, values["size"])})
        case "JoinAlpha":
            return known(JoinAlpha, {**values, "alpha": alpha})
        case "Transcode":
            return known(Transcode, {**values, "density": _pair(values.get("density"))})
    return None


def _pair(found: Any) -> tuple[float, float] | None:
    """JSON makes a list of a pair."""
    return None if found is None else (found[0], found[1])
