"""Results with more pixels than were planned: not decoded beyond the limit, and delivered all the same."""

from __future__ import annotations

from typing import Any

from PIL import Image as Pillow

from gateway.jobs.postprocess import ProcessedImage, fit, make
from gateway.jobs.received import Received
from gateway.ledger.records import OutputSpec
from normalization.images import transform
from normalization.values import Header, Image, JoinAlpha, Resize, Size, Step, Transcode
from providers.base import Outcome
from tests.support.pictures import encoded
from tests.unit.gateway.jobs.test_postprocess import JPEG, Book, Unable, attempt, somewhere, working

PLANNED = Size(width=20, height=15)


class Counting(Unable):
    """Decoders that know how many pixels they were last allowed."""

    def __init__(self) -> None:
        super().__init__(MemoryError(), 0)
        self.most: list[int] = []

    def finish(self, data: bytes, header: Any, steps: Any, most: int = 0) -> Any:
        self.most.append(most)
        return transform.finish(data, header, steps, most)


async def of(width: int, height: int, *finish: Step) -> tuple[ProcessedImage, list[int]]:
    """What becomes of a result of this size, where another one was planned; and what was allowed for it."""
    data, decoders = encoded(Pillow.new("L", (width, height)), "png"), Counting()
    async with working(decoders, max_result_pixels=1000) as imaging:
        given = Outcome(images=(data,))
        made = await make(given, attempt(PLANNED, finish), Book(), imaging, Received(()), somewhere)
    return made, decoders.most


async def test_far_more_pixels_than_were_planned() -> None:
    """Whatever size a provider's file names: it is decoded up to the limit, of the planned shape or of another."""
    for size in ((400, 300), (1, 2000)):
        made, most = await of(*size, *JPEG)

        assert most == [1000]
        [picture] = made.images
        assert (picture.image.format, picture.image.width, picture.image.height) == ("png", *size)
        assert any("limit is 0.0 megapixels" in note for note in made.notes)


async def test_no_more_than_were_planned() -> None:
    """They are decoded, also where the plan is above the limit by now."""
    for size in ((20, 15), (24, 20), (4, 3)):
        made, most = await of(*size, *JPEG)

        assert most[0] >= size[0] * size[1]
        assert made.images[0].image.format == "jpeg"


async def test_transparency_that_is_not_put_back_is_told() -> None:
    """The picture is delivered as it came, which is without it."""
    channel = encoded(Pillow.new("L", (20, 15), 90), "png")
    made, _ = await of(400, 300, JoinAlpha(alpha=channel), Transcode(format="png"))

    assert made.images[0].image.header.alpha is False
    assert any("transparency was lost" in note for note in made.notes)


async def test_an_alpha_channel_larger_than_the_result() -> None:
    """It is brought to the result's size: a provider may make the picture smaller before anything else."""
    channel = encoded(Pillow.new("L", (400, 300), 90), "png")
    made, _ = await of(20, 15, JoinAlpha(alpha=channel), Transcode(format="png"))

    image: Image = made.images[0].image
    assert (image.width, image.height, image.header.alpha) == (20, 15, True)
    assert made.notes == ()


def test_what_is_said_of_another_shape() -> None:
    """What is done to it, and nothing that is not so."""
    image = Image(data=b"", header=Header(format="png", width=80, height=10))
    wanted = Size(width=40, height=30)

    def notes(*finish: Step) -> tuple[str, ...]:
        return fit(image, OutputSpec(output=PLANNED, finish=finish)).notes

    assert "the image was not stretched" in notes(*JPEG)[0]
    stretched = notes(Resize(size=wanted, mode="stretch"))
    # The planned shape was the size's own: to a picture of another one that is done which rounding asks for.
    assert not any("distorted" in note for note in stretched)
    other = Size(width=30, height=30)
    assert any("distorted" in note for note in notes(Resize(size=other, mode="stretch")))
    assert not any("not stretched" in note for note in notes(Resize(size=other, mode="stretch")))
    assert any("were cropped" in note for note in notes(Resize(size=wanted, mode="crop")))
