"""Pictures that a provider puts into its answer in percent signs: read in pieces, whatever their size."""

from __future__ import annotations

import time
from typing import cast
from urllib.parse import quote_from_bytes, unquote_to_bytes

import httpx
import pytest

from providers.http import download
from providers.http.ssrf import UrlPolicy

DATA = bytes(range(256)) * 4000


@pytest.mark.parametrize("shift", range(4))
async def test_in_pieces(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No escape is cut in two, and no piece is larger than what is done at once."""
    pieces: list[int] = []

    def counted(text: str) -> bytes:
        pieces.append(len(text))
        return unquote_to_bytes(text)

    monkeypatch.setattr(download, "unquote_to_bytes", counted)
    text = "a" * shift + quote_from_bytes(DATA)
    nobody, everything = cast("httpx.AsyncClient", None), cast("UrlPolicy", None)
    found = await download.download(
        nobody, f"data:image/png,{text}", url_policy=everything, cap=2_000_000, deadline=time.monotonic() + 60
    )

    assert found == b"a" * shift + DATA
    assert len(pieces) > 2
    assert max(pieces) <= 1_000_000
