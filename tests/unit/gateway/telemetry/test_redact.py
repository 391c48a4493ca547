"""What looks like a secret does not reach the log, whoever logs it."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.logs import _RULES, _SIGNS, JsonLines, redact

SECRET = "QWxhZGRpbjpvcGVu"


@pytest.mark.parametrize(
    "text",
    [
        f"authorization: Bearer {SECRET}",
        f"{{'Authorization': 'Key {SECRET}'}}",
        f'{{"x-api-key": "{SECRET}"}}',
        f"(b'X-API-Key', b'{SECRET}')",
        f"set-cookie: a={SECRET}; path=/",
        f"sent with Bearer {SECRET}",
        f"token r8_{SECRET} is not valid",
        f"SG_{SECRET}",
        f"whsec_{SECRET}",
        "0a1b2c3d-0000-4000-8000-0123456789ab:" + SECRET.encode().hex(),
        f"postgresql+asyncpg://user:{SECRET}@db/x",
        f"GET https://cdn.example.org/a.png?sig={SECRET}&x=1",
        f"bad value data:image/png;base64,{SECRET}",
    ],
)
def test_secrets_are_cut(text: str) -> None:
    shown = redact(text)

    assert SECRET not in shown
    assert SECRET.encode().hex() not in shown
    assert "…" in shown


@pytest.mark.parametrize("text", ["replicate: HTTP 422: image: too large", "key = value", "http://127.0.0.1:8080/x"])
def test_plain_words_stay(text: str) -> None:
    assert redact(text) == text


def test_message_fields_and_trace() -> None:
    try:
        raise ValueError(f"x-api-key: {SECRET}")
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord("darkroom", logging.ERROR, "", 0, "to %s", (f"http://h/?k={SECRET}",), info)
    record.fields = {"url": {"deep": [f"https://h/?s={SECRET}"]}, "count": 3, "error": ValueError(f"r8_{SECRET}")}

    line = JsonLines().format(record)

    assert SECRET not in line
    assert json.loads(line)["count"] == 3
    assert "ValueError" in json.loads(line)["trace"]


@pytest.mark.parametrize("number", range(len(_RULES)))
@given(st.data())
def test_whatever_a_rule_finds_has_a_sign(number: int, data: st.DataObject) -> None:
    """Texts without any are not looked at by the rules."""
    pattern, _ = _RULES[number]
    text = data.draw(st.from_regex(pattern))

    assert _SIGNS.search(text)
