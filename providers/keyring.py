"""Several keys of one provider: which of them may be used now. Decisions alone; `providers.accounts` acts on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from providers.base import ProviderError, Throttled, Unusable

# What a throttled key cools down where the provider names no time.
_COOL_S = 5.0


class Key:
    """A provider's key. It never shows itself: `repr`, `str` and formatting give its id, `reveal` the key.

    `id` names the account in the ledger: a short hash, from which a key cannot be had back.
    """

    __slots__ = ("_key", "id")

    def __init__(self, provider: str, key: str) -> None:
        self._key = key
        self.id = hashlib.sha256(f"darkroom key of {provider}\0{key}".encode()).hexdigest()[:12]

    def reveal(self) -> str:
        """The key itself, for the header that carries it."""
        return self._key

    def __repr__(self) -> str:
        return f"Key({self.id})"


class Keyring:
    """The ids of keys with their standing: refused ones are parked for `park_s` seconds, throttled ones cool down.

    `clock` counts seconds. The first key in good standing is the one to use.
    """

    def __init__(self, ids: Sequence[str], *, park_s: float, clock: Callable[[], float]) -> None:
        self._free_at = dict.fromkeys(ids, 0.0)
        self._refused: set[str] = set()
        self._park_s = park_s
        self._clock = clock

    def order(self) -> list[str]:
        """The keys to try, best first. Where none is in good standing, the one that is free soonest: the breaker that
        let the call through knows better."""
        now = self._clock()
        good = [name for name, free_at in self._free_at.items() if free_at <= now]
        return good or [min(self._free_at, key=self._free_at.__getitem__)]

    def heard(self, name: str, error: ProviderError) -> None:
        """Take in what a provider said to a submit with this key."""
        self._refused.discard(name)
        if isinstance(error, Unusable):
            self._refused.add(name)
            pause = self._park_s
        elif isinstance(error, Throttled):
            pause = _COOL_S if error.retry_after is None else error.retry_after
        else:
            return
        self._free_at[name] = max(self._free_at[name], self._clock() + pause)

    def verdict(self, errors: Sequence[ProviderError]) -> ProviderError:
        """The error of a submit that every key tried was refused. While one key is only throttled, or free again before
        the others, the provider is not to be parked: it cools down until that one is free."""
        if len(self._free_at) == 1 or len(self._refused) == len(self._free_at) == len(errors):
            return errors[-1]
        pause = max(0.0, min(self._free_at.values()) - self._clock())
        return Throttled(errors[-1].told, said=errors[-1].said, retry_after=pause, code=errors[-1].code, unbilled=True)


def rotates(error: ProviderError) -> bool:
    """Whether the next key may be tried: the account was refused or throttled, and surely nothing was bought."""
    return isinstance(error, (Unusable, Throttled)) and error.billed is False
