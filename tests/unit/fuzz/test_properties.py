"""The same properties under hypothesis: arbitrary bytes, good inputs that were damaged, and JSON of the right names.

`make fuzz` sets DARKROOM_FUZZ_EXAMPLES and looks further, at other examples each time.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.properties import PROPERTIES, wire
from tests.fuzz.seeds import seeds

pytestmark = pytest.mark.slow

_EXAMPLES = int(os.environ.get("DARKROOM_FUZZ_EXAMPLES", "100"))
_BOUNDED = settings(
    max_examples=_EXAMPLES,
    derandomize="DARKROOM_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@functools.cache
def of(name: str) -> list[bytes]:
    """The seeds of a property. Making them takes seconds, which collecting tests must not."""
    return list(seeds(name))


# The words that the readers of answers look for.
_KEYS = st.sampled_from(
    (
        *("detail", "error", "message", "title", "msg", "loc", "type", "error_type", "request_id", "id", "status"),
        *("metrics", "inference_time", "predict_time", "images", "image", "url", "urls", "output", "progress", "logs"),
        *("creditCost", "retry_after", "invalid_fields", "description", "details", "jobId", "cost"),
    )
)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(),
    st.sampled_from(
        (10**400, -(10**400), 1e308, 0, "failed", "FAILED", "aborted", "https://a/b", "data:image/png;base64,AA==")
    ),
    st.text(max_size=20),
    st.sampled_from(("Your rate limit resets in ~99999999999999999999s.", "9" * 500, "NSFW", "body", "\ud800")),
)
_ANSWERS = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=5), max_leaves=12
)


@pytest.mark.parametrize("name", PROPERTIES)
@_BOUNDED
@given(data=st.binary(max_size=400))
def test_any_bytes(name: str, data: bytes) -> None:
    """Nothing but what is declared comes of them."""
    PROPERTIES[name](data)


@pytest.mark.parametrize("name", PROPERTIES)
@_BOUNDED
@given(choice=st.data())
def test_damaged_inputs(name: str, choice: st.DataObject) -> None:
    """A good input or a hostile one, a few bytes changed, removed or put in."""
    data = bytearray(choice.draw(st.sampled_from(of(name))))
    for _ in range(choice.draw(st.integers(1, 4))):
        at = choice.draw(st.integers(0, len(data)))
        data[at : at + choice.draw(st.integers(0, 4))] = choice.draw(st.binary(max_size=4))
    PROPERTIES[name](bytes(data))


@_BOUNDED
@given(status=st.integers(0, 255), answer=_ANSWERS)
def test_answers_of_any_shape(status: int, answer: Any) -> None:
    """The right names with the wrong things under them."""
    wire(bytes((status,)) + json.dumps(answer).encode())


@pytest.mark.parametrize("number", range(len(of("wire"))))
@_BOUNDED
@given(status=st.integers(0, 255), choice=st.data())
def test_answers_with_one_wrong_value(number: int, status: int, choice: st.DataObject) -> None:
    """An answer as a provider gives it, but for one thing in it."""
    answer = json.loads(of("wire")[number][1:])
    place, key = choice.draw(st.sampled_from(list(_places(answer))))
    place[key] = choice.draw(_LEAVES | _ANSWERS)
    wire(bytes((status,)) + json.dumps(answer).encode())


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everywhere in a document where a value stands."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])
