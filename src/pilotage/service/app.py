"""The HTTP application: parts put together, nothing decided here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
from pilotage.service.revisions import Revisions
from pilotage.service.routers import configuration, files, jobs, node, pilots, resources, seeds, system, tokens
from pilotage.service.settings import MIB, Settings

if TYPE_CHECKING:
    from pilotage.configuration.live import Live
    from pilotage.engines.builtin import BuiltinEngine
    from pilotage.storage import Storage


def create_app(
    storage: Storage,
    engine: BuiltinEngine,
    live: Live,
    keys: Keys,
    settings: Settings | None = None,
    on_demand: Callable[[], None] = lambda: None,
    describe_resources: Callable[[], list[dict[str, Any]]] = list,
) -> FastAPI:
    """The application over parts that the caller has started and will close.

    :param keys: from `credentials.load`; ``keys.engine`` is what the caller gave the engine
    :param on_demand: called after jobs were submitted or came back, so that directors look at once; must not block
    :param describe_resources: what directors say of each resource (`Directors.describe`)
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
    app.state.service = Service(
        storage,
        engine,
        live,
        Revisions(storage, live, live.below),
        tokens_of_pilots,
        settings,
        on_demand,
        metrics,
        logs,
        describe_resources,
    )
    app.add_middleware(Envelope, metrics=metrics)
    errors.install(app)
    for each in (jobs, files, pilots, resources, configuration, tokens, system, node, seeds):
        app.include_router(each.router)
    describe(app)
    return app


def _operation(route: APIRoute) -> str:
    return route.name
