"""Everything that remembers, built once by the lifespan and handed to every request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.auth.authenticator import Doors
from gateway.http.admission import Load
from gateway.http.image_urls import Fetching
from gateway.imaging.pool import Imaging
from gateway.jobs.executor import upstream
from gateway.jobs.manager import Jobs
from gateway.jobs.received import Received
from gateway.ledger.reports import Reports
from gateway.routing.breaker import Breakers
from gateway.routing.pricing import Learning
from gateway.routing.selection import Condition
from gateway.settings.loader import Config
from gateway.storage import Files
from gateway.webhooks.signing import Secrets
from normalization.parameters.schema import Model
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
