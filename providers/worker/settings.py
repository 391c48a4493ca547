"""The worker's config file: which engine, and each engine's settings."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from providers.worker.engines import SHIPPED
from providers.worker.engines.base import EngineLimits, WeightsUnusable

VARIABLE = "DARKROOM_WORKER_CONFIG"
"""Names the file, where the command line does not."""

FILE = Path(__file__).resolve().parents[2] / "config" / "worker.toml"
"""The file as it ships."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the section `worker` of the file says; `engines` are the sections of the engines, by name.

    `weights` is the folder for what `darkroom worker weights fetch` fetches. The command line comes first.
    """

    engine: str = "lanczos-bp"
    slots: int | None = None
    max_output_pixels: int | None = None
    weights: Path = Path("weights")
    engines: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def limits(self, max_output_pixels: int | None) -> EngineLimits:
        """Return what the operator allows: what he gave by other means comes first, then the file, then the default."""
        return EngineLimits(
            max_output_pixels=max_output_pixels or self.max_output_pixels or EngineLimits().max_output_pixels
        )

    def options(self, engine: str) -> Mapping[str, object]:
        """Return the settings of an engine, with the folder of the weights where it has any."""
        found = self.engines.get(engine)
        return {**found, "weights": self.weights} if found is not None else {}


def read(path: Path | None = None) -> Settings:
    """Read the file: `path`, or the one that the environment names, or the one that ships.

    A folder of weights that is not absolute lies under DARKROOM_DATA (default: `.darkroom`). Raises WeightsUnusable,
    with the file's name, for what cannot be read and for what nobody knows.
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
        raise WeightsUnusable(
            f"{', '.join(sorted(loose))} stands outside of every section: [worker], or [an engine's name]"
        )
    own = sections.pop("worker", {})
    for name in sections:
        # Another engine's section has its own name, which is module:Class.
        if name not in SHIPPED and ":" not in name:
            raise WeightsUnusable(f"[{name}] is no engine: there are {', '.join(SHIPPED)}, or module:Class")
    known = {one.name for one in fields(Settings)} - {"engines"}
    if unknown := own.keys() - known:
        raise WeightsUnusable(f"[worker] has no {', '.join(sorted(unknown))}: there are {', '.join(sorted(known))}")
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
        raise WeightsUnusable(f"[worker] {name} is no text: {value!r}")
    return value


def _positive(section: Mapping[str, object], name: str) -> int | None:
    value = section.get(name)
    # 0 stands for the default: TOML has no word for nothing.
    if not isinstance(value, int | None) or isinstance(value, bool) or (value is not None and value < 0):
        raise WeightsUnusable(f"[worker] {name} is no number from 0 on: {value!r}")
    return value or None
