"""Bracket keys and JSON text, as the encoders that clients use write them."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalization.parameters.nesting import MAX_DEPTH, NestingError, excerpt, nest, parse_json
from normalization.values import Value

Pairs = list[tuple[str, Value]]

KEYS = st.text("ab01[]", max_size=8) | st.text(max_size=8)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], {}),
        ([("n", "4")], {"n": "4"}),
        ([("arr[]", "1"), ("arr[]", "2")], {"arr": ["1", "2"]}),
        ([("arr1[]", "z")], {"arr1": ["z"]}),
        ([("obj[a]", "1"), ("obj[b][c]", "true")], {"obj": {"a": "1", "b": {"c": "true"}}}),
        ([("lobj[][a]", "1"), ("lobj[][a]", "2")], {"lobj": [{"a": "1"}, {"a": "2"}]}),
        ([("o[][a]", "1"), ("o[][b]", "2"), ("o[][a]", "3")], {"o": [{"a": "1", "b": "2"}, {"a": "3"}]}),
        ([("o[][t][]", "1"), ("o[][t][]", "2")], {"o": [{"t": ["1", "2"]}]}),
        ([("o[][a][b]", "1"), ("o[][a][c]", "2"), ("o[][a]", "3")], None),
        ([("o[][a]", "1"), ("o[][a][b]", "2")], {"o": [{"a": "1"}, {"a": {"b": "2"}}]}),
        ([("mix[][a]", "1"), ("mix[]", "2")], {"mix": [{"a": "1"}, "2"]}),
        ([("m[][]", "1"), ("m[][]", "2")], {"m": [["1", "2"]]}),
        ([("mix[]", "1"), ("mix[][a]", "2")], {"mix": ["1", {"a": "2"}]}),
        ([("a[1]", "y"), ("a[0]", "x")], {"a": ["x", "y"]}),
        ([("a[0][k]", "x"), ("a[1][k]", "y")], {"a": [{"k": "x"}, {"k": "y"}]}),
        ([("workflow[3][inputs]", "x")], {"workflow": {"3": {"inputs": "x"}}}),
        ([("a[00]", "x")], {"a": {"00": "x"}}),
        ([("a", "1"), ("a", "2")], {"a": ["1", "2"]}),
        ([("a[b]", "1"), ("a[b]", "2")], {"a": {"b": ["1", "2"]}}),
        ([("a", [1, 2])], {"a": [1, 2]}),
        ([("options", {"a": 1}), ("n", 2)], {"options": {"a": 1}, "n": 2}),
        ([("__proto__[x]", "1")], {"__proto__": {"x": "1"}}),
        ([("a[b", "1"), ("a]", "2"), ("[a]", "3"), ("a[b]c", "4"), ("a[[b]]", "5"), ("", "6")], "plain"),
        ([("a[b]", "1"), ("a", "2")], None),
        ([("a", "1"), ("a[b]", "2")], None),
        ([("a[]", "1"), ("a[b]", "2")], None),
        ([("a[0]", "1"), ("a[]", "2")], None),
        ([("a", {"b": 1}), ("a[c]", 2)], None),
    ],
    ids=lambda case: json.dumps(case)[:60],
)
def test_bracket_keys_become_nested_values(pairs: Pairs, expected: dict[str, Value] | str | None) -> None:
    """Each form of key that a client sends is read as the value it was made from, and a contradiction is refused."""
    if expected is None:
        with pytest.raises(NestingError) as caught:
            nest(pairs)
        assert caught.value.key == pairs[-1][0]
        assert "contradicts" in caught.value.message
    else:
        assert nest(pairs) == (dict(pairs) if expected == "plain" else expected)


def test_depth_is_limited_to_the_last_level() -> None:
    """The deepest key that is read has MAX_DEPTH brackets; one more is refused by name."""
    deep = "a" + "[b]" * MAX_DEPTH
    value: Value = "x"
    for name in [*["b"] * MAX_DEPTH, "a"]:
        value = {name: value}

    assert nest([(deep, "x")]) == value
    with pytest.raises(NestingError, match="nested too deeply") as caught:
        nest([(deep + "[b]", "x")])
    assert caught.value.key == deep + "[b]"


@pytest.mark.slow
def test_nesting_takes_linear_time() -> None:
    """Ten times the pairs do not take a hundred times as long, whichever form the keys have."""
    for template in ("a[]", "a[{}]", "a[][x]", "k{}[y]", "a"):
        seconds = []
        for count in (500, 5_000):
            pairs: Pairs = [(template.format(index), "v") for index in range(count)]
            seconds.append(min(_timed(pairs) for _ in range(5)))

        assert seconds[1] < 50 * seconds[0]


def _timed(pairs: Pairs) -> float:
    start = time.process_time()
    nest(pairs)
    return time.process_time() - start


@given(st.lists(st.tuples(KEYS, st.text(max_size=3)), max_size=12))
def test_any_keys_nest_or_are_refused_by_name(pairs: list[tuple[str, str]]) -> None:
    """Whatever the names are, every value is in the result, or one of the keys is refused."""
    refused = None
    try:
        nested = nest(list(pairs))
    except NestingError as error:
        refused = error.key
    if refused is None:
        assert sorted(_leaves(nested)) == sorted(value for _, value in pairs)
    else:
        assert refused in {key for key, _ in pairs}


def _leaves(value: Value) -> list[str]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    assert isinstance(value, str)
    return [value]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "duplicate name 'a'"),
        ("[NaN]", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("[1e999]", "too large"),
        ("9" * 41, "too long"),
        ("9" * 5000, "too long"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "levels"),
        ("[" * 200_000, "levels"),
        ('{"a":' * 200_000, "levels"),
        (r'["\ud800"]', "surrogate"),
        (r'{"\ud800": 1}', "surrogate"),
        ("{'a': 1}", "at character 1"),
        ("", "at character 0"),
        ("[1] 2", "Extra data"),
    ],
    ids=lambda case: case[:20],
)
def test_json_that_cannot_be_carried_on_is_refused(text: str, reason: str) -> None:
    """What parsers disagree about, and what would fail in a later step, is refused with its reason."""
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_json_within_the_limits_is_read_as_it_is() -> None:
    """Strictness takes nothing away from ordinary documents."""
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    document = '{"a": [1, -2.5, true, null, "é\\ud83d\\ude00"], "b": {"c": 12345678901234567890}}'

    assert parse_json(document) == json.loads(document)
    assert parse_json(deepest) == json.loads(deepest)


@given(st.text())
def test_any_text_is_json_or_a_value_error(text: str) -> None:
    """No text makes the JSON reader fail in another way, and what it accepts the standard reader accepts alike."""
    try:
        value = parse_json(text)
    except ValueError:
        return
    assert value == json.loads(text)


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_excerpts_are_short_and_printable(text: str, limit: int) -> None:
    """A stranger's text reaches a message without control characters, at the length that was asked for."""
    shown = excerpt(text, limit)

    assert len(shown) == min(len(text), limit)
    assert shown.isprintable()
