"""The row that registers a provider. It loads no HTTP library: commands that only read settings import it too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from providers.base import Provider
from providers.settings import ProviderSettings

if TYPE_CHECKING:
    from providers.kit.context import ProviderContext

S = TypeVar("S", bound=ProviderSettings)


@dataclass(frozen=True, slots=True)
class ProviderRow(Generic[S]):
    """Registers a provider: its name, which is that of its section in `providers.toml`, its adapter and its settings.

    The adapter is called with the settings and the context, once for each API key. A package outside of this repository
    registers its row as an entry point of the group `darkroom.providers`; each of its settings needs a default.
    """

    name: str
    adapter: Callable[[S, ProviderContext], Provider]
    settings: type[S]
