"""The map is true: what docs/architecture.md, docs/glossary.md and CONTRIBUTING.md say of the code is held to it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from gateway.jobs.errors import MOST_KILLS
from gateway.ledger.records import STATES, AttemptRow
from gateway.settings import ProvidersFile
from providers.errors import ProviderError
from tests.support.paths import ROOT
from tests.unit.test_layers import FOLDERS, imports, modules

PAGES: Mapping[str, Path] = {
    "architecture": ROOT / "docs" / "architecture.md",
    "glossary": ROOT / "docs" / "glossary.md",
    "contributing": ROOT / "CONTRIBUTING.md",
}
TEXTS = {name: path.read_text() for name, path in PAGES.items()}
ARCHITECTURE, GLOSSARY = TEXTS["architecture"], TEXTS["glossary"]
TOPS = ("config", "docs", "gateway", "normalization", "providers", "tests", ".ci")
# A path may have a placeholder: `providers/<name>/`.
NAMED = re.compile(rf"`((?:{'|'.join(map(re.escape, TOPS))})/[^`\s<>]*)`")
# Words that have another one here. A document may name them only to say so.
UNUSED = re.compile(
    r"\b(pictures?|callers?|grants?|wish(?:es)?|journal|bells?|postman|keeper|strangers?|whoever|told|heard|so many)\b",
    re.IGNORECASE,
)
MOST_CHARACTERS = 120


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    section = text.partition(f"\n{heading}\n")[2]
    assert section, heading
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines is not None
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[0].splitlines()]
    return [[cell.strip("| ") for cell in row] for row in table[2:]]


def block(text: str, heading: str, language: str) -> str:
    """The first fenced block of a language below a heading."""
    found = re.search(rf"```{language}\n(.*?)```", text.partition(f"\n{heading}\n")[2], re.DOTALL)
    assert found is not None
    return found[1]


@cache
def definitions() -> frozenset[str]:
    """Every name that a module of the project defines at its top level."""
    pattern = re.compile(r"^(?:class|def|async def) (\w+)|^(\w+)(?:: [^=]+)? = ", re.MULTILINE)
    return frozenset(a or b for _, path in modules() for a, b in pattern.findall(path.read_text()))


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page: str) -> None:
    """Each file and folder that a page names is there."""
    named = NAMED.findall(TEXTS[page])

    assert len(named) > 5
    assert not {path for path in named if not (ROOT / path).exists()}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Each relative link is a file of the repository, and a heading of it where it names one."""
    links = re.findall(r"\]\(([^):\s]+)\)", TEXTS[page])

    assert links
    for link in links:
        target, _, anchor = link.partition("#")
        path = PAGES[page].parent / target if target else PAGES[page]
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_short(page: str) -> None:
    """A line of prose fits into a window; a row of a table is one line."""
    assert not [line for line in TEXTS[page].splitlines() if len(line) > MOST_CHARACTERS and not line.startswith("|")]


@pytest.mark.parametrize("page", PAGES)
def test_words(page: str) -> None:
    """The pages keep to the glossary: a word that it lists as not used stands nowhere but in that list."""
    lines = TEXTS[page].splitlines()
    if page == "glossary":
        lines = [line.rpartition(" | ")[0] if line.startswith("|") else line for line in lines]

    assert not [line for line in lines if UNUSED.search(re.sub(r"`[^`]*`", "", line))]


def test_every_command_works() -> None:
    """Each make target and each command that CONTRIBUTING names is there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"\bdarkroom ([a-z]+)", TEXTS["contributing"]))

    assert set(re.findall(r"^make ([a-z-]+)", TEXTS["contributing"], re.MULTILINE)) <= targets
    assert commands == {"check", "route", "worker"}
    assert all(f'"{command}"' in (ROOT / "gateway" / "__main__.py").read_text() for command in commands)


def test_the_pages_are_linked() -> None:
    """The README and the page on tests lead to the map and to the rules."""
    for page in ("README.md", "docs/testing.md"):
        text = (ROOT / page).read_text()
        assert "architecture.md)" in text, page
        assert "CONTRIBUTING.md)" in text, page


@pytest.mark.parametrize("row", rows(ARCHITECTURE, "## Where is …?"), ids=lambda row: row[0][:60])
def test_questions(row: list[str]) -> None:
    """The file that answers a question has the name that the table gives, and nothing there is out of date."""
    _, place, name = row
    path = ROOT / NAMED.findall(place)[0]

    assert re.search(rf"\b{re.escape(name.strip('`'))}\b", path.read_text()), row


def test_files_that_the_questions_are_about() -> None:
    """The questions of a newcomer are all answered."""
    asked = " ".join(row[0] for row in rows(ARCHITECTURE, "## Where is …?"))

    for word in ("429", "`size`", "budget", "retries", "HTTP status", "alpha", "provider", "converter"):
        assert word in asked, word


def test_error_policy() -> None:
    """The table of errors says of each class what the class itself says."""
    kinds = {cls.__name__: cls for parent in ProviderError.__subclasses__() for cls in (parent, *every(parent))}
    answers = {True: "yes", False: "no", None: "perhaps"}
    expected = {
        name: (answers[kind.next_route], kind.health, answers[getattr(kind, "billed")])  # noqa: B009 - of the class
        for name, kind in kinds.items()
    }
    found = {row[0].strip("`"): (row[2], row[3], row[4]) for row in rows(ARCHITECTURE, "## The error policy")}

    assert found == expected


def every(kind: type[ProviderError]) -> Iterator[type[ProviderError]]:
    """All classes below one."""
    for below in kind.__subclasses__():
        yield below
        yield from every(below)


def test_which_providers_cancel() -> None:
    """The table of providers has each of them, and says whether it can cancel."""
    found = {row[0].strip("`"): row[2] for row in rows(ARCHITECTURE, "### What a provider can tell and stop")}

    assert set(found) == set(ProvidersFile.model_fields)
    for name, answer in found.items():
        module = importlib.import_module(f"providers.{name}.adapter")
        adapters = [kind for kind in vars(module).values() if getattr(kind, "__module__", "") == module.__name__]
        assert [kind.cancels for kind in adapters if hasattr(kind, "cancels")] == [answer == "yes"], name


def test_states() -> None:
    """The drawing of a job's life has every state of a job and of an attempt, and no other."""
    drawing = block(ARCHITECTURE, "## The life of a job", "mermaid")
    drawn = set(re.findall(r"^\s*(\w+) -->", drawing, re.MULTILINE)) | set(re.findall(r"--> (\w+)", drawing))

    assert drawn == set(STATES) | set(re.findall(r"\w+", str(AttemptRow.__annotations__["state"]))) - {"Literal"}


def test_numbers() -> None:
    """After how many processes a job is given up."""
    assert MOST_KILLS == 5
    assert "ends five processes" in ARCHITECTURE


def drawn() -> list[list[str]]:
    """The rows of the drawing of the folders, from the top: what each has, as a module's name."""
    found: list[list[str]] = []
    top = ""
    for line in block(ARCHITECTURE, "## The folders", "text").splitlines():
        head, rest = line[:17].strip(), re.split(r" {3,}", line[17:].strip())[0]
        top = head.rstrip("/") or top
        if top in ("gateway", "providers", "normalization") and rest and not line.startswith("-"):
            found.append([f"{top}.{name.strip().removesuffix('.py')}" for name in rest.split("|")])
    return found


def test_the_drawing_has_every_folder() -> None:
    """Each folder that states what it may import is drawn."""
    names = {name for row in drawn() for name in row}
    folders = {name for name in FOLDERS if name.count(".") == 1}

    assert not folders - names
    assert all(
        (ROOT / name.replace(".", "/")).exists() or (ROOT / f"{name.replace('.', '/')}.py").exists() for name in names
    )


def test_the_drawing_shows_what_is_imported() -> None:
    """A row imports only what stands in the rows below it."""
    place = {name: at for at, row in enumerate(drawn()) for name in row}

    def of(module: str) -> str | None:
        return next((name for name in place if f"{module}.".startswith(f"{name}.")), None)

    for module, path in modules():
        unit = of(module)
        for name in imports(path) if unit else ():
            other = of(name)
            if unit is not None and other is not None and other != unit:
                assert place[unit] < place[other], f"{module} imports {name}"


def test_every_folder_has_its_line() -> None:
    """The table of the folders has each of them."""
    listed = set(NAMED.findall(" ".join(row[0] for row in rows(ARCHITECTURE, "## The folders"))))
    folders = {f"{name.replace('.', '/')}/" for name in FOLDERS if name.count(".") == 1}

    assert not folders - listed


def test_names_of_the_glossary() -> None:
    """Each class that the glossary, or the table of writes, names is one of the code's."""
    named = {name for text in TEXTS.values() for name in re.findall(r"`([A-Z][a-z]\w+)(?:\.\w+)?`", text)}

    assert len(named) > 40
    assert not named - definitions()


def test_writes() -> None:
    """Each write of the table is a method of the class that it names."""
    source = "\n".join(path.read_text() for _, path in modules())
    found = re.findall(r"`(Ledger|Received|FileStorage)\.(\w+)`", ARCHITECTURE)

    assert len(found) >= 8
    for kind, method in found:
        body = re.split(rf"\nclass {kind}\b.*:\n", source)[1].partition("\nclass ")[0]
        assert re.search(rf"^    (?:async )?def {method}\(", body, re.MULTILINE), f"{kind}.{method}"


def test_the_glossary_explains_each_word_once() -> None:
    """One concept has one word, and no word stands for two; each is explained in one sentence or two."""
    words = re.findall(r"^\| \*\*(.+?)\*\* \| (.*?) \| ", GLOSSARY, re.MULTILINE)

    assert len(words) > 50
    assert len({word for word, _ in words}) == len(words)
    assert not [word for word, meaning in words if not meaning.endswith((".", ")"))]
