"""A second line of defence: what looks like a secret is cut out of every line of the log, whoever wrote it."""

from __future__ import annotations

import re

# The most that is looked at of one line; what is beyond is cut off.
_MOST = 64 * 1024
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"data:[\w.+/-]{0,100}[;,][^\s\"'<>\\]*"), "data:…"),
    # A header with its value, as a mapping or as a line of text shows it.
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
# What one of the rules needs to find anything. Nearly all texts have none of it.
_SIGNS = re.compile(
    r"data:|authorization|api|cookie|Bearer|Key|Token|r8_|SG_|sk-|afk_|whsec_|:[0-9a-f]{8}|://", re.IGNORECASE
)


def redact(text: str) -> str:
    """The text without header values, keys, passwords and queries of addresses, and data URIs."""
    if len(text) > _MOST:
        text = text[:_MOST] + "…"
    if _SIGNS.search(text) is None:
        return text
    for pattern, shown in _RULES:
        text = pattern.sub(shown, text)
    return text


def redacted(value: object) -> object:
    """The value with every text in it redacted, to any depth; what is no plain data becomes its redacted text."""
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {redact(str(key)): redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redacted(item) for item in value]
    return redact(str(value))
