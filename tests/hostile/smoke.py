"""Which entries of a corpus are tried by `make test`: one in ten. The others have the marker `corpus`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import pytest

_ONE_IN = 10


class Named(Protocol):
    """An entry of a corpus."""

    @property
    def name(self) -> str: ...


def params(family: Iterable[Named]) -> list[Any]:
    """Return the entries of one family as parameters of a test; the first of them is always tried."""
    return [
        pytest.param(entry, id=ascii(entry.name), marks=() if number % _ONE_IN == 0 else pytest.mark.corpus)
        for number, entry in enumerate(family)
    ]
