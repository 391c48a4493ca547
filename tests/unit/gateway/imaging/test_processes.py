"""Decoders that crash, hang, starve or lie: the gateway lives on, and the next picture works."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.imaging import protocol
from gateway.imaging.pool import ImagePool, InputLimits
from gateway.imaging.processes import DecoderProcesses, ProcessLimits
from normalization.images import transform
from normalization.images.sniff import sniff
from normalization.values import Resize, Size, Step, Transcode
from tests.support.pictures import ALL, chunk, encoded, exif, noise, plain, raw_png, refusal, taken

pytestmark = pytest.mark.system

MARK = "secret-of-the-environment"
# Long enough at work to be met there.
LARGE = noise(1600, 1200)
STEPS: tuple[Step, ...] = (Transcode(format="avif"),)


@pytest.fixture
def made() -> Iterator[Callable[..., DecoderProcesses]]:
    """Decoders with bounds of one's own, and perhaps another program; ended with the test."""
    every: list[DecoderProcesses] = []

    def make(program: str | None = None, **bounds: float) -> DecoderProcesses:
        bounded = ProcessLimits(**bounds)  # type: ignore[arg-type]
        every.append(DecoderProcesses(bounded) if program is None else DecoderProcesses(bounded, program=program))
        return every[-1]

    yield make
    for one in every:
        one.close()
        assert not one.pids


def meeting(decoder: DecoderProcesses, meet: Callable[[int], None], times: int) -> threading.Thread:
    """Do something to the process that works, as often as a new one comes."""

    def run() -> None:
        met: set[int] = set()
        while len(met) < times:
            for pid in set(decoder.pids) - met:
                time.sleep(0.05)
                meet(pid)
                met.add(pid)
            time.sleep(0.01)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("source", ALL)
@pytest.mark.parametrize("wanted", ALL)
def test_the_same_picture(source: str, wanted: str, made: Callable[..., DecoderProcesses]) -> None:
    """What comes out is, byte for byte, what the functions themselves make."""
    data = encoded(noise(), source)
    steps: list[Step] = [Resize(size=Size(width=40, height=30)), Transcode(format=wanted)]  # type: ignore[arg-type]

    assert made().finish(data, sniff(data), steps) == transform.finish(data, sniff(data), steps)


def test_prepare(made: Callable[..., DecoderProcesses]) -> None:
    """A picture that is right comes back itself, others as the functions make them, and BadImage as it is."""
    decoder, gif, good = made(), taken(plain("gif")), taken(plain("png"))
    broken = plain("png")[:33] + chunk(b"IDAT", b"junk") + chunk(b"IEND")

    assert decoder.prepare(good) is good
    assert decoder.prepare(gif) == transform.prepare(gif)
    found = refusal(lambda: decoder.finish(broken, sniff(broken), [Transcode(format="jpeg")]))
    assert found.code == "corrupt_image"
    assert found.advice == refusal(lambda: transform.finish(broken, sniff(broken), [Transcode(format="jpeg")])).advice
    assert len(decoder.pids) == 1


def test_every_fact_of_a_header(made: Callable[..., DecoderProcesses]) -> None:
    """A density is a pair on this side and on the other."""
    dense = taken(encoded(noise(), "jpeg", dpi=(300, 150), exif=exif(6)))

    assert protocol.to_header(json.loads(json.dumps(protocol.from_header(dense.header)))) == dense.header
    assert made().prepare(dense) == transform.prepare(dense)


def test_no_keys(made: Callable[..., DecoderProcesses], monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is not handed on, and no file of the gateway's is open in there."""
    monkeypatch.setenv("FAL_KEY", MARK)
    decoder = made()
    decoder.prepare(taken(plain("gif")))
    (pid,) = decoder.pids

    assert MARK.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.getsid(pid) == pid
    assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()
    opened = {str(name.readlink()) for name in Path(f"/proc/{pid}/fd").iterdir()}
    assert all(name.startswith(("socket:", "/dev/null")) for name in opened), opened


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash(number: signal.Signals, made: Callable[..., DecoderProcesses]) -> None:
    """A decoder that dies once is replaced and the picture made; one that dies under it again refuses it."""
    decoder, data = made(), encoded(LARGE, "png")

    meeting(decoder, lambda pid: os.kill(pid, number), 1)
    image, _ = decoder.finish(data, sniff(data), STEPS)
    assert image.format == "avif"

    decoder = made()
    meeting(decoder, lambda pid: os.kill(pid, number), 2)
    assert refusal(lambda: decoder.finish(data, sniff(data), STEPS)).code == "corrupt_image"
    assert decoder.prepare(taken(plain("gif"))).format == "png"


def test_a_decoder_that_died_idle(made: Callable[..., DecoderProcesses]) -> None:
    """It is found out before a picture is given to it."""
    decoder = made()
    decoder.prepare(taken(plain("gif")))
    os.kill(decoder.pids[0], signal.SIGKILL)

    assert decoder.prepare(taken(plain("gif"))).format == "png"


def test_a_hang(made: Callable[..., DecoderProcesses]) -> None:
    """A picture that takes too long is refused, its decoder killed, and the next works."""
    decoder, data = made(timeout_s=1.0), encoded(LARGE, "png")

    meeting(decoder, lambda pid: os.kill(pid, signal.SIGSTOP), 1)
    found = refusal(lambda: decoder.finish(data, sniff(data), STEPS))
    assert "longer than 1 second" in found.message
    assert not decoder.pids
    assert decoder.prepare(taken(plain("gif"))).format == "png"


def test_more_memory_than_there_is(made: Callable[..., DecoderProcesses]) -> None:
    """A small file of a large picture cannot take more than the bound, and the next picture works."""
    decoder = made(memory_bytes=150 << 20)
    data = raw_png((9400, 9400), 1, 0, bytes(1175 * 9400))

    assert refusal(lambda: decoder.finish(data, sniff(data), [Transcode(format="jpeg")])).code == "image_too_large"
    assert decoder.prepare(taken(plain("gif"))).format == "png"


def test_recycled(made: Callable[..., DecoderProcesses]) -> None:
    """After so many pictures, or so many seconds, another process takes over."""
    decoder, seen = made(images=2), []
    for _ in range(5):
        decoder.prepare(taken(plain("gif")))
        seen += decoder.pids

    assert len(seen) == 3  # after the second and the fourth picture there is none
    assert len(set(seen)) == 3

    decoder = made(life_s=0.001)
    decoder.prepare(taken(plain("gif")))
    assert not decoder.pids


LIARS = {
    "no_json": b"\0\0\0\2\0\0\0\0{]",
    "a_huge_length": b"\0\0\0\2\xff\xff\xff\xff{}",
    "no_answer": b"\0\0\0\2\0\0\0\0{}",
    "no_picture": b'\0\0\0\x1a\0\0\0\4{"same":false,"notes":[]} junk',
    "a_pickle": b"\0\0\0\x04\0\0\0\0\x80\x04N.",
    "an_unknown_code": b'\0\0\0\x19\0\0\0\0{"code":"x","message":"."}',
    "half": b"\0\0\1\0\0\0\0\0{",
}


@pytest.mark.parametrize("said", LIARS.values(), ids=LIARS.keys())
def test_nothing_is_believed(said: bytes, made: Callable[..., DecoderProcesses]) -> None:
    """Whatever a decoder in a stranger's hands says, the picture is refused and nothing else happens."""
    lies = f"import socket; link = socket.socket(fileno=0); link.recv(9); link.sendall({said!r})"

    assert refusal(lambda: made(program=lies).prepare(taken(plain("gif")))).code in ("corrupt_image", "not_an_image")


def test_it_ends_with_the_gateway(tmp_path: Path) -> None:
    """A gateway that is killed leaves no decoder behind, not even one that is at work."""
    file = tmp_path / "picture.png"
    file.write_bytes(encoded(LARGE, "png"))
    program = (
        "import sys, threading, time; from pathlib import Path\n"
        "from gateway.imaging.processes import DecoderProcesses, ProcessLimits\n"
        "from normalization.images.sniff import sniff; from normalization.values import Transcode\n"
        "data = Path(sys.argv[1]).read_bytes(); made = DecoderProcesses(ProcessLimits())\n"
        "work = lambda: [made.finish(data, sniff(data), [Transcode(format='avif')]) for _ in range(50)]\n"
        "threading.Thread(target=work).start()\n"
        "while not made.pids: time.sleep(0.01)\n"
        "time.sleep(0.5); print(made.pids[0], flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        pid = int(gateway.stdout.readline())
        gateway.kill()
    deadline = time.monotonic() + 20
    while running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Whether a process is there and is not only waiting for somebody to ask for its status."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_imaging_in_processes(made: Callable[..., DecoderProcesses]) -> None:
    """The gateway's own picture work, with decoders in the place of its functions."""
    decoder = made()
    imaging = ImagePool(
        max_pixels=10**8, limits=InputLimits(max_pixels=10**8, max_side=10**5), decoders=decoder, threads=2
    )

    assert (await imaging.prepare(taken(plain("gif")))).format == "png"
    assert len(decoder.pids) == 1
    imaging.close()


def test_a_message_has_a_bound() -> None:
    """What is longer than agreed is not read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        protocol.write(theirs, {"same": False}, b"12345")
        with pytest.raises(protocol.ProtocolError):
            protocol.read(ours, 4)
