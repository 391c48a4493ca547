"""Emulations: what a provider lacks and the gateway does, named in the config.

Each is a pure function from the whole request (several parameters can say one thing together) to an effect on the plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from normalization.parameters.coerce import InvalidValue
from normalization.parameters.sizing import Geometry, resizing
from normalization.values import OPAQUE, Format, Step, Transcode, Value

# The order in which finishing steps make sense, whatever order the config lists the rules in.
ORDER = ("choose", "fan_out", "resize", "transcode", "deliver", "notify", "ignore")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_LOSSY = ("jpeg", "webp", "avif")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulationRequest:
    """What an emulation may look at. `given` are the names that the caller set himself."""

    values: Mapping[str, Value]
    given: frozenset[str]
    defaults: Mapping[str, Value]
    geometry: Geometry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an emulation adds to the plan. `copies` is the number of upstream calls."""

    copies: int = 1
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


Emulation = Callable[[EmulationRequest, tuple[str, ...]], Effect]


def fan_out(asked: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """`n` calls at once, each with a seed of its own."""
    return Effect(copies=int(cast("int", asked.values.get(names[0]) or 1)))


def resize(asked: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """The asked `size`, by `size_mode`: crop (keep the aspect ratio, cover, cut evenly), fit, pad or stretch."""
    if asked.geometry is None:
        return Effect()
    return Effect(steps=resizing(asked.geometry, _colour(asked.values.get("background"))))


def transcode(asked: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """`output_format`, `output_compression` and `background`; bytes that are right already stay as they are."""
    wanted = cast("Format", asked.values.get("output_format") or "png")
    quality = asked.values.get("output_compression")
    background = asked.values.get("background") or "auto"
    notes: tuple[str, ...] = ()
    if quality is not None and wanted not in _LOSSY:
        notes = (f"output_compression was ignored: {wanted} has no quality setting.",)
        quality = None
    if background == "transparent" and wanted in OPAQUE:
        raise InvalidValue(
            "background",
            f"Transparent backgrounds do not exist in {wanted}: ask for output_format png, webp, avif or gif.",
            "invalid_value",
        )
    step = Transcode(
        format=wanted,
        quality=cast("int | None", quality),
        background=_colour(background),
        opaque=background not in ("auto", "transparent"),
    )
    return Effect(steps=(step,), notes=notes)


def deliver(asked: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """By address, as base64 or both, in one answer or as a stream: the reply does it, from the same pictures."""
    return Effect()


def notify(asked: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """The gateway itself calls the caller's address when the job moves on; no provider hears of it."""
    return Effect()


def choose(asked: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """Says which route may serve: the gateway goes by it before any route sees the request."""
    return Effect()


def ignore(asked: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """Accepted so that the call works, without effect here; the caller is told."""
    return Effect(
        notes=tuple(
            f"{name} was ignored: this route has no such parameter."
            for name in names
            if name in asked.given and asked.values.get(name) != asked.defaults.get(name)
        )
    )


EMULATIONS: Mapping[str, Emulation] = {
    "choose": choose,
    "fan_out": fan_out,
    "resize": resize,
    "transcode": transcode,
    "deliver": deliver,
    "notify": notify,
    "ignore": ignore,
}


def _colour(background: Value) -> str | None:
    if background in (None, "auto", "transparent", "opaque"):
        return None
    if isinstance(background, str) and _COLOUR.fullmatch(background):
        return background.lower()
    raise InvalidValue(
        "background",
        f"Invalid value: '{str(background)[:40]}'. Supported values are: 'auto', 'transparent', 'opaque' "
        "and a colour to flatten onto, such as '#ffffff'.",
        "invalid_value",
    )
