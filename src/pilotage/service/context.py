"""What the routes of one application share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from pilotage.service.errors import ApiError

if TYPE_CHECKING:
    from pilotage.configuration import Configuration
    from pilotage.configuration.live import Live
    from pilotage.engines.builtin import BuiltinEngine
    from pilotage.service.credentials import PilotTokens
    from pilotage.service.logs import Logs
    from pilotage.service.metrics import Metrics
    from pilotage.service.revisions import Revisions
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
    """The application's parts, as handed to `create_app`, and what it made of them.

    :ivar resources: tells what the directors say of each resource (`Directors.describe`)
    """

    storage: Storage
    engine: BuiltinEngine
    live: Live
    revisions: Revisions
    pilot_tokens: PilotTokens
    settings: Settings
    on_demand: Callable[[], None]
    metrics: Metrics
    logs: Logs
    resources: Callable[[], list[dict[str, Any]]] = list
    refusals: Budget = field(default_factory=lambda: Budget(60))

    @property
    def configuration(self) -> Configuration:
        """The one that counts now; take it once for the whole of an answer."""
        return self.live.current

    def reconfigure(self, token_seconds: int, urls: tuple[str, ...]) -> None:
        """What the configuration says of the service itself, from now on."""
        self.settings = replace(self.settings, token_seconds=token_seconds, urls=urls)
        self.pilot_tokens.seconds = token_seconds

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
