"""The engine `esrgan`: upscaling by a network that the operator provides, such as Real-ESRGAN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image

from providers.worker import weights
from providers.worker.engines.base import (
    Cancelled,
    Device,
    Engine,
    EngineLimits,
    Field,
    InputRejected,
    Notes,
    Output,
    Progress,
    Value,
)
from providers.worker.engines.cards import Card, Cards, available_memory, find
from providers.worker.engines.images import OUTPUT_FORMATS, decode, encode, open_picture, upright_size
from providers.worker.engines.network import Network
from providers.worker.engines.options import EsrganOptions, options
from providers.worker.engines.tensors import split_alpha, with_alpha


class Esrgan(Engine):
    """One network, loaded on each of the devices."""

    name = "esrgan"
    version = "1"
    inputs: Mapping[str, Field] = {
        "image": Field(type="picture", required=True, description="The picture: png, jpeg, webp, gif or avif."),
        "scale": Field(
            type="number",
            default=4.0,
            minimum=1,
            maximum=16,
            description="Output size over input size, per side. Above the network's own factor it is run again.",
        ),
        "face_enhance": Field(
            type="boolean", default=False, description="This worker does not repair faces: only false is taken."
        ),
        "output_format": Field(
            type="string", default="png", choices=OUTPUT_FORMATS, description="Both are without loss."
        ),
    }

    def __init__(self, options_given: Mapping[str, object] | None = None) -> None:
        self._options = options(EsrganOptions, self.name, options_given)
        weights.check(self._options.needs(), self.name)
        self._cards = Cards(find(self._options.devices), self._options.tile_batch)
        self._networks: dict[Card, Network] = {}
        self._limits = EngineLimits()
        self._memory = 0

    @property
    def model(self) -> str:
        return f"{self.name} ({self._options.network().label})"

    @property
    def slots(self) -> int:
        return len(self._cards.all) * self._options.slots_per_device

    def devices(self) -> Sequence[Device]:
        return [card.describe() for card in self._cards.all]

    def load(self, limits: EngineLimits) -> None:
        Image.init()
        chosen = self._options
        for card in self._cards.all:
            network = Network(
                chosen.network(),
                card,
                dtype=chosen.dtype,
                tile=chosen.tile,
                overlap=chosen.overlap,
                compiled=chosen.compile,
            )
            # The first run selects algorithms and allocates memory, which should not delay a client's job.
            side = min(chosen.tile, 128)
            small = Image.new("RGB", (side, side))
            network.enlarge(small, (side * network.scale,) * 2, lambda line: None, lambda: False)
            self._networks[card] = network
        self._limits, self._memory = limits, available_memory() // self.slots

    def run(self, inputs: Mapping[str, Value], progress: Progress, cancelled: Cancelled) -> Output:
        image, scale, output_format = inputs["image"], inputs["scale"], inputs["output_format"]
        assert isinstance(image, bytes)
        assert isinstance(scale, float)
        assert isinstance(output_format, str)
        if inputs["face_enhance"]:
            raise InputRejected("face_enhance", "this worker does not repair faces")
        opened = open_picture(image, cancelled)
        width, height = upright_size(opened)
        size = (round(width * scale), round(height * scale))
        notes = Notes(progress)
        with self._cards.one() as card:
            network = self._networks[card]
            self._refuse_too_large((width, height), size, network)
            picture = decode(opened, notes)
            profile = picture.info.get("icc_profile")
            colours, alpha = split_alpha(picture)
            progress(f"{network.label} on {card.name}, to {size[0]} x {size[1]} pixels")
            made = network.enlarge(colours, size, progress, cancelled)
        return notes.on(encode(with_alpha(made, alpha), output_format, profile, cancelled))

    def _refuse_too_large(self, source: tuple[int, int], size: tuple[int, int], network: Network) -> None:
        most = self._limits.max_output_pixels
        if math.prod(size) > most:
            raise InputRejected(
                "scale", f"{size[0]} x {size[1]} pixels are more than the {most} that this worker makes"
            )
        network.refuse_too_large(source, size, self._memory, "scale")
