"""Addresses in texts: what a program that is given the text might fetch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from normalization.parameters.nesting import parse_json
from normalization.values import Value

# Longer ones are refused wherever they are checked.
_LONGEST = 8193
# URL parsers leave these out wherever they stand, and take a backslash for a slash.
_LEFT_OUT = str.maketrans({"\t": None, "\r": None, "\n": None, "\\": "/"})
_BLANK = "".join(map(chr, range(0x21)))
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}$", re.IGNORECASE)
# These are addresses without slashes too; any other word before a colon is just a word.
_KNOWN = re.compile(
    r"(?:https?|wss?|ftps?|sftp|tftp|file|s3|gs|az|abfss?|hf|gopher|dict|ldaps?|jar|blob|view-source|php|expect|phar):",
    re.IGNORECASE,
)
_DATA = re.compile(r"data:[^\s,]{0,200},", re.IGNORECASE)
_ANY_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}://", re.IGNORECASE)
_HTTP = re.compile(r"(https?):/*", re.IGNORECASE)
# Without a scheme: only what cannot be anything else.
_HOST = re.compile(r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.%]+\])(?::\d{1,5})?(?:[/?#]|$)", re.IGNORECASE)
_SLASHES = re.compile(r":[/\\]{2}")
_RELATIVE = re.compile(r"""(?:^|[\s,"'(=<>|;])([/\\]{2}[^\s/\\])""")
_END = re.compile(r"""[\s"'<>(){}|,;`^]""")


def address_of(text: str) -> str | None:
    """The address that a text is, or begins with, in the spelling that every parser reads alike; None for another text.

    A bare host and `//host/…` are taken for https.
    """
    found = text[:_LONGEST].translate(_LEFT_OUT).strip(_BLANK)
    if found.startswith("//"):
        return f"https:{found}" if found[2:].strip("/") else None
    if _HOST.match(found):
        return f"https://{found}"
    if _HTTP.match(found):
        return _HTTP.sub(lambda scheme: f"{scheme[1].lower()}://", found, count=1)
    # Only a scheme that is known is looked for across lines.
    strange = _ANY_SCHEME.match(text[:_LONGEST].replace("\\", "/").strip(_BLANK))
    return found if strange or _KNOWN.match(found) or _DATA.match(found) else None


def is_address(text: str) -> bool:
    """Whether a text is an address and nothing else."""
    return address_of(text) is not None and not re.search(r"\s", text.strip(_BLANK))


def addresses_in(value: Value) -> Iterator[str]:
    """Every address in a value: in texts, in what they hold beside other words, in names, at any depth."""
    for text in texts_in(value):
        if (whole := address_of(text)) is not None:
            yield _until_blank(whole)
        for found in _SLASHES.finditer(text):
            if scheme := _SCHEME.search(text[max(0, found.start() - 31) : found.start()]):
                yield f"{scheme[0]}://{_first(text, found.end())}"
        for found in _RELATIVE.finditer(text):
            yield f"https://{_first(text, found.end() - 1)}"


def texts_in(value: Value) -> Iterator[str]:
    """Every text in a value, names of fields too, and those of JSON that is a text itself."""
    if isinstance(value, str):
        yield value
        if value.lstrip()[:1] in ("{", "["):
            with contextlib.suppress(ValueError):
                yield from texts_in(parse_json(value))
    elif isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)


def _first(text: str, start: int) -> str:
    """What stands from a place on, as far as an address may go."""
    part = text[start : start + _LONGEST]
    end = _END.search(part)
    return part[: end.start()] if end else part


def _until_blank(address: str) -> str:
    return address if address[:5].lower() == "data:" else address.split(" ", 1)[0]
