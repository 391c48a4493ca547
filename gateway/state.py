"""Everything that remembers, built once by the lifespan and handed to every request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.access.keys import Keys
from gateway.config import Config
from gateway.jobs.execute import upstream
from gateway.jobs.files import Files
from gateway.jobs.imaging import Imaging
from gateway.jobs.job import Jobs
from normalization.model import Model
from providers.base import Provider, Readiness


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The parts of a running gateway."""

    config: Config
    keys: Keys
    providers: Mapping[str, Provider]
    imaging: Imaging
    files: Files
    jobs: Jobs

    def readiness(self, model: Model) -> dict[str, tuple[Readiness, str]]:
        """Whether each route of a model can take work now, by the route's name."""
        return {name: self.providers[route.provider].readiness(upstream(route)) for name, route in model.routes.items()}
