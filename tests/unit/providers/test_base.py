"""What an error of a provider may show of what was sent to it."""

from __future__ import annotations

import pytest

from providers.errors import Rejected, redacted

KEY = "r8_0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"no such key: {KEY}.", "no such key: …."),
        (f"{KEY}", "…"),
        (f"{KEY} and {KEY}", "… and …"),
        (f"cut off: {KEY[:30]}", "cut off: …"),
        (f"as a word: {KEY[:23]}", f"as a word: {KEY[:23]}"),
        ("nothing of it", "nothing of it"),
        ("", ""),
    ],
)
def test_a_secret_is_cut_out(text: str, shown: str) -> None:
    """Wherever it stands, whole or as much of it as a message that was cut short still shows."""
    assert redacted(text, KEY) == shown


def test_white_space_does_not_matter() -> None:
    """Messages are one line; prompts may be several."""
    assert redacted("you said: a cat on a mat, at night", "a cat\non a   mat, at night") == "you said: …"


@pytest.mark.parametrize("word", ["", "png", "1024"])
def test_short_texts_are_words(word: str) -> None:
    """A message without every `png` would say nothing."""
    assert redacted(f"unknown format {word}", word) == f"unknown format {word}"


def test_an_error_hides_secrets() -> None:
    """In what it is shown as, and in what a trace would print."""
    error = Rejected(f"bad token {KEY} for “a cat on a mat”")
    error.redact([KEY, "a cat on a mat"])

    assert error.message == str(error) == "bad token … for “…”"
    assert KEY not in repr(error)
