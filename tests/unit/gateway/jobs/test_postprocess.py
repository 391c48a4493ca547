"""What a provider gave and what is made of it: whose fault it is where that does not work, and what is kept first."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore

from gateway.imaging.pool import ImagePool, InputLimits
from gateway.imaging.processes import DecoderProcesses, LimitExceeded
from gateway.jobs import executor
from gateway.jobs.context import Recorder
from gateway.jobs.postprocess import FittedImage, ProcessedImage, fit, make
from gateway.jobs.received import Received, pack, unpack
from gateway.ledger.records import AttemptRow, OutputSpec
from normalization.images import transform
from normalization.images.sniff import BadImage
from normalization.values import Header, Image, JoinAlpha, Resize, Size, Step, Transcode
from providers.base import Outcome
from providers.errors import Undecodable
from tests.support.pictures import encoded, noise
from tests.unit.gateway.jobs.scripted import candidates

JPEG = (Transcode(format="jpeg"),)
PICTURE = encoded(noise(20, 20), "png")
GIVEN = Outcome(images=(PICTURE,), cost=7, seconds=1.5, executed="a/b", notes=("said",))
Work = Callable[..., tuple[Image, tuple[str, ...]]]


class Book(Recorder):
    """A journal that says whether the attempt is held, and knows what was received."""

    def __init__(self, *, held: bool = False) -> None:
        self.held = held
        self.came: list[str] = []

    def is_held(self, attempt: str) -> bool:
        return self.held

    def received(self, attempt: str) -> None:
        self.came.append(attempt)


class Unable(DecoderProcesses):
    """Decoders that fail so often, and then do their work here."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times = error, times

    def generous(self) -> DecoderProcesses:
        return self

    def finish(self, data: bytes, header: Header, steps: Sequence[Step], most: int = 0) -> Any:
        if self.times:
            self.times -= 1
            raise self.error
        return transform.finish(data, header, steps, most)

    def close(self) -> None: ...


@asynccontextmanager
async def working(decoders: DecoderProcesses | None = None, **limits: int) -> AsyncIterator[ImagePool]:
    """Picture work for callers' pictures of at most 100 pixels."""
    made = ImagePool(max_pixels=10**6, limits=InputLimits(max_pixels=100, max_side=12), decoders=decoders, **limits)
    yield made
    made.close()


def attempt(output: Size | None, finish: tuple[Step, ...] = JPEG) -> AttemptRow:
    """An attempt whose plan is this."""
    [candidate] = candidates(["fal"])
    return replace(executor._attempt("job", candidate, 0), making=OutputSpec(output=output, finish=finish))


def files_in(folder: Path) -> list[Path]:
    """Every file in a folder, however deep."""
    return [path for path in folder.rglob("*") if path.is_file()]


async def nowhere(image: Image) -> str | None:
    """No store takes it."""
    return None


async def somewhere(image: Image) -> str | None:
    """A store takes it."""
    return "file"


async def made(imaging: ImagePool, one: AttemptRow, given: Outcome = GIVEN) -> ProcessedImage:
    """What comes of a result, with nothing kept."""
    return await make(given, one, Book(), imaging, Received(()), somewhere)


@pytest.mark.parametrize("output", [Size(width=20, height=20), None])
async def test_the_limits_of_callers_pictures_are_not_those_of_results(output: Size | None) -> None:
    """A result that the plan promised is finished, however small the pictures are that callers may send."""
    async with working(max_result_pixels=400) as imaging:
        found = await made(imaging, attempt(output))

    assert [picture.image.format for picture in found.images] == ["jpeg"]
    assert found.notes == ("said",)


async def test_a_result_beyond_every_limit_is_delivered_as_it_came() -> None:
    """Nobody knew its size before it was made: it is not decoded, and not refused either."""
    async with working(max_result_pixels=399) as imaging:
        found = await made(imaging, attempt(None))

    assert [picture.image.data for picture in found.images] == [PICTURE]
    assert "as the provider made it (png, 20x20)" in found.notes[1]
    assert "jpeg" in found.notes[1]


TROUBLE = [
    LimitExceeded("corrupt_image", "Decoding it takes longer than 30 seconds."),
    LimitExceeded("image_too_large", "Decoding it needs more memory than allowed for one image."),
    LimitExceeded("corrupt_image", "It crashes the decoder."),
    MemoryError(),
]


@pytest.mark.parametrize("error", TROUBLE, ids=["time", "memory", "death", "no_process"])
async def test_trouble_of_ours(error: Exception) -> None:
    """It is tried again; where that does not help, the picture is delivered as it came, with a warning."""
    async with working(Unable(error, 1), max_result_pixels=400) as imaging:
        found = await made(imaging, attempt(None))
        assert (found.images[0].image.format, found.notes) == ("jpeg", ("said",))

    async with working(Unable(error, 2), max_result_pixels=400) as imaging:
        found = await made(imaging, attempt(None))
        assert found.images[0].image.data == PICTURE
        assert "could not be processed here" in found.notes[1]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug"), OSError("no files"), BadImage("image_too_large", "webp takes at most 16,383 on a side.")],
)
async def test_an_error_of_ours(error: Exception) -> None:
    """Whatever it is: the picture is paid for."""
    async with working(Unable(error, 9), max_result_pixels=400) as imaging:
        found = await made(imaging, attempt(None))

    assert found.images[0].image.data == PICTURE


async def test_the_second_try_is_alone() -> None:
    """What failed for want of memory is tried again while no other picture is in hand."""
    together: list[int] = []

    class Crowded(Unable):
        def finish(self, data: bytes, header: Header, steps: Sequence[Step], most: int = 0) -> Any:
            together.append(imaging._free)
            return super().finish(data, header, steps, most)

    async with working(Crowded(MemoryError(), 1), max_result_pixels=400) as imaging:
        await made(imaging, attempt(None))

    assert together == [10**6 - 400, 0]


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", PICTURE[:-24], PICTURE[:60] + b"?" * 40 + PICTURE[100:]],
    ids=["none", "page", "cut", "bad"],
)
async def test_what_is_no_picture_is_the_providers_fault(data: bytes, tmp_path: Path) -> None:
    """Then nothing of it is kept for another process, which is to ask for it anew."""
    received = Received([LocalStore(tmp_path)])
    async with working(max_result_pixels=400) as imaging:
        with pytest.raises(Undecodable):
            await make(Outcome(images=(data,)), attempt(None), Book(held=True), imaging, received, somewhere)

    assert await received.get(attempt(None).id) is None
    assert not files_in(tmp_path)


async def test_what_came_is_on_the_disk_before_anything_touches_it(tmp_path: Path) -> None:
    """At the time that a picture is decoded its bytes are kept, with the bill; whoever dies now has lost nothing."""
    received, one = Received([LocalStore(tmp_path)]), attempt(None)
    then: list[Outcome | None] = []

    class Watching(Unable):
        def finish(self, data: bytes, header: Header, steps: Sequence[Step], most: int = 0) -> Any:
            [path] = files_in(tmp_path)
            then.append(unpack(path.read_bytes()))
            return super().finish(data, header, steps, most)

    recorder = Book()
    async with working(Watching(MemoryError(), 0), max_result_pixels=400) as imaging:
        await make(GIVEN, one, recorder, imaging, received, somewhere)

    assert then == [GIVEN]
    assert recorder.came == [one.id]
    assert await received.get(one.id) == GIVEN


@pytest.mark.parametrize(
    ("held", "keep", "kept"), [(False, somewhere, False), (False, nowhere, True), (True, somewhere, True)]
)
async def test_what_needs_no_work(held: bool, keep: Any, kept: bool, tmp_path: Path) -> None:
    """It is not written twice, unless the store does not take it or its provider would not give it again."""
    received, one = Received([LocalStore(tmp_path)]), attempt(None, ())
    async with working() as imaging:
        await make(GIVEN, one, Book(held=held), imaging, received, keep)

    assert (await received.get(one.id) is not None) is kept


async def test_a_copy_that_was_cut_is_none(tmp_path: Path) -> None:
    """The provider is asked instead."""
    received = Received([LocalStore(tmp_path)])
    assert await received.put("dr-1", GIVEN)
    [path] = files_in(tmp_path)
    for data in (b"", b"short", pack(GIVEN)[:-1], pack(GIVEN)[:-1] + b"!"):
        path.write_bytes(data)
        assert await received.get("dr-1") is None
    await received.forget(["dr-1", "dr-2"])
    assert not path.exists()


async def test_a_store_that_is_away(tmp_path: Path) -> None:
    """The next one takes it, and it is found there."""
    (tmp_path / "near").mkdir()
    bad, good = LocalStore(tmp_path), LocalStore(tmp_path / "near")
    received = Received([bad, good])
    (tmp_path / "received").write_text("no folder")

    assert await received.put("dr-1", GIVEN)
    assert await Received([good]).get("dr-1") == GIVEN
    assert not await Received([bad]).put("dr-1", GIVEN)


def test_an_alpha_channel_outlives_a_process_and_no_job() -> None:
    """It is kept beside an attempt until its pictures are made, and not longer; one that is too large is not."""
    making = OutputSpec(finish=(JoinAlpha(alpha=b"\x89PNG", black=True), Transcode(format="png")))
    large = OutputSpec(finish=(JoinAlpha(alpha=bytes(5 << 20)),))

    assert OutputSpec.from_json(json.loads(json.dumps(making.to_json()))) == making
    assert making.done().finish == (JoinAlpha(alpha=None, black=True), Transcode(format="png"))
    assert OutputSpec.from_json(large.to_json()).finish == (JoinAlpha(alpha=None),)


SQUARE = Size(width=1000, height=1000)


def fitting(width: int, height: int, *steps: Step) -> FittedImage:
    """How a result of this size is finished where a square was expected."""
    image = Image(data=b"", header=Header(format="png", width=width, height=height))
    return fit(image, OutputSpec(output=SQUARE, finish=steps))


def test_a_models_usual_rounding_is_no_matter() -> None:
    """Models that work in blocks may be off by a block."""
    assert fitting(1008, 992, *JPEG) == FittedImage(JPEG)


@pytest.mark.parametrize(("width", "height"), [(500, 500), (4000, 4000), (2000, 2010)])
def test_another_size_of_the_same_shape(width: int, height: int) -> None:
    """It is resampled to what was promised, after the alpha channel is joined, which has the shape as well."""
    found = fitting(width, height, JoinAlpha(alpha=b""), *JPEG)

    assert found.steps == (JoinAlpha(alpha=b""), Resize(size=SQUARE, mode="stretch"), *JPEG)
    assert f"{width}x{height}" in found.notes[0]


def test_another_shape() -> None:
    """What was asked for is done, and nothing that would distort it: no rounding, no channel of another shape."""
    asked = Resize(size=Size(width=300, height=200), mode="crop")
    squeezed = Resize(size=Size(width=300, height=200), mode="stretch")
    rounding = Resize(size=Size(width=990, height=990), mode="stretch")

    assert fitting(1000, 500, asked, *JPEG).steps == (asked, *JPEG)
    assert fitting(1000, 500, squeezed, *JPEG).steps == (squeezed, *JPEG)
    assert fitting(1000, 500, rounding, *JPEG).steps == (replace(rounding, mode="fit"), *JPEG)
    lost = fitting(1000, 500, JoinAlpha(alpha=b""), *JPEG)
    assert lost.steps == JPEG
    assert "transparency does not fit the result and was lost" in lost.notes[0]


async def test_a_result_that_lacks_its_end_alone() -> None:
    """All of its pixels are there: it is paid for, and is delivered."""
    async with working(max_result_pixels=400) as imaging:
        done = await made(imaging, attempt(None), replace(GIVEN, images=(PICTURE[:-20],)))

    assert [picture.image.format for picture in done.images] == ["jpeg"]
