"""The HTTP application: parts put together, nothing decided here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.routing import APIRoute

from pilotage import __version__
from pilotage.service import errors
from pilotage.service.access import GATE
from pilotage.service.context import Service
from pilotage.service.credentials import Keys, PilotTokens
from pilotage.service.envelope import Envelope
from pilotage.service.logs import Logs
from pilotage.service.metrics import Metrics
from pilotage.service.openapi import DESCRIPTION, TAGS, describe
from pilotage.service.routers import files, jobs, node, pilots, system, tokens
from pilotage.service.settings import MIB, Settings

if TYPE_CHECKING:
    from pilotage.configuration import Configuration
    from pilotage.engines.builtin import BuiltinEngine
    from pilotage.storage import Storage


def create_app(
    storage: Storage,
    engine: BuiltinEngine,
    configuration: Configuration,
    keys: Keys,
    settings: Settings | None = None,
    on_demand: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application over parts that the caller has started and will close.

    :param keys: from `credentials.load`; ``keys.engine`` is what the caller gave the engine
    :param on_demand: called after jobs were submitted or came back, so that directors look at once; must not block
    """
    settings = settings or Settings()
    app = FastAPI(
        title="Pilotage",
        version=__version__,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        redoc_url=None,
        dependencies=GATE,
        generate_unique_id_function=_operation,
        redirect_slashes=False,
    )
    metrics = Metrics(storage, settings.metrics_seconds)
    logs = Logs(storage, settings.max_log_mib * MIB)
    tokens_of_pilots = PilotTokens(keys, settings.token_seconds)
    app.state.service = Service(storage, engine, configuration, tokens_of_pilots, settings, on_demand, metrics, logs)
    app.add_middleware(Envelope, metrics=metrics)
    errors.install(app)
    for router in (jobs.router, files.router, pilots.router, tokens.router, system.router, node.router):
        app.include_router(router)
    describe(app)
    return app


def _operation(route: APIRoute) -> str:
    return route.name
