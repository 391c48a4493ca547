"""`darkroom route`: asks a running gateway how it would serve a request, and prints the plan as a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from gateway.auth import first_key

_HEAD = ("", "provider", "route", "cost USD", "output", "delivered", "finish", "healthy")


def route(url: str, image: Path, fields: Sequence[str]) -> int:
    """Print the candidate routes for an image with these `name=value` fields; return the exit status."""
    pairs = [field.partition("=") for field in fields]
    if invalid := [name for name, equals, _ in pairs if not equals]:
        print(f"darkroom: found {invalid[0]!r}; expected name=value, such as scale_factor=4", file=sys.stderr)
        return 2
    key = _key(url)
    try:
        answer = httpx.post(
            f"{url.rstrip('/')}/openai/v1/images/edits?dry_run=true",
            files={"image": (image.name, image.read_bytes())},
            data={name: value for name, _, value in pairs},
            headers={"authorization": f"Bearer {key}"} if key else {},
            trust_env=False,
        )
    except OSError as error:
        print(f"darkroom: {image}: {error.strerror}", file=sys.stderr)
        return 2
    except httpx.TransportError:
        print(f"darkroom: no gateway is running at {url}; start one with: darkroom serve", file=sys.stderr)
        return 1
    plan = answer.json()
    if "error" in plan:
        print(f"darkroom: {plan['error']['message']}", file=sys.stderr)
        if answer.status_code == 401:
            print("darkroom: set DARKROOM_API_KEYS to a valid API key; for a gateway on this machine the key is read "
                  "from the folder DARKROOM_DATA", file=sys.stderr)  # fmt: skip
        return 1
    print("\n".join(_lines(plan)))
    return 0


def _key(url: str) -> str | None:
    """The key from the environment, or the one in the data folder, which is sent to this machine only."""
    if key := os.environ.get("DARKROOM_API_KEYS", "").partition(",")[0].strip():
        return key
    if urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"):
        return None
    try:
        return first_key.read(Path(os.environ.get("DARKROOM_DATA", ".darkroom")))
    except (OSError, first_key.FirstKeyUnreadable) as error:
        print(f"darkroom: sending no API key: {error}", file=sys.stderr)
        return None


def _lines(plan: dict[str, Any]) -> Iterator[str]:
    rows = [_HEAD, *(_row(number, candidate) for number, candidate in enumerate(plan["candidates"], 1))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for candidate in plan["candidates"]:
        yield ""
        yield (
            f"sent to {candidate['route']}, in {candidate['calls']} calls:"
            if candidate["calls"] > 1
            else f"sent to {candidate['route']}:"
        )
        yield from (f"  {name} = {_value(value)}" for name, value in candidate["payload"].items())
        yield from (f"  ! {warning}" for warning in candidate["warnings"])
    for excluded in plan["excluded"]:
        yield ""
        yield f"not {excluded['route']}: it {excluded['reason']}"


def _row(number: int, candidate: dict[str, Any]) -> tuple[str, ...]:
    finish = ", ".join(step.get("size") or step.get("format") for step in candidate["finish"])
    return (
        str(number),
        candidate["provider"],
        candidate["route"],
        f"{candidate['cost']:.6f}",
        candidate["output"] or "?",
        candidate["delivered"] or "?",
        finish,
        "yes" if candidate["healthy"] else "no",
    )


def _value(value: Any) -> str:
    if isinstance(value, dict) and "picture" in value:
        image = value["picture"]
        return f"<{image['format']} {image['width']}x{image['height']}, {image['bytes']} bytes>"
    return repr(value) if isinstance(value, str) else str(value)
