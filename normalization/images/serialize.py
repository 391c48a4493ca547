"""Headers and finishing steps as JSON and back, between processes that may run different versions.

Unknown fields from a newer version are ignored; a field missing from an older version gets its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from normalization.values import Header, JoinAlpha, Resize, Size, Step, Transcode, fields_of

T = TypeVar("T")


def known(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build a dataclass from the values that are its fields. Raises TypeError if a required field is missing.

    A field's default must be correct for rows that were written before the field existed.
    """
    names: Mapping[str, object] = getattr(kind, "__dataclass_fields__")  # noqa: B009 - types do not say it has them
    return kind(**{name: value for name, value in values.items() if name in names})


def header_from(values: Mapping[str, Any]) -> Header:
    """A header from its fields as JSON."""
    return known(Header, {**values, "density": _pair(values.get("density"))})


def step_to(step: Step, alpha: Any = None) -> dict[str, Any]:
    """A step as JSON. `alpha` represents its alpha channel, if it has one."""
    if isinstance(step, JoinAlpha):
        return {"step": "JoinAlpha", **fields_of(step), "alpha": alpha}
    return {"step": type(step).__name__, **asdict(step)}


def step_from(values: Mapping[str, Any], alpha: bytes | None = None) -> Step | None:
    """The step from JSON, with this alpha channel; None for a kind that only a newer version knows."""
    match values["step"]:
        case "Resize":
            return known(Resize, {**values, "size": known(Size, values["size"])})
        case "JoinAlpha":
            return known(JoinAlpha, {**values, "alpha": alpha})
        case "Transcode":
            return known(Transcode, {**values, "density": _pair(values.get("density"))})
    return None


def _pair(values: Any) -> tuple[float, float] | None:
    """Restore a pair, which JSON turned into a list."""
    return None if values is None else (values[0], values[1])
