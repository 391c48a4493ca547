"""Hostile addresses: everything that would make the gateway, or a provider, call where no stranger may point."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from tests.hostile.documents import edit
from tests.hostile.entry import Hostile, fields, hostile, joined, part

# Spellings of this machine, with the canary's port where one may stand; and of places inside of a network.
INNER = (
    "https://127.0.0.1:00000/", "https://127.1:00000/", "https://2130706433:00000/", "https://0x7f000001:00000/",
    "https://0177.0.0.1:00000/", "https://0:00000/", "https://0.0.0.0:00000/", "https://[::1]:00000/", "https://[::]:00000/",
    "https://[::ffff:127.0.0.1]:00000/", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://[fe80::1%25lo]/",
    "https://localhost:00000/", "https://127.0.0.1/", "https://169.254.169.254/latest/meta-data/", "https://100.100.100.200/",
    "https://10.0.0.1/", "https://192.168.1.1/", "https://172.16.0.1/", "https://[fd00:ec2::254]/", "https://198.18.0.1/",
    "https://127.0.0.1%2f@example.com:00000/", "https://example.com@127.0.0.1:00000/", "https://user:a@127.0.0.1:00000/",
    "https://127.0.0.1\\@example.com:00000/", "https://\uff11\uff12\uff17.0.0.1:00000/", "https://127。0。0。1:00000/",
)  # fmt: skip
# Other schemes than the one that is fetched, and what is no address at all.
SCHEMES = (
    "http://127.0.0.1:00000/", "http://localhost:00000/", "file:///etc/passwd", "ftp://127.0.0.1:00000/a",
    "gopher://127.0.0.1:00000/_GET", "dict://127.0.0.1:00000/", "ldap://127.0.0.1:00000/", "jar:http://127.0.0.1:00000!/a",
    "unix:///var/run/docker.sock", "//127.0.0.1:00000/", "https://", "https:///a", "https://:00000/",
    "https://exa mple.com/", "https://example.com:0/", "https://example.com:99999/", "https://a\r\nHost: b/",
    "javascript:alert(1)",
)  # fmt: skip


def corpus() -> Iterator[Hostile]:
    """Each address where a caller may write one."""
    for address in (*INNER, *SCHEMES):
        yield hostile(f"webhook_url: {address}", functools.partial(fields, webhook_url=address, background="true"), 400,
                      "invalid_value", "invalid_webhook_url")  # fmt: skip
    yield hostile("webhook_url: 10 kB", lambda: fields(webhook_url="https://example.com/" + "a" * 10_000), 400,
                  "invalid_value", "string_above_max_length")  # fmt: skip
    yield hostile("webhook_url: a list", lambda: edit(webhook_url=["https://127.0.0.1:00000/"]), 400, "invalid_type")
    for address in (*INNER, *SCHEMES):
        yield picture(f"image: {address}", functools.partial(_pictured, "image", address))
    for address in INNER:
        yield picture(f"json image_url: {address}", functools.partial(edit, image={"image_url": address}))
        yield picture(f"image_url: {address}", functools.partial(_pictured, "image_url", address))


def picture(name: str, message: functools.partial[bytes]) -> Hostile:
    """An address in the place of a picture: whatever the reason, it is a 4xx that names it."""
    return Hostile(name=name, message=message, status=400, code=None)


def _pictured(field: str, address: str) -> bytes:
    return joined([part("model", b"clarity-upscaler"), part(field, address.encode())])
