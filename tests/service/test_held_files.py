"""Pictures by id over real HTTP: those that were made here are taken as long as they are kept, OpenAI's are not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.hooked import ask, caller
from tests.support.world import World, world


@contextmanager
def keeping(folder: Path, **environ: str) -> Iterator[tuple[World, httpx.Client]]:
    """A gateway that keeps its files in this folder, and a client."""
    given = {f"DARKROOM_GATEWAY__{name}": value for name, value in environ.items()}
    with world("replicate", environ={"DARKROOM_DATA": str(folder), **given}) as there, caller(there.url) as client:
        yield there, client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of the shared gateway are."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[tuple[World, httpx.Client]]:
    """A gateway that fetches nothing: what is its own needs no fetching."""
    with keeping(folder, FETCH_IMAGE_URLS="false") as there:
        yield there


def made(client: httpx.Client) -> str:
    """Have a picture made; its address."""
    answer = ask(client, response_format="url")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"][0]["url"])


def name_of(url: str) -> str:
    """The last part of an address."""
    return url.partition("?")[0].rpartition("/")[2]


def asked(client: httpx.Client, **fields: Any) -> httpx.Response:
    """What would be done with a picture, as JSON."""
    return client.post("/images/edits?dry_run=true", json={"prompt": "a cup", **fields})


def digest(answer: httpx.Response) -> str:
    """That of the picture that a provider would be sent."""
    assert answer.status_code == 200, answer.text
    return str(answer.json()["candidates"][0]["payload"]["image"]["picture"]["sha256"])


SHAPES: dict[str, Callable[[str], dict[str, Any]]] = {
    "file_id": lambda url: {"images": [{"file_id": name_of(url)}]},
    "file_id, and a null": lambda url: {
        "images": [{"file_id": name_of(url), "image_url": None, "type": "input_image"}]
    },
    "a text": lambda url: {"image": name_of(url)},
    "its address": lambda url: {"images": [{"image_url": url}]},
    "its address, and a null": lambda url: {"images": [{"image_url": url, "file_id": None}]},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_picture_that_was_made_here(
    shared: tuple[World, httpx.Client], shape: Callable[[str], dict[str, Any]]
) -> None:
    """It is the picture that whoever has its address would fetch."""
    url = made(shared[1])
    assert digest(asked(shared[1], **shape(url))) == hashlib.sha256(httpx.get(url).content).hexdigest()


def test_in_a_form_too_and_bought(shared: tuple[World, httpx.Client]) -> None:
    """A result is the next call's picture, and a repeated call has its job when the file is gone by then."""
    there, client = shared
    url = made(client)
    for value in (url, name_of(url)):
        taken, fields = there.taken("replicate"), {"prompt": (None, "a cup"), "image": (None, value)}
        headers = {"idempotency-key": f"next-{len(value)}"}
        first = client.post("/images/edits", files=fields, headers=headers)
        again = client.post("/images/edits", files=fields, headers=headers)
        assert (first.status_code, again.status_code) == (200, 200), first.text
        assert again.json()["id"] == first.json()["id"]
        assert there.taken("replicate") == taken + 1


def test_what_is_not_kept_any_more(shared: tuple[World, httpx.Client], folder: Path) -> None:
    """It is named, and nothing is bought."""
    name = name_of(made(shared[1]))
    (folder / "files" / name).unlink()
    taken = shared[0].taken("replicate")
    answer = shared[1].post("/images/edits", json={"prompt": "a", "images": [{"file_id": name}]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "file_not_found", "images[0].file_id")
    assert shared[0].taken("replicate") == taken


def test_a_damaged_file_is_no_picture(shared: tuple[World, httpx.Client], folder: Path) -> None:
    """Neither a whole one nor a part of it is sent on."""
    name = name_of(made(shared[1]))
    whole = (folder / "files" / name).read_bytes()
    (folder / "files" / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    answer = asked(shared[1], image=name)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "file_damaged")


FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "image": ({"image": "file-6F2ksmvXxt4VdoqmHRw6kL"}, "image"),
    "a list": ({"image": ["file-abc123"]}, "image[0]"),
    "images": ({"images": [{"file_id": "file-abc123"}]}, "images[0].file_id"),
    "mask": ({"image": "file_abc123"}, "image"),
    "a container's": ({"images": [{"file_id": "cfile_682e0e8a43c88191a7978f477a09bdf5"}]}, "images[0].file_id"),
    "a name of ours that was changed": ({"images": [{"file_id": "a" * 31 + ".png"}]}, "images[0].file_id"),
    "a way out": ({"images": [{"file_id": "../darkroom.db"}]}, "images[0].file_id"),
    "an address": ({"images": [{"file_id": "https://example.com/a.png"}]}, "images[0].file_id"),
}


@pytest.mark.parametrize(("fields", "param"), FOREIGN.values(), ids=FOREIGN.keys())
def test_ids_of_others(shared: tuple[World, httpx.Client], fields: dict[str, Any], param: str) -> None:
    """It is said that they are not held here, and what to send instead; as JSON and, where it is a text, in a form."""
    answers = [asked(shared[1], **fields)]
    if isinstance(fields.get("image"), str):
        answers.append(shared[1].post("/images/edits?dry_run=true", files={"image": (None, fields["image"])}))
    for answer in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "file_id_unsupported", param)
        assert "as a file, a data URL or an https URL" in error["message"]


def test_shapes_that_are_none(shared: tuple[World, httpx.Client]) -> None:
    """One of the two keys, and a text."""
    both = asked(shared[1], images=[{"file_id": "file-1", "image_url": "https://example.com/a.png"}]).json()["error"]
    assert (both["code"], both["param"]) == ("parameter_conflict", "images[0]")
    number = asked(shared[1], images=[{"file_id": 7}]).json()["error"]
    assert (number["code"], number["param"]) == ("invalid_type", "images[0].file_id")


def test_with_signed_addresses_the_name_alone_opens_nothing(tmp_path: Path) -> None:
    """A caller may use what it could fetch: the address with its signature, and as it was given."""
    with keeping(tmp_path, FILES_SIGNED="true") as (_, client):
        url = made(client)
        assert digest(asked(client, image=url)) == hashlib.sha256(httpx.get(url).content).hexdigest()
        unsigned, _, query = url.partition("?")
        forged = (name_of(url), unsigned, f"{unsigned}?{query.replace('expires=1', 'expires=2')}", url[:-1] + "x")
        for image in forged:
            answer = asked(client, image=image)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (403, "invalid_file_signature", "image"), (
                image
            )


def test_the_limits_of_an_upload_hold(tmp_path: Path) -> None:
    """Whatever the size of a result may be."""
    with keeping(tmp_path) as (_, client):
        name = name_of(made(client))
        size = (tmp_path / "files" / name).stat().st_size
    for most, status in ((size, 200), (size - 1, 413)):
        with keeping(tmp_path, MAX_UPLOAD_BYTES=str(most)) as (_, client):
            answer = asked(client, image=name)
            assert answer.status_code == status, answer.text
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("file_too_large", "image")
