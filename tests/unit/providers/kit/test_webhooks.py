"""Signatures of webhooks: known answers, and everything that is none."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from providers.kit.webhooks import is_hex_hmac, standard_webhook

# From the tests of the libraries of Standard Webhooks.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
AT = 1614265330
GOOD = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(AT),
    "webhook-signature": GOOD,
}


def good(*, now: float = AT, body: bytes = BODY, secret: str = SECRET, **headers: str) -> bool:
    given = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    message = standard_webhook(given, body, now=now)
    return message is not None and message.is_from(secret)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"now": AT + 300},
        {"now": AT - 300},
        {"secret": SECRET.removeprefix("whsec_")},
        {"webhook_signature": f"v1,bm9uZQ== {GOOD}"},
        {"webhook_signature": f"{GOOD} v1,bm9uZQ=="},
        {"webhook_signature": f"v2,x v1 , ,{GOOD} {GOOD}"},
    ],
)
def test_the_known_answer_is_taken(given: dict[str, Any]) -> None:
    """Any of several signatures will do, and five minutes of difference between the clocks."""
    assert good(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"now": AT + 301},
        {"now": AT - 301},
        {"body": BODY + b" "},
        {"body": b""},
        {"secret": "whsec_" + "A" * 32},
        {"secret": "whsec_"},
        {"secret": ""},
        {"secret": "whsec_größer"},
        {"secret": "whsec_A"},
        {"webhook_id": ""},
        {"webhook_id": "msg_other"},
        {"webhook_id": "größer"},
        {"webhook_timestamp": ""},
        {"webhook_timestamp": "-5"},
        {"webhook_timestamp": "soon"},
        {"webhook_timestamp": "9" * 5000},
        {"webhook_timestamp": "١٦١٤٢٦٥٣٣٠"},
        {"webhook_timestamp": f" {AT}"},
        {"webhook_timestamp": f"{AT}.0"},
        {"webhook_signature": ""},
        {"webhook_signature": "v1,"},
        {"webhook_signature": GOOD.replace("v1", "v1a")},
        {"webhook_signature": GOOD.replace("v1,", "")},
        {"webhook_signature": GOOD[:-1]},
        {"webhook_signature": "v1,größer"},
    ],
)
def test_everything_else_is_not(given: dict[str, Any]) -> None:
    """Old, altered, of another secret, or no signature at all."""
    assert not good(**given)


def test_a_message_without_headers_is_none() -> None:
    """As anybody may send it."""
    assert standard_webhook({}, BODY, now=AT) is None


KEY = b"a key"
HEX = hmac.new(KEY, BODY, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("told", [HEX, f"sha256={HEX}", HEX.upper(), f" sha256={HEX} "])
def test_a_hexadecimal_signature_is_taken(told: str) -> None:
    """With its prefix and without."""
    assert is_hex_hmac(told, KEY, BODY)


@pytest.mark.parametrize("told", ["", "sha256=", HEX[:-1], HEX + "0", f"sha1={HEX}", "größer", "0" * 64])
def test_a_wrong_hexadecimal_signature_is_not(told: str) -> None:
    """Cut short, of another kind, or not even text that could be one."""
    assert not is_hex_hmac(told, KEY, BODY)


def test_a_hexadecimal_signature_is_of_one_key_and_one_body() -> None:
    """Another key or another body has another."""
    assert not is_hex_hmac(HEX, b"another", BODY)
    assert not is_hex_hmac(HEX, KEY, b"another")
