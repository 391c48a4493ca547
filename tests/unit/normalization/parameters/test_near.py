"""Near matches: found where there is one, and never looked for over more than could be near."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalization.parameters.names import near

KNOWN = ("clarity-upscaler", "aura-sr", "real-esrgan", "dall-e-2")
LETTERS = "clarity-upsexngd2"


@given(st.text(LETTERS, max_size=60), st.lists(st.text(LETTERS, min_size=1, max_size=16), max_size=6))
def test_it_finds_what_difflib_finds(name: str, known: list[str]) -> None:
    """The bound leaves out only what could not have been near."""
    found = difflib.get_close_matches(name, known, n=1)
    assert near(name, known) == (found[0] if found else None)


def test_slips() -> None:
    """The usual ones."""
    assert near("clarity-upscaller", KNOWN) == "clarity-upscaler"
    assert near("aurasr", KNOWN) == "aura-sr"
    assert near("clarity-upscaler" + "r" * 21, KNOWN) == "clarity-upscaler"
    assert near("nobody", KNOWN) is None
    assert near("x", ()) is None


def test_a_long_name_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared is never longer than a few times the longest name that there is."""
    seen: list[int] = []

    def looked(word: str, possibilities: object, **more: object) -> list[str]:
        seen.append(len(word))
        return []

    monkeypatch.setattr(difflib, "get_close_matches", looked)
    for size in (10, 37, 38, 1000, 1 << 20):
        near("clarity-upscaler" * (size // 16 + 1), KNOWN)
        near("x" * size, KNOWN)
    assert max(seen) <= 37
