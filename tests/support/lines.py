"""What a gateway of this process writes into its log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from typing_extensions import override

from gateway.telemetry.logs import LOGGER, JsonLines

Lines: TypeAlias = list[dict[str, Any]]


class _Kept(logging.Handler):
    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self._lines = lines

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(json.loads(self.format(record)))


@contextmanager
def kept() -> Iterator[Lines]:
    """The lines as they are written down, from INFO on, until the block ends."""
    lines: Lines = []
    handler, level = _Kept(lines), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
