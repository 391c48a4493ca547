"""Emulations: features that a provider lacks and the gateway provides, named in the config.

Each is a pure function from the whole request, because several parameters can act together, to an effect on the plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from normalization.parameters.coerce import InvalidValue
from normalization.parameters.sizing import Geometry, resizing
from normalization.values import OPAQUE, Format, Step, Transcode, Value

# The order of the finishing steps, independent of the order of the rules in the config.
ORDER = ("choose", "fan_out", "resize", "transcode", "deliver", "notify", "ignore")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_LOSSY = ("jpeg", "webp", "avif")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulationRequest:
    """The input of an emulation. `given` are the names of the parameters that the client set."""

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


def fan_out(request: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """`n` concurrent calls, each with a different seed."""
    return Effect(copies=int(cast("int", request.values.get(names[0]) or 1)))


def resize(request: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """The requested `size`, by `size_mode`: crop (keep the aspect ratio, cover, crop equally), fit, pad or stretch."""
    if request.geometry is None:
        return Effect()
    return Effect(steps=resizing(request.geometry, _colour(request.values.get("background"))))


def transcode(request: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """`output_format`, `output_compression` and `background`; a file that already matches is not changed."""
    wanted = cast("Format", request.values.get("output_format") or "png")
    quality = request.values.get("output_compression")
    background = request.values.get("background") or "auto"
    notes: tuple[str, ...] = ()
    if quality is not None and wanted not in _LOSSY:
        notes = (f"output_compression was ignored: {wanted} has no quality setting.",)
        quality = None
    if background == "transparent" and wanted in OPAQUE:
        raise InvalidValue(
            "background",
            f"{wanted} has no transparency: use output_format png, webp, avif or gif with background=transparent.",
            "invalid_value",
        )
    step = Transcode(
        format=wanted,
        quality=cast("int | None", quality),
        background=_colour(background),
        opaque=background not in ("auto", "transparent"),
    )
    return Effect(steps=(step,), notes=notes)


def deliver(request: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """As URLs, as base64 or both, in one response or as a stream: done when the response is built."""
    return Effect()


def notify(request: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """The gateway itself calls the client's webhook; the URL is not sent to any provider."""
    return Effect()


def choose(request: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """Selects the route: used by the gateway before any route sees the request."""
    return Effect()


def ignore(request: EmulationRequest, names: tuple[str, ...]) -> Effect:
    """Accepted without effect on this route; a note informs the client."""
    return Effect(
        notes=tuple(
            f"{name} was ignored: this route has no such parameter."
            for name in names
            if name in request.given and request.values.get(name) != request.defaults.get(name)
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
