"""The worker's config file: the engine, and the settings of each engine."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from providers.worker.engines import SHIPPED
from providers.worker.engines.base import EngineLimits, WeightsUnusable

VARIABLE = "DARKROOM_WORKER_CONFIG"
"""Environment variable with the file's path; the command line takes precedence."""

FILE = Path(__file__).resolve().parents[2] / "config" / "worker.toml"
"""The shipped file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The `[worker]` section of the file; `engines` are the engines' sections, by name.

    `weights` is the folder for weights fetched by `darkroom worker weights fetch`. The command line takes precedence.
    """

    engine: str = "lanczos-bp"
    slots: int | None = None
    max_output_pixels: int | None = None
    weights: Path = Path("weights")
    engines: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def limits(self, max_output_pixels: int | None) -> EngineLimits:
        """Return the operator's limits: the argument takes precedence over the file, and the file over the default."""
        return EngineLimits(
            max_output_pixels=max_output_pixels or self.max_output_pixels or EngineLimits().max_output_pixels
        )

    def options(self, engine: str) -> Mapping[str, object]:
        """Return the settings of an engine, with the weights folder; empty if it has no section."""
        found = self.engines.get(engine)
        return {**found, "weights": self.weights} if found is not None else {}


def read(path: Path | None = None) -> Settings:
    """Read `path`, else the file named in the environment, else the shipped one.

    A relative weights folder is below DARKROOM_DATA (default: `.darkroom`). Raises WeightsUnusable, with the file's
    name, if the file cannot be read or contains unknown keys.
    """
    path = path or Path(os.environ.get(VARIABLE) or FILE)
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise WeightsUnusable(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeightsUnusable(f"{path}: {error}") from error
    try:
        return _settings(document)
    except WeightsUnusable as error:
        raise WeightsUnusable(f"{path}: {error}") from error


def _settings(document: Mapping[str, object]) -> Settings:
    sections = {name: section for name, section in document.items() if isinstance(section, dict)}
    if loose := document.keys() - sections.keys():
        raise WeightsUnusable(f"{', '.join(sorted(loose))} must be in a section: [worker], or [an engine's name]")
    own = sections.pop("worker", {})
    for name in sections:
        # Sections of custom engines are named module:Class.
        if name not in SHIPPED and ":" not in name:
            raise WeightsUnusable(f"[{name}] is not an engine; use {', '.join(SHIPPED)}, or module:Class")
    known = {one.name for one in fields(Settings)} - {"engines"}
    if unknown := own.keys() - known:
        raise WeightsUnusable(
            f"[worker] has no key {', '.join(sorted(unknown))}; the keys are {', '.join(sorted(known))}"
        )
    data = Path(os.environ.get("DARKROOM_DATA", ".darkroom"))
    return Settings(
        engine=_text(own, "engine", "lanczos-bp"),
        slots=_positive(own, "slots"),
        max_output_pixels=_positive(own, "max_output_pixels"),
        weights=data / Path(_text(own, "weights", "weights")).expanduser(),
        engines=sections,
    )


def _text(section: Mapping[str, object], name: str, default: str) -> str:
    value = section.get(name, default)
    if not isinstance(value, str) or not value:
        raise WeightsUnusable(f"[worker] {name} must be a text, not {value!r}")
    return value


def _positive(section: Mapping[str, object], name: str) -> int | None:
    value = section.get(name)
    # 0 means the default, because TOML has no null.
    if not isinstance(value, int | None) or isinstance(value, bool) or (value is not None and value < 0):
        raise WeightsUnusable(f"[worker] {name} must be a non-negative integer, not {value!r}")
    return value or None
