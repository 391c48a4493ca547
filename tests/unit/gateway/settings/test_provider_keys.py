"""Where a provider's keys come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.loader import SHIPPED, ConfigError, load
from gateway.settings.provider_keys import keys_of
from tests.support import warm
from tests.support.running import clean_environ


def keys(**environ: str) -> tuple[str, ...]:
    """Replicate's keys in an environment."""
    return keys_of(load(SHIPPED, environ).providers, "replicate", environ)


def test_keys_in_the_environment() -> None:
    """One or several, without repetitions; none where it is empty or not there."""
    assert keys() == ()
    assert keys(REPLICATE_API_TOKEN=" ") == ()
    assert keys(REPLICATE_API_TOKEN="r8_one") == ("r8_one",)
    assert keys(REPLICATE_API_TOKEN="r8_one, r8_two,r8_one,") == ("r8_one", "r8_two")


def test_keys_in_a_file(tmp_path: Path) -> None:
    """One a line, as container secrets come."""
    path = tmp_path / "token"
    path.write_text("r8_one\nr8_two\n")

    assert keys(DARKROOM_PROVIDERS__REPLICATE__KEY_FILE=str(path)) == ("r8_one", "r8_two")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no key in"),
        (b"\n \n", "no key in"),
        (b"\xff\xfe", "not text"),
        (b"a b\n", "HTTP header"),
        (None, "No such file"),
    ],
)
def test_files_that_hold_no_key(tmp_path: Path, content: bytes | None, told: str) -> None:
    """The mistake names the file and the setting, and never what is in the file."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=told) as caught:
        keys(DARKROOM_PROVIDERS__REPLICATE__KEY_FILE=str(path))

    assert "replicate.key_file" in str(caught.value)


def test_both_at_once(tmp_path: Path) -> None:
    """Which account would be billed cannot be told: neither is."""
    path = tmp_path / "token"
    path.write_text("r8_secret_two")
    with pytest.raises(ConfigError, match="REPLICATE_API_TOKEN is set as well") as caught:
        keys(DARKROOM_PROVIDERS__REPLICATE__KEY_FILE=str(path), REPLICATE_API_TOKEN="r8_secret_one")

    assert "secret" not in str(caught.value)


@pytest.mark.system
@pytest.mark.parametrize("command", [("check", "--quiet"), ("serve", "--port", "0")])
def test_commands_tell_it_before_anything_else(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A file that is not there ends them with a sentence: nothing is served, and no trace is shown."""
    environ = clean_environ(
        DARKROOM_PROVIDERS__FAL__KEY_FILE=str(tmp_path / "none"), DARKROOM_DATA=str(tmp_path / "data")
    )
    done = warm.command(command, environ=environ)

    assert done.returncode == 2
    assert "fal.key_file" in done.stderr
    assert "Traceback" not in done.stderr
