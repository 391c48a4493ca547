"""Secret settings that come from files."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from gateway.settings.loader import SHIPPED, Config, ConfigError, load
from gateway.settings.types import secret_text

SECRET = "postgresql://darkroom:hunter2-hunter2@host/darkroom"
FILE = "DARKROOM_GATEWAY__LEDGER_URL_FILE"
VALUE = "DARKROOM_GATEWAY__LEDGER_URL"


def configured(**environ: str) -> Config:
    """The shipped settings in an environment."""
    return load(SHIPPED, environ)


@pytest.mark.parametrize("name", ["ledger_url", "limits_url", "webhook_secret"])
def test_taken_from_the_file(tmp_path: Path, name: str) -> None:
    """What the file says, without the line's end that editors leave; and it does not show itself."""
    path = tmp_path / "secret"
    whsec = "whsec_" + base64.b64encode(b"hunter2-" * 4).decode()
    text = {"ledger_url": SECRET, "limits_url": "redis://:hunter2@host/0", "webhook_secret": whsec}[name]
    path.write_text(f"{text}\n")
    gateway = configured(**{f"DARKROOM_GATEWAY__{name.upper()}_FILE": str(path)}).gateway

    assert secret_text(getattr(gateway, name)) == text
    assert text not in repr(gateway)
    assert text not in gateway.model_dump_json()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "an empty file"),
        (b"\n \n", "an empty file"),
        (b"hunter2\xff\xfe", "not text"),
        (b"hunter2" * 10_000, "more than 65536 bytes"),
        (None, "No such file"),
    ],
)
def test_files_that_hold_none(tmp_path: Path, content: bytes | None, told: str) -> None:
    """The mistake names the variable, the setting and the file, and never what is in it."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=told) as caught:
        configured(**{FILE: str(path)})

    assert f"environment variable {FILE}" in str(caught.value)
    assert "gateway.ledger_url_file" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_both_at_once(tmp_path: Path) -> None:
    """Which ledger would be used cannot be told: neither is."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    with pytest.raises(ConfigError, match="ledger_url is set as well") as caught:
        configured(**{FILE: str(path), VALUE: SECRET})

    assert "hunter2" not in str(caught.value)


def test_a_wrong_one_is_not_shown(tmp_path: Path) -> None:
    """A setting that is refused says what it should have been, not what it was."""
    path = tmp_path / "secret"
    path.write_text("hunter2")
    with pytest.raises(ConfigError) as caught:
        configured(DARKROOM_GATEWAY__LIMITS_URL_FILE=str(path))

    assert "environment variable DARKROOM_GATEWAY__LIMITS_URL_FILE: gateway.limits_url" in str(caught.value)
    assert "hunter2" not in str(caught.value)
