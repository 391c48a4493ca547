"""The long-lived parts of a running gateway, built once by the lifespan and shared by all requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.auth.authenticator import Authenticator
from gateway.http.admission import AdmissionControl
from gateway.http.image_urls import ImageFetcher
from gateway.imaging.pool import ImagePool
from gateway.jobs.executor import upstream
from gateway.jobs.manager import JobManager
from gateway.jobs.received import Received
from gateway.ledger.reports import Reports
from gateway.routing.breaker import Breakers
from gateway.routing.pricing import RunStatsStore
from gateway.routing.selection import RouteHealth
from gateway.settings.loader import Config
from gateway.storage import FileStorage
from gateway.webhooks.signing import SigningKeys
from normalization.parameters.schema import Model
from providers.base import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The parts of a running gateway."""

    config: Config
    authenticator: Authenticator
    load: AdmissionControl
    providers: Mapping[str, Provider]
    imaging: ImagePool
    files: FileStorage
    received: Received
    jobs: JobManager
    reports: Reports
    secrets: SigningKeys
    fetching: ImageFetcher
    breakers: Breakers
    learning: RunStatsStore

    def conditions(self, model: Model) -> dict[str, RouteHealth]:
        """The current health of each route of a model, by the route's name."""
        found = {}
        for name, route in model.routes.items():
            readiness, detail = self.providers[route.provider].readiness(upstream(route))
            standing, left = self.breakers.standing(model.id, name, route.provider)
            found[name] = RouteHealth(
                readiness=readiness,
                detail=detail,
                announced=self.providers[route.provider].announced(upstream(route)),
                standing=standing,
                left=left,
                lesson=self.learning.lesson(model.id, name),
            )
        return found
