"""Seeds in what the ledger keeps, and rows that were written before there were any."""

from __future__ import annotations

from gateway.ledger.records import OutputSpec, StoredImage, picture_of
from normalization.images.sniff import sniff
from normalization.values import Image, Resize, Size
from tests.support.photo import flat

DATA = flat(6, 4)
PICTURE = StoredImage(image=Image(data=DATA, header=sniff(DATA)), file="a.png", seed=4294967295)


def test_a_picture_is_read_back_with_its_seed() -> None:
    """What was kept of a picture is the picture again, once its bytes are there."""
    assert picture_of(PICTURE.to_json(), DATA) == PICTURE


def test_a_call_is_read_back_with_its_seed() -> None:
    """So that another process finishes its pictures alike."""
    making = OutputSpec(seed=7, finish=(Resize(size=Size(width=6, height=4), mode="fit", tell=True),))

    assert OutputSpec.from_json(making.to_json()) == making


def test_older_rows() -> None:
    """A row without a seed has none."""
    kept = {name: value for name, value in PICTURE.to_json().items() if name != "seed"}
    making = {name: value for name, value in OutputSpec(seed=7).to_json().items() if name != "seed"}

    assert picture_of(kept, DATA).seed is None
    assert OutputSpec.from_json(making) == OutputSpec()
