"""What the operator wishes of a model's routing: what counts where the caller wishes nothing else."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from normalization.parameters.rules import Frozen

Strategy = Literal["cheapest", "fastest", "balanced", "order"]


class Preference(Frozen):
    """`[routing]` of a model's file, in the words of a request's `routing`.

    `order` are the first choices, by provider or route; `sort` is the strategy for the rest, the gateway's where it is
    None; `max_cost` is in US dollars for a whole request. Without `allow_fallbacks` only the first candidate is tried.
    Which routes there are at all is said by the file's `[routes]`, so there is no `only` and no `ignore`.
    """

    order: tuple[str, ...] = ()
    sort: Strategy | None = None
    max_cost: float | None = Field(default=None, ge=0)
    allow_fallbacks: bool = True
