"""Converts form text to typed values, according to each parameter's declared type."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import assert_never

from normalization.parameters.nesting import MAX_DIGITS, excerpt, parse_json
from normalization.parameters.rules import Param, ParamType, Scalar
from normalization.values import Value

_ARTICLED: Mapping[ParamType, str] = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
    "enum": "one of its values",
    "image": "a file",
    "object": "an object",
    "array": "an array",
}
_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_INTEGER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# Numbers as encoders write them, which cannot be meant as text: no sign but a minus, no leading or trailing zeros, no
# exponent, and no more digits than a double keeps.
_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}")
_PLAIN_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.(?:[0-9]*[1-9]|0)")
_PLAIN_DIGITS = 15


class InvalidValue(ValueError):
    """A value that is invalid for its parameter. The message uses OpenAI's wording, `code` is its error code."""

    def __init__(self, param: str, message: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.message = message
        self.code = code


def is_absent(value: Value) -> bool:
    """Whether a value counts as absent: JSON's null, or an empty form field."""
    return value is None or value == ""


def coerce(name: str, value: Value, param: Param, *, typed: bool = False) -> Value:
    """The value converted to the declared type of `param` and checked against its bounds. It must not be absent.

    Text is parsed by type: `4` and `4.0` as an integer, `true/1/yes/on` and `false/0/no/off` in any case as a boolean,
    a choice in any case, JSON as an object or array, a single text as an array of one. `typed` means that the value
    comes from JSON, so that text inside objects and arrays stays text. Raises `InvalidValue`, also for every value of
    an image parameter: images are read elsewhere.
    """
    if param.type == "enum":
        return _choice(name, value, param)
    parsed = _read(value, param.type, typed=typed)
    if parsed is None:
        raise InvalidValue(
            name,
            f"Invalid type for '{name}': expected {_ARTICLED[param.type]}, but got {_shown(value)} instead.",
            "invalid_type",
        )
    if param.choices is not None:
        return (
            [_choice(name, item, param) for item in parsed]
            if isinstance(parsed, list)
            else _choice(name, parsed, param)
        )
    if isinstance(parsed, str):
        _check_length(name, parsed, param)
    elif isinstance(parsed, (int, float)) and not isinstance(parsed, bool):
        _check_range(name, parsed, param)
    return parsed


def parse_scalar(value: Value) -> Value:
    """Restore the JSON type that an undeclared field lost in a form.

    Only if unambiguous: integers and decimals as encoders write them, up to 15 digits (`007`, `1e5`, `+4`, `1.50` stay
    text), `true`, `false`, valid JSON objects and arrays. Lists and objects are converted recursively.
    """
    if isinstance(value, list):
        return [parse_scalar(item) for item in value]
    if isinstance(value, dict):
        return {name: parse_scalar(item) for name, item in value.items()}
    return _parse_text(value) if isinstance(value, str) else value


def _parse_text(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if _PLAIN_INTEGER.fullmatch(text):
        return int(text)
    if len(text) <= _PLAIN_DIGITS + 2 and _PLAIN_DECIMAL.fullmatch(text):
        return float(text) if len(text.lstrip("-")) <= _PLAIN_DIGITS + 1 else text
    if text.lstrip()[:1] in ("{", "["):
        try:
            return parse_json(text)
        except ValueError:
            return text
    return text


def _read(value: Value, kind: ParamType, *, typed: bool) -> Value:
    """The value converted to `kind`; None if that is not possible."""
    match kind:
        case "integer":
            return _integer(value)
        case "number":
            return _number(value)
        case "boolean":
            return _boolean(value)
        case "object":
            return _object(value, typed=typed)
        case "array":
            return _array(value, typed=typed)
        case "string" | "enum":
            return value if isinstance(value, str) else None
        case "image":
            return None
        case _:
            assert_never(kind)


def _integer(value: Value) -> int | None:
    if isinstance(value, str):
        match = _INTEGER.fullmatch(value.strip())
        return int(match[1]) if match and len(match[1]) <= MAX_DIGITS else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Value) -> int | float | None:
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        if not match or len(match[0]) > MAX_DIGITS:
            return None
        value = int(match[0]) if match[0].lstrip("+-").isdigit() else float(match[0])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _boolean(value: Value) -> bool | None:
    if isinstance(value, str):
        return _BOOLEANS.get(value.strip().lower())
    return bool(value) if isinstance(value, int) and value in (0, 1) else None


def _object(value: Value, *, typed: bool) -> Value:
    if isinstance(value, str):
        value = _json(value)
    elif not typed:
        value = parse_scalar(value)
    return value if isinstance(value, dict) else None


def _array(value: Value, *, typed: bool) -> Value:
    if isinstance(value, str):
        parsed = _json(value)
        if isinstance(parsed, list):
            return parsed
        # The Vercel SDK sends an array of one as the bare item. Invalid JSON that starts like an array is not an item.
        return None if typed or value.lstrip().startswith("[") else [parse_scalar(value)]
    if not isinstance(value, list):
        return None
    return value if typed else parse_scalar(value)


def _json(text: str) -> Value:
    try:
        return parse_json(text)
    except ValueError:
        return None


def _choice(name: str, value: Value, param: Param) -> Scalar:
    """The declared choice that matches the value: exactly, as a number, ignoring case, or as a synonym."""
    choices = param.choices or ()
    text = _text(value).strip()
    number = None if isinstance(value, bool) else _number(value)
    for choice in choices:
        if text == _text(choice):
            return choice
    for choice in choices:
        if number is not None and not isinstance(choice, (bool, str)) and number == choice:
            return choice
    for choice in choices:
        if text.lower() == _text(choice).lower():
            return choice
    for word, choice in (param.synonyms or {}).items():
        if text.lower() == word.lower():
            return choice
    supported = [f"'{_text(choice)}'" for choice in choices]
    listed = " and ".join(filter(None, [", ".join(supported[:-1]), supported[-1]]))
    raise InvalidValue(name, f"Invalid value: {_shown(value)}. Supported values are: {listed}.")


def _check_range(name: str, value: int | float, param: Param) -> None:
    kind = "integer" if param.type == "integer" else "decimal"
    if param.max is not None and value > param.max:
        wrong, wanted, code = "above maximum", f"<= {_text(param.max)}", f"{kind}_above_max_value"
    elif param.min is not None and value < param.min:
        wrong, wanted, code = "below minimum", f">= {_text(param.min)}", f"{kind}_below_min_value"
    else:
        return
    shown = f"Expected a value {wanted}, but got {_text(value)} instead."
    raise InvalidValue(name, f"Invalid '{name}': {kind} {wrong} value. {shown}", code)


def _check_length(name: str, value: str, param: Param) -> None:
    if param.max is not None and len(value) > param.max:
        wrong, wanted, code = "too long", f"maximum length {_text(param.max)}", "string_above_max_length"
    elif param.min is not None and len(value) < param.min:
        wrong, wanted, code = "too short", f"minimum length {_text(param.min)}", "string_below_min_length"
    else:
        return
    shown = f"Expected a string with {wanted}, but got a string with length {len(value)} instead."
    raise InvalidValue(name, f"Invalid '{name}': string {wrong}. {shown}", code)


def _text(value: Value) -> str:
    """A scalar as form text; "" for other values."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, (str, int, float)) else ""


def _shown(value: Value) -> str:
    """A value as shown in a message."""
    if isinstance(value, str):
        return f"'{excerpt(value)}'"
    if isinstance(value, (int, float)):
        return _text(value)
    if value is None:
        return "null"
    return "an array" if isinstance(value, list) else "an object" if isinstance(value, dict) else "a file"
