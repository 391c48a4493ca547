"""Whether a listed prediction is the one that was lost: yes, no, and what cannot be told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from normalization.values import Header, Image, Value
from providers.base import PendingSubmit, Upstream
from providers.http.bodies import Json
from providers.replicate.recovery import is_it, written

AT = 1_790_000_000.0
IMAGE = Image(data=b"a picture", header=Header(format="png", width=2, height=2))
PAYLOAD: dict[str, Value] = {
    "image": IMAGE,
    "prompt": "a secret wish",
    "scale_factor": 2,
    "seed": 77,
    "pattern": False,
    "mask": None,
    "more": {"refs": [IMAGE, "https://api.replicate.com/v1/files/abc"]},
}
THEIRS: dict[str, Any] = {
    "image": b"a picture",
    "prompt": "a secret wish",
    "scale_factor": 2,
    "seed": 77,
    "pattern": False,
    "more": {"refs": [b"a picture", "https://api.replicate.com/v1/files/abc"], "filled": 1},
    "filled": "up",
}
VERSION = "a" * 64
PINNED = Upstream(model="owner/name", options={"version": VERSION})
OFFICIAL = Upstream(model="owner/name")


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"


def entry(**changes: Any) -> dict[str, Json]:
    made: dict[str, Json] = {
        "id": "p1",
        "model": "owner/name",
        "version": VERSION,
        "created_at": stamp(AT + 1),
        "input": THEIRS,
        **changes,
    }
    return {name: value for name, value in made.items() if value != "left out"}


def sent(upstream: Upstream = PINNED, webhook: str = "") -> PendingSubmit:
    data = {"input": written(PAYLOAD), "webhook": webhook}
    return PendingSubmit(id="attempt-1", upstream=upstream, at=AT, data=json.loads(json.dumps(data)))


def test_what_is_written_down_holds_no_picture_and_no_text() -> None:
    """A prompt is known again by its digest, as a picture is."""
    text = written(PAYLOAD)
    assert "secret" not in text
    assert "a picture" not in text
    assert len(text) < 700
    assert json.loads(text)["seed"] == 77


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"created_at": stamp(AT - 4)},
        {"created_at": stamp(AT + 99)},
        {"created_at": stamp(AT).replace("Z", "+00:00")},
        {"created_at": stamp(AT).replace("Z", "")},
        {"input": {**THEIRS, "scale_factor": 2.0}},
        {"webhook": None},
        {"webhook": ""},
        {"model": "left out"},
    ],
)
def test_it_is_the_one(given: dict[str, Any]) -> None:
    """Its moment, its version and its whole input agree; what was filled up with defaults says nothing."""
    assert is_it(entry(**given), sent(), 100) is True


@pytest.mark.parametrize(
    "given",
    [
        {"created_at": stamp(AT - 6)},
        {"created_at": stamp(AT + 106)},
        {"version": "b" * 64},
        {"input": {**THEIRS, "seed": 78}},
        {"input": {**THEIRS, "pattern": True}},
        {"input": {**THEIRS, "prompt": "another wish"}},
        {"input": {**THEIRS, "image": b"another picture"}},
        {"input": {**THEIRS, "more": {"refs": []}}},
        {"input": {**THEIRS, "more": {"refs": [b"a picture", "https://api.replicate.com/v1/files/abd"]}}},
        {"input": {**THEIRS, "seed": 78}, "id": "../"},
        {"input": {**THEIRS, "seed": 78}, "webhook": "https://gateway.example/other"},
    ],
)
def test_it_is_another(given: dict[str, Any]) -> None:
    """One thing that is surely different is enough."""
    assert is_it(entry(**given), sent(), 100) is False


@pytest.mark.parametrize(
    "given",
    [
        {"id": "../me"},
        {"id": 7},
        {"version": "left out"},
        {"version": 7},
        {"created_at": "left out"},
        {"created_at": "yesterday"},
        {"created_at": 7},
        {"input": "left out"},
        {"input": {}},
        {"input": None},
        {"input": {**THEIRS, "image": "https://replicate.delivery/pbxt/in.png"}},
        {"input": {**THEIRS, "seed": "77"}},
        {"input": {**THEIRS, "scale_factor": True}},
        {"input": {**THEIRS, "more": 1}},
        {"webhook": "https://gateway.example/other"},
        {"webhook": 7},
    ],
)
def test_it_cannot_be_told(given: dict[str, Any]) -> None:
    """What is missing, was removed or was replaced neither proves nor refutes."""
    assert is_it(entry(**given), sent(), 100) is None


def test_an_official_model_goes_by_its_name() -> None:
    """Its version is hidden."""
    assert is_it(entry(version="hidden"), sent(OFFICIAL), 100) is True
    assert is_it(entry(model="owner/other"), sent(OFFICIAL), 100) is False
    assert is_it(entry(model="left out"), sent(OFFICIAL), 100) is None


def test_our_own_webhook_proves_it() -> None:
    """Even when the input is long removed; but not at another time, nor for another model."""
    ours = "https://gateway.example/hooks/attempt-1"
    gone = entry(webhook=ours, input={})
    assert is_it(gone, sent(webhook=ours), 100) is True
    assert is_it(gone | {"id": "../"}, sent(webhook=ours), 100) is None
    assert is_it(gone | {"created_at": stamp(AT - 99)}, sent(webhook=ours), 100) is False
    assert is_it(gone | {"version": "b" * 64}, sent(webhook=ours), 100) is False


@pytest.mark.parametrize("text", ["", "{", "7", "[]", "[" * 100_000])
def test_what_was_written_down_badly_proves_nothing(text: str) -> None:
    """Then nothing is the one, and nothing is not."""
    lost = PendingSubmit(id="a", upstream=PINNED, at=AT, data={"input": text})
    assert is_it(entry(), lost, 100) is None
