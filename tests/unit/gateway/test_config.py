"""The config: what may be said, what the environment changes, and what each mistake is told as."""

import json
import shutil
from pathlib import Path

import pytest

from gateway.config import SHIPPED, ConfigError, load


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
        ["providers.toml: local.workers", "10.0.0.5:5000", "an address without path"],
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
        "sharpen = { rule",
        "sharpn = { rule",
        ["rules has no rule for the parameter sharpen"],
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
        '[routes.resample.params]\nsharpen = { type = "number"',
        '[routes.resample.params]\nsharpen = { type = "integer"',
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
        ("DARKROOM_PROVIDERS__LOCAL__WORKERS", '["x"]', ["local.workers", "an address without path"]),
        ("DARKROOM_PROVIDERS__LOCAL__WORKERS", '["x"', ["local.workers", "[\"x\""]),
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
