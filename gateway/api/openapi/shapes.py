"""JSON Schema in short: what the pieces of the document are written with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Schema: TypeAlias = "dict[str, Any]"

NULL: Schema = {"type": "null"}
MONEY: Schema = {"type": "number", "minimum": 0, "description": "US dollars."}
CURRENCY: Schema = {"const": "USD"}
TIME: Schema = {"type": "number", "description": "Seconds since the epoch."}
COUNT: Schema = {"type": "integer", "minimum": 0}
ANYTHING: Schema = {"type": "object", "additionalProperties": True}


def text(doc: str | None = None, **more: Any) -> Schema:
    """A string."""
    return {"type": "string", **({"description": doc} if doc else {}), **more}


def flag(doc: str | None = None) -> Schema:
    """A boolean."""
    return {"type": "boolean", **({"description": doc} if doc else {})}


def one_of(words: Iterable[str], doc: str | None = None) -> Schema:
    """One of some words."""
    return text(doc, enum=list(words))


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, NULL]}


def many(items: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": items, **more}


def by_name(values: Schema) -> Schema:
    """An object with names of its own for its keys."""
    return {"type": "object", "additionalProperties": values}


def record(doc: str | None = None, /, *, optional: Mapping[str, Schema] | None = None, **always: Schema) -> Schema:
    """An object with these keys and no others."""
    return {
        "type": "object",
        **({"description": doc} if doc else {}),
        "properties": {**always, **(optional or {})},
        "required": list(always),
        "additionalProperties": False,
    }


def ref(name: str) -> Schema:
    """A schema of the document by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def page(item: Schema) -> Schema:
    """A page of a list; `next` is what `after` takes for the following one."""
    return record(
        object={"const": "list"},
        data=many(item),
        has_more=flag("Whether there is another page."),
        next=or_null(text("What `after` takes for the next page.")),
    )
