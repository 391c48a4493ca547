"""What costs money needs a key: the first is made by itself, and a proxy that says nothing makes nobody an owner."""

from __future__ import annotations

import re
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from gateway.auth import first_key
from gateway.auth import store as key_store
from gateway.auth.first_key import FirstKey, ensure
from gateway.auth.keys import draw, id_of
from gateway.database.engine import open_engine
from gateway.database.migrate import migrate
from gateway.settings.errors import ConfigError
from tests.simulators.base import AUTH, Simulated, wiring
from tests.simulators.clouds import borrowed
from tests.support import warm
from tests.support.hooked import ask, caller
from tests.support.keys import api_key
from tests.support.paths import COFFEE
from tests.support.plain_proxy import plain_proxy
from tests.support.ports import listener
from tests.support.running import Served, clean_environ, serving, until
from tests.support.world import PATIENCE

pytestmark = pytest.mark.early

KEY = re.compile(r"dr_[0-9a-f]{16}_[\w-]{43}")
QUICK = {"DARKROOM_GATEWAY__KEY_CACHE_S": "0.2"}


def paying(sim: Simulated) -> dict[str, str]:
    """The environment of a gateway before this provider that is told nothing of keys."""
    return {name: text for name, text in {**PATIENCE, **wiring([sim]), **QUICK}.items() if name != AUTH}


@dataclass(frozen=True, slots=True)
class There:
    """A running gateway that can buy, the key that it printed, and its provider."""

    served: Served
    key: str
    sim: Simulated
    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    folder = tmp_path_factory.mktemp("first")
    with borrowed("replicate") as (sim, _), serving(folder, (), paying(sim)) as served:
        printed = KEY.findall(served.log.read_text())
        assert len(printed) == 1, served.log.read_text()
        yield There(served, printed[0], sim, folder)


def command(data: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a `darkroom` command beside the server with this data folder."""
    return warm.command(arguments, environ=clean_environ(DARKROOM_DATA=str(data), **environ))


def test_a_stranger_behind_a_proxy_that_says_nothing(there: There) -> None:
    """It buys nothing and makes no key; the owner, through the same proxy, has both."""
    taken = len(there.sim.books.taken)
    with plain_proxy(there.served.root) as outside:
        with caller(outside) as stranger:
            for answer in (
                ask(stranger),
                stranger.post("/keys", json={"name": "mine", "admin": True}),
                stranger.get("/keys"),
                stranger.get("/models"),
                httpx.get(f"{outside}/metrics"),
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), answer.url
        assert len(there.sim.books.taken) == taken
        with caller(outside, key=there.key) as owner:
            assert ask(owner).status_code == 200
            assert [key["name"] for key in owner.get("/keys").json()["data"]] == ["first key"]
    assert len(there.sim.books.taken) == taken + 1


def test_the_key_is_kept(there: There) -> None:
    """In the data folder, for this account alone, where the commands find it; and nowhere else."""
    path = there.data / "api-key"
    asked = command(there.data, "route", str(COFFEE), "model=clarity-upscaler", "--url", there.served.root)

    assert path.read_text() == f"{there.key}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert asked.returncode == 0, asked.stderr
    assert "replicate" in asked.stdout
    assert there.served.log.read_text().count(there.key) == 1
    for name in there.data.iterdir():
        assert name == path or not name.is_file() or there.key.encode() not in name.read_bytes(), name


def test_the_kept_key_goes_to_this_machine_alone(there: There) -> None:
    """A command that is sent to another address does not take it along."""
    with listener("127.0.0.2") as listening, ThreadPoolExecutor(1) as pool:

        def receive() -> bytes:
            link, _ = listening.accept()
            with link:
                data = link.recv(65536)
                link.sendall(b"HTTP/1.1 401 No\r\ncontent-length: 26\r\n\r\n" + b'{"error": {"message": ""}}')
                return data

        heard = pool.submit(receive)
        url = f"http://127.0.0.2:{listening.getsockname()[1]}"
        asked = command(there.data, "route", str(COFFEE), "model=clarity-upscaler", "--url", url)
        assert b"POST /openai/v1/images/edits" in heard.result(30)
        assert b"authorization" not in heard.result().lower()
    assert asked.returncode == 1


def test_the_key_is_found_again(there: There, tmp_path: Path) -> None:
    """Another start on the same ledger makes none, and says only where the first is."""
    (tmp_path / "data").symlink_to(there.data)
    with serving(tmp_path, (), paying(there.sim)) as again:
        log = again.log.read_text()
        assert not KEY.search(log)
        assert f"API key: stored in {tmp_path / 'data' / 'api-key'}" in log
        with caller(again.root, key=there.key) as owner, caller(again.root) as stranger:
            assert owner.get("/models").status_code == 200
            assert stranger.get("/models").status_code == 401


def test_no_auth(there: There, tmp_path: Path) -> None:
    """Whoever says so has a server that buys without a key; keys are made with one all the same."""
    with serving(tmp_path, ["--no-auth"], paying(there.sim)) as served, caller(served.root) as anybody:
        log = served.log.read_text()
        assert "No API key is required" in log
        assert "spend your money at replicate" in log
        assert not KEY.search(log)
        assert not (tmp_path / "data" / "api-key").exists()
        assert ask(anybody).status_code == 200
        for answer in (
            anybody.post("/keys", json={"name": "mine"}),
            anybody.get("/keys"),
            anybody.delete("/keys/key_1"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        made = command(tmp_path / "data", "keys", "create", "--name", "boss", "--admin")
        with caller(served.root, key=made.stdout.strip()) as boss:
            assert boss.get("/keys").status_code == 200
        assert ask(anybody).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "environ", "told"),
    [
        (["--no-auth", "--host", "0.0.0.0"], {}, "0.0.0.0 and --no-auth"),
        (["--host", "::"], {AUTH: "none"}, ":: and --no-auth"),
        (
            ["--no-auth"],
            {"DARKROOM_API_KEYS": api_key("one")},
            "DARKROOM_API_KEYS or DARKROOM_ADMIN_KEY is set",
        ),
        ([], {"DARKROOM_API_KEYS": "change-me"}, "DARKROOM_API_KEYS: the key has 9 characters"),
        ([], {"DARKROOM_ADMIN_KEY": "replace-me"}, "DARKROOM_ADMIN_KEY: the key has 10 characters"),
    ],
)
def test_what_a_server_does_not_start_with(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], told: str
) -> None:
    """A sentence that says why, the status 2, and nothing is listened on."""
    given = clean_environ(FAL_KEY="a:b", **environ)
    ran = warm.command(["serve", "--port", "1", *arguments], environ=given, folder=tmp_path)

    assert ran.returncode == 2
    assert told in ran.stderr
    assert "change-me" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_keys_that_come_and_go(tmp_path: Path) -> None:
    """Without a provider the first key ends the calls without one, and with the last one revoked they are back."""
    data = tmp_path / "data"
    with serving(tmp_path, environ=QUICK) as served, plain_proxy(served.root) as outside:

        def status() -> int:
            with caller(served.root, key="none") as client:
                return ask(client, model="lanczos-bp").status_code

        assert status() == 200
        # The stranger cannot be told from the owner: it may enlarge pictures, and takes over nothing.
        with caller(outside) as stranger:
            assert ask(stranger, model="lanczos-bp").status_code == 200
            assert stranger.post("/keys", json={"name": "mine", "admin": True}).status_code == 401
        assert "no API keys" in command(data, "keys", "list").stdout
        made = command(data, "keys", "create", "--name", "one")
        assert "This is the only API key. Within 2 s servers refuse requests without a key" in made.stderr
        one = str(id_of(made.stdout.strip()))
        assert f"or undo this with: darkroom keys revoke {one}" in made.stderr
        until(lambda: status() == 401, "a key is needed", 5)
        another = command(data, "keys", "create", "--name", "two")
        assert "Running clients are not affected" in another.stderr
        assert "the last API key" not in command(data, "keys", "revoke", one).stderr
        until(lambda: status() == 401, "a key is needed", 5)
        assert (
            "That was the last API key." in command(data, "keys", "revoke", str(id_of(another.stdout.strip()))).stderr
        )
        until(lambda: status() == 200, "no key is needed", 5)
        with caller(served.root, key=another.stdout.strip()) as revoked:
            assert revoked.get("/models").status_code == 401


@pytest.fixture(params=["sqlite", "postgres"])
def ledgers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Engine]]:
    """Engines of processes that share an empty ledger."""
    url = request.getfixturevalue("postgres_ledger") if request.param == "postgres" else None
    made: list[Engine] = []

    def engine() -> Engine:
        made.append(open_engine(url, tmp_path / "ledger", writes=True))
        return made[-1]

    migrate(engine())
    yield engine
    for one in made:
        one.dispose()


def good(engine: Engine) -> list[str]:
    """The ids of the keys that are not revoked."""
    with engine.begin() as connection:
        return [api_key.id for api_key in key_store.every(connection) if api_key.revoked_at is None]


@pytest.mark.parametrize("shared", [True, False])
def test_many_start_at_once(ledgers: Callable[[], Engine], tmp_path: Path, shared: bool) -> None:
    """However many there are, on one data folder or each on its own: one key, and one of them that prints it."""
    count = 8
    start = threading.Barrier(count)
    engines = [ledgers() for _ in range(count)]

    def begin(number: int) -> FirstKey | None:
        data = tmp_path / ("data" if shared else f"data-{number}")
        start.wait(30)
        return ensure(engines[number], data, make=True)

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(begin, range(count)))

    [key] = [first.key for first in found if first is not None and first.key is not None]
    told = [first for first in found if first is not None]
    assert good(engines[0]) == [id_of(key)]
    assert len(told) == (count if shared else 1)
    assert first_key.read(told[0].path.parent) == key


def test_a_start_that_was_killed(ledgers: Callable[[], Engine], tmp_path: Path) -> None:
    """A key that is in the file and not yet in the ledger is taken up, and not printed."""
    engine, key = ledgers(), draw()[1]
    first_key.write(tmp_path, key)

    assert ensure(engine, tmp_path, make=False) is None
    first = ensure(engine, tmp_path, make=True)

    assert first == FirstKey(tmp_path / "api-key")
    assert good(engine) == [id_of(key)]


def test_after_all_are_revoked(ledgers: Callable[[], Engine], tmp_path: Path) -> None:
    """The next start makes another first key: a revoked one does not come back, though it is still in the file."""
    engine = ledgers()
    first = ensure(engine, tmp_path, make=True)
    assert first is not None
    with engine.begin() as connection:
        key_store.revoke(connection, str(id_of(str(first.key))), 1.0)
    again = ensure(engine, tmp_path, make=True)

    assert again is not None
    assert again.key not in (None, first.key)
    assert good(engine) == [id_of(str(again.key))]
    assert first_key.read(tmp_path) == again.key


def test_a_folder_that_cannot_be_written(ledgers: Callable[[], Engine], tmp_path: Path) -> None:
    """The start ends with a sentence that says what would work, and no key is left that nobody has."""
    engine, data = ledgers(), tmp_path / "a-file" / "data"
    data.parent.write_text("in the way")

    with pytest.raises(ConfigError, match="requests cost money, so they need a key") as caught:
        ensure(engine, data, make=True)

    assert "darkroom keys create" in str(caught.value)
    assert good(engine) == []


def test_a_file_that_holds_no_key(ledgers: Callable[[], Engine], tmp_path: Path) -> None:
    """It is not overwritten: whoever put it there is told."""
    (tmp_path / "api-key").write_text("my own notes")

    with pytest.raises(ConfigError, match="holds no API key: delete it"):
        ensure(ledgers(), tmp_path, make=True)

    assert (tmp_path / "api-key").read_text() == "my own notes"


def test_rotation(tmp_path: Path) -> None:
    """A new key takes the place of the kept one; revoking what is kept deletes the file."""
    made = [command(tmp_path, "keys", "create", "--name", "me", "--admin", "--keep") for _ in range(2)]
    old, new = (one.stdout.strip() for one in made)
    assert first_key.read(tmp_path) == new
    assert "was deleted" not in command(tmp_path, "keys", "revoke", str(id_of(old))).stderr
    assert first_key.read(tmp_path) == new
    assert "was deleted" in command(tmp_path, "keys", "revoke", str(id_of(new))).stderr
    assert first_key.read(tmp_path) is None
