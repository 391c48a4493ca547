"""Ledgers for tests, each over a real database, and gateways' jobs over them."""

import math
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import SecretStr

from gateway.database.engine import FILE, open_engine
from gateway.database.migrate import migrate
from gateway.jobs.errors import DisconnectPolicy
from gateway.jobs.executor import Executor
from gateway.jobs.manager import JobManager
from gateway.ledger.open import open_ledger
from gateway.ledger.records import AttemptRow, JobSpec, OutputSpec
from gateway.ledger.store import Ledger
from gateway.settings import GatewaySettings
from gateway.settings.loader import SHIPPED, load
from providers.base import Upstream


def put_ledger(folder: Path) -> None:
    """Put an empty ledger into a data folder that has none: migrating one takes longer than most tests of it."""
    file = folder / FILE
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_ledger())


@cache
def _ledger() -> bytes:
    with TemporaryDirectory() as name:
        engine = open_engine(None, Path(name), writes=True)
        migrate(engine)
        engine.dispose()
        return (Path(name) / FILE).read_bytes()


@asynccontextmanager
async def ledger(folder: Path, url: str | None = None, **settings: Any) -> AsyncIterator[Ledger]:
    """One process's ledger, in a folder or at an address."""
    changed = {"lease_s": 1.0, **settings, "ledger_url": None if url is None else SecretStr(url)}
    if url is None:
        put_ledger(folder)
    async with open_ledger(_shipped().model_copy(update=changed), folder) as opened:
        yield opened


async def outlast(ledger: Ledger, leases: float = 1.0) -> None:
    """Let so many leases pass by a process's own clock, in which whoever does not beat is not heard of."""
    processes, step = ledger.processes, ledger.processes._lease_s / 4
    before = processes._clock
    await processes.heartbeat()
    for number in range(1, math.ceil(4 * leases) + 1):
        processes._clock = lambda passed=number * step: before() + passed  # type: ignore[misc]
        await processes.heartbeat()


@cache
def _shipped() -> GatewaySettings:
    return load(SHIPPED, {}).gateway


def order(**given: Any) -> JobSpec:
    """An order as the front door makes it."""
    now = time.time()
    plain: dict[str, Any] = {
        "id": f"img_{secrets.token_hex(12)}",
        "key": "",
        "fingerprint": "same",
        "model": "made-up",
        "mode": "plain",
        "params": {"params": {"prompt": "a cup"}},
        "delivery": {"response_format": "both"},
        "wanted": 1,
        "estimate": 30_000,
        "created_at": now,
        "deadline_at": now + 30,
        "arrived_at": now,
    }
    return JobSpec(**{**plain, **given})


def attempted(job: str, sent_at: float, **given: Any) -> AttemptRow:
    """An attempt at a job; without more it is about to be sent."""
    plain: dict[str, Any] = {
        "id": f"att_{secrets.token_hex(12)}",
        "job": job,
        "number": 1,
        "provider": "fal",
        "route": "fal",
        "model": "made-up",
        "upstream": Upstream(model="made-up", options={}),
        "making": OutputSpec(),
        "state": "submitting",
        "estimate": 30_000,
        "sent_at": sent_at,
    }
    return AttemptRow(**{**plain, **given})


def jobs_of(
    executor: Executor, ledger: Ledger, *, on_disconnect: str = "finish", search_again_s: float = 0.0
) -> JobManager:
    """The jobs of one process."""
    return JobManager(
        executor,
        ledger,
        rules=DisconnectPolicy(on_disconnect={"made-up": on_disconnect}, search_again_s=search_again_s),
    )
