"""The config: what may be said, what the environment changes, and what each mistake is told as."""

import json
import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest

from gateway.settings.errors import ConfigProblem
from gateway.settings.loader import SHIPPED, ConfigError, load
from normalization.parameters.convert import CONVERTERS, Converter, NoSuchValue
from normalization.parameters.plan import Ineligible, plan
from normalization.parameters.rules import ConvertedRule, ParamType
from normalization.parameters.shorthand import expand
from normalization.values import Header, Image, ImageRequest, Value
from tests.support.paths import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped config to break."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "config"))


def edit(folder: Path, file: str, old: str, new: str) -> None:
    """Replace one text in one file, which must be there."""
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


LANCZOS = "models/lanczos-bp.toml"
CLARITY = "models/clarity-upscaler.toml"
IMAGE = Image(data=b"not looked into", header=Header(format="png", width=60, height=40))
SHARPEN = 'passthrough = ["sharpen"]\n[routes.local.rules]'
# file, what is replaced, by what, and every part that the message must have.
MISTAKES = {
    "not toml": ("gateway.toml", "[gateway]", "[gateway", ["gateway.toml", "expected a TOML document"]),
    "unknown setting": (
        "gateway.toml",
        "deadline_s",
        "dedline_s",
        ["gateway.toml: gateway.dedline_s", "a key that does not exist", "deadline_s (did you mean it?)"],
    ),
    "unknown section": ("gateway.toml", "[gateway]", "[gatewy]\n[gateway]", ["gatewy", "did you mean"]),
    "wrong type": (
        "gateway.toml",
        "= 280",
        '= "soon"',
        ["gateway.deadline_s", "found 'soon'", "expected a valid number"],
    ),
    "out of range": ("gateway.toml", "= 280", "= 0", ["gateway.deadline_s", "found 0", "greater than 0"]),
    "not a choice": (
        "gateway.toml",
        '"both"',
        '"all"',
        ["default_response_format", "'all'", "'url', 'b64_json' or 'both'"],
    ),
    "default model": (
        "gateway.toml",
        '"clarity-upscaler"',
        '"clarity"',
        ["gateway.default_model", "found clarity", "a model: aura-sr, clarity-upscaler"],
    ),
    "alias of nothing": (
        "gateway.toml",
        '"dall-e-2" = { model = "clarity-upscaler" }',
        '"dall-e-2" = { model = "nothing" }',
        ["aliases.dall-e-2.model", "found nothing", "expected a model"],
    ),
    "alias of its own": (
        "gateway.toml",
        '"dall-e-2" =',
        '"lanczos-bp" =',
        ["aliases.lanczos-bp", "a name that is not a model's own"],
    ),
    "worker address": (
        "providers.toml",
        '"embedded"\n',
        '["10.0.0.5:5000"]\n',
        ["providers.toml: local.workers", "10.0.0.5:5000", "a URL without a path"],
    ),
    "unknown provider section": (
        "providers.toml",
        "[local]",
        "[loocal]",
        ["providers.toml: loocal", "local (did you mean it?)"],
    ),
    "unknown provider": (
        CLARITY,
        'provider = "local"',
        'provider = "locl"',
        ["routes.tile-diffusion.provider", "locl", "one of local"],
    ),
    "no price": (LANCZOS, "price = { per_image = 0 }\n", "", ["routes.local.price", "found nothing", "required"]),
    "empty price": (LANCZOS, "{ per_image = 0 }", "{ }", ["routes.local.price", "says per_image = 0"]),
    "price per second alone": (
        LANCZOS,
        "{ per_image = 0 }",
        "{ per_second = 1 }",
        ["routes.local.price", "needs seconds"],
    ),
    "negative price": (
        LANCZOS,
        "per_image = 0",
        "per_image = -1",
        ["price.per_image", "found -1", "greater than or equal to 0"],
    ),
    "no routes": (LANCZOS, "[routes.local]\nmodel", "[nothing]\nmodel", ["nothing"]),
    "rule without parameter": (
        LANCZOS,
        SHARPEN,
        '[routes.local.rules]\nsharpn = { rule = "passthrough" }',
        ["rules has no rule for the parameter sharpen", "did you mean it by sharpn?", "did you mean sharpen?"],
    ),
    "parameter without rule": (
        LANCZOS,
        'seed = { rule = "emulated", by = "ignore" }\n',
        "",
        ["no rule for the parameter seed"],
    ),
    "rule of nothing": (
        LANCZOS,
        "[routes.local.rules]",
        '[routes.local.rules]\nx = { rule = "passthrough" }',
        ["has a rule for x"],
    ),
    "unknown rule": (
        LANCZOS,
        'rule = "renamed"',
        'rule = "rename"',
        ["rules.scale_factor", "expected rule = passthrough, renamed"],
    ),
    "rule without target": (LANCZOS, ', to = "scale"', "", ["rules.scale_factor.to", "found nothing", "required"]),
    "unknown key of a rule": (
        LANCZOS,
        'to = "scale"',
        'into = "scale", to = "s"',
        ["rules.scale_factor.into", "does not exist"],
    ),
    "unknown converter": (
        LANCZOS,
        '{ rule = "renamed", to = "scale" }',
        '{ rule = "converted", using = "magic" }',
        ["rules.scale_factor.using", "found magic", "input_url"],
    ),
    "unknown emulation": (LANCZOS, 'by = "ignore"', 'by = "ignor"', ["rules.prompt.by", "found ignor", "fan_out"]),
    "two rules, one field": (LANCZOS, 'to = "scale"', 'to = "sharpen"', ["writes the field sharpen twice"]),
    "default outside": (LANCZOS, "default = 2,", "default = 20,", ["params.scale_factor", "default 20", "1 to 16"]),
    "min above max": (
        LANCZOS,
        "min = 1, max = 16",
        "min = 17, max = 16",
        ["params.scale_factor", "min 17 is above max 16"],
    ),
    "enum without choices": (
        LANCZOS,
        'type = "number", default = 0',
        'type = "enum", default = 0',
        ["params.sharpen", "choices"],
    ),
    "unknown type": (LANCZOS, 'type = "integer"', 'type = "int"', ["params.seed.type", "found 'int'", "'integer'"]),
    "no doc": (LANCZOS, ', doc = "Unsharp mask after enlarging; 0 is none."', "", ["params.sharpen.doc", "required"]),
    "scaled by nothing": (LANCZOS, 'scaled_by = "scale_factor"', 'scaled_by = "scale"', ["scaled_by names 'scale'"]),
    "twice declared": (
        LANCZOS,
        "[routes.local.rules]",
        '[routes.local.params]\nsharpen = { type = "number", doc = "x" }\n[routes.local.rules]',
        ["declares sharpen, which the model declares already"],
    ),
    "two types": (
        CLARITY,
        "[routes.resample.rules]",
        '[routes.resample.params]\nsharpen = { type = "integer" }\n[routes.resample.rules]',
        ["routes.resample.params.sharpen", "type integer", "type number"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(folder: Path, name: str) -> None:
    """Each mistake stops the start and is told with file, key, what was found and what was expected."""
    file, old, new, parts = MISTAKES[name]
    edit(folder, file, old, new)

    with pytest.raises(ConfigError) as caught:
        load(folder, {})

    message = str(caught.value)
    print(message)
    assert str(folder / file) in message
    for part in parts:
        assert part in message


def test_every_mistake_at_once(folder: Path) -> None:
    """Mistakes in several files are told together, a line each."""
    edit(folder, "gateway.toml", "= 280", "= 0")
    edit(folder, LANCZOS, 'type = "integer"', 'type = "int"')

    with pytest.raises(ConfigError) as caught:
        load(folder, {})

    assert len(str(caught.value).splitlines()) == len(caught.value.mistakes) == 2


def test_no_folder(tmp_path: Path) -> None:
    """A folder that is not there, and a folder without its files, are named."""
    with pytest.raises(ConfigError, match="no such folder"):
        load(tmp_path / "none", {})
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path, {})


def test_environment(folder: Path) -> None:
    """Single values come from the environment: text by the key's type, lists and tables as JSON, any section."""
    config = load(
        folder,
        {
            "DARKROOM_GATEWAY__DEADLINE_S": "12.5",
            "DARKROOM_GATEWAY__PUBLIC_URL": "https://images.example.org/",
            "DARKROOM_PROVIDERS__LOCAL__WORKERS": '["http://10.0.0.5:5000", "http://10.0.0.6:5000/"]',
            "DARKROOM_ALIASES__GPT_IMAGE_1__MODEL": "lanczos-bp",
            "DARKROOM_MODELS__LANCZOS_BP__ROUTES__LOCAL__PRICE": '{"per_image": 0.5}',
            "DARKROOM_STANDARD__PARAMS__N__MAX": "4",
            "DARKROOM_API_KEYS": "not a value of the config",
            "DARKROOM_PORT": "tcp://what kubernetes puts there",
        },
    )

    assert config.gateway.deadline_s == 12.5
    assert config.gateway.public_url == "https://images.example.org"
    assert config.providers.local.workers == ("http://10.0.0.5:5000", "http://10.0.0.6:5000")
    assert config.aliases["gpt-image-1"].model == "lanczos-bp"
    assert config.aliases["gpt-image-1"].default_response_format == "b64_json"
    assert config.models["lanczos-bp"].routes["local"].price.per_image == 0.5
    assert config.models["clarity-upscaler"].params["n"].max == 4


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("DARKROOM_GATEWAY__DEADLINE_S", "soon", ["gateway.deadline_s", "'soon'", "valid number"]),
        ("DARKROOM_GATEWAY__DEDLINE_S", "9", ["gateway.dedline_s", "does not exist", "deadline_s"]),
        ("DARKROOM_PROVIDERS__LOCAL__WORKERS", '["x"]', ["local.workers", "a URL without a path"]),
        ("DARKROOM_PROVIDERS__LOCAL__WORKERS", '["x"', ["local.workers", "[\"x\""]),
        ("DARKROOM_PROVIDERS__REPLICATE__BASE_URL", "egress.example.org/a", ["replicate.base_url", "without a path"]),
        ("DARKROOM_PROVIDERS__REPLICATE__BASE_URL", "https://u:p@example.org/a", ["replicate.base_url", "a path"]),
        ("DARKROOM_PROVIDERS__FAL__QUEUE_URL", "https://example.org/a/../b", ["fal.queue_url", "without a path"]),
        ("DARKROOM_PROVIDERS__FAL__RUN_URL", "https://example.org/a//b", ["fal.run_url", "without a path"]),
        ("DARKROOM_PROVIDERS__FAL__REST_URL", "https://example.org/%2e%2e/b", ["fal.rest_url", "without a path"]),
        ("DARKROOM_PROVIDERS__SEGMIND__BASE_URL", "https://example.org/a?b", ["segmind.base_url", "without a path"]),
        ("DARKROOM_PROVIDERS__APIFRAME__BASE_URL", "https://example.org/a#b", ["apiframe.base_url", "without a path"]),
        ("DARKROOM_GATWAY__DEADLINE_S", "9", ["the section gatway", "one of gateway"]),
        ("DARKROOM_MODELS__CLARITY__DOC", "9", ["the model clarity", "clarity-upscaler"]),
        ("DARKROOM_GATEWAY__FILES_URL", "bucket/prefix", ["gateway.files_url", "s3://bucket/prefix"]),
        ("DARKROOM_GATEWAY__URL_PORTS", "[0]", ["gateway.url_ports", "0"]),
        ("DARKROOM_GATEWAY__URL_HOSTS_ALLOW", '["https://example.org"]', ["gateway.url_hosts_allow", "*.example.org"]),
        ("DARKROOM_GATEWAY__URL_HOSTS_DENY", '["a.*.example.org"]', ["gateway.url_hosts_deny", "*.example.org"]),
        ("DARKROOM_GATEWAY__URL_HOSTS_DENY", '["example.org:443"]', ["gateway.url_hosts_deny", "a host"]),
        ("DARKROOM_GATEWAY__PUBLIC_URL", "images.example.org", ["gateway.public_url", "https://images.example.org"]),
    ],
)  # fmt: skip
def test_environment_mistakes(folder: Path, variable: str, value: str, parts: list[str]) -> None:
    """A mistake in a variable blames the variable, not the file."""
    with pytest.raises(ConfigError) as caught:
        load(folder, {variable: value})

    message = str(caught.value)
    print(message)
    assert f"environment variable {variable}" in message
    for part in parts:
        assert part in message


def test_hosts_are_kept_as_they_stand_in_addresses(folder: Path) -> None:
    """In whatever letters a host is written, it is the one that addresses lead to."""
    hosts = ["*.Example.ORG", "b\u00fccher.example.", "2001:4860:4860:0::8888", "8.8.8.8"]
    found = load(folder, {"DARKROOM_GATEWAY__URL_HOSTS_ALLOW": json.dumps(hosts)}).gateway.url_hosts_allow

    assert found == ("*.example.org", "xn--bcher-kva.example", "2001:4860:4860::8888", "8.8.8.8")


def test_only_a_bucket_signs_addresses(folder: Path) -> None:
    """A folder has no addresses of its own: told at the start, not when the first picture is made."""
    for url in ({}, {"DARKROOM_GATEWAY__FILES_URL": "file:///tmp/pictures"}):
        with pytest.raises(ConfigError, match=r"files_presigned needs a files_url of a bucket"):
            load(folder, {"DARKROOM_GATEWAY__FILES_PRESIGNED": "true", **url})
    both = {"DARKROOM_GATEWAY__FILES_PRESIGNED": "true", "DARKROOM_GATEWAY__FILES_URL": "s3://bucket/a"}
    assert load(folder, both).gateway.files_presigned


def test_a_model_is_a_file(folder: Path) -> None:
    """A new model is one new file, whose standard parameters and rules come by themselves."""
    shutil.copy(folder / LANCZOS, folder / "models" / "my-upscaler.toml")

    model = load(folder, {}).models["my-upscaler"]

    assert model.id == "my-upscaler"
    assert model.routes["local"].rules["n"].rule == "emulated"


@pytest.fixture
def bare(folder: Path) -> Path:
    """The same without its models, of which a test writes its own."""
    for path in (folder / "models").iterdir():
        path.unlink()
    (folder / "gateway.toml").write_text('[gateway]\ndefault_model = "made-up"\n')
    return folder


MADE_UP = "models/made-up.toml"
KEYS = {"choices": "choices = [2, 4]", "table": 'table = { a = "b" }', "min": "min = 1", "max": "max = 2"}
# Of these every converter converts some.
VALUES: tuple[Value, ...] = (
    2, "300x200", "client value", Image(data=b"", header=Header(format="png", width=3, height=2))
)  # fmt: skip


def told(folder: Path, environ: Mapping[str, str] | None = None) -> list[ConfigProblem]:
    """The mistakes of a config that cannot be loaded, printed for the reader of a failed test."""
    with pytest.raises(ConfigError) as caught:
        load(folder, environ or {})
    print(caught.value)
    return list(caught.value.mistakes)


def param(kind: str) -> str:
    choices = ", choices = [2, 4]" if kind == "enum" else ""
    return f'thing = {{ type = "{kind}", doc = "A thing."{choices} }}'


def rule(using: str, *keys: str) -> str:
    said = ", ".join(('rule = "converted"', f'using = "{using}"', *keys))
    return f"thing = {{ {said} }}"


def write(folder: Path, params: str = "", rules: str = "") -> None:
    """A model with nothing beside the standard but these."""
    (folder / MADE_UP).write_text(
        'doc = "A model."\nowned_by = "tests"\ncreated = 2026-01-01\nmodes = ["edit"]\n'
        f"[params]\n{params}\n"
        f'[routes.local]\nmodel = "m"\nprice = {{ per_image = 0 }}\n[routes.local.rules]\n{rules}\n'
    )


def examples(converter: Converter, without: str = "") -> list[str]:
    """The keys that a converter reads, as it says that they may be written."""
    keys = {"choices": converter.choices, "table": converter.table}
    return [key.example for name, key in keys.items() if key and name != without]


@pytest.mark.parametrize("name", CONVERTERS)
def test_what_a_converter_says_that_it_needs_will_do(bare: Path, name: str) -> None:
    """With its own examples a rule is right, for each type that it takes, and converts something."""
    converter = CONVERTERS[name]
    for kind in converter.types:
        write(bare, param(kind), rule(name, *examples(converter)))
        made = load(bare, {}).models["made-up"].routes["local"].rules["thing"]
        assert isinstance(made, ConvertedRule)
        assert any(converts(converter, value, made) for value in VALUES)


def converts(converter: Converter, value: Value, made: ConvertedRule) -> bool:
    try:
        return converter(value, made).value is not None
    except (NoSuchValue, ValueError):
        return False


@pytest.mark.parametrize("name", CONVERTERS)
@pytest.mark.parametrize("key", ["choices", "table"])
def test_a_rule_without_what_its_converter_needs(bare: Path, name: str, key: str) -> None:
    """It is a mistake exactly where every request would be refused, told with what to write."""
    converter = CONVERTERS[name]
    read = converter.choices if key == "choices" else converter.table
    text = rule(name, *examples(converter, without=key))
    write(bare, param(converter.types[0]), text)
    if read is None or not read.needed:
        load(bare, {})
        return

    found = ConfigProblem(
        str(bare / MADE_UP),
        f"routes.local.rules.thing.{key}",
        "nothing",
        f"the key that {name} requires, such as {read.example}",
    )
    assert told(bare) == [found]
    # In standard.toml it is told of that file alone, and not of each model that takes the rule from there.
    write(bare)
    edit(bare, "standard.toml", "[rules]", f"[rules]\n{text}")
    edit(bare, "standard.toml", "[params]", f"[params]\n{param(converter.types[0])}")
    assert {(mistake.where, mistake.key) for mistake in told(bare)} == {
        (str(bare / "standard.toml"), f"rules.thing.{key}")
    }


UNREAD = [(name, key) for name, converter in CONVERTERS.items() for key in KEYS if not converter.reads(key)]


@pytest.mark.parametrize(("name", "key"), UNREAD)
def test_a_rule_with_what_its_converter_does_not_read(bare: Path, name: str, key: str) -> None:
    """A key without effect is a mistake, told with the converters in which it has one."""
    converter = CONVERTERS[name]
    write(bare, param(converter.types[0]), rule(name, *examples(converter, without=key), KEYS[key]))

    (found,) = told(bare)
    assert (found.where, found.key) == (str(bare / MADE_UP), f"routes.local.rules.thing.{key}")
    assert found.found == f"a key that {name} does not use"
    assert found.expected.startswith("a rule without it")
    readers = found.expected.partition(": ")[2]
    others = [other for other in CONVERTERS.values() if converter.types[0] in other.types]
    assert readers == ", ".join(other.name for other in others if other.reads(key))


@pytest.mark.parametrize("name", CONVERTERS)
@pytest.mark.parametrize("kind", get_args(ParamType))
def test_a_rule_for_a_parameter_that_its_converter_does_not_take(bare: Path, name: str, kind: ParamType) -> None:
    """A converter of pictures refuses every text: told with the converters that take one."""
    converter = CONVERTERS[name]
    write(bare, param(kind), rule(name, *examples(converter)))
    if kind in converter.types:
        load(bare, {})
        return

    (found,) = told(bare)
    assert (found.where, found.key) == (str(bare / MADE_UP), "routes.local.rules.thing.using")
    assert found.found == f"{name}, which does not convert parameters of type {kind}"
    assert all(other.name in found.expected for other in CONVERTERS.values() if kind in other.types)


@pytest.mark.parametrize(
    ("kind", "text", "key", "found"),
    [
        ("number", rule("next_larger", 'choices = [2, "4x"]'), "choices", "'4x', which is not a number"),
        ("number", rule("next_larger", "choices = [2, true]"), "choices", "True, which is not a number"),
        ("number", rule("next_larger", "choices = [2, 4]", 'table = { 2 = "2x" }'), "table", "no entry for 4"),
        ("number", rule("next_larger", "choices = [2]", "table = { 2 = 1, 4 = 2 }"), "table", "an entry for 4"),
        ("string", rule("aspect_ratio", 'choices = ["1:1", "wide"]'), "choices", "'wide', which is not a ratio"),
        ("string", rule("aspect_ratio", 'choices = ["1:0"]'), "choices", "'1:0', which is not a ratio"),
        ("string", rule("aspect_ratio", 'choices = ["1:1"]', 'table = { "1:1" = "s" }'), "table", "an entry for 1:1"),
    ],
)  # fmt: skip
def test_what_a_converter_cannot_read(bare: Path, kind: str, text: str, key: str, found: str) -> None:
    """Choices and words that would fail with the first request, or never come into play."""
    write(bare, param(kind), text)

    (mistake,) = told(bare)
    assert mistake.key == f"routes.local.rules.thing.{key}"
    assert mistake.found.startswith(found)


def test_choices_that_are_none(bare: Path) -> None:
    """An empty list of choices takes nothing, on whatever rule."""
    write(bare, param("string"), 'thing = { rule = "passthrough", choices = [] }')

    (mistake,) = told(bare)
    assert mistake.key == "routes.local.rules.thing"
    assert "choices is empty" in mistake.found


def test_a_rule_of_a_variable_is_blamed_on_it(folder: Path) -> None:
    """Not on the file, which is right."""
    variable = "DARKROOM_MODELS__LANCZOS_BP__ROUTES__LOCAL__RULES__SCALE_FACTOR"

    (mistake,) = told(folder, {variable: '{"rule": "converted", "using": "next_larger"}'})
    assert (mistake.where, mistake.key) == (
        f"environment variable {variable}",
        "routes.local.rules.scale_factor.choices",
    )


@pytest.mark.parametrize("where", ["here", "here, without effect", "standard", "other routes"])
def test_a_missing_rule_is_told_with_the_ways_to_mend_it(bare: Path, where: str) -> None:
    """Each of them does."""
    write(bare, param("string"))
    (mistake,) = told(bare)
    assert str(mistake).startswith(f"{bare / MADE_UP}: routes.local.rules has no rule for the parameter thing: write")
    way = {
        "here": 'thing = { rule = "passthrough" }',
        "here, without effect": '{ rule = "emulated", by = "ignore" }',
        "standard": "[rules] of standard.toml",
        "other routes": "[routes.NAME.params] instead of in [params]",
    }[where]
    assert way in mistake.found

    if where == "standard":
        edit(bare, "standard.toml", "[rules]", '[rules]\nthing = { rule = "passthrough" }')
    elif where == "other routes":
        other = '[routes.other]\nprovider = "fal"\nmodel = "m"\nprice = { per_image = 1 }\n'
        declared = f'[routes.other.params]\n{param("string")}\n[routes.other.rules]\nthing = {{ rule = "passthrough" }}'
        write(bare, "", other + declared)
    else:
        write(bare, param("string"), way if way.startswith("thing") else f"thing = {way}")
    assert load(bare, {}).models["made-up"].param("thing") is not None


def test_a_missing_rule_for_what_one_route_has(bare: Path) -> None:
    """The standard's rules are none for it: it is given one there, or taken away."""
    write(bare, "", f"[routes.local.params]\n{param('string')}")

    (mistake,) = told(bare)
    assert "thing = {" in mistake.found
    assert "take it out of [routes.local.params]" in mistake.found
    assert "standard" not in mistake.found


def test_everything_that_is_wrong_with_a_file_is_told_at_once(folder: Path) -> None:
    """What one kind of mistake is does not hide another: of the schema, of names, of pairs, of the model as a whole."""
    edit(folder, LANCZOS, 'type = "integer"', 'type = "int"')
    edit(folder, LANCZOS, 'prompt = { rule = "emulated", by = "ignore" }', 'prompt = { rule = "emulated", by = "no" }')
    edit(folder, LANCZOS, '{ rule = "renamed", to = "scale" }', '{ rule = "converted", using = "magic", into = "s" }')
    edit(folder, LANCZOS, SHARPEN, '[routes.local.rules]\nsharpn = { rule = "passthrough" }')
    edit(folder, LANCZOS, "[routes.local]", '[routes.local]\nprovider = "nobody"')
    edit(folder, "standard.toml", 'by = "fan_out"', 'by = "fan"')
    edit(folder, "gateway.toml", '"clarity-upscaler"', '"clarity"')

    assert {(Path(mistake.where).name, mistake.key or mistake.found.partition(":")[0]) for mistake in told(folder)} == {
        ("lanczos-bp.toml", "params.seed.type"),
        ("lanczos-bp.toml", "routes.local.rules.prompt.by"),
        ("lanczos-bp.toml", "routes.local.rules.scale_factor.using"),
        ("lanczos-bp.toml", "routes.local.rules.scale_factor.into"),
        ("lanczos-bp.toml", "routes.local.rules has no rule for the parameter sharpen"),
        ("lanczos-bp.toml", "routes.local.rules has a rule for sharpn, which no parameter declares"),
        ("lanczos-bp.toml", "routes.local.provider"),
        ("standard.toml", "rules.n.by"),
        ("gateway.toml", "gateway.default_model"),
    }


def test_everything_that_is_wrong_with_a_whole_model_is_told_at_once(folder: Path) -> None:
    """Each mistake once and on a line of its own."""
    edit(folder, LANCZOS, 'scaled_by = "scale_factor"', 'scaled_by = "scale"')
    edit(folder, LANCZOS, 'to = "scale"', 'to = "sharpen"')
    edit(folder, LANCZOS, 'seed = { rule = "emulated", by = "ignore" }\n', "")

    lines = [str(mistake) for mistake in told(folder)]
    assert len(lines) == 3
    for part in ("scaled_by names 'scale'", "writes the field sharpen twice", "no rule for the parameter seed"):
        assert sum(part in line for line in lines) == 1


def test_every_file_that_is_no_toml_is_told(folder: Path) -> None:
    """Not the first alone."""
    edit(folder, "gateway.toml", "[gateway]", "[gateway")
    (folder / LANCZOS).write_bytes(b"\xff")
    (folder / "providers.toml").unlink()

    assert [Path(mistake.where).name for mistake in told(folder)] == [
        "gateway.toml",
        "providers.toml",
        "lanczos-bp.toml",
    ]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"LEDGER_TTL_S": "3600"}, "idempotency_ttl_s"),
        ({"LEDGER_TTL_S": "86399"}, "86400"),
        ({"IDEMPOTENCY_TTL_S": "99999999"}, "idempotency_ttl_s"),
        ({"JOIN_WINDOW_S": "99999999"}, "join_window_s"),
    ],
    ids=str,
)
def test_a_ledger_forgets_no_job_that_may_be_asked_for(settings: dict[str, str], named: str) -> None:
    """A job that is forgotten before its key lapses is bought again by a repeated call: refused at the start."""
    environ = {f"DARKROOM_GATEWAY__{name}": text for name, text in settings.items()}
    with pytest.raises(ConfigError) as caught:
        load(SHIPPED, environ)

    [mistake] = caught.value.mistakes
    assert mistake.key == "gateway.ledger_ttl_s"
    assert named in mistake.expected
    if "LEDGER_TTL_S" in settings:
        assert mistake.where == "environment variable DARKROOM_GATEWAY__LEDGER_TTL_S"


def test_the_least_time_of_a_ledger() -> None:
    """As long as keys are good suffices."""
    environ = {"DARKROOM_GATEWAY__LEDGER_TTL_S": "900", "DARKROOM_GATEWAY__IDEMPOTENCY_TTL_S": "900"}
    assert load(SHIPPED, environ).gateway.ledger_ttl_s == 900


SHORT = [
    ("passthrough of nothing", '"sharpen", "scheduler"', '"sharpn", "scheduler"', "routes.replicate.passthrough",
     '"sharpn", which no parameter declares', "(did you mean sharpen?)"),
    ("passthrough twice", '"sharpen", "scheduler"', '"sharpen", "sharpen", "scheduler"', "routes.replicate.passthrough",
     '"sharpen" 2 times', "each parameter once"),
    ("passthrough and a rule", "[routes.replicate.rules]", '[routes.replicate.rules]\nseed = { rule = "passthrough" }',
     "routes.replicate.passthrough", '"seed", which has a rule in [routes.replicate.rules] as well', "one of the two"),
    ("no list", '["negative_prompt", "creativity", "seed", "enable_safety_checker"]', "true", "routes.fal.passthrough",
     "True", "a list of parameter names"),
    ("misspelt list", "passthrough", "passthru", "routes.replicate.passthru", "a key that does not exist",
     "passthrough (did you mean it?)"),
    ("misspelt table", "[optional]", "[optinal]", "optinal", "a key that does not exist",
     "optional (did you mean it?)"),
    ("optional for no route", "[optional]", '[optional]\nstray = { type = "string", doc = "A stray." }',
     "optional.stray", "a parameter that no route names", "or not at all"),
    ("optional and for all", "[optional]", '[optional]\nseed = { type = "integer", doc = "A seed." }', "optional.seed",
     "a parameter that [params] declares as well", "one of the two"),
    ("optional and standard", "[optional]", '[optional]\nn = { type = "integer", doc = "How many." }', "optional.n",
     "a parameter that every model has, by standard.toml", "it in [params]"),
    ("optional of no type", 'pattern = { type = "boolean"', 'pattern = { type = "bool"', "optional.pattern.type",
     "'bool'", "'boolean'"),
    ("optional without doc", ', doc = "Produce a seamless tile."', "", "optional.pattern.doc", "nothing", "required"),
    ("optional default", 'sharpen = { type = "number", ', 'sharpen = { type = "number", default = 11, ',
     "optional.sharpen", "the default 11 is outside its own bounds: 0 to 10", ""),
    ("a route's own key", '{ doc = "Latent tile height." }', '{ max = "high" }',
     "routes.local.params.tiling_height.max", "'high'", "a valid number"),
    ("another type", '{ doc = "Latent tile height." }', '{ type = "number" }',
     "routes.local.params.tiling_height.type", "declared of type number here, of type integer on another route", ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "key", "found", "expected"), [s[1:] for s in SHORT], ids=[s[0] for s in SHORT])
def test_a_mistake_of_the_short_spelling(folder: Path, old: str, new: str, key: str, found: str, expected: str) -> None:
    """Reported once, at the place where it was written, not at each route that it reaches."""
    edit(folder, CLARITY, old, new)

    (mistake,) = [mistake for mistake in told(folder) if mistake.key == key]
    assert mistake.where == str(folder / CLARITY)
    assert mistake.found == found
    assert expected in mistake.expected


def test_a_missing_name_is_reported_with_the_way_to_list_it(folder: Path) -> None:
    """A parameter of every route that one neither lists nor has a rule for: both ways to mend it do."""
    edit(folder, CLARITY, '["negative_prompt", "creativity", "seed", ', '["negative_prompt", "seed", ')

    (mistake,) = told(folder)
    assert str(mistake).startswith(f"{folder / CLARITY}: routes.fal.rules has no rule for the parameter creativity: ")
    assert 'write creativity = { rule = "passthrough" } there' in mistake.found
    assert 'add "creativity" to routes.fal.passthrough' in mistake.found
    edit(folder, CLARITY, "[routes.fal.rules]", '[routes.fal.rules]\ncreativity = { rule = "passthrough" }')
    assert load(folder, {}).models == load(SHIPPED, {}).models


def test_both_spellings_are_one_model() -> None:
    """Every shipped model, written out with a rule for each parameter on each route, is the same."""
    shipped = load(SHIPPED, {}).models
    for name, model in shipped.items():
        standard = tomllib.loads((SHIPPED / "standard.toml").read_text())["params"]
        form = expand(tomllib.loads((SHIPPED / "models" / f"{name}.toml").read_text()), standard)
        text = json.dumps(form.document, default=str)
        assert "optional" not in form.document
        assert "passthrough" not in {key for route in form.document["routes"].values() for key in route}
        assert load(SHIPPED, {f"DARKROOM_MODELS__{name.replace('-', '_').upper()}": text}).models[name] == model


REPLICATE = "DARKROOM_MODELS__CLARITY_UPSCALER__ROUTES__REPLICATE"


def test_variables_reach_what_a_file_says_in_short(folder: Path) -> None:
    """A route has its own parameters and rules for them, whether its file lists them or not."""
    environ = {
        f"{REPLICATE}__RULES__SEED": '{"rule": "renamed", "to": "noise"}',
        f"{REPLICATE}__RULES__CREATIVITY__MAX": "0.5",
        f"{REPLICATE}__PARAMS__SHARPEN__MAX": "5",
        f"{REPLICATE}__PARAMS__EXTRA": '{"type": "string", "doc": "Only here."}',
        f"{REPLICATE}__RULES__EXTRA": '{"rule": "passthrough"}',
    }
    plain, changed = load(folder, {}).models["clarity-upscaler"], load(folder, environ).models["clarity-upscaler"]

    rules, params = changed.routes["replicate"].rules, changed.routes["replicate"].params
    assert rules["seed"].model_dump(exclude_defaults=True) == {"rule": "renamed", "to": "noise"}
    assert rules["creativity"].rule == "passthrough"
    assert rules["creativity"].max == 0.5
    assert params["sharpen"].max == 5
    assert params["extra"].type == "string"
    assert {name: route for name, route in changed.routes.items() if name != "replicate"} == {
        name: route for name, route in plain.routes.items() if name != "replicate"
    }


def test_variables_change_the_short_spelling(folder: Path) -> None:
    """Its own keys, too: a shared declaration for every route that has it, and a list as a whole."""
    model = "DARKROOM_MODELS__CLARITY_UPSCALER"
    environ = {
        f"{model}__OPTIONAL__SHARPEN__MAX": "5",
        f"{model}__ROUTES__RESAMPLE__PASSTHROUGH": '["sharpen", "pattern", "extra"]',
        f"{model}__ROUTES__RESAMPLE__PARAMS__EXTRA": '{"type": "string", "doc": "Only here."}',
    }
    routes = load(folder, environ).models["clarity-upscaler"].routes

    assert {route.params["sharpen"].max for route in routes.values() if "sharpen" in route.params} == {5}
    assert list(routes["resample"].params) == ["sharpen", "pattern", "extra"]
    assert routes["resample"].rules["extra"].rule == "passthrough"


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("__OPTIONAL__SHARPEN__MAX", "high", "optional.sharpen.max"),
        ("__ROUTES__REPLICATE__PARAMS__SHARPEN__MAX", "high", "routes.replicate.params.sharpen.max"),
        ("__ROUTES__REPLICATE__RULES__SEED__MAX", "high", "routes.replicate.rules.seed.max"),
        ("__ROUTES__LOCAL__PASSTHROUGH", "seed", "routes.local.passthrough"),
        ("", "a model", ""),
    ],
)
def test_a_variable_is_blamed_by_its_own_name(folder: Path, name: str, value: str, key: str) -> None:
    """The place is that of the variable, not that of the file's spelling."""
    variable = f"DARKROOM_MODELS__CLARITY_UPSCALER{name}"

    assert (f"environment variable {variable}", key) in {
        (mistake.where, mistake.key) for mistake in told(folder, {variable: value})
    }


def test_the_model_of_the_readme(folder: Path) -> None:
    """The example of the documentation is a whole file of at most 25 lines, which loads as it stands."""
    readme = (ROOT / "README.md").read_text()
    text = re.search(r"```toml\n# config/(models/pixel-lift\.toml)\n(.*?)```", readme, re.DOTALL)
    assert text is not None
    assert len(text[2].splitlines()) <= 25
    (folder / text[1]).write_text(text[2])

    routes = load(folder, {}).models["pixel-lift"].routes
    assert set(routes["replicate"].params) == {"seed", "sharpen"}
    assert set(routes["fal"].params) == {"seed"}
    assert routes["fal"].rules["seed"].rule == "passthrough"


@pytest.mark.parametrize(("kind", "value"), [("number", 3), ("image", IMAGE)])
def test_an_optional_parameter_on_a_route_without_it(bare: Path, kind: str, value: Value) -> None:
    """It is what a parameter of another route alone is: ignored with a note, and an image stands in the way."""
    other = '[routes.other]\nprovider = "fal"\nmodel = "m"\nprice = { per_image = 1 }\npassthrough = ["thing"]\n'
    write(bare, "", f"{other}[optional]\n{param(kind)}")
    model = load(bare, {}).models["made-up"]
    request = ImageRequest(
        model="made-up", images=(IMAGE,), params={"thing": value}, extra={}, provider_options={}, seed=1
    )

    assert plan(model, model.routes["other"], request).calls[0]["thing"] == value
    if kind == "image":
        with pytest.raises(Ineligible, match=r"does not support thing \(only other does\)"):
            plan(model, model.routes["local"], request)
    else:
        assert "thing was ignored: only other supports it." in plan(model, model.routes["local"], request).notes
