"""Names of result files. They cannot be guessed, and they say what a file has to be: its length, and a checksum.

So whoever reads a file back, or sends it on, can tell a damaged one without asking anybody: the ledger, or a bucket.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import cast

from normalization.values import FORMATS, MEDIA_TYPES, Format, Image

_RANDOM_BYTES = 24
# Of the SHA-256, and of the length: together they make up 24 characters.
_DIGEST_BYTES, _LENGTH_BYTES = 12, 6
# Files of the time before they had a checksum are read as well.
_NAME = re.compile(rf"[A-Za-z0-9_-]{{32}}([A-Za-z0-9_-]{{24}})?\.({'|'.join(FORMATS)})")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileName:
    """What a name says. `size` and `digest` are None for a file of the time before they were part of it."""

    format: Format
    size: int | None = None
    digest: bytes | None = None

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.format]

    def fits(self, data: bytes) -> bool:
        """Whether these bytes are what was stored."""
        check = FileDigest(self)
        check.update(data)
        return check.fits


class FileDigest:
    """Holds bytes against a name as they come."""

    def __init__(self, name: FileName) -> None:
        self._name = name
        self._size = 0
        self._sha = hashlib.sha256()

    def update(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._size += len(piece)
        self._sha.update(piece)

    @property
    def fits(self) -> bool:
        """Whether all of them together are what was stored."""
        if self._name.size is None:
            return True
        return self._size == self._name.size and self._sha.digest()[:_DIGEST_BYTES] == self._name.digest


def new_name(image: Image) -> str:
    """A name for a picture that is to be stored: 192 random bits, and the check."""
    check = hashlib.sha256(image.data).digest()[:_DIGEST_BYTES] + len(image.data).to_bytes(_LENGTH_BYTES, "big")
    return f"{secrets.token_urlsafe(_RANDOM_BYTES)}{base64.urlsafe_b64encode(check).decode()}.{image.format}"


def parsed(name: str) -> FileName | None:
    """What a name says; None for one that is none of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    form = cast("Format", match[2])  # the pattern admits nothing else
    if match[1] is None:
        return FileName(format=form)
    check = base64.urlsafe_b64decode(match[1])
    return FileName(format=form, size=int.from_bytes(check[_DIGEST_BYTES:], "big"), digest=check[:_DIGEST_BYTES])
