"""Fields that no model declares, over HTTP: each is told of, or refused where the operator wants that."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from openai.types import image_edit_params, image_generate_params

from gateway.http.image_fields import picture_name
from gateway.settings.loader import SHIPPED, Config, load
from tests.simulators.clouds import ALL
from tests.support.world import World, world

CONFIG = load(SHIPPED, {})
CLARITY = CONFIG.models["clarity-upscaler"]
SEED = 20261128
# Pictures of OpenAI's API beside `image`: refused where a model does not declare them.
PICTURES = {"mask", "markup"}
# What is read beside the model's parameters.
ENVELOPE = {"model"}
FOREIGN = (
    "cfg_scale", "guidance", "sampler_name", "vae", "clip_skip", "hires_fix", "tiling", "denoise", "refiner",
    "safety_checker", "face_restore", "upscaler", "aspect", "style_preset", "lora", "go_fast", "controls", "no_check",
)  # fmt: skip


@pytest.fixture(scope="module")
def clouds() -> Iterator[World]:
    with world(*ALL) as there:
        yield there


def warnings(answer: Any) -> list[str]:
    """What the answer says was not done as asked."""
    assert answer.status == 200, answer.text
    found: list[str] = answer.body["metadata"]["warnings"]
    return found


def undeclared(count: int) -> list[str]:
    """Random names that are no parameter's: misspelt ones, foreign ones, and random letters. Always the same."""
    draw = random.Random(SEED)
    known = {*CLARITY.params, *(name for route in CLARITY.routes.values() for name in (*route.params, *route.writes))}
    folded = {"".join(filter(str.isalnum, name)).lower() for name in CONFIG.multipliers}
    found: list[str] = []
    while len(found) < count:
        how = draw.randrange(6)
        name = draw.choice(sorted(known)) if how < 4 else draw.choice(FOREIGN)
        at = draw.randrange(len(name))
        if how == 0:
            name = name[:at] + name[at + 1 :]
        elif how == 1:
            name = name[:at] + draw.choice(string.ascii_lowercase) + name[at:]
        elif how == 2:
            name = name[:at] + name[at : at + 2][::-1] + name[at + 2 :]
        elif how == 3:
            name = "".join(part.capitalize() for part in name.split("_"))
        elif how == 5:
            name = "".join(draw.choices(string.ascii_lowercase, k=draw.randrange(3, 20)))
        strange = name not in known | CONFIG.denied | ENVELOPE and picture_name(name) is None
        if name and strange and "".join(filter(str.isalnum, name)).lower() not in folded:
            found.append(name)
    return found


def test_two_hundred_slips(clouds: World) -> None:
    """Two hundred requests with one field each that is no parameter: two hundred warnings that name it, on each route.

    A dry run has the warnings that the answer would have; one request in twenty is bought.
    """
    names = undeclared(200)
    for count, name in enumerate(names):
        candidates = clouds.dry_run(**{name: "4"})["candidates"]
        assert {one["provider"] for one in candidates} == {"fal", "replicate", "segmind"}
        for one in candidates:
            told(one["warnings"], name, one["provider"])
        if count % 20 == 0:
            told(warnings(clouds.edit(extra_body={name: "4"})), name, "fal")


def told(found: list[str], name: str, provider: str) -> None:
    """Assert that one of the warnings is of this field, and says where it went."""
    sentence = f"{name} is not a parameter of clarity-upscaler; it was passed to {provider} unchanged."
    assert sum(text.startswith(sentence) for text in found) == 1, (name, found)


def test_what_was_meant(clouds: World) -> None:
    """A misspelt parameter is told with the right one, and is sent as it came."""
    found = warnings(clouds.edit(extra_body={"creativty": "0.5"}))
    passed = (
        "creativty is not a parameter of clarity-upscaler; it was passed to fal unchanged. Did you mean creativity?"
    )
    assert passed in found


def test_what_would_be_dearer_is_refused(clouds: World) -> None:
    """A misspelt factor does not run at another one: it is a 400 with the right name, and nothing is bought."""
    before = [clouds.taken(name) for name in ALL]
    answer = clouds.edit(extra_body={"scalefactor": "4"})
    assert (answer.status, answer.code) == (400, "parameter_refused")
    assert "Use 'scale_factor' instead." in answer.body["error"]["message"]
    assert [clouds.taken(name) for name in ALL] == before


def test_a_providers_own_field(clouds: World) -> None:
    """In provider_options it is meant for the provider: nothing is told, unless it nearly is a parameter's name."""
    found = warnings(clouds.edit(extra_body={"provider_options": {"fal": {"vae": "x", "resemblence": 1}}}))
    told(found, "resemblence in provider_options", "fal")
    assert len([text for text in found if "is not a parameter" in text]) == 1


def test_refused_before_money(clouds: World) -> None:
    """undeclared = "refuse": a 400 that names the field and what may have been meant; provider_options pass."""
    with world("fal", environ={"DARKROOM_GATEWAY__UNDECLARED": "refuse"}) as there:
        answer = there.edit(extra_body={"creativty": "0.5"})
        assert (answer.status, answer.code, answer.body["error"]["param"]) == (400, "unknown_parameter", "creativty")
        assert "Did you mean creativity?" in answer.body["error"]["message"]
        assert there.taken("fal") == 0
        assert there.edit(extra_body={"provider_options": {"fal": {"vae": "x"}}}).status == 200
        assert there.edit(**every_field()).status == 200


def test_in_silence() -> None:
    """undeclared = "pass": as they are, and no word of it."""
    with world("fal", environ={"DARKROOM_GATEWAY__UNDECLARED": "pass"}) as there:
        assert not [text for text in warnings(there.edit(extra_body={"creativty": "0.5"})) if "creativty" in text]


def fields_of_the_sdk() -> dict[str, Any]:
    """Every field of an edit or of a generation, as the installed SDK types it, with its type."""
    found: dict[str, Any] = {}
    for module, prefix in ((image_edit_params, "ImageEditParams"), (image_generate_params, "ImageGenerateParams")):
        for kind in ("NonStreaming", "Streaming"):
            found |= get_type_hints(getattr(module, prefix + kind))
    return found


def test_every_field_of_the_sdk_is_known(shipped: Config) -> None:
    """A field that a new SDK brings is to be declared in standard.toml, or listed here."""
    fields = fields_of_the_sdk()
    assert {"style", "complexity", "svg", "mask", "stream"} <= fields.keys()
    for model in shipped.models.values():
        assert set(fields) - set(model.params) == PICTURES | ENVELOPE


def value_of(kind: Any) -> Any:
    """A value that a type takes."""
    origin = get_origin(kind)
    if origin is Literal:
        return get_args(kind)[0]
    if origin is Union or origin is not None:
        return value_of(next(one for one in get_args(kind) if one is not type(None)))
    return {int: 2, str: "x", bool: False}.get(kind, {"model": "x"})


def every_field() -> dict[str, Any]:
    """A call with every field that this door does not read itself, each with a value of its type."""
    own = {"image", "model", "prompt", "size", "n", "stream", "response_format", "output_format", "background"}
    kinds = {name: kind for name, kind in fields_of_the_sdk().items() if name not in own | PICTURES}
    body = {name: value_of(kind) for name, kind in kinds.items()}
    assert {"style", "complexity", "frame_count", "frame_duration_ms", "svg", "user"} <= body.keys()
    return {"extra_body": body}


@pytest.mark.parametrize("provider", ALL)
def test_openais_fields_go_everywhere(clouds: World, provider: str) -> None:
    """None is called unknown, and none makes a route drop out, Apiframe with its closed schemas included."""
    answer = clouds.edit(model=f"{provider}/clarity-upscaler", **every_field())
    found = warnings(answer)
    assert answer.story == [f"{provider} ok"]
    assert not [text for text in found if "not a parameter" in text]
    assert "style was ignored: this route has no such parameter." in found


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_openais_other_pictures(clouds: World, name: str) -> None:
    """A picture is not dropped: one that the model does not take is refused, as a file and as a text."""
    with_it = clouds.edit(extra_body={name: "data:image/png;base64,iVBORw0KGgo="})
    assert (with_it.status, with_it.code, with_it.body["error"]["param"]) == (400, "unknown_parameter", name)
