"""The short spelling of a model's file: what it stands for, and where its author wrote it."""

import copy
import tomllib
from typing import Any

import pytest

from normalization.parameters.shorthand import LongForm, expand

STANDARD = ("image", "prompt")
SHORT = """
scaled_by = "scale"
[params]
scale = { type = "number", doc = "Scale." }
seed = { type = "integer", doc = "Seed." }
[optional]
sharpen = { type = "number", min = 0, max = 10, doc = "Sharpen." }
tiles = { type = "integer", doc = "Tiles." }
[routes.a]
passthrough = ["tiles", "seed", "sharpen", "own"]
params.own = { type = "string", doc = "Own." }
rules.scale = { rule = "renamed", to = "factor" }
[routes.b]
passthrough = ["scale"]
params.sharpen = { max = 5 }
rules.seed = { rule = "emulated", by = "ignore" }
rules.sharpen = { rule = "renamed", to = "sharpness" }
[routes.c]
rules.seed = { rule = "passthrough" }
rules.scale = { rule = "passthrough" }
"""
LONG = """
scaled_by = "scale"
[params]
scale = { type = "number", doc = "Scale." }
seed = { type = "integer", doc = "Seed." }
[routes.a.params]
sharpen = { type = "number", min = 0, max = 10, doc = "Sharpen." }
tiles = { type = "integer", doc = "Tiles." }
own = { type = "string", doc = "Own." }
[routes.a.rules]
scale = { rule = "renamed", to = "factor" }
seed = { rule = "passthrough" }
sharpen = { rule = "passthrough" }
tiles = { rule = "passthrough" }
own = { rule = "passthrough" }
[routes.b.params]
sharpen = { type = "number", min = 0, max = 5, doc = "Sharpen." }
[routes.b.rules]
scale = { rule = "passthrough" }
seed = { rule = "emulated", by = "ignore" }
sharpen = { rule = "renamed", to = "sharpness" }
[routes.c.rules]
seed = { rule = "passthrough" }
scale = { rule = "passthrough" }
"""


def read(text: str) -> LongForm:
    """The long form of a file."""
    return expand(tomllib.loads(text), STANDARD)


def problems(text: str) -> list[tuple[str, str, str]]:
    """What is wrong with the short spelling in a file: place, found, expected."""
    found = [(".".join(problem.place), problem.found, problem.expected) for problem in read(text).problems]
    print(found)
    return found


def test_what_a_file_stands_for() -> None:
    """Each route has its own parameters and rules, in the order of the declarations, however they were spread."""
    form, long = read(SHORT), tomllib.loads(LONG)

    assert form.document == long
    for key, route in form.document["routes"].items():
        for table in ("params", "rules"):
            assert list(route.get(table, {})) == list(long["routes"][key].get(table, {}))
    assert form.problems == ()


def test_a_long_file_stands_for_itself() -> None:
    """The spelling without lists stays as it is, the order of its rules included."""
    long = tomllib.loads(LONG)

    assert repr(expand(long, STANDARD).document) == repr(long)


def test_the_file_is_left_alone() -> None:
    """What one route's copy of a declaration is changed to changes neither the file nor another route."""
    document: dict[str, Any] = tomllib.loads(SHORT)
    before = copy.deepcopy(document)
    form = expand(document, STANDARD)
    form.document["routes"]["a"]["params"]["sharpen"]["max"] = 1

    assert document == before
    assert form.document["routes"]["b"]["params"]["sharpen"]["max"] == 5


@pytest.mark.parametrize(
    ("place", "written"),
    [
        ("routes.a.params.sharpen", "optional.sharpen"),
        ("routes.a.params.sharpen.max", "optional.sharpen.max"),
        ("routes.a.params.own.max", "routes.a.params.own.max"),
        ("routes.a.rules.seed", "routes.a.passthrough"),
        ("routes.a.rules.scale.to", "routes.a.rules.scale.to"),
        ("routes.b.params.sharpen", "routes.b.params.sharpen"),
        ("routes.b.params.sharpen.max", "routes.b.params.sharpen.max"),
        ("routes.b.params.sharpen.min", "optional.sharpen.min"),
        ("routes.c.rules.seed", "routes.c.rules.seed"),
        ("params.seed.max", "params.seed.max"),
        ("routes", "routes"),
    ],
)
def test_where_it_was_written(place: str, written: str) -> None:
    """A place of the long form leads back to that of the file."""
    assert read(SHORT).as_written(tuple(place.split("."))) == tuple(written.split("."))


def test_a_rule_beside_the_list_is_where_it_was_written() -> None:
    """A name that is in both leads to its rule, for that one stands in the long form."""
    form = read('[routes.a]\npassthrough = ["b"]\n[routes.a.rules.b]\nrule = "renamed"\nto = 1')

    assert form.document["routes"]["a"]["rules"]["b"]["rule"] == "renamed"
    assert form.as_written(("routes", "a", "rules", "b", "to")) == ("routes", "a", "rules", "b", "to")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('optional = "sharpen"', ("optional", "'sharpen'", "a table of parameters, as in [params]")),
        ("optional.a.type = 1\n[params.a]", ("optional.a", "a parameter that [params] declares as well", "one of the")),
        ("optional.prompt.type = 1", ("optional.prompt", "a parameter that every model has", "it in [params]")),
        ("[optional.sharpen]", ("optional.sharpen", "a parameter that no route names", "or not at all")),
        (
            '[optional.sharpen]\n[routes.a]\npassthrough = ["sharpn"]',
            ("optional.sharpen", "a parameter that no route names", "(did you mean sharpn?)"),
        ),
        ('[routes.a]\npassthrough = "seed"', ("routes.a.passthrough", "'seed'", "a list of parameter names")),
        ('[routes.a]\npassthrough = ["seed", 1]', ("routes.a.passthrough", "['seed', 1]", "a list of parameter names")),
        ('[routes.a]\npassthrough = ["b", "b"]', ("routes.a.passthrough", '"b" 2 times', "each parameter once")),
        (
            '[routes.a]\npassthrough = ["b"]\n[routes.a.rules.b]',
            ("routes.a.passthrough", '"b", which has a rule in [routes.a.rules] as well', "it in one of the two"),
        ),
    ],
)
def test_what_is_wrong(text: str, found: tuple[str, str, str]) -> None:
    """Each mistake of the short spelling, reported at its place."""
    (problem,) = problems(text)
    assert problem[0] == found[0]
    assert problem[1].startswith(found[1])
    assert found[2] in problem[2]


@pytest.mark.parametrize(
    "text",
    [
        "routes = 1",
        "routes.a = 1",
        '[routes.a]\npassthrough = ["seed"]\nrules = 1',
        "[routes.a]\nparams = 1\n[routes.a.rules.sharpen]\n[optional.sharpen]",
        "params = 1",
        "optional.sharpen = 1\n[routes.a.rules.sharpen]",
    ],
)
def test_what_the_schema_refuses_stays(text: str) -> None:
    """Anything else that is malformed reaches the schema: it is not dropped, and nothing breaks before."""
    form = read(text)

    assert form.problems == ()
    assert "1" in repr(form.document)
