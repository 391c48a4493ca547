"""Everything that remembers, built once by the lifespan and handed to every request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.access.doors import Doors
from gateway.access.load import Load
from gateway.api.addresses import Fetching
from gateway.config import Config
from gateway.jobs.execute import upstream
from gateway.jobs.files import Files
from gateway.jobs.imaging import Imaging
from gateway.jobs.job import Jobs
from gateway.jobs.received import Received
from gateway.jobs.reports import Reports
from gateway.routing.breaker import Breakers
from gateway.routing.learning import Learning
from gateway.routing.select import Condition
from gateway.webhooks.secret import Secrets
from normalization.model import Model
from providers.base import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The parts of a running gateway."""

    config: Config
    doors: Doors
    load: Load
    providers: Mapping[str, Provider]
    imaging: Imaging
    files: Files
    received: Received
    jobs: Jobs
    reports: Reports
    secrets: Secrets
    fetching: Fetching
    breakers: Breakers
    learning: Learning

    def conditions(self, model: Model) -> dict[str, Condition]:
        """How each route of a model is at the moment, by the route's name."""
        found = {}
        for name, route in model.routes.items():
            readiness, detail = self.providers[route.provider].readiness(upstream(route))
            standing, left = self.breakers.standing(model.id, name, route.provider)
            found[name] = Condition(
                readiness=readiness,
                detail=detail,
                announced=self.providers[route.provider].announced(upstream(route)),
                standing=standing,
                left=left,
                lesson=self.learning.lesson(model.id, name),
            )
        return found
