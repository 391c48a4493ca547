"""Pages that are generated stay current, and the README keeps its promises about names."""

import re

from gateway.cli.check import page
from gateway.settings import ProvidersFile
from gateway.settings.loader import Config
from providers.errors import ProviderError
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text()


def test_models_page_is_current(shipped: Config) -> None:
    """docs/models.md is what `make docs` writes from the shipped config."""
    assert (ROOT / "docs" / "models.md").read_text() == page(shipped), "run: make docs"


def test_every_error_code_is_in_the_readme() -> None:
    """A code that a caller may get by way of a status is explained in the README's table."""
    found: set[str] = set()
    for path in (ROOT / "gateway" / "api").glob("*.py"):
        found |= set(re.findall(r'code="([a-z_]+)"', path.read_text()))

    assert {"no_route", "model_not_found"} <= found
    missing = {code for code in found if f"`{code}`" not in README}
    assert not missing


def test_every_make_target_works_from_the_readme() -> None:
    """Every `make x` that the README names is a target."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = set(re.findall(r"make ([a-z-]+)", README)) - {"and", "a"}
    assert named <= targets, named - targets
    assert {"run", "test"} <= named


def test_links_lead_somewhere() -> None:
    """Every relative link of the README is a file of the repository."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_paths_of_the_threat_model_exist() -> None:
    """What stops an attack, and what shows it, is there."""
    named = set(
        re.findall(r"`((?:config|gateway|normalization|providers|tests)/[^`]+)`", (ROOT / "SECURITY.md").read_text())
    )

    assert len(named) > 40
    assert not {path for path in named if not (ROOT / path).exists()}


def test_every_provider_error_is_in_the_readme() -> None:
    """Each class of the error tree, which carries the policy of the failover, is explained in the README."""
    names = {cls.__name__ for parent in ProviderError.__subclasses__() for cls in (parent, *parent.__subclasses__())}

    assert "Unknown" in names
    assert not {name for name in names if f"| {name}: " not in README}


def test_every_provider_is_in_the_readme() -> None:
    """Each section of providers.toml, with the variable of its key."""
    for name, settings in ProvidersFile():
        assert f"| `{name}` |" in README
        assert f"`{getattr(settings, 'key_env', 'REPLICATE_API_TOKEN')}`" in README
