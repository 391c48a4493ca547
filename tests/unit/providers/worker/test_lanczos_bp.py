"""The engine lanczos-bp: how good it is, what it takes, and what it keeps."""

from __future__ import annotations

import io
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageFilter

from providers.worker.engines.base import EngineFailure, EngineLimits, InputRejected, RunCancelled
from providers.worker.engines.lanczos_bp import LanczosBP, enlarged
from tests.support.paths import COFFEE, ROOT
from tests.support.pictures import raw_png
from tests.support.workers import Running, data_uri, from_data_uri, worker

BICUBIC, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS


def run(
    data: bytes, *, limit: int = 64_000_000, cancelled: Callable[[], bool] = lambda: False, **given: Any
) -> tuple[Image.Image, list[str]]:
    """Run the engine as a worker does; return the picture and the logs."""
    engine = LanczosBP()
    engine.load(EngineLimits(max_output_pixels=limit))
    inputs = {name: field.default for name, field in engine.inputs.items() if field.default is not None}
    logs: list[str] = []
    made = engine.run({**inputs, "image": data, **given}, logs.append, cancelled)
    picture = Image.open(io.BytesIO(made.data))
    picture.load()
    assert made.mime == f"image/{str(picture.format).lower()}"
    return picture, logs


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:  # noqa: A002 - Pillow's own word
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.mode == other.mode and one.size == other.size and one.tobytes() == other.tobytes()


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Peak signal-to-noise ratio of the luma, in dB."""
    counts = ImageChops.difference(one.convert("L"), other.convert("L")).histogram()
    error = sum(difference**2 * count for difference, count in enumerate(counts)) / sum(counts)
    return 10 * math.log10(255**2 / error) if error else math.inf


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    return Image.open(COFFEE).convert("RGB")


def noise(mode: str, size: tuple[int, int]) -> Image.Image:
    """A picture that is hard on every filter."""
    length = len(Image.new(mode, size).tobytes())
    return Image.frombytes(mode, size, random.Random(1).randbytes(length))


@pytest.mark.parametrize(("factor", "over_bicubic", "over_lanczos"), [(2, 1.0, 0.6), (4, 0.4, 0.25)])
def test_quality(coffee: Image.Image, factor: int, over_bicubic: float, over_lanczos: float) -> None:
    """A photograph that was shrunk comes back closer to itself than by bicubic, and than by Lanczos alone."""
    small = coffee.resize((coffee.width // factor, coffee.height // factor), BICUBIC)
    measured = {
        "bicubic": psnr(small.resize(coffee.size, BICUBIC), coffee),
        "lanczos": psnr(small.resize(coffee.size, LANCZOS), coffee),
    }
    for passes in (0, 1, 2, 4):
        measured[f"{passes} passes"] = psnr(run(encoded(small), scale=float(factor), passes=passes)[0], coffee)
    print(f"{factor}x:", ", ".join(f"{name} {value:.2f} dB" for name, value in measured.items()))

    assert measured["2 passes"] > measured["bicubic"] + over_bicubic
    assert measured["2 passes"] > measured["lanczos"] + over_lanczos
    assert measured["0 passes"] < measured["1 passes"] < measured["2 passes"] < measured["4 passes"]
    assert abs(measured["0 passes"] - measured["lanczos"]) < 0.01


def test_sharpen(coffee: Image.Image) -> None:
    """`sharpen` makes edges steeper the more of it there is, and at factor 1 works too."""
    small = encoded(coffee.resize((150, 100), BICUBIC))
    for scale in (1.0, 2.0):
        edges = []
        for sharpen in (0.0, 3.0, 10.0):
            found = run(small, scale=scale, sharpen=sharpen)[0].convert("L").filter(ImageFilter.FIND_EDGES)
            edges.append(sum(level * count for level, count in enumerate(found.histogram())))
        assert edges[0] * 1.05 < edges[1]
        assert edges[1] * 1.05 < edges[2]


def test_bands_leave_no_seams(coffee: Image.Image) -> None:
    """A picture that is made in many bands is the one that would be made at once."""
    source = coffee.resize((401, 633))
    # Of the last one no band but the first begins on a whole row, where Pillow's single precision can round otherwise.
    for size, most in (((1203, 1899), 0), ((802, 2532), 0), ((2007, 3167), 1)):
        made = enlarged(source, size, passes=0, sharpen=0, cancelled=lambda: False)
        at_once = source.resize((401, size[1]), LANCZOS).resize(size, LANCZOS)
        assert sum(ImageChops.difference(made, at_once).convert("L").histogram()[most + 1 :]) == 0


def test_sharpening_leaves_no_seams(coffee: Image.Image) -> None:
    """The same for sharpening."""
    large = coffee.resize((1800, 1200))
    made = enlarged(large, large.size, passes=0, sharpen=5, cancelled=lambda: False)

    assert same(made, large.filter(ImageFilter.UnsharpMask(0.5, 100, 0)))


@pytest.mark.parametrize("scale", [1.0, 1.001, 1.37, 1.5, 2.0, 2.71828, 7.9, 16.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (33, 7), (101, 67)])
def test_size(scale: float, size: tuple[int, int]) -> None:
    """The output has exactly the rounded size, whatever the factor."""
    made, _ = run(encoded(noise("RGB", size)), scale=scale)

    assert made.size == (round(size[0] * scale), round(size[1] * scale))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_mode_is_kept(mode: str) -> None:
    """Grey stays grey, and what has alpha keeps it."""
    assert run(encoded(noise(mode, (40, 30))))[0].mode == mode


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_factor_one_changes_nothing(mode: str, output_format: str) -> None:
    """At factor 1 every pixel stays, even the colours under transparent ones."""
    source = noise(mode, (40, 30))
    made, _ = run(encoded(source), scale=1.0, output_format=output_format)

    kept = {"L": "RGB", "LA": "RGBA"}.get(mode, mode) if output_format == "webp" else mode
    assert same(made, source.convert(kept))


def test_webp_is_lossless() -> None:
    """Both formats give the same pixels."""
    source = encoded(noise("RGBA", (50, 40)))

    assert same(run(source, output_format="webp")[0], run(source)[0])


def test_flat_colour_has_no_fringe() -> None:
    """A red disc on nothing stays as red as it was, to the last visible pixel of its edge."""
    alpha = Image.new("L", (64, 64))
    ImageDraw.Draw(alpha).ellipse((8, 8, 56, 56), fill=255)
    alpha = alpha.filter(ImageFilter.GaussianBlur(1))
    disc = Image.new("RGBA", alpha.size, (0, 255, 0, 0))
    disc.paste((255, 0, 0), (0, 0, 64, 64), alpha.point([0] + [255] * 255))
    disc.putalpha(alpha)

    made, _ = run(encoded(disc), scale=3.0)

    red, green, _, opacity = made.split()
    visible = opacity.point([0] + [255] * 255)
    assert ImageChops.lighter(red, ImageChops.invert(visible)).getextrema() == (255, 255)
    assert ImageChops.darker(green, visible).getextrema() == (0, 0)
    assert sum(opacity.histogram()[1:255]) > 1000


def palette(transparent: bool) -> bytes:
    picture = noise("RGB", (40, 30)).quantize(16)
    return encoded(picture, transparency=3) if transparent else encoded(picture)


@pytest.mark.parametrize(("transparent", "mode"), [(False, "RGB"), (True, "RGBA")])
def test_palette(transparent: bool, mode: str) -> None:
    """A palette is resolved, with its transparent colour where it has one."""
    data = palette(transparent)

    assert same(run(data, scale=1.0)[0], Image.open(io.BytesIO(data)).convert(mode))
    assert run(data)[0].mode == mode


def test_transparent_colour() -> None:
    """A colour that is declared transparent becomes alpha."""
    flat = Image.new("RGB", (8, 8), (1, 2, 3))
    grey = Image.new("L", (8, 8), 7)

    assert run(encoded(flat, transparency=(1, 2, 3)))[0].getextrema() == ((0, 0),) * 4
    assert run(encoded(grey, transparency=7), scale=1.0)[0].getextrema()[1] == (0, 0)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "AVIF"])
def test_formats(format: str, coffee: Image.Image) -> None:  # noqa: A002 - Pillow's own word
    """Each of the five formats is read."""
    small = coffee.resize((60, 40))
    made, _ = run(encoded(small, format), scale=1.0)

    assert made.size == (60, 40)
    assert psnr(made, small) > 20


TURNS = [Image.Transpose[name] for name in (
    "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90",
)]  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    """The picture is turned as its EXIF says, and says so no more."""
    source = noise("RGB", (20, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    made, _ = run(encoded(source, exif=exif), scale=1.0)

    turned = source if orientation == 1 else source.transpose(TURNS[orientation - 2])
    assert same(made, turned)
    assert 0x0112 not in made.getexif()
    assert run(encoded(source, exif=exif), scale=1.5)[0].size == ((30, 15) if orientation < 5 else (15, 30))


def test_metadata_stays_behind_and_the_profile_is_kept() -> None:
    """EXIF does not come out; the colour profile does, as it says what the pixels mean."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    for output_format in ("png", "webp"):
        data = encoded(noise("RGB", (9, 9)), exif=exif, icc_profile=profile)
        made, _ = run(data, output_format=output_format)
        assert made.info.get("icc_profile") == profile
        assert not made.getexif()


def test_more_than_eight_bits() -> None:
    """Sixteen bits become eight, by the high byte as in the gateway, and the logs say so."""
    levels = [0, 128, 129, 257, 32768, 65535]
    deep = Image.new("I;16", (6, 1))
    for x, level in enumerate(levels):
        deep.putpixel((x, 0), level)

    made, logs = run(encoded(deep), scale=1.0)

    assert list(made.tobytes()) == [level >> 8 for level in levels]
    assert "more than 8 bits" in logs[0]


def test_cmyk() -> None:
    """A CMYK jpeg becomes RGB, and the logs say so."""
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)

    made, logs = run(data)

    red, green, blue = made.getpixel((8, 8))  # type: ignore[misc]
    assert (red > 245, green < 10, blue < 10) == (True, True, True)
    assert "CMYK" in logs[0]


def test_animation() -> None:
    """Of an animation the first frame is used, and the logs say so."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

    made, logs = run(data)

    assert made.convert("RGB").getpixel((4, 4)) == (255, 0, 0)
    assert "first frame" in logs[0]


def corrupt() -> Iterator[tuple[str, bytes]]:
    whole = noise("RGB", (64, 64))
    yield "nothing", b""
    yield "text", b"hello"
    yield "tiff", encoded(whole, "TIFF")
    yield "bmp", encoded(whole, "BMP")
    yield "svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    for format_ in ("PNG", "JPEG", "WEBP", "GIF", "AVIF"):
        data = encoded(whole, format_)
        yield f"half a {format_}", data[: len(data) // 2]
        yield f"head of a {format_}", data[:40]


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in corrupt()])
def test_corrupt(data: bytes) -> None:
    """What is not a whole picture fails, and says so."""
    with pytest.raises(EngineFailure, match="the picture cannot be"):
        run(data)


def test_too_large() -> None:
    """More pixels than the operator allows are refused by the header alone, naming both numbers."""
    large = encoded(Image.new("1", (9000, 9000)))
    began = time.process_time()
    with pytest.raises(InputRejected, match="18000 x 18000 pixels are more than the 64000000") as unfit:
        run(large)

    assert unfit.value.field == "scale"
    assert time.process_time() - began < 0.5
    assert run(encoded(noise("L", (100, 100))), limit=40_000)[0].size == (200, 200)
    with pytest.raises(InputRejected):
        run(encoded(noise("L", (100, 100))), limit=39_999)


def test_the_limit_of_pillow_is_the_process_own() -> None:
    """An engine leaves Pillow's limit as it is, for it is everybody's in the process, and names a bomb as too large."""
    before = Image.MAX_IMAGE_PIXELS

    with pytest.raises(EngineFailure, match="too large"):
        run(raw_png((60_000, 60_000), 1, 0, b""), limit=10**12)

    assert before is not None
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_worker_goes_by_its_own_limit() -> None:
    """The process of a worker lifts Pillow's: the operator's is the one that counts there."""
    script = (
        "from PIL import Image; from providers.worker.main import run; "
        "assert run(['--engine', 'none']) == 2; print(Image.MAX_IMAGE_PIXELS)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)

    assert done.stdout == "None\n"


def test_too_wide_for_webp() -> None:
    """A side that webp cannot hold is refused by name, and png holds it."""
    data = encoded(noise("L", (1100, 2)))
    with pytest.raises(InputRejected, match="16383") as unfit:
        run(data, scale=16.0, output_format="webp")

    assert unfit.value.field == "output_format"
    assert run(data, scale=16.0)[0].width == 17600


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 0.15, 0.4, 0.8, 1.5])
def test_cancelled(coffee: Image.Image, after: float) -> None:
    """Wherever a large run is when it is cancelled, it ends soon: in processor time, as others use the machine too."""
    data = encoded(coffee.resize((1500, 1000)))
    stop_at = time.process_time() + after

    with pytest.raises(RunCancelled):
        run(data, scale=5.0, sharpen=2.0, cancelled=lambda: time.process_time() >= stop_at)

    late = time.process_time() - stop_at
    print(f"{late * 1000:.0f} ms late")
    assert late < 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A worker with the engine, that the last tests share."""
    with worker(tmp_path_factory.mktemp("server")) as running:
        yield running


def test_over_http(server: Running, coffee: Image.Image) -> None:
    """Over HTTP a photograph comes back enlarged, with defaults for what was not given."""
    given = {"image": data_uri(encoded(coffee)), "scale": 1.5, "prompt": "a cup"}
    answer = httpx.put(f"{server.url}/predictions/one", json={"input": given}, timeout=30)

    said = answer.json()
    assert (answer.status_code, said["status"]) == (200, "succeeded")
    made = Image.open(io.BytesIO(from_data_uri(said["output"])))
    assert (made.format, made.size) == ("PNG", (900, 600))
    assert "['prompt']" in said["logs"]


def test_corrupt_over_http(server: Running) -> None:
    """A picture that cannot be read is a prediction that failed."""
    answer = httpx.post(f"{server.url}/predictions", json={"input": {"image": data_uri(b"hello")}}, timeout=30)

    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"].startswith("the picture cannot be read")


def test_too_large_over_http(server: Running) -> None:
    """A picture that would become too large is refused like any input out of bounds."""
    given = {"image": data_uri(encoded(Image.new("L", (5000, 5000)))), "scale": 4}
    answer = httpx.post(f"{server.url}/predictions", json={"input": given}, timeout=30)

    assert answer.status_code == 422
    assert answer.json()["status"] == "failed"
    [problem] = answer.json()["detail"]
    assert problem["loc"] == ["body", "input", "scale"]
    assert "64000000" in problem["msg"]


@pytest.mark.timing
def test_responsive_while_at_work(server: Running, coffee: Image.Image) -> None:
    """While a large picture is made, the worker answers others at once."""
    given = {"image": data_uri(encoded(coffee)), "scale": 8}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        body = {"id": "large", "input": given}
        began = client.post("/predictions", json=body, headers={"prefer": "respond-async"})
        assert began.status_code == 202
        waits = []
        while client.get("/health-check").json()["concurrency"]["current"]:
            asked = time.perf_counter()
            client.get("/health-check")
            waits.append(time.perf_counter() - asked)
            time.sleep(0.01)

    print(f"{len(waits)} looks, the longest {max(waits) * 1000:.0f} ms")
    # On the event loop the work would let one look through, and the next after seconds.
    assert len(waits) > 20
    assert sorted(waits)[len(waits) // 2] < 0.1
