"""Prompts: weights, length, tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from providers.worker.engines.diffusion.prompts import _named, _spelt, encode, parse
from tests.engines import networks


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a cat", [("a cat", 1)]),
        ("a (red) cat", [("a", 1), ("red", 1.1), ("cat", 1)]),
        ("((red)) cat", [("red", 1.21), ("cat", 1)]),
        ("[dull] cat", [("dull", 1 / 1.1), ("cat", 1)]),
        ("(low quality:2), cat", [("low quality", 2), (", cat", 1)]),
        ("(very (red:1.5) cat:0.5)", [("very", 0.5), ("red", 0.75), ("cat", 0.5)]),
        (r"smile \(happy\)", [("smile (happy)", 1)]),
        ("time: 5 o'clock", [("time: 5 o'clock", 1)]),
        ("never (closed", [("never", 1), ("closed", 1.1)]),
        ("never opened) here", [("never opened) here", 1)]),
        ("", []),
        (" ( ) ", []),
    ],
)
def test_weights(text: str, pieces: list[tuple[str, float]]) -> None:
    """As people write them elsewhere."""
    found = parse(text).pieces

    assert [piece for piece, _ in found] == [piece for piece, _ in pieces]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in pieces])


def test_loras_are_taken_out() -> None:
    """The tags of other programs are no words."""
    found = parse("cat <lora:more_details:0.5>, <lora:SDXLrender_v2.0:1> dog")

    assert found.loras == ("more_details", "SDXLrender_v2.0")
    assert found.pieces == (("cat ,  dog", 1),)


def test_embeddings_are_words() -> None:
    """A name is spelt out where it stands by itself: not within a word, and not within a longer name."""
    vectors = {"bad": 2, "bad-hands": 3}

    def spelt(text: str) -> str:
        return _named(vectors).sub(lambda match: _spelt(match[0], vectors[match[0]]), text)

    assert spelt("bad, bad-hands badminton") == "bad bad_1, bad-hands bad-hands_1 bad-hands_2 badminton"


@pytest.fixture(scope="module")
def parts() -> Mapping[str, Any]:
    torch.manual_seed(1)
    encoder = networks.text_encoder().eval()
    # A fresh network ends in a norm without a bias: all that it says has the mean zero, and weights keep the mean.
    torch.nn.init.constant_(encoder.final_layer_norm.bias, 0.5)
    return {"tokenizer": networks.tokenizer(), "encoder": encoder}


def encoded(parts: Mapping[str, Any], *texts: str) -> torch.Tensor:
    with torch.inference_mode():
        prompts = [parse(text) for text in texts]
        return encode(parts["tokenizer"], parts["encoder"], prompts, {}, torch.device("cpu"))


def test_plain_is_as_diffusers_has_it(parts: Mapping[str, Any]) -> None:
    """Without weights the numbers are those of diffusers' own pipelines."""
    ids = parts["tokenizer"]("a cat, red", padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = parts["encoder"](ids)[0]

    assert torch.equal(encoded(parts, "a cat, red"), expected)


def test_weighted(parts: Mapping[str, Any]) -> None:
    """What weighs more counts for more against the rest, and the whole stays as strong as it was."""
    plain, weighted = encoded(parts, "red cat"), encoded(parts, "(red:1.5) cat")

    assert float(weighted.mean()) == pytest.approx(float(plain.mean()), rel=1e-4)
    assert abs(float(plain.mean())) > 0.1
    red, cat = weighted[0, 1:4] / plain[0, 1:4], weighted[0, 4:7] / plain[0, 4:7]
    assert torch.allclose(red / 1.5, cat.mean().expand_as(red), rtol=1e-3)


def test_long_prompts_are_read_to_the_end(parts: Mapping[str, Any]) -> None:
    """Beyond 75 tokens there is a second part; the other prompt is as long, with nothing in it."""
    long = encoded(parts, "a" * 100, "b")

    assert long.shape == (2, 154, networks.WIDTH)
    assert not torch.equal(long[0, 77:], encoded(parts, "a" * 75 + "b" * 25)[0, 77:])
    assert torch.equal(long[1, 77:], encoded(parts, "")[0])
