"""Engines whose runs a test can hold, end and break. A worker imports them by `--engine play_engines:Play`."""

from __future__ import annotations

import time
from collections.abc import Mapping

from providers.worker.engines.base import (
    Cancelled,
    Engine,
    EngineBroken,
    EngineLimits,
    Field,
    Output,
    Progress,
    Value,
    stop_if,
)


class Play(Engine):
    """Works for `seconds`, then gives the text back; fails where it is asked to."""

    name = "play"
    version = "7"
    inputs: Mapping[str, Field] = {
        "text": Field(type="string", required=True, description="What comes back."),
        "seconds": Field(type="number", default=0.0, minimum=0, maximum=30, description="How long it takes."),
        "mode": Field(type="string", default="a", choices=("a", "b"), description="Nothing."),
        "times": Field(type="integer", minimum=1, maximum=20_000_000, description="How often the text comes back."),
        "loud": Field(type="boolean", default=False, description="Whether it logs each step."),
        "image": Field(type="picture", description="A picture, whose length is logged."),
    }

    def load(self, limits: EngineLimits) -> None:
        pass

    def run(self, inputs: Mapping[str, Value], progress: Progress, cancelled: Cancelled) -> Output:
        text, seconds, times, image = inputs["text"], inputs["seconds"], inputs.get("times", 1), inputs.get("image")
        assert isinstance(text, str)
        assert isinstance(seconds, float)
        assert isinstance(times, int)
        if isinstance(image, bytes):
            progress(f"{len(image)} bytes")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step(cancelled)
            if inputs["loud"]:
                progress(f"{end - time.monotonic():.2f} s to go")
            time.sleep(0.01)
        if text == "fail":
            raise ValueError("asked to fail")
        if text == "break":
            raise EngineBroken("asked to break")
        return Output(data=text.encode() * times, mime="text/plain")

    def step(self, cancelled: Cancelled) -> None:
        stop_if(cancelled)


class Deaf(Play):
    """Does not hear that it is cancelled."""

    def step(self, cancelled: Cancelled) -> None:
        pass


class SlowToLoad(Play):
    """Takes a second to load."""

    def load(self, limits: EngineLimits) -> None:
        time.sleep(1)


class NeverLoads(Play):
    """Loads for a minute, which no test waits for."""

    def load(self, limits: EngineLimits) -> None:
        time.sleep(60)


class Unloadable(Play):
    """Cannot be loaded."""

    def load(self, limits: EngineLimits) -> None:
        raise RuntimeError("the weights are not there")
