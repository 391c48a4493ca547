"""Structured logs: one JSON line per event, never with a key, a prompt or an image.

As a second line of defence, everything that looks like a secret is redacted from every line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

# Longer lines are truncated.
_MOST = 64 * 1024
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"data:[\w.+/-]{0,100}[;,][^\s\"'<>\\]*"), "data:…"),
    # A header with its value, printed as a mapping or as a line of text.
    (
        re.compile(
            r"((?:proxy-)?authorization|x-api-key|api[-_]?key|set-cookie|cookie)"
            r"(\\?[\"']?(?:\s*[:=,]\s*)b?\\?[\"']?)[^\"'\r\n\\]+",
            re.IGNORECASE,
        ),
        r"\1\2…",
    ),
    (re.compile(r"\b(Bearer|Key|Token)\s+[\w.+/=:~-]{8,}"), r"\1 …"),
    (re.compile(r"\b(r8_|SG_|sk-|afk_|whsec_)[\w+/=-]{6,}"), r"\1…"),
    # fal's keys: an id and a secret.
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]{27}:[0-9a-f]{8,}\b"), "…"),
    (re.compile(r"([a-z][a-z0-9+]{1,30}://)[^\s/@\"'<>]+@"), r"\1…@"),
    (re.compile(r"(https?://[^\s?\"'<>\\]*)\?[^\s\"'<>\\]*"), r"\1?…"),
)
# Every rule needs one of these to match; nearly all texts contain none of them.
_SIGNS = re.compile(
    r"data:|authorization|api|cookie|Bearer|Key|Token|r8_|SG_|sk-|afk_|whsec_|:[0-9a-f]{8}|://", re.IGNORECASE
)


def redact(text: str) -> str:
    """The text without header values, keys, data URIs, and the passwords and queries of URLs."""
    if len(text) > _MOST:
        text = text[:_MOST] + "…"
    if _SIGNS.search(text) is None:
        return text
    for pattern, shown in _RULES:
        text = pattern.sub(shown, text)
    return text


def redacted(value: object) -> object:
    """The value with every text in it redacted, at any depth; other objects become their redacted `str`."""
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {redact(str(key)): redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redacted(item) for item in value]
    return redact(str(value))


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
    """Log our events and uvicorn's warnings to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for logger in (LOGGER, logging.getLogger("uvicorn")):
        logger.handlers = [handler]
        logger.propagate = False
    LOGGER.setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # It warns of every malformed body: that is reported to the client, and must not fill the log.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def event(name: str, level: int = logging.INFO, *, exc_info: bool = False, **fields: object) -> None:
    """Log an event with its fields; None fields are left out. `exc_info` adds the exception being handled."""
    LOGGER.log(level, name, exc_info=exc_info, extra={"fields": present(fields)})


def present(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields that are not None."""
    return {key: value for key, value in fields.items() if value is not None}
