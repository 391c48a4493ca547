"""Random pictures of every kind through the gateway and a worker process of our own: they look as meant."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from providers.worker.engines.lanczos_bp import enlarged
from tests.support.likeness import VIEWS, decibels, mean_square
from tests.support.pictures import SECRET, chunk, opened, raw_png
from tests.support.running import until
from tests.support.strangers import KINDS, stranger
from tests.support.workers import Running, data_uri, from_data_uri, worker
from tests.support.world import World, world


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A worker with the engine lanczos-bp."""
    with worker(tmp_path_factory.mktemp("worker")) as made:
        yield made


@pytest.fixture(scope="module")
def there(running: Running) -> Iterator[World]:
    """A gateway before it."""
    with world(environ={"DARKROOM_PROVIDERS__LOCAL__WORKERS": json.dumps([running.url])}) as made:
        until(lambda: httpx.get(f"{made.url}/readyz").status_code == 200, "the worker is seen")
        yield made


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_any_picture(there: World, kind: str, seed: int) -> None:
    """Upright, in the exact size, at 40 dB from the picture that was meant, alpha included, and without metadata."""
    came = stranger(kind, seed)
    answer = there.edit(came.data, model="lanczos-bp", extra_body={"scale_factor": 2})
    assert answer.status == 200, f"{came.story}: {answer.text}"
    [data] = answer.images
    seen = came.seen if came.transparent else came.seen.convert("RGB")
    size = (2 * seen.width, 2 * seen.height)
    meant = enlarged(seen, size, passes=2, sharpen=0, cancelled=lambda: False).convert("RGBA")

    assert opened(data).size == meant.size, came.story
    assert answer.body["background"] == ("transparent" if came.transparent else "opaque"), came.story
    assert SECRET not in data
    for name, view in VIEWS.items():
        assert decibels(mean_square(view(opened(data).convert("RGBA")), view(meant))) >= 40, f"{name}: {came.story}"


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("through", ["gateway", "worker"])
def test_the_transparent_grey(running: Running, there: World, through: str, depth: int) -> None:
    """Half a picture of a grey that means transparent: it is a hole through both, and nothing but that half."""
    row = bytes(depth) + b"\xff" * depth
    data = raw_png((16, 16), depth, 0, row * 16, chunk(b"tRNS", struct.pack(">H", 0)))
    if through == "gateway":
        made = opened(there.edit(data, model="lanczos-bp").images[0])
    else:
        with httpx.Client(base_url=running.url, timeout=30) as client:
            given: dict[str, Any] = {"image": data_uri(data), "scale": 2}
            made = opened(from_data_uri(client.post("/predictions", json={"input": given}).json()["output"]))

    assert made.size == (32, 32)
    alpha: Image.Image = made.convert("RGBA").getchannel("A")
    assert [alpha.getpixel((x, 16)) for x in (3, 28)] == [0, 255]
