"""What the routes of one application share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

from pilotage.service.errors import ApiError

if TYPE_CHECKING:
    from pilotage.configuration import Configuration
    from pilotage.engines.builtin import BuiltinEngine
    from pilotage.service.credentials import PilotTokens
    from pilotage.service.logs import Logs
    from pilotage.service.metrics import Metrics
    from pilotage.service.settings import Settings
    from pilotage.storage import Storage


class Budget:
    """So many a minute and no more: what a stranger can make us write must be bounded."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._minute = 0.0
        self._left = 0

    def spend(self, now: float) -> bool:
        """Whether there is one more for this minute."""
        if now - self._minute >= 60:
            self._minute, self._left = now, self._per_minute
        self._left -= 1
        return self._left >= 0


@dataclass(slots=True)
class Service:
    """The application's parts, as handed to `create_app`, and what it made of them."""

    storage: Storage
    engine: BuiltinEngine
    configuration: Configuration
    pilot_tokens: PilotTokens
    settings: Settings
    on_demand: Callable[[], None]
    metrics: Metrics
    logs: Logs
    refusals: Budget = field(default_factory=lambda: Budget(60))

    def require_capacity(self) -> None:
        """Raises ApiError 503 with Retry-After when the database is too far behind to promise anything."""
        if self.storage.backlog > self.settings.max_pending:
            wait = {"Retry-After": str(self.settings.retry_after)}
            raise ApiError(503, "busy", "The service is busy; come again later.", wait)

    def again_seconds(self) -> float:
        """How long a pilot should stay away at least: nothing, until half of what is refused is waiting."""
        load = self.storage.backlog / self.settings.max_pending
        return self.settings.retry_after * load if load > 0.5 else 0.0


def service_of(request: Request) -> Service:
    """The parts of the application that got this request."""
    service: Service = request.app.state.service
    return service


def request_id_of(request: Request) -> str:
    """The id of this request, the caller's or ours: in the answer's header, in events, in the log."""
    text: str = request.scope["pilotage_request"]
    return text
