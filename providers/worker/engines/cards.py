"""GPUs, or the CPU instead: finding them, choosing number types, and recovering when memory runs out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from providers.worker.engines.base import (
    Cancelled,
    Device,
    EngineBroken,
    EngineFailure,
    WeightsUnusable,
    first_line,
    stop_if,
)

LOGGER = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
# The share of free memory that a run may use: other programs need some, too.
_SHARE = 0.8


class NoRoom(EngineFailure):
    """The device's memory is too small for a single tile."""


class Batch:
    """The number of tiles per batch. It is halved permanently if memory runs out: the next run would fail, too."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, items: Sequence[T], call: Callable[[Sequence[T]], R], cancelled: Cancelled) -> Iterator[tuple[T, R]]:
        """Call with batches of the items that fit into memory, and yield each item with its row of the result.

        `call` is repeated with fewer items if memory runs out, so it must have no side effects. Raises RunCancelled
        before a call, NoRoom if not even one item fits, and EngineBroken if the device has a fault.
        """
        position = 0
        while position < len(items):
            stop_if(cancelled)
            chunk = items[position : position + self.size]
            made = self._try(chunk, call)
            if made is None:
                self._halve(len(chunk))
                continue
            yield from zip(chunk, made, strict=True)  # type: ignore[call-overload]
            position += len(chunk)

    def _try(self, chunk: Sequence[T], call: Callable[[Sequence[T]], R]) -> R | None:
        # A separate function: memory that the failed call holds is only freed together with the exception.
        try:
            with device_faults():
                return call(chunk)
        except RuntimeError as error:
            # Only CUDA has its own exception for this.
            if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error):
                raise
            return None

    def _halve(self, size: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size <= 1:
            raise NoRoom("the card's memory does not suffice for a single tile: take smaller tiles, or a larger card")
        # Another run may have halved it in the meantime.
        self.size = min(self.size, size // 2)
        LOGGER.warning("memory ran out with %s tiles at once; from now on there are %s", size, self.size)


class Card:
    """A device with a copy of the engine's networks, and its number of current runs."""

    def __init__(self, name: str, batch: int) -> None:
        self.device = torch.device(name)
        self.name = str(self.device)
        self.batch = Batch(batch)
        self.running = 0

    def describe(self) -> Device:
        """Return the state of its memory; all figures are zero unless it is a CUDA device."""
        total = used = peak = 0
        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            used = torch.cuda.memory_allocated(self.device)
            peak = torch.cuda.max_memory_allocated(self.device)
        return Device(name=self.name, total_bytes=total, used_bytes=used, peak_bytes=peak, tile_batch=self.batch.size)

    def free_bytes(self) -> int:
        """Return how many bytes of its memory a run may use."""
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return int(free * _SHARE)
        return available_memory()


class Cards:
    """The devices of an engine: each run uses the one with the fewest runs."""

    def __init__(self, names: Sequence[str], batch: int) -> None:
        self.all = tuple(Card(name, batch) for name in names)
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[Card]:
        """Provide the device with the fewest runs, and count this run while it lasts."""
        with self._lock:
            card = min(self.all, key=lambda card: card.running)
            card.running += 1
        try:
            yield card
        finally:
            with self._lock:
                card.running -= 1


@contextmanager
def device_faults() -> Iterator[None]:
    """Turn a fault of the device, after which every call on it fails, into EngineBroken."""
    try:
        yield
    except torch.AcceleratorError as error:
        raise EngineBroken(f"the card has a fault: {first_line(error)}") from error


def find(names: Sequence[str]) -> tuple[str, ...]:
    """Return the devices that `names` refer to. Raises WeightsUnusable for one that does not exist."""
    if list(names) == ["auto"]:
        if count := torch.cuda.device_count():
            return tuple(f"cuda:{number}" for number in range(count))
        return ("mps",) if torch.backends.mps.is_available() else ("cpu",)
    for name in names:
        try:
            torch.empty(1, device=torch.device(name))
        except Exception as error:
            # torch raises different exceptions for this.
            raise WeightsUnusable(f"devices: {name!r} cannot be used: {first_line(error)}") from error
    return tuple(names)


def dtype_for(name: str, asked: str, *, half: bool = True, bfloat: bool = True) -> torch.dtype:
    """Return the number type for a device: the one in `asked`, or for `auto` the best for device and network.

    `half` and `bfloat` mean that the network supports fp16 and bf16. Raises WeightsUnusable for an unsupported type.
    """
    if asked != "auto":
        if (asked == "fp16" and not half) or (asked == "bf16" and not bfloat):
            raise WeightsUnusable(f"dtype: this network does not work in {asked}; take fp32, or auto")
        return DTYPES[asked]
    device = torch.device(name)
    if device.type == "cuda":
        # GPUs of the GTX 16 series produce black images in fp16.
        if half and torch.cuda.get_device_capability(device) >= (7, 0) and "GTX 16" not in _title(device):
            return torch.float16
        if bfloat and torch.cuda.get_device_capability(device) >= (8, 0):
            return torch.bfloat16
    return torch.float32


def available_memory() -> int:
    """Return how many bytes of main memory a run may use, considering the machine's and the container's limits."""
    found = [_SHARE * amount for amount in (_meminfo(), _cgroup()) if amount]
    return int(min(found, default=4 * 1024**3))


def _title(device: torch.device) -> str:
    return str(torch.cuda.get_device_name(device))


def _meminfo() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def _cgroup() -> int:
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / "memory.max").read_text().strip()
        used = (folder / "memory.current").read_text().strip()
    except OSError:
        return 0
    return max(1, int(most) - int(used)) if most.isdigit() else 0
