"""Parameters other than the factor that change the size of a provider's result, and their effect on a request."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from normalization.parameters.names import fields_in, folded
from normalization.parameters.nesting import excerpt
from normalization.parameters.rules import Frozen, Param
from normalization.values import Size, Value


class FirstReshaping(Frozen):
    """The provider first resizes the input so that its longer side has a given length.

    `when` names the parameter that enables this, `longer_side` the one with the length in pixels, `default` the length
    if that is not set. `enlarges` says whether a smaller input is enlarged to it.
    """

    when: str
    longer_side: str
    default: int = Field(ge=1)
    enlarges: bool


class Reshaping(Frozen):
    """Which parameters of a route change the size of its results, and how.

    With one of `unknown` set, only the provider knows the size.
    """

    first: FirstReshaping | None = None
    unknown: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters named here."""
        return (*((self.first.when, self.first.longer_side) if self.first else ()), *self.unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """How a request's parameters change the size. `source` is the size that is enlarged; `by` are the names, also of
    undeclared fields, that make the result's size unknown.
    """

    source: Size
    first: str | None = None
    by: tuple[str, ...] = ()


def shaped(
    reshaping: Reshaping,
    image: Size,
    values: Mapping[str, Value],
    undeclared: Mapping[str, Value],
    names: Collection[str],
) -> Shaped:
    """Compute the size that is enlarged, and whether the result's size is known.

    `values` are the route's parameter values, `undeclared` the fields passed on beside them. `names` are the undeclared
    fields that change the size or shape at some provider.
    """
    known = {folded(name) for name in names}
    unknown = [name for name in reshaping.unknown if values.get(name)]
    # Each name once, even if it was sent several times in different spellings.
    sent = {folded(name): excerpt(name) for name, value in fields_in(undeclared) if value and folded(name) in known}
    unknown += sent.values()
    source, first = image, None
    if reshaping.first is not None and values.get(reshaping.first.when):
        source = _first(reshaping.first, image, values.get(reshaping.first.longer_side))
        first = reshaping.first.when if source != image else None
    return Shaped(source=source, first=first, by=tuple(unknown))


def conflict(reshaping: Reshaping, values: Mapping[str, Value]) -> str | None:
    """The parameter among these values that makes the result's size unknown, if any."""
    return next((name for name in reshaping.unknown if values.get(name)), None)


def differs(reshaping: Reshaping, values: Mapping[str, Value]) -> bool:
    """Whether, with these values, this route first resizes the input."""
    return reshaping.first is not None and bool(values.get(reshaping.first.when))


def problems(reshaping: Reshaping, sent: Collection[str], declared: Mapping[str, Param]) -> Iterator[str]:
    """The problems of a route's `geometry`. `sent` are the parameters that reach its provider."""
    for name in reshaping.names:
        if name not in sent:
            yield f"names {name}, which is not a parameter sent to this route"
    if reshaping.first is None:
        return
    wanted = ((reshaping.first.when, "boolean"), (reshaping.first.longer_side, "integer"))
    for name, kind in wanted:
        if name in declared and declared[name].type != kind:
            yield f"names {name}, which is of type {declared[name].type}: expected type {kind}"


def _first(first: FirstReshaping, image: Size, asked: Value) -> Size:
    side = asked if isinstance(asked, int) and not isinstance(asked, bool) else first.default
    longer = max(image.width, image.height)
    if longer == side or (longer < side and not first.enlarges):
        return image
    width, height = (max(1, round(one * side / longer)) for one in (image.width, image.height))
    return Size(width=width, height=height)
