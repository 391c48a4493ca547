"""Decoder processes: started, supervised and replaced by the gateway, and never trusted."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.imaging import protocol
from gateway.telemetry import metrics
from normalization.images.formats.base import SAVE_AGAIN
from normalization.images.prepare import PreparedImage
from normalization.images.sniff import BadImage, sniff
from normalization.images.transform import MOST_PIXELS
from normalization.values import Header, Image, Sending, Step

_ROOT = str(Path(__file__).resolve().parents[2])
# The only environment variables passed on, for the interpreter's libraries: the others include keys.
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from gateway.imaging.sandbox import main; main()"
_MAX_NOTES, _MAX_TEXT = 16, 500
# The factors of time and memory for an image that is tried again, alone.
_MORE_TIME, _MORE_MEMORY = 4, 2
_CODES = ("empty_image", "not_an_image", "truncated_image", "animated_image", "image_too_large", "corrupt_image")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """Limits of a decoder: seconds per image, bytes of address space, images and seconds until it is replaced."""

    timeout_s: float = 30
    memory_bytes: int = 2 << 30
    max_result_bytes: int = 512 << 20
    images: int = 200
    life_s: float = 600


class LimitExceeded(BadImage):
    """The image was not decoded or encoded because of a time or memory limit, or because the decoder died. The image
    itself may be fine: another try may succeed."""


class DecoderProcesses:
    """Runs the image functions in processes, one per calling thread, each with one image at a time.

    A decoder is replaced after a number of images or seconds, when it takes too long, and when it dies. If it dies
    while working on an image, the image is tried once more in another decoder, and then refused. `program` is the
    decoder's Python code, with the folder of our modules as its first argument.
    """

    def __init__(self, bounds: ProcessLimits, *, program: str = _START) -> None:
        self._bounds = bounds
        self._program = program
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._busy: set[_Decoder] = set()
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """The process ids of all decoders."""
        with self._lock:
            return [one.pid for one in (*self._idle, *self._busy)]

    def prepare(self, image: Image, most: int = MOST_PIXELS) -> Image:
        """See `images.prepare`."""
        made = self._ask({"do": "prepare", "header": protocol.from_header(image.header), "most": most}, image.data)
        return image if made.same and made.alpha >= image.header.alpha else made.image(image.data, image.header)

    def ready(self, image: Image, sending: Sending, most: int = MOST_PIXELS) -> PreparedImage:
        """See `sending.ready`."""
        head = {"do": "send", "header": protocol.from_header(image.header), "most": most}
        made = self._ask({**head, "sending": protocol.from_sending(sending)}, image.data)
        if made.channel is not None:
            _check_channel(made.channel, image)
        return PreparedImage(
            image=image if made.same else made.image(image.data, image.header),
            alpha=made.channel,
            black=made.black,
            notes=made.notes,
        )

    def finish(
        self, data: bytes, header: Header, steps: Sequence[Step], most: int = MOST_PIXELS
    ) -> tuple[Image, tuple[str, ...]]:
        """See `images.finish`."""
        values, channels = protocol.from_steps(steps)
        head = {"do": "finish", "header": protocol.from_header(header), "steps": values, "most": most}
        made = self._ask(head, data + channels if channels else data)
        return made.image(data, header), made.notes

    def generous(self) -> DecoderProcesses:
        """A new instance with more time and memory per image. The caller closes it."""
        bounds = self._bounds
        time_s, memory = _MORE_TIME * bounds.timeout_s, _MORE_MEMORY * bounds.memory_bytes
        return DecoderProcesses(replace(bounds, timeout_s=time_s, memory_bytes=memory), program=self._program)

    def close(self) -> None:
        """Kill all decoders."""
        with self._lock:
            self._closed = True
            ending = [*self._idle, *self._busy]
            self._idle.clear()
        for one in ending:
            one.end()

    def _ask(self, head: Mapping[str, Any], data: bytes) -> _Done:
        """Run one request in a decoder and return the checked result. Raises BadImage."""
        for _ in range(2):
            decoder = self._take()
            well = False
            try:
                answer, made = decoder.ask(head, data)
                found = _checked(answer, made)
                well = True
                return found
            except BadImage:
                well = True
                raise
            except TimeoutError:
                metrics.DECODERS.labels("timeout").inc()
                message = f"Decoding it takes longer than {self._bounds.timeout_s:g} seconds."
                raise LimitExceeded("corrupt_image", message, "Save it again.") from None
            except _OutOfMemory:
                metrics.DECODERS.labels("memory").inc()
                message = "Decoding it needs more memory than allowed for one image."
                raise LimitExceeded("image_too_large", message, "Send a smaller image.") from None
            except (protocol.ProtocolError, OSError):
                metrics.DECODERS.labels("died").inc()
            finally:
                self._give_back(decoder, well=well)
        raise LimitExceeded("corrupt_image", "It crashes the decoder.", SAVE_AGAIN)

    def _take(self) -> _Decoder:
        with self._lock:
            decoder = self._idle.pop() if self._idle else None
            if decoder is not None and decoder.alive:
                self._busy.add(decoder)
                return decoder
        if decoder is not None:
            decoder.end()
        decoder = _Decoder(self._bounds, self._program)
        with self._lock:
            self._busy.add(decoder)
            closed = self._closed
        if closed:
            decoder.end()
        return decoder

    def _give_back(self, decoder: _Decoder, *, well: bool) -> None:
        with self._lock:
            self._busy.discard(decoder)
            if well and decoder.fresh and not self._closed:
                self._idle.append(decoder)
                return
        decoder.end()


class _OutOfMemory(Exception):
    """The decoder has met the bound on its memory."""


class _Decoder:
    """One process and the link to it."""

    def __init__(self, bounds: ProcessLimits, program: str) -> None:
        self._bounds = bounds
        self._asked = 0
        self._began = time.monotonic()
        self._link, theirs = socket.socketpair()
        cpu_s = int(bounds.life_s + bounds.timeout_s) + 1
        given = (os.getpid(), bounds.memory_bytes, cpu_s, bounds.max_result_bytes)
        try:
            with theirs:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
                    [sys.executable, "-I", "-c", program, _ROOT, *map(str, given)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                    start_new_session=True,
                )
        except OSError:
            self._link.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def fresh(self) -> bool:
        """Whether the decoder may process another image."""
        lived = time.monotonic() - self._began
        return self.alive and self._asked < self._bounds.images and lived < self._bounds.life_s

    def ask(self, head: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """Send an image and wait for the result. Raises TimeoutError, ProtocolError and OSError."""
        self._asked += 1
        # A hard limit, even if the decoder sends its response slowly.
        timer = threading.Timer(self._bounds.timeout_s, self._process.kill)
        late = time.monotonic() + self._bounds.timeout_s
        timer.daemon = True
        timer.start()
        try:
            protocol.write(self._link, dict(head), data)
            return protocol.read(self._link, self._bounds.max_result_bytes)
        except (protocol.ProtocolError, OSError):
            if time.monotonic() >= late:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()

    def end(self) -> None:
        """Kill the decoder."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._link.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """A decoder's result: `made` is the image's bytes, empty if they are the `same` as before; for the other fields see
    `PreparedImage`.
    """

    same: bool
    made: bytes
    alpha: bool
    notes: tuple[str, ...]
    channel: bytes | None = None
    black: bool = False

    def image(self, data: bytes, header: Header) -> Image:
        """The resulting image; `data` and `header` are the input's. Raises BadImage."""
        if self.same:
            return Image(data=data, header=replace(header, alpha=header.alpha and self.alpha))
        found = sniff(self.made)
        return Image(data=self.made, header=replace(found, alpha=found.alpha and self.alpha))


def _check_channel(channel: bytes, image: Image) -> None:
    """Raise BadImage for an alpha channel of another size than the image, because joining it allocates memory."""
    found = sniff(channel)
    if (found.format, found.width, found.height) != ("png", image.width, image.height):
        raise BadImage("corrupt_image", "Its alpha channel is invalid.", SAVE_AGAIN)


def _checked(answer: dict[str, Any], made: bytes) -> _Done:
    """Check a response. Raises BadImage if it reports that, _OutOfMemory, and ProtocolError if it is invalid."""
    match answer:
        case {"starved": True}:
            raise _OutOfMemory
        case {"code": str(code), "message": str(message), "advice": str(advice)} if code in _CODES:
            raise BadImage(code, message[:_MAX_TEXT], advice[:_MAX_TEXT])
        case {
            "same": bool(same),
            "notes": [*notes],
            "alpha": bool(alpha),
            "channel": int(size),
            "black": bool(black),
        } if all(isinstance(note, str) for note in notes) and 0 <= size <= len(made):
            at = len(made) - size
            return _Done(
                same=same,
                made=made[:at] if size else made,
                alpha=alpha,
                notes=tuple(note[:_MAX_TEXT] for note in notes[:_MAX_NOTES]),
                channel=made[at:] if size else None,
                black=black,
            )
        case _:
            raise protocol.ProtocolError("an invalid response")
