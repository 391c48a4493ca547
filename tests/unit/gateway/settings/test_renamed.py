"""Settings that have been renamed: the old name is refused, in the file and in the environment, with the new one."""

import shutil
from pathlib import Path

import pytest

from gateway.settings.loader import SHIPPED, ConfigError, load

RENAMED = {
    "cool_down_s": ("5", "throttle_default_s"),
    "keys_remembered_s": ("2", "key_cache_s"),
    "late_s": ("3600", "late_result_s"),
    "on_unknown": ("fail", "on_unknown_outcome"),
    "park_s": ("300", "account_suspend_s"),
}


@pytest.mark.parametrize("old", RENAMED)
def test_the_old_name_in_the_file(tmp_path: Path, old: str) -> None:
    """An old name in gateway.toml stops the start; the message names the file and the new name."""
    value, new = RENAMED[old]
    file = Path(shutil.copytree(SHIPPED, tmp_path / "config")) / "gateway.toml"
    file.write_text(file.read_text().replace("[gateway]\n", f'[gateway]\n{old} = "{value}"\n', 1))

    with pytest.raises(ConfigError) as caught:
        load(file.parent, {})

    assert str(caught.value) == f"{file}: gateway.{old}: {old} was renamed: use {new}"


@pytest.mark.parametrize("old", RENAMED)
def test_the_old_variable(old: str) -> None:
    """An old environment variable is refused likewise; the message names the variable."""
    value, new = RENAMED[old]
    variable = f"DARKROOM_GATEWAY__{old.upper()}"

    with pytest.raises(ConfigError) as caught:
        load(SHIPPED, {variable: value})

    assert str(caught.value) == f"environment variable {variable}: gateway.{old}: {old} was renamed: use {new}"


def test_several_old_names() -> None:
    """All old names are reported at once."""
    with pytest.raises(ConfigError) as caught:
        load(SHIPPED, {"DARKROOM_GATEWAY__PARK_S": "300", "DARKROOM_GATEWAY__LATE_S": "3600"})

    assert "park_s was renamed: use account_suspend_s" in str(caught.value)
    assert "late_s was renamed: use late_result_s" in str(caught.value)


@pytest.mark.parametrize("old", RENAMED)
def test_the_new_name(old: str) -> None:
    """The new name is accepted."""
    value, new = RENAMED[old]

    settings = load(SHIPPED, {f"DARKROOM_GATEWAY__{new.upper()}": value}).gateway

    assert str(getattr(settings, new)).removesuffix(".0") == value
