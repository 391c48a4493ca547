"""Devices, and memory that runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from providers.worker.engines.base import EngineBroken, EngineFailure, RunCancelled, WeightsUnusable
from providers.worker.engines.cards import Batch, Cards, NoRoom, available_memory, dtype_for, find

Rows = Sequence[int]


def never() -> bool:
    return False


def test_halved_and_remembered() -> None:
    """When memory runs out fewer are run at once, none is lost or done twice, and the next run begins with fewer."""
    batch, asked = Batch(8), []

    def call(items: Rows) -> Any:
        asked.append(len(items))
        if len(items) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [item * 10 for item in items]

    assert list(batch.run(range(11), call, never)) == [(item, item * 10) for item in range(11)]
    assert asked == [8, 4, 2, 2, 2, 2, 2, 1]
    asked.clear()
    assert len(list(batch.run(range(4), call, never))) == 4
    assert asked == [2, 2]


def test_no_room_at_all() -> None:
    """Where not even one fits, the run fails with what to do, and the worker lives."""

    def call(items: Rows) -> Any:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)")

    with pytest.raises(NoRoom, match="smaller tiles") as caught:
        list(Batch(2).run([1, 2], call, never))
    assert isinstance(caught.value, EngineFailure)


def test_other_errors_are_no_memory() -> None:
    """What is wrong otherwise is said as it is, and nothing is tried again."""
    asked = []

    def call(items: Rows) -> Any:
        asked.append(len(items))
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(Batch(4).run(range(4), call, never))
    assert asked == [4]


def test_a_fault_of_the_card() -> None:
    """After one, every call would fail: the worker takes no more work."""

    def call(items: Rows) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    with pytest.raises(EngineBroken, match=r"illegal memory access was encountered$"):
        list(Batch(4).run(range(4), call, never))


def test_cancelled_between_calls() -> None:
    """A cancelled run makes no further call."""
    asked = []

    def call(items: Rows) -> Any:
        asked.append(len(items))
        return list(items)

    with pytest.raises(RunCancelled):
        list(Batch(1).run(range(10), call, lambda: len(asked) == 3))
    assert len(asked) == 3


def test_runs_go_to_the_idle_card() -> None:
    """Two runs at a time are on two devices."""
    cards = Cards(["cpu", "cpu"], 4)

    with cards.one() as first, cards.one() as second:
        assert first is not second
        with cards.one() as third:
            assert third.running == 2
    assert [card.running for card in cards.all] == [0, 0]


def test_devices() -> None:
    """Without a card `auto` is the CPU; a device that is not there is a mistake of the config."""
    assert find(["cpu", "cpu"]) == ("cpu", "cpu")
    assert find(["auto"]) in {("cpu",), ("mps",)} or find(["auto"])[0] == "cuda:0"
    for name in ("cuda:77", "gpu"):
        with pytest.raises(WeightsUnusable, match=f"devices: '{name}' cannot be used"):
            find([name])


def test_number_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision where card and network have it; never without being asked on cards that give black pictures."""
    assert dtype_for("cpu", "auto") is torch.float32
    assert dtype_for("cpu", "bf16") is torch.bfloat16
    with pytest.raises(WeightsUnusable, match="does not work in fp16"):
        dtype_for("cpu", "fp16", half=False)
    title = "NVIDIA H100"
    capability = (9, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: title)
    assert dtype_for("cuda:0", "auto") is torch.float16
    assert dtype_for("cuda:0", "auto", half=False) is torch.bfloat16
    title, capability = "NVIDIA GeForce GTX 1660", (7, 5)
    assert dtype_for("cuda:0", "auto") is torch.float32
    title, capability = "NVIDIA GeForce GTX 1080", (6, 1)
    assert dtype_for("cuda:0", "auto") is torch.float32


def test_available_memory() -> None:
    """It is a share of what there is."""
    assert 100_000_000 < available_memory() < 2**50
