"""What changes the size of a result at the provider, beside the factor: facts of the table, and their reading."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from normalization.parameters.names import fields_in, folded
from normalization.parameters.nesting import excerpt
from normalization.parameters.rules import Frozen, Param
from normalization.values import Size, Value


class FirstReshaping(Frozen):
    """The provider brings the longer side of the input to a length before anything else.

    `when` names the parameter that asks for it, `longer_side` the one with the length in pixels, `default` is the
    length that the provider takes without one. `enlarges` says whether a smaller input is enlarged to it.
    """

    when: str
    longer_side: str
    default: int = Field(ge=1)
    enlarges: bool


class Reshaping(Frozen):
    """Which parameters of a route change the size of its results, and how.

    After one of `unknown` nobody but the provider knows the size.
    """

    first: FirstReshaping | None = None
    unknown: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every parameter that is named."""
        return (*((self.first.when, self.first.longer_side) if self.first else ()), *self.unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """What a request's parameters do to the size. `source` is what is enlarged; `by` are the names after which the
    result's size is not known, those of fields that nobody declared among them.
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
    """Work out what is enlarged, and whether its size is known afterwards.

    `values` are those of the route's parameters, `undeclared` the fields that pass beside them. `names` are those of
    undeclared fields that change the size or the shape at some provider.
    """
    known = {folded(name) for name in names}
    unknown = [name for name in reshaping.unknown if values.get(name)]
    # Each of them once, however often and in however many spellings it was sent.
    sent = {folded(name): excerpt(name) for name, value in fields_in(undeclared) if value and folded(name) in known}
    unknown += sent.values()
    source, first = image, None
    if reshaping.first is not None and values.get(reshaping.first.when):
        source = _first(reshaping.first, image, values.get(reshaping.first.longer_side))
        first = reshaping.first.when if source != image else None
    return Shaped(source=source, first=first, by=tuple(unknown))


def conflict(reshaping: Reshaping, values: Mapping[str, Value]) -> str | None:
    """The declared parameter after which no size can be promised, where these values ask for one."""
    return next((name for name in reshaping.unknown if values.get(name)), None)


def differs(reshaping: Reshaping, values: Mapping[str, Value]) -> bool:
    """Whether these values let this route enlarge another picture than the one that was sent."""
    return reshaping.first is not None and bool(values.get(reshaping.first.when))


def problems(reshaping: Reshaping, sent: Collection[str], declared: Mapping[str, Param]) -> Iterator[str]:
    """What is wrong with a route's facts. `sent` are the parameters that reach its provider."""
    for name in reshaping.names:
        if name not in sent:
            yield f"names {name}, which is no parameter that this route is sent"
    if reshaping.first is None:
        return
    wanted = ((reshaping.first.when, "boolean"), (reshaping.first.longer_side, "integer"))
    for name, kind in wanted:
        if name in declared and declared[name].type != kind:
            yield f"names {name}, which is of type {declared[name].type}: it has to be of type {kind}"


def _first(first: FirstReshaping, image: Size, asked: Value) -> Size:
    side = asked if isinstance(asked, int) and not isinstance(asked, bool) else first.default
    longer = max(image.width, image.height)
    if longer == side or (longer < side and not first.enlarges):
        return image
    width, height = (max(1, round(one * side / longer)) for one in (image.width, image.height))
    return Size(width=width, height=height)
