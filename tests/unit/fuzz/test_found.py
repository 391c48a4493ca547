"""What fuzzing found, kept: each input broke its property once."""

from __future__ import annotations

import json

import httpx
import pytest

from providers.apiframe import responses as apiframe_responses
from providers.fal import responses as fal_responses
from providers.http.bodies import Json
from providers.local import responses as local_responses
from providers.segmind import responses as segmind_responses
from tests.fuzz.properties import PROPERTIES

pytestmark = pytest.mark.slow

FOUND = (
    ("wire", b'\0{"metrics": {"inference_time": 1' + b"0" * 400 + b"}}"),
    ("wire", b'\1{"detail": [{"msg": "a", "type": []}]}'),
    ("wire", b'\1{"detail": {"type": {}}}'),
)


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_is_mended(name: str, data: bytes) -> None:
    """It is read, or refused in the way that is declared."""
    PROPERTIES[name](data)


def test_a_bill_that_no_ledger_holds_is_not_known() -> None:
    """Whichever provider tells it, and however."""
    assert fal_responses.cost(httpx.Headers({"x-fal-billable-units": "1e300"}), "0.01") is None
    assert segmind_responses.micros_of("1e300") is None
    assert apiframe_responses.cost_of({"creditCost": 10**300}, "0.01") is None


def test_a_run_time_of_a_thousand_digits_is_none() -> None:
    """A worker that tells such a time has told nothing."""
    assert local_responses.seconds(10**1000) is None
    assert local_responses.seconds(1.5) == 1.5


@pytest.mark.parametrize(
    "opening", ["[", '{"detail":', '{"images":', '{"output":', '{"error":', '[{"url":', '{"urls":', '{"metrics":']
)
def test_answers_of_any_depth(opening: str) -> None:
    """However deep an answer is, it is read or it is no JSON: no depth lies between the two."""
    closing = "".join({"[": "]", "{": "}"}[char] for char in reversed(opening) if char in "[{")
    for depth in (*range(1, 40), *range(40, 1200, 3)):
        text = opening * depth + json.dumps("https://a/b") + closing * depth
        PROPERTIES["wire"](b"\1" + text.encode())


def test_what_lies_too_deep_is_no_picture() -> None:
    """A walk through an answer does not go as deep as the answer: it would end where the stack does."""
    deep: Json = "https://a/b"
    for _ in range(400):
        deep = {"output": [{"images": deep}]}
    assert segmind_responses.found_in(deep) == []
    assert apiframe_responses.found_in(deep) == []
    assert segmind_responses.found_in({"output": [{"url": "https://a/b"}]}) == ["https://a/b"]
