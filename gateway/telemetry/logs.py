"""One line of JSON for each event. What is logged is named field by field: never a key, a prompt or a picture."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from gateway.telemetry.redact import redacted

LOGGER = logging.getLogger("darkroom")


class JsonLines(logging.Formatter):
    """Formats a record as one line: time, level, event and the fields given as `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(redacted(line), ensure_ascii=False)


def set_up(level: int = logging.INFO) -> None:
    """Send our lines, and the server's own warnings, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for logger in (LOGGER, logging.getLogger("uvicorn")):
        logger.handlers = [handler]
        logger.propagate = False
    LOGGER.setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # It warns of every malformed body: what callers send is told to them, and must not fill the log.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def event(name: str, level: int = logging.INFO, *, exc_info: bool = False, **fields: object) -> None:
    """Log an event with its fields; None fields are left out. `exc_info` adds the exception being handled."""
    LOGGER.log(level, name, exc_info=exc_info, extra={"fields": present(fields)})


def present(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields that have a value."""
    return {key: value for key, value in fields.items() if value is not None}
