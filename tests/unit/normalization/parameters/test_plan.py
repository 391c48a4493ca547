"""Plans: sizes, seeds, undeclared fields and what the caller is told."""

from typing import Any

import pytest

from gateway.settings.loader import SHIPPED, load
from normalization.parameters.coerce import InvalidValue
from normalization.parameters.plan import Ineligible, check, plan
from normalization.parameters.schema import Model, Route
from normalization.values import Header, Image, ImageRequest, Plan, Resize, Size, Transcode, Value

CONFIG = load(SHIPPED, {})
CLARITY = CONFIG.models["clarity-upscaler"]
LANCZOS = CONFIG.models["lanczos-bp"]
PICTURE = Image(data=b"not looked into", header=Header(format="png", width=600, height=400))


def ask(model: Model = LANCZOS, **given: Any) -> ImageRequest:
    """A request for a 600 x 400 picture."""
    inner: dict[str, Any] = {"images": (PICTURE,), "extra": {}, "provider_options": {}, "seed": 7}
    inner.update({key: given.pop(key) for key in tuple(given) if key in inner})
    params: dict[str, Value] = given.pop("params", given)
    return ImageRequest(model=model.id, params=params, **inner)


def lanczos(**given: Any) -> Plan:
    """The plan of the local resampling."""
    return plan(LANCZOS, LANCZOS.routes["local"], ask(**given))


def clarity(**given: Any) -> Plan:
    """The plan of a clarity container."""
    return plan(CLARITY, CLARITY.routes["local"], ask(CLARITY, **given))


def resizes(planned: Plan) -> list[Resize]:
    """The resize steps of a plan."""
    return [step for step in planned.finish if isinstance(step, Resize)]


def test_whole_payload() -> None:
    """A payload to the letter: defaults are ours and are always sent, nothing else is."""
    planned = clarity(scale_factor=4, creativity=0.5)

    assert planned.calls == (
        {
            "output_format": "png",
            "image": PICTURE,
            "prompt": "masterpiece, best quality, highres",
            "negative_prompt": "(worst quality, low quality, normal quality:2)",
            "scale_factor": 4,
            "creativity": 0.5,
            "resemblance": 0.6,
            "dynamic": 6,
            "num_inference_steps": 18,
            "seed": 7,
        },
    )
    assert planned.output == Size(width=2400, height=1600)
    assert planned.finish == (Transcode(format="png"),)
    assert planned.notes == ()


@pytest.mark.parametrize(
    ("given", "factor", "output", "delivered", "mode"),
    [
        ({}, 2, "1200x800", "1200x800", None),
        ({"size": "auto"}, 2, "1200x800", "1200x800", None),
        ({"scale_factor": 3}, 3, "1800x1200", "1800x1200", None),
        ({"size": "1200x800"}, 2, "1200x800", "1200x800", "crop"),
        ({"size": "1024x1024"}, 2.56, "1536x1024", "1024x1024", "crop"),
        ({"size": "1024x1024", "size_mode": "pad"}, 1.7067, "1024x683", "1024x1024", "pad"),
        ({"size": "1024x1024", "size_mode": "stretch"}, 2.56, "1536x1024", "1024x1024", "stretch"),
        ({"size": "1024x1024", "scale_factor": 4}, 4, "2400x1600", "1024x1024", "crop"),
        ({"size": "300x200"}, 1, "600x400", "300x200", "crop"),
    ],
)
def test_sizes(given: dict[str, Any], factor: float, output: str, delivered: str, mode: str | None) -> None:
    """The factor comes from scale_factor, else from size, else from the default; size is delivered exactly."""
    planned = lanczos(**given)

    assert planned.calls[0]["scale"] == factor
    assert (str(planned.output), str(planned.delivered)) == (output, delivered)
    assert [step.mode for step in resizes(planned)] == ([mode] if mode else [])


def test_size_below_the_input_warns() -> None:
    """A size below the input runs at factor 1, is shrunk, and the caller is told."""
    assert any("smaller than the image (600x400)" in note for note in lanczos(size="300x200").notes)
    assert not any("below" in note for note in lanczos(size="1024x1024").notes)


def test_size_out_of_reach() -> None:
    """A size that no factor in range reaches names size and what could be reached."""
    with pytest.raises(InvalidValue, match=r"at most 16 times, to 9600x6400") as caught:
        lanczos(size="30000x400")

    assert caught.value.param == "size"


@pytest.mark.parametrize("size", ["1024", "1024*1024", "0x0", "1024x", "-1x5", "1024x1024x3", "big", 7])
def test_size_that_is_none(size: Value) -> None:
    """Anything but auto and WIDTHxHEIGHT is refused with an example."""
    with pytest.raises(InvalidValue, match="such as '1024x1024'"):
        lanczos(size=size)


def test_seeds_are_distinct() -> None:
    """Each of n pictures has a seed of its own, counted up from the base and wrapped inside the range."""
    top = 4294967295

    assert [call["seed"] for call in clarity(n=3).calls] == [7, 8, 9]
    assert [call["seed"] for call in clarity(n=3, seed=top, params={"n": 3, "seed": top}).calls] == [top, 0, 1]


def test_equal_pictures_are_told() -> None:
    """Where a route has no seed, n pictures are n times the same, and the caller hears it."""
    assert any("3 images are identical" in note for note in lanczos(n=3).notes)
    assert not any("identical" in note for note in clarity(n=3).notes)


def test_undeclared_fields_pass() -> None:
    """What nobody declared goes to the provider as it is; provider_options only to the one they name."""
    planned = clarity(extra={"multistep_factor": 0.8}, provider_options={"local": {"deep": {"a": 1}}, "fal": {"b": 2}})

    assert planned.calls[0]["multistep_factor"] == 0.8
    assert planned.calls[0]["deep"] == {"a": 1}
    assert "b" not in planned.calls[0]


def test_undeclared_fields_and_strict_routes() -> None:
    """A route with a closed schema cannot take an undeclared field."""
    strict = LANCZOS.routes["local"].model_copy(update={"strict": True})

    with pytest.raises(Ineligible, match="does not accept undeclared fields such as extra_detail"):
        plan(LANCZOS, strict, ask(extra={"extra_detail": 1}))


@pytest.mark.parametrize("where", ["extra", "provider_options"])
def test_conflicts_with_a_rule(where: str) -> None:
    """A field that a rule writes cannot be set behind its back; the message names the parameter to use."""
    fields: dict[str, Any] = {"scale": 4}
    request = ask(extra=fields) if where == "extra" else ask(provider_options={"local": fields})

    with pytest.raises(InvalidValue, match="send 'scale_factor' instead") as caught:
        check(LANCZOS, request, CONFIG.denied)

    assert caught.value.code == "parameter_conflict"


@pytest.mark.parametrize("name", ["lora_links", "custom_sd_model", "webhook"])
def test_denied_everywhere(name: str) -> None:
    """Names that make a provider fetch or call a stranger's address are refused on every route."""
    for request in (ask(extra={name: "x"}), ask(provider_options={"local": {name: "x"}})):
        with pytest.raises(InvalidValue, match="refused on every route"):
            check(LANCZOS, request, CONFIG.denied)


def test_one_picture_only() -> None:
    """More pictures than the model takes are refused, not dropped."""
    with pytest.raises(InvalidValue, match="accepts one image, but got 2"):
        check(LANCZOS, ask(images=(PICTURE, PICTURE)), CONFIG.denied)


def test_elsewhere() -> None:
    """A parameter of another route is told as ignored; a picture of another route makes this one ineligible."""
    extra = Route.model_validate(
        {
            **LANCZOS.routes["local"].model_dump(),
            "name": "other",
            "params": {
                "mask": {"type": "image", "doc": "A mask."},
                "grain": {"type": "number", "doc": "Grain."},
            },
            "rules": {
                **LANCZOS.routes["local"].model_dump()["rules"],
                "mask": {"rule": "passthrough"},
                "grain": {"rule": "passthrough"},
            },
        }
    )
    model = Model.model_validate({**LANCZOS.model_dump(), "routes": {**LANCZOS.model_dump()["routes"], "other": extra}})

    assert "grain was ignored: only other supports it." in plan(model, model.routes["local"], ask(grain=1)).notes
    assert plan(model, model.routes["other"], ask(grain=1)).calls[0]["grain"] == 1
    with pytest.raises(Ineligible, match="does not support mask"):
        plan(model, model.routes["local"], ask(mask=PICTURE))


@pytest.mark.parametrize(
    ("given", "step"),
    [
        ({}, Transcode(format="png")),
        ({"output_format": "jpeg", "output_compression": 40}, Transcode(format="jpeg", quality=40)),
        ({"background": "opaque"}, Transcode(format="png", opaque=True)),
        ({"background": "#AABBCC"}, Transcode(format="png", background="#aabbcc", opaque=True)),
        ({"background": "transparent", "output_format": "webp"}, Transcode(format="webp")),
    ],
)
def test_formats(given: dict[str, Any], step: Transcode) -> None:
    """output_format, output_compression and background make one step together."""
    assert lanczos(**given).finish == (step,)


def test_formats_that_contradict() -> None:
    """Transparency in jpeg is refused, a colour that is none too; compression of png is ignored aloud."""
    with pytest.raises(InvalidValue, match="jpeg has no transparency"):
        lanczos(background="transparent", output_format="jpeg")
    with pytest.raises(InvalidValue, match="such as '#ffffff'"):
        lanczos(background="reddish")
    assert "output_compression was ignored: png has no quality setting." in lanczos(output_compression=50).notes


def test_ignored_values_are_named() -> None:
    """Every value without effect is named, but not one that says the default."""
    notes = lanczos(quality="high", moderation="auto", user="u1").notes

    assert [note.split()[0] for note in notes] == ["quality", "user"]


def test_degraded_routes_say_so() -> None:
    """The first note of a degraded route is that it is."""
    planned = plan(CLARITY, CLARITY.routes["resample"], ask(CLARITY, creativity=0.9))

    assert "enlarged by resampling" in planned.notes[0]
    assert "creativity was ignored: this route has no such parameter." in planned.notes
