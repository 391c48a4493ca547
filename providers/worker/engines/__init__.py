"""The engines that come with the worker, and the way to others."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

from providers.worker.engines.base import Engine

SHIPPED: Mapping[str, str] = {"lanczos-bp": "providers.worker.engines.lanczos_bp:LanczosBP"}
"""Imported only when asked for: an engine may stand on libraries that take long to load, or are not installed."""


def create(name: str) -> Engine:
    """Make the engine `name`: one of `SHIPPED`, or `module:Class` of any other that is called without arguments.

    Raises ValueError where there is no such engine, and what its module raises while it is imported.
    """
    module, colon, attribute = SHIPPED.get(name, name).partition(":")
    if not colon:
        raise ValueError(f"there is no engine {name!r}: take one of {', '.join(SHIPPED)}, or module:Class")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"the engine {name!r} cannot be made: {error}") from error
    return cast("Engine", made)
