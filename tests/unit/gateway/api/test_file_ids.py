"""Files of ours in a form: which addresses are theirs, and what they may take together."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.api.files import known, taken
from gateway.http.admission import ServerOverloaded
from gateway.http.errors import ApiError
from gateway.http.form import FilePart, Form
from gateway.http.image_fields import ImageUrl
from gateway.settings.loader import SHIPPED, load
from gateway.state import State
from gateway.storage import FileStorage, open_store
from normalization.values import Header, Image

NAME = "a" * 32 + ".png"
OURS = ("https://images.example.org", "http://127.0.0.1:8000")


@pytest.mark.parametrize(
    ("url", "held", "query"),
    [
        (f"{OURS[0]}/files/{NAME}", NAME, ""),
        (f"{OURS[1]}/files/{NAME}?expires=1&signature=x", NAME, "expires=1&signature=x"),
        (f"https://images.example.org.evil.example/files/{NAME}", None, ""),
        (f"http://images.example.org/files/{NAME}", None, ""),
        (f"{OURS[0]}/v1/files/{NAME}", None, ""),
        (f"{OURS[0]}/files/../{NAME}", None, ""),
        (f"{OURS[0]}/files/other.png", None, ""),
    ],
)
def test_which_addresses_are_ours(url: str, held: str | None, query: str) -> None:
    """Those of a file, at an origin that is ours to the letter: anything else is fetched like a stranger's."""
    form = Form(files=(FilePart(name="image", address=ImageUrl(url=url, param="image")), FilePart(name="mask")))
    (found, mask) = known(form, OURS).files
    assert found.address == ImageUrl(url=url, param="image", held=held, query=query)
    assert mask == FilePart(name="mask")


async def test_files_are_bounded_together(tmp_path: Path) -> None:
    """With what was sent, they may take as much as a request's body."""
    files = FileStorage(open_store(None, tmp_path), ttl=timedelta(hours=1))
    name = await files.put(Image(data=b"x" * 50, header=Header(format="png", width=1, height=1)))
    settings = load(SHIPPED, {}).gateway
    parts = [FilePart(name="image", address=ImageUrl(url=name, param=f"image[{at}]", held=name)) for at in range(2)]
    form = Form(files=(FilePart(name="image", data=b"x" * 10), *parts))

    def state(most: int) -> State:
        config = SimpleNamespace(gateway=settings.model_copy(update={"max_body_bytes": most}))
        return cast("State", SimpleNamespace(config=config, files=files))

    assert [len(file.data) for file in (await taken(state(110), form)).files] == [10, 50, 50]
    with pytest.raises(ApiError) as caught:
        await taken(state(109), form)
    assert (caught.value.status, caught.value.code, caught.value.param) == (413, "request_too_large", "image[1]")


async def test_room_is_asked_for_before_a_file_is_read(tmp_path: Path) -> None:
    """Or many calls of a few bytes would fill the memory with what they name."""
    files = FileStorage(open_store(None, tmp_path), ttl=timedelta(hours=1))
    name = await files.put(Image(data=b"x" * 50, header=Header(format="png", width=1, height=1)))
    form = Form(files=(FilePart(name="image", address=ImageUrl(url=name, param="image", held=name)),))
    happened: list[object] = []

    class Watched:
        open = files.open

        async def get(self, name: str) -> object:
            happened.append("read")
            return await files.get(name)

    config = SimpleNamespace(gateway=load(SHIPPED, {}).gateway)
    state = cast("State", SimpleNamespace(config=config, files=Watched()))
    await taken(state, form, happened.append)
    assert happened == [50, "read"]

    def full(size: int) -> None:
        raise ServerOverloaded("bytes")

    with pytest.raises(ServerOverloaded):
        await taken(state, form, full)
    assert happened == [50, "read"]
