"""Form text to typed values: every type, its bounds, and the sentences that a caller reads."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalization.parameters.coerce import InvalidValue, coerce, is_absent, parse_scalar
from normalization.parameters.nesting import NestingError, nest
from normalization.parameters.rules import Param, ParamType
from normalization.values import Value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def param(
    kind: ParamType,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[bool | int | float | str, ...] | None = None,
) -> Param:
    """A declared parameter."""
    return Param(type=kind, doc="A parameter.", min=minimum, max=maximum, choices=choices)


INTEGER = param("integer", 1, 10)
NUMBER = param("number", 0, 3)
BOOLEAN = param("boolean")
STRING = param("string", 2, 5)
OBJECT = param("object")
ARRAY = param("array")
ENUM = param("enum", choices=("a", "b", "Crop"))
JPEG = Param(type="enum", doc="A parameter.", choices=("png", "jpeg"), synonyms={"jpg": "jpeg"})
MIXED = param("enum", choices=(2, 4, 1.5, True, "x"))
STEPS = param("integer", choices=(1, 2, 4))
TAGS = param("array", choices=("x", "y"))
TOO = "Invalid 'n': string too"
SEED = param("integer", 0, 4294967295)


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        (INTEGER, "4", 4),
        (INTEGER, "4.0", 4),
        (INTEGER, "4.", 4),
        (INTEGER, " 4 ", 4),
        (INTEGER, "+4", 4),
        (INTEGER, "007", 7),
        (INTEGER, 4, 4),
        (INTEGER, 4.0, 4),
        (SEED, "4294967295", 4294967295),
        (NUMBER, "2", 2),
        (NUMBER, "1.5", 1.5),
        (NUMBER, ".5", 0.5),
        (NUMBER, "5e-1", 0.5),
        (NUMBER, 1.5, 1.5),
        (NUMBER, 3, 3),
        (BOOLEAN, "true", True),
        (BOOLEAN, "False", False),
        (BOOLEAN, "1", True),
        (BOOLEAN, "0", False),
        (BOOLEAN, "yes", True),
        (BOOLEAN, "no", False),
        (BOOLEAN, "ON", True),
        (BOOLEAN, "off", False),
        (BOOLEAN, 0, False),
        (BOOLEAN, True, True),
        (STRING, "  ab", "  ab"),
        (STRING, "12", "12"),
        (ENUM, "a", "a"),
        (ENUM, "A", "a"),
        (ENUM, "crop", "Crop"),
        (JPEG, "jpeg", "jpeg"),
        (JPEG, " JPG ", "jpeg"),
        (JPEG, "jPg", "jpeg"),
        (MIXED, "2", 2),
        (MIXED, "2.0", 2),
        (MIXED, 2, 2),
        (MIXED, 1.5, 1.5),
        (MIXED, "1.50", 1.5),
        (MIXED, "true", True),
        (MIXED, True, True),
        (STEPS, "4", 4),
        (OBJECT, '{"a": "4"}', {"a": "4"}),
        (OBJECT, {"a": "4", "b": ["x", "1.5"]}, {"a": 4, "b": ["x", 1.5]}),
        (ARRAY, '[1, "2"]', [1, "2"]),
        (ARRAY, ["1", "z"], [1, "z"]),
        (ARRAY, "z", ["z"]),
        (ARRAY, "1", [1]),
        (ARRAY, '{"a": 1}', [{"a": 1}]),
        (TAGS, ["x", "y"], ["x", "y"]),
    ],
)
def test_values_are_read_as_their_declared_type(declared: Param, value: Value, expected: Value) -> None:
    """Each spelling of a value that clients send becomes the value of the declared type, and of no other."""
    found = coerce("p", value, declared)

    assert found == expected
    assert type(found) is type(expected)


def test_text_inside_json_stays_text() -> None:
    """A JSON caller's own types are kept inside objects and arrays; only a form's text is read as more."""
    assert coerce("p", {"a": "4"}, OBJECT, typed=True) == {"a": "4"}
    assert coerce("p", ["4"], ARRAY, typed=True) == ["4"]
    with pytest.raises(InvalidValue):
        coerce("p", "z", ARRAY, typed=True)


@pytest.mark.parametrize(
    ("declared", "value", "code", "message"),
    [
        (
            INTEGER,
            "99",
            "integer_above_max_value",
            "Invalid 'n': integer above maximum value. Expected a value <= 10, but got 99 instead.",
        ),
        (
            INTEGER,
            0,
            "integer_below_min_value",
            "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        ),
        (
            SEED,
            "4294967296",
            "integer_above_max_value",
            "Invalid 'n': integer above maximum value. Expected a value <= 4294967295, but got 4294967296 instead.",
        ),
        (
            NUMBER,
            "4.5",
            "decimal_above_max_value",
            "Invalid 'n': decimal above maximum value. Expected a value <= 3, but got 4.5 instead.",
        ),
        (
            NUMBER,
            "-0.5",
            "decimal_below_min_value",
            "Invalid 'n': decimal below minimum value. Expected a value >= 0, but got -0.5 instead.",
        ),
        (INTEGER, "abc", "invalid_type", "Invalid type for 'n': expected an integer, but got 'abc' instead."),
        (INTEGER, "4.5", "invalid_type", "Invalid type for 'n': expected an integer, but got '4.5' instead."),
        (INTEGER, 4.5, "invalid_type", "Invalid type for 'n': expected an integer, but got 4.5 instead."),
        (INTEGER, True, "invalid_type", "Invalid type for 'n': expected an integer, but got true instead."),
        (INTEGER, ["1", "2"], "invalid_type", "Invalid type for 'n': expected an integer, but got an array instead."),
        (NUMBER, "nan", "invalid_type", "Invalid type for 'n': expected a number, but got 'nan' instead."),
        (NUMBER, "1e999", "invalid_type", "Invalid type for 'n': expected a number, but got '1e999' instead."),
        (NUMBER, "٣", "invalid_type", "Invalid type for 'n': expected a number, but got '٣' instead."),
        (NUMBER, False, "invalid_type", "Invalid type for 'n': expected a number, but got false instead."),
        (BOOLEAN, "maybe", "invalid_type", "Invalid type for 'n': expected a boolean, but got 'maybe' instead."),
        (BOOLEAN, 2, "invalid_type", "Invalid type for 'n': expected a boolean, but got 2 instead."),
        (STRING, 12, "invalid_type", "Invalid type for 'n': expected a string, but got 12 instead."),
        (
            STRING,
            "abcdef",
            "string_above_max_length",
            f"{TOO} long. Expected a string with maximum length 5, but got a string with length 6 instead.",
        ),
        (
            STRING,
            "a",
            "string_below_min_length",
            f"{TOO} short. Expected a string with minimum length 2, but got a string with length 1 instead.",
        ),
        (ENUM, "X", "invalid_value", "Invalid value: 'X'. Supported values are: 'a', 'b' and 'Crop'."),
        (ENUM, ["a"], "invalid_value", "Invalid value: an array. Supported values are: 'a', 'b' and 'Crop'."),
        (STEPS, "3", "invalid_value", "Invalid value: 3. Supported values are: '1', '2' and '4'."),
        (TAGS, ["z"], "invalid_value", "Invalid value: 'z'. Supported values are: 'x' and 'y'."),
        (param("enum", choices=("a",)), "b", "invalid_value", "Invalid value: 'b'. Supported values are: 'a'."),
        (
            OBJECT,
            "[object Object]",
            "invalid_type",
            "Invalid type for 'n': expected an object, but got '[object Object]' instead.",
        ),
        (OBJECT, "[1]", "invalid_type", "Invalid type for 'n': expected an object, but got '[1]' instead."),
        (ARRAY, "[1", "invalid_type", "Invalid type for 'n': expected an array, but got '[1' instead."),
        (ARRAY, {"a": "1"}, "invalid_type", "Invalid type for 'n': expected an array, but got an object instead."),
        (param("image"), "x", "invalid_type", "Invalid type for 'n': expected a file, but got 'x' instead."),
        (
            INTEGER,
            "a\x00b" + "c" * 60,
            "invalid_type",
            f"Invalid type for 'n': expected an integer, but got 'a\N{REPLACEMENT CHARACTER}b{'c' * 36}…' instead.",
        ),
    ],
)
def test_refusals_say_what_openai_would_say(declared: Param, value: Value, code: str, message: str) -> None:
    """A value outside its declaration is refused under its name, with a complete sentence and OpenAI's code."""
    with pytest.raises(InvalidValue) as caught:
        coerce("n", value, declared)

    assert caught.value.param == "n"
    assert caught.value.code == code
    assert caught.value.message == str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", 4),
        ("0", 0),
        ("-4", -4),
        ("123456789012345", 123456789012345),
        ("1.5", 1.5),
        ("-0.25", -0.25),
        ("0.00001", 0.00001),
        ("1.0", 1.0),
        ("true", True),
        ("false", False),
        ("[1, 2]", [1, 2]),
        ('{"a": "4"}', {"a": "4"}),
    ],
)
def test_unambiguous_text_is_read_as_json(text: str, expected: Value) -> None:
    """What an encoder makes of a number, a boolean or JSON is undone."""
    found = parse_scalar(text)

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "text",
    [
        *("007", "1e5", "+4", " 4", "4 ", "-0", "1.50", ".5", "5.", "00.5", "1_000", "٤", "0x10", "", " "),
        *("1234567890123456", "1.234567890123456", "null", "None", "True", "FALSE", "yes", "NaN", "Infinity"),
        *("[object Object]", "[1,", '{"a": 1, "a": 2}', "[NaN]", '"4"', "[" * 20 + "]" * 20, r'["\ud800"]', "a cat"),
    ],
)
def test_ambiguous_text_stays_text(text: str) -> None:
    """A text that may have been meant as text is not touched."""
    assert parse_scalar(text) == text


def test_loose_goes_through_what_brackets_nested() -> None:
    """The leaves of nested fields are read like plain ones, and typed values are left alone."""
    nested = nest([("o[a]", "1"), ("o[b][]", "true"), ("o[b][]", "x"), ("n", 5)])

    assert parse_scalar(nested) == {"o": {"a": 1, "b": [True, "x"]}, "n": 5}


def test_null_and_empty_text_are_absent() -> None:
    """Nothing but null and the empty text counts as absent: not zero, not false, not an empty list."""
    present: list[Value] = [0, False, [], {}, " ", "null"]

    assert is_absent(None)
    assert is_absent("")
    assert not any(is_absent(value) for value in present)


@pytest.mark.slow
@given(JSON, st.sampled_from([INTEGER, NUMBER, BOOLEAN, STRING, OBJECT, ARRAY, ENUM, MIXED, STEPS, TAGS, SEED]))
def test_any_value_is_inside_its_bounds_or_refused(value: Value, declared: Param) -> None:
    """No value makes coercion fail otherwise, and what comes out is of the declared type and inside its bounds."""
    refusal: InvalidValue | None = None
    try:
        found = coerce("p", value, declared)
    except InvalidValue as error:
        refusal = error
    if refusal is not None:
        assert refusal.param == "p"
        assert refusal.message.endswith(".")
        return
    kinds = {"integer": int, "number": (int, float), "boolean": bool, "string": str, "object": dict, "array": list}
    assert declared.type == "enum" or isinstance(found, kinds[declared.type])  # type: ignore[arg-type]
    if isinstance(found, (int, float)):
        assert math.isfinite(found)
        assert declared.admits(found)


@given(st.text() | st.from_regex(r"[+-]?[0-9]*\.?[0-9]*([eE][0-9]+)?", fullmatch=True))
def test_numbers_that_loose_reads_say_the_same_as_their_text(text: str) -> None:
    """Reading a number is lossless: writing it back in full gives the text."""
    found = parse_scalar(text)

    if isinstance(found, bool) or not isinstance(found, (int, float)):
        assert found == text or text[:1] in "tf[{" or text.lstrip()[:1] in "[{"
    else:
        assert found == json.loads(text)
        assert len(text.lstrip("-").replace(".", "")) <= 15


@given(st.lists(st.tuples(st.text("ab[]0", max_size=6), st.text(max_size=6)), max_size=8))
def test_forms_of_any_kind_come_out_loose(pairs: list[tuple[str, str]]) -> None:
    """Nesting and then loosening any form gives JSON, or names the key that is at fault."""
    try:
        value = parse_scalar(nest(list(pairs)))
    except NestingError:
        return
    assert json.loads(json.dumps(value)) == value


def test_a_synonym_of_nothing_is_a_mistake() -> None:
    """What it stands for has to be one of the choices."""
    with pytest.raises(ValueError, match="'jpg' stands for 'jpeg', which is none of the choices"):
        Param(type="enum", doc="A parameter.", choices=("png",), synonyms={"jpg": "jpeg"})
