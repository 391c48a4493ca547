"""API keys from the environment."""

from pathlib import Path

import pytest

from gateway.auth.keys import StaticKeys, UnreadableKey, WeakKey, presented
from tests.support.keys import api_key


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ({"authorization": "Bearer first"}, True),
        ({"authorization": "bearer second"}, True),
        ({"authorization": "BEARER  first "}, True),
        ({"api-key": "second"}, True),
        ({"authorization": "Bearer wrong"}, False),
        ({"authorization": "Bearer "}, False),
        ({"authorization": "Basic first"}, False),
        ({"authorization": "first"}, False),
        ({"api-key": ""}, False),
        ({"authorization": "Bearer first,second"}, False),
        ({"authorization": "Bearer wröng"}, False),
        ({}, False),
    ],
)
def test_admits(headers: dict[str, str], admitted: bool) -> None:
    """A key is taken as a bearer in any case, or as api-key; nothing else is."""
    key = presented(headers)

    assert (key is not None and StaticKeys(" first ,second,").find(key) is not None) is admitted


@pytest.mark.parametrize("text", [None, "", " , "])
def test_no_keys(text: str | None) -> None:
    """Nothing, and nothing but commas, are no keys: and no keys admit nobody by key."""
    keys = StaticKeys(text)

    assert not keys
    assert presented({"authorization": "Bearer "}) is None


def test_keys_are_not_kept() -> None:
    """The keys themselves are not in memory where a repr or a dump of the object would show them."""
    keys = StaticKeys("a-very-secret-key", "an-admins-key")

    assert "secret" not in repr(vars(keys))
    assert "an-admins" not in repr(vars(keys))


def test_the_admin() -> None:
    """The admin's key opens as the admin, the others do not, and each has an id of its own that stays the same."""
    keys = StaticKeys("one,two", "boss")
    one, two, boss = (keys.find(key) for key in ("one", "two", "boss"))

    assert one is not None
    assert two is not None
    assert boss is not None
    assert (one.admin, two.admin, boss.admin) == (False, False, True)
    assert len({one.id, two.id, boss.id}) == 3
    assert keys.find("one") == StaticKeys("one").find("one")


def test_keys_from_files(tmp_path: Path) -> None:
    """A secret's file holds one key a line; it must be there, not be empty, and not stand beside the variable."""
    path = tmp_path / "keys"
    path.write_text(f"{api_key('first')}\n{api_key('second')}\n")
    keys = StaticKeys.of({"DARKROOM_API_KEYS_FILE": str(path)})
    assert keys.find(api_key("first"))
    assert keys.find(api_key("second"))
    with pytest.raises(UnreadableKey, match="both set"):
        StaticKeys.of({"DARKROOM_API_KEYS_FILE": str(path), "DARKROOM_API_KEYS": "third"})
    path.write_text("\n")
    with pytest.raises(UnreadableKey, match="is empty"):
        StaticKeys.of({"DARKROOM_ADMIN_KEY_FILE": str(path)})
    with pytest.raises(UnreadableKey, match="cannot be read"):
        StaticKeys.of({"DARKROOM_ADMIN_KEY_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize("name", ["DARKROOM_API_KEYS", "DARKROOM_ADMIN_KEY"])
@pytest.mark.parametrize("weak", ["change-me", "a", "x" * 31])
def test_weak_keys(name: str, weak: str, tmp_path: Path) -> None:
    """A key that can be guessed is refused, from a file too; the message says how to make one, and not the key."""
    path = tmp_path / "key"
    path.write_text(weak)
    for environ in ({name: weak}, {f"{name}_FILE": str(path)}):
        with pytest.raises(WeakKey, match=f"{name}: the key has {len(weak)} characters") as caught:
            StaticKeys.of(environ)
        assert "openssl rand -hex 32" in str(caught.value)
        assert f" {weak} " not in str(caught.value)
    assert StaticKeys.of({name: "x" * 32})


def test_one_weak_key_of_several() -> None:
    """It is told which one is meant."""
    with pytest.raises(WeakKey, match="key 2 of 3 has 4 characters"):
        StaticKeys.of({"DARKROOM_API_KEYS": f"{api_key('a')}, weak,{api_key('b')}"})
