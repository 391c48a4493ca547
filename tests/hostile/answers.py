"""Hostile answers: what a provider, or somebody in its place, may deliver instead of a picture."""

from __future__ import annotations

import functools
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.hostile.addresses import INNER, SCHEMES
from tests.simulators.common import Fault, Op, tiny
from tests.support.pictures import chunk, encoded, noise, with_chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoilt:
    """One hostile answer of Segmind to requests of a kind, and what the caller is told."""

    name: str
    op: Op
    fault: Callable[[], Fault]
    status: int = 502
    code: str = "all_providers_failed"


def corpus() -> Iterator[Spoilt]:
    """Results at places where nothing may be fetched, pictures that are none, and answers that are too much."""
    yield from _addresses()
    yield from _pictures()


def _addresses() -> Iterator[Spoilt]:
    for address in (*INNER, *SCHEMES):
        yield Spoilt(name=f"result at {address}", op="result", fault=functools.partial(_at, address))


def _at(address: str) -> Fault:
    return Fault(status=200, body={"status": "COMPLETED", "output": address, "images": [], "metrics": {"cost": 0.01}})


def _delivered(name: str, body: Callable[[], bytes], **headers: str) -> Spoilt:
    named = {key.replace("_", "-"): text for key, text in headers.items()}
    return Spoilt(name=name, op="download", fault=lambda: Fault(status=200, body=body(), headers=named))


def _pictures() -> Iterator[Spoilt]:
    yield _delivered("a profile that inflates to 200 MB", _profile_bomb)
    yield _delivered(
        "a gzip bomb under a picture's name", lambda: gzip.compress(bytes(300 << 20)), content_encoding="gzip"
    )
    yield _delivered("a gzip bomb as itself", lambda: gzip.compress(bytes(30 << 20)))
    yield _delivered("a compression that nobody knows", lambda: b"\x28\xb5\x2f\xfd" + tiny(), content_encoding="zstd-9")
    yield _delivered("a GIF of 49 megapixels in forty bytes", _gif_bomb)
    yield _delivered(
        "an SVG that fetches", lambda: b'<svg><image href="http://127.0.0.1:00000/"/></svg>', content_type="image/png"
    )
    yield _delivered("a TIFF", lambda: encoded(noise(), "tiff"), content_type="image/png")
    yield _delivered("JSON", lambda: json.dumps({"error": "no"}).encode(), content_type="image/png")
    yield _delivered("a PNG with two headers", _two_headers)
    yield _delivered("2^31 pixels", lambda: _png(2**31 - 1, 1))


def _profile_bomb() -> bytes:
    return with_chunk(tiny(), chunk(b"iCCP", b"bomb\0\0" + zlib.compress(bytes(200 << 20))))


def _gif_bomb() -> bytes:
    screen = struct.pack("<HHBBB", 7000, 7000, 0x80, 0, 0) + bytes(6)
    return b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, 7000, 7000, 0) + b"\2\2\x44\1\0;"


def _png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return tiny()[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND")


def _two_headers() -> bytes:
    return with_chunk(tiny(), tiny()[8:33])
