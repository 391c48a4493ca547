"""Fields that nobody declared: each is told of, with what may have been meant."""

from __future__ import annotations

import difflib
from typing import Any

import pytest

from gateway.settings.loader import SHIPPED, load
from normalization.parameters.coerce import InvalidValue
from normalization.parameters.plan import Ineligible, plan
from normalization.parameters.undeclared import meant, refuse
from normalization.values import Announced, Header, Image, ImageRequest, Value

CONFIG = load(SHIPPED, {})
CLARITY = CONFIG.models["clarity-upscaler"]
PASSED = "is not a parameter of clarity-upscaler; it was passed to fal unchanged."
PICTURE = Image(data=b"not looked into", header=Header(format="png", width=64, height=48))


def ask(extra: dict[str, Value] | None = None, **options: dict[str, Value]) -> ImageRequest:
    """A request of undeclared fields, and of options by their provider."""
    return ImageRequest(
        model=CLARITY.id, images=(PICTURE,), params={}, extra=extra or {}, provider_options=options, seed=1
    )


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("creativty", " Did you mean creativity?"),
        ("negativePrompt", " Did you mean negative_prompt?"),
        ("scale-factor", " Did you mean scale_factor?"),
        ("Sharpen", " Did you mean sharpen?"),
        ("outputformat", " Did you mean output_format?"),
        ("modle", " Did you mean model?"),
        ("provider_option", " Did you mean provider_options?"),
        ("vae_tiling", ""),
        ("output_quality", ""),
        ("q", ""),
    ],
)
def test_what_is_told(name: str, note: str) -> None:
    """That it is no parameter, where it went, and what may have been meant: only where there is a good match."""
    planned = plan(CLARITY, CLARITY.routes["fal"], ask({name: 1}))
    told = f"{name} {PASSED}{note}"
    assert [text for text in planned.notes if name in text] == [told]
    assert planned.calls[0][name] == 1


def test_in_silence() -> None:
    """Where the operator wants none of it."""
    assert plan(CLARITY, CLARITY.routes["fal"], ask({"creativty": 1}), tell=False).notes == ()


def test_a_worker_that_does_not_take_it() -> None:
    """The note on what was ignored has the same hint."""
    planned = plan(
        CLARITY,
        CLARITY.routes["local"],
        ask({"creativty": 1, "grain": 2}),
        Announced(frozenset({"image", "scale_factor"})),
    )
    told = [note for note in planned.notes if "the worker has no such input" in note]
    assert told == [
        "creativty was ignored: the worker has no such input. Did you mean creativity?",
        "grain was ignored: the worker has no such input.",
    ]


def test_a_worker_that_takes_it() -> None:
    """It goes there, and is told of as at a cloud: the table does not know it."""
    planned = plan(
        CLARITY,
        CLARITY.routes["local"],
        ask({"grain": 2}),
        Announced(frozenset({*CLARITY.routes["local"].writes, "grain"})),
    )
    assert "grain is not a parameter of clarity-upscaler; it was passed to local unchanged." in planned.notes
    assert planned.calls[0]["grain"] == 2


def test_a_closed_schema() -> None:
    """The reason has the hint."""
    with pytest.raises(Ineligible) as caught:
        plan(CLARITY, CLARITY.routes["apiframe"], ask({"creativty": 1}))
    assert caught.value.message == "does not accept undeclared fields such as creativty (did you mean creativity?)"


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        ({"vae": "x", "prompt_2": "y", "seed_mode": 1}, []),
        (
            {"creativty": 1},
            [f"creativty in provider_options {PASSED} Did you mean creativity?"],
        ),
    ],
)
def test_provider_options(options: dict[str, Any], notes: list[str]) -> None:
    """What is there is meant for its provider: only a near miss of a parameter is told of."""
    assert list(plan(CLARITY, CLARITY.routes["fal"], ask(fal=options)).notes) == notes
    assert plan(CLARITY, CLARITY.routes["fal"], ask(replicate=options)).notes == ()


def test_refused() -> None:
    """With the hint, and where a provider's own field belongs; what stands there is not refused."""
    with pytest.raises(InvalidValue) as caught:
        refuse(CLARITY, ask({"creativty": 1}))
    assert (caught.value.param, caught.value.code) == ("creativty", "unknown_parameter")
    assert "Did you mean creativity?" in caught.value.message
    assert "provider_options[replicate][creativty]" in caught.value.message
    refuse(CLARITY, ask(fal={"anything": 1}))


def test_a_name_as_a_stranger_writes_it() -> None:
    """Notes are sentences: a name is shown short and printable, however it was sent."""
    planned = plan(CLARITY, CLARITY.routes["fal"], ask({"x\n\x1b[0m" + "y" * 1000: 1}))
    assert all(note.isprintable() and len(note) < 160 for note in planned.notes)


def test_many_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand fields are a thousand sentences, and sixteen searches at most."""
    searched: list[str] = []
    found = difflib.get_close_matches

    def looked(word: str, *given: Any, **more: Any) -> list[str]:
        searched.append(word)
        return found(word, *given, **more)

    monkeypatch.setattr(difflib, "get_close_matches", looked)
    names: dict[str, Value] = {f"scatter_{number}": 1 for number in range(1000)}
    for route in ("fal", "replicate", "segmind"):
        planned = plan(CLARITY, CLARITY.routes[route], ask(names, **{route: names}))
        assert sum("is not a parameter" in note for note in planned.notes) >= 1000
    assert len(searched) <= 2 * 16
    assert meant(CLARITY, "creativity" * 100_000) == ""


def test_an_answer_is_no_many_times_the_request() -> None:
    """Of very many fields only so many are told of one by one."""
    names: dict[str, Value] = {f"x{number}": 1 for number in range(50_000)}
    told = plan(CLARITY, CLARITY.routes["fal"], ask(names)).notes
    assert len(told) < 1100
    assert "49000 further undeclared fields were passed to fal unchanged." in told

    known = Announced(frozenset({"image", "scale_factor"}))
    told = plan(CLARITY, CLARITY.routes["local"], ask(names), known).notes
    assert len(told) < 1100
    assert "49000 further undeclared fields were ignored as well." in told
