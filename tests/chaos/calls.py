"""The calls of a chaotic run. Each can be recognised wherever it comes to: by its seed, and by its picture's colour."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from tests.simulators.clouds import ALL
from tests.simulators.common import tiny

Kind = Literal["plain", "keyed", "background"]
Colour = tuple[int, int, int]

# A call may be one of so many equal ones, made at once: they are as many jobs, but under one key they are one.
_GROUPS: Mapping[Kind, int] = {"plain": 3, "keyed": 2, "background": 1}
_GROUPED = 0.1
# Some send a picture whose result is large: a hundred times as long on its way, and thousands of times as many pixels.
_LARGE = 0.04
SMALL_SIDES, LARGE_SIDES = (24, 16), (1500, 1000)
# Between the seeds of two calls: picture i of a call has the call's seed + i.
_STEP = 10
# Some callers give up long before a job can be done, and their SDK repeats the call.
_PATIENCE_S = (0.7, 1.5, 3.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a client, its SDK's own retries included. `equals` is how many there are that ask for the same.

    `sides` are those of its picture, `order` is in which the providers are to be tried, `timeout_s` how long the SDK
    waits before it repeats the call.
    """

    number: int
    kind: Kind
    seed: int
    colour: Colour
    order: tuple[str, ...] = ALL
    timeout_s: float = 30.0
    images: int = 1
    equals: int = 1
    sides: tuple[int, int] = SMALL_SIDES

    @property
    def units(self) -> range:
        """The seeds of its pictures: what may be bought once for each job."""
        return range(self.seed, self.seed + self.images)

    @property
    def key(self) -> str | None:
        """Its idempotency key."""
        return f"call-{self.seed}" if self.kind == "keyed" else None

    def fields(self) -> dict[str, Any]:
        """What `images.edit` of the SDK is given."""
        more: dict[str, Any] = {"seed": self.seed}
        if self.kind == "background":
            more["background"] = True
        headers = {"X-Darkroom-Routing": json.dumps({"order": self.order})}
        if self.key:
            headers["Idempotency-Key"] = self.key
        return {
            "model": "clarity-upscaler",
            "prompt": "a cup",
            "image": ("in.png", tiny(*self.sides, colour=self.colour), "image/png"),
            "n": self.images,
            "response_format": "b64_json",
            "extra_body": more,
            "extra_headers": headers,
        }


def calls(number: int, random: Random) -> list[Call]:
    """So many calls of all kinds, in the order in which they are made."""
    found: list[Call] = []
    for index, kind in enumerate(_kinds(number, random)):
        order = tuple(random.sample(ALL, len(ALL)))
        first = Call(
            number=len(found),
            kind=kind,
            seed=1_000_000 + _STEP * index,
            colour=(random.randrange(256), index % 256, index // 256),
            order=order,
            timeout_s=random.choice(_PATIENCE_S),
            images=random.choice((1, 1, 1, 1, 2)),
            equals=_GROUPS[kind] if random.random() < _GROUPED else 1,
            sides=LARGE_SIDES if random.random() < _LARGE else SMALL_SIDES,
        )
        found += [replace(first, number=first.number + i) for i in range(first.equals)]
        if len(found) >= number:
            break
    return found[:number]


def _kinds(number: int, random: Random) -> Iterator[Kind]:
    kinds: tuple[Kind, ...] = ("plain", "keyed", "background")
    for index in range(number):
        # Each kind is there, however few calls there are.
        yield kinds[index] if index < len(kinds) else random.choice(kinds)
