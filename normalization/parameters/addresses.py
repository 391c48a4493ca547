"""URLs in texts: everything that a program given the text might fetch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from normalization.parameters.nesting import parse_json
from normalization.values import Value

# Longer URLs are refused wherever they are checked.
_LONGEST = 8193
# URL parsers drop these characters everywhere, and read a backslash as a slash.
_LEFT_OUT = str.maketrans({"\t": None, "\r": None, "\n": None, "\\": "/"})
_BLANK = "".join(map(chr, range(0x21)))
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}$", re.IGNORECASE)
# These form URLs even without slashes; any other word before a colon is ordinary text.
_KNOWN = re.compile(
    r"(?:https?|wss?|ftps?|sftp|tftp|file|s3|gs|az|abfss?|hf|gopher|dict|ldaps?|jar|blob|view-source|php|expect|phar):",
    re.IGNORECASE,
)
_DATA = re.compile(r"data:[^\s,]{0,200},", re.IGNORECASE)
_ANY_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}://", re.IGNORECASE)
_HTTP = re.compile(r"(https?):/*", re.IGNORECASE)
# Without a scheme: only unambiguous hosts.
_HOST = re.compile(r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.%]+\])(?::\d{1,5})?(?:[/?#]|$)", re.IGNORECASE)
_SLASHES = re.compile(r":[/\\]{2}")
_RELATIVE = re.compile(r"""(?:^|[\s,"'(=<>|;])([/\\]{2}[^\s/\\])""")
_END = re.compile(r"""[\s"'<>(){}|,;`^]""")


def address_of(text: str) -> str | None:
    """The URL that a text is or starts with, normalized so that all parsers agree; None for other texts.

    A bare host and `//host/…` are read as https.
    """
    found = text[:_LONGEST].translate(_LEFT_OUT).strip(_BLANK)
    if found.startswith("//"):
        return f"https:{found}" if found[2:].strip("/") else None
    if _HOST.match(found):
        return f"https://{found}"
    if _HTTP.match(found):
        return _HTTP.sub(lambda scheme: f"{scheme[1].lower()}://", found, count=1)
    # Only known schemes are searched for across lines.
    strange = _ANY_SCHEME.match(text[:_LONGEST].replace("\\", "/").strip(_BLANK))
    return found if strange or _KNOWN.match(found) or _DATA.match(found) else None


def is_address(text: str) -> bool:
    """Whether a text is a URL and nothing else."""
    return address_of(text) is not None and not re.search(r"\s", text.strip(_BLANK))


def addresses_in(value: Value) -> Iterator[str]:
    """Every URL in a value: in texts, between other words, in field names, at any depth."""
    for text in texts_in(value):
        if (whole := address_of(text)) is not None:
            yield _until_blank(whole)
        for found in _SLASHES.finditer(text):
            if scheme := _SCHEME.search(text[max(0, found.start() - 31) : found.start()]):
                yield f"{scheme[0]}://{_first(text, found.end())}"
        for found in _RELATIVE.finditer(text):
            yield f"https://{_first(text, found.end() - 1)}"


def texts_in(value: Value) -> Iterator[str]:
    """Every text in a value, including field names and the texts of JSON inside a text."""
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
    """The text from a position up to the end of a URL."""
    part = text[start : start + _LONGEST]
    end = _END.search(part)
    return part[: end.start()] if end else part


def _until_blank(address: str) -> str:
    return address if address[:5].lower() == "data:" else address.split(" ", 1)[0]
