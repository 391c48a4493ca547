"""A last look before the bytes of a submit leave: between what is written down and them there may have been a pause."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import aiohttp

Look = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Once:
    look: Look | None


_NEXT: ContextVar[_Once | None] = ContextVar("darkroom_departure", default=None)


def before_departure(look: Look) -> None:
    """Have `look` awaited once, as soon as the next request of this task, or of one that it begins, has a connection,
    and before the first byte of it is sent. What it raises is raised by the request, which then never leaves."""
    _NEXT.set(_Once(look))


def watched() -> aiohttp.TraceConfig:
    """What makes a session look: to be among its `trace_configs`."""
    watching = aiohttp.TraceConfig()
    watching.on_connection_create_end.append(_look)
    watching.on_connection_reuseconn.append(_look)
    return watching


async def _look(session: aiohttp.ClientSession, context: Any, params: Any) -> None:
    once = _NEXT.get()
    if once is not None and once.look is not None:
        look, once.look = once.look, None
        await look()
