"""The first calls of the README ask for nothing that would be done to the reader's picture against his will."""

import re
from fractions import Fraction

import pytest
from PIL import Image as Pillow

from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("language", ["python", "js", "sh"])
def test_first_call_keeps_the_whole_picture(language: str) -> None:
    """The first call in each language names a size of the picture's own aspect ratio, or none."""
    block = next(text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if "coffee.png" in text)
    picture = re.search(r"tests/data/[a-z.]+", block)
    assert picture
    size = re.search(r"size(?:=|: )\"?(\d+)x(\d+)", block)
    with Pillow.open(ROOT / picture[0]) as image:
        assert size is None or Fraction(int(size[1]), int(size[2])) == Fraction(*image.size)
