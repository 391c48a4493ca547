"""The caller of the measurements, in a process of its own: `python -m tests.bench.load TASK`, a Task as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import pybase64

_BOUNDARY = "bench-boundary"
PATH = "/openai/v1/images/edits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`calls` calls at a concurrency, each with the picture in one file, and the picture in the other to be had back.

    `direct` makes the two calls to fal that a gateway would make, without one. `numbered` gives each call a prompt of
    its own, `prompt-<n>`.
    """

    url: str
    key: str
    image: str
    wanted: str
    calls: int
    concurrent: int
    factor: int = 2
    direct: bool = False
    numbered: bool = False

    def files(self) -> tuple[bytes, bytes]:
        """Both pictures."""
        return Path(self.image).read_bytes(), Path(self.wanted).read_bytes()


@dataclass(frozen=True, slots=True)
class Done:
    """Milliseconds of each call, in the order of their ends; seconds of all; when each numbered call ended."""

    ms: list[float]
    wall_s: float
    ended: dict[str, float]


async def run(task: Task) -> Done:
    """Make the calls. Each answer is looked at: the wanted picture has to be in it, byte for byte."""
    picture, wanted = task.files()
    expected = pybase64.b64encode(wanted)
    ms: list[float] = []
    ended: dict[str, float] = {}
    numbers = iter(range(task.calls))

    async def edit(session: aiohttp.ClientSession, number: int) -> None:
        body = _form(picture, f"prompt-{number}" if task.numbered else "a cup", task.factor)
        headers = {
            "content-type": f"multipart/form-data; boundary={_BOUNDARY}",
            "authorization": f"Bearer {task.key}",
        }
        async with session.post(task.url + PATH, data=body, headers=headers) as response:
            answer = await response.read()
        assert response.status == 200, answer[:500]
        assert answer.find(expected) > 0, "another picture"

    async def straight(session: aiohttp.ClientSession, number: int) -> None:
        body = b'{"image_url":"data:image/png;base64,' + pybase64.b64encode(picture) + b'","prompt":"a cup"}'
        headers = {"content-type": "application/json"}
        async with session.post(f"{task.url}/fal-ai/clarity-upscaler", data=body, headers=headers) as response:
            told = await response.json()
        async with session.get(told["image"]["url"]) as response:
            assert await response.read() == wanted

    async def caller(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            began = time.perf_counter()
            await (straight if task.direct else edit)(session, number)
            ms.append((time.perf_counter() - began) * 1000)
            ended[f"prompt-{number}"] = time.time()

    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        began = time.perf_counter()
        await asyncio.gather(*(caller(session) for _ in range(task.concurrent)))
        return Done(ms, time.perf_counter() - began, ended if task.numbered else {})


def _form(picture: bytes, prompt: str, factor: int) -> bytes:
    fields = {"model": "clarity-upscaler", "prompt": prompt, "scale_factor": str(factor), "response_format": "b64_json"}
    head = "".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    file = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="in.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return b"".join([head.encode(), file.encode(), picture, f"\r\n--{_BOUNDARY}--\r\n".encode()])


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(run(Task(**json.loads(sys.argv[1])))))))
