"""`pilotage storage`: what an operator does to the database while the service is down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .access import data_directory
from .errors import CliError

app = typer.Typer(help="Look after the database of a service that is stopped.", no_args_is_help=True)


@app.callback()
def storage() -> None:
    """Look after the database of a service that is stopped."""


@app.command()
def migrate(
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Data directory (default: PILOTAGE_DATA).")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration file, as for `up`.")] = None,
) -> None:
    """Bring the database of an older Pilotage up to this one, in one transaction.

    Stop the service first. A database that is up to date is left as it is.
    """
    from .generate import load_configuration
    from .up import locked

    place = data_directory(data)
    configuration = load_configuration(config)
    if configuration.service.database.url is None and not (place / "pilotage.sqlite").exists():
        raise CliError(f"there is no database in {place}")
    with locked(place):
        from pilotage.storage import migrate as apply
        from pilotage.storage.errors import SchemaError

        from .stores import database_name, database_url

        try:
            done = apply(database_url(configuration, place))
        except SchemaError as error:
            name = database_name(configuration, place)
            raise CliError(f"the database {name} cannot be migrated: {error}") from error
    print(f"Applied {', '.join(done)}." if done else "The database is up to date.")
