"""Several keys of one provider, as one adapter: the next key is tried where the last certainly bought nothing."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from typing_extensions import override

from normalization.values import Announced
from providers.base import (
    NO_CONTEXT,
    AttemptContext,
    Handle,
    Outcome,
    PendingSubmit,
    Provider,
    Readiness,
    Upstream,
    UpstreamJob,
    WebhookEvent,
)
from providers.clock import CLOCK, Clock
from providers.errors import Expired, ProviderError, Throttled, Unknown, Unusable

# What a throttled key cools down where the provider names no time.
_COOL_S = 5.0


class AccountKey:
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


# What a handle, and what is written down of a submit, say of the key.
_ACCOUNT = "account"


class _Signed(AttemptContext):
    """The link of a submit, which adds whose key it is sent with to what is written down."""

    def __init__(self, link: AttemptContext, account: str) -> None:
        self._link = link
        self._account = account
        self.webhook = link.webhook

    @override
    async def sending(self, data: Mapping[str, str]) -> None:
        # What is overwritten here, the adapter would not find its job by.
        assert _ACCOUNT not in data, f"{_ACCOUNT!r} is not the adapter's"
        await self._link.sending({**data, _ACCOUNT: self._account})

    @override
    async def others(self) -> frozenset[str]:
        return await self._link.others()

    @override
    def progress(self, share: float) -> None:
        self._link.progress(share)

    @override
    async def sleep(self, seconds: float, clock: Clock = CLOCK) -> None:
        await self._link.sleep(seconds, clock)


class Accounts:
    """The adapters of one provider, one for each key; `make` builds one.

    A submit goes through the first key in good standing. Where that is refused for the account, or throttled, the next
    one is tried at once; nothing else is ever repeated. The job remembers its key by an id, so that whoever waits for
    it, in whatever process, asks the account that has it. A key that is refused is left alone for `park_s` seconds.
    """

    def __init__(
        self,
        keys: Sequence[AccountKey],
        make: Callable[[AccountKey], Provider],
        *,
        park_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adapters = {key.id: make(key) for key in keys}
        self._keys = keys
        self._first = next(iter(self._adapters.values()))
        self._ring = Keyring(tuple(self._adapters), park_s=park_s, clock=clock)
        self.name = self._first.name
        self.cancels = self._first.cancels

    @property
    def queue_depth(self) -> int:
        return sum(adapter.queue_depth for adapter in self._adapters.values())

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        """As the first adapter says: but for their keys they are alike. The breaker knows of refused ones."""
        return self._first.readiness(upstream)

    def announced(self, upstream: Upstream) -> Announced | None:
        return self._first.announced(upstream)

    async def start(self) -> None:
        for adapter in self._adapters.values():
            await adapter.start()

    async def aclose(self) -> None:
        for adapter in self._adapters.values():
            await adapter.aclose()

    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        """Submit with one key after the other until one is not refused. Raises what the best of them was told."""
        errors: list[ProviderError] = []
        for account in self._ring.order():
            if errors and asyncio.get_running_loop().time() >= job.deadline:
                break
            try:
                with self._hidden():
                    return _signed(await self._adapters[account].submit(job, _Signed(link, account)), account)
            except ProviderError as error:
                self._ring.heard(account, error)
                if not rotates(error):
                    raise
                errors.append(error)
        raise self._ring.verdict(errors)

    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        """Wait with the job's own key. Where that is configured no more, with the first one, which may be the same
        account's; what it is told is then no proof, and everything but a result and the deadline is Unknown."""
        account = handle.data.get(_ACCOUNT, "")
        adapter = self._adapters.get(account)
        if adapter is not None or not account:
            try:
                with self._hidden():
                    return await (adapter or self._first).wait(handle, deadline, link)
            except ProviderError as error:
                # A held job is refused only here: no other key is tried for it, but the next submit knows.
                if adapter is not None and handle.held:
                    self._ring.heard(account, error)
                raise
        try:
            with self._hidden():
                return await self._first.wait(handle, deadline, link)
        except Expired:
            raise
        except ProviderError as error:
            raise Unknown(f"{error.told}; {_gone(account)}", said=error.said) from error

    async def recover(self, sent: PendingSubmit) -> Handle | None:
        """Look with the key that sent it. Raises Unknown where that is configured no more: in another account the job
        is surely not, and asking there might buy it a second time."""
        account = sent.data.get(_ACCOUNT, "")
        adapter = self._adapters.get(account) if account else self._first
        if adapter is None:
            raise Unknown(f"{self.name}: the answer to the submit was lost; {_gone(account)}")
        with self._hidden():
            handle = await adapter.recover(sent)
        return _signed(handle, account) if handle and account else handle

    async def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
        """Read a webhook with each account's secret, and take it where one of them fits."""
        for adapter in self._adapters.values():
            if heard := await adapter.parse_webhook(headers, body):
                return heard
        return None

    async def cancel(self, handle: Handle) -> None:
        """Cancel with the job's own key; with the first one where that is configured no more."""
        with self._hidden():
            await self._adapters.get(handle.data.get(_ACCOUNT, ""), self._first).cancel(handle)

    @contextmanager
    def _hidden(self) -> Iterator[None]:
        """Keep the keys out of what an error says: a provider may say back what it was sent."""
        try:
            yield
        except ProviderError as error:
            error.redact(part for key in self._keys for part in (key.reveal(), *key.reveal().split(":")))
            raise


def _signed(handle: Handle, account: str) -> Handle:
    assert handle.data.get(_ACCOUNT, account) == account, f"{_ACCOUNT!r} is not the adapter's"
    return replace(handle, data={**handle.data, _ACCOUNT: account})


def _gone(account: str) -> str:
    return f"it was sent with the key {account}, which is not configured any more"
