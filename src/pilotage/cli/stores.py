"""Database and object store as the configuration has them; `pilotage storage`. Only the service's side imports this."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CliError

if TYPE_CHECKING:
    from pilotage.configuration import Configuration
    from pilotage.configuration.references import Secret
    from pilotage.storage import Storage
    from pilotage.storage.objects import Objects

REACH_SECONDS = 30.0
"""How long the object store may take for its first answer."""


@contextlib.asynccontextmanager
async def opened(configuration: Configuration, data: Path) -> AsyncIterator[Storage]:
    """The storage of an all-in-one, open; what the configuration does not say lies in ``data``.

    :raises CliError: a store cannot be used, or a secret is not where the configuration says
    """
    from pilotage.storage import Storage
    from pilotage.storage.errors import SchemaError

    storage = Storage(database_url(configuration, data), await _objects(configuration, data))
    try:
        await storage.start()
    except SchemaError as error:
        raise CliError(f"the database {database_name(configuration, data)} cannot be used: {error}") from error
    try:
        yield storage
    finally:
        await storage.close()


def database_url(configuration: Configuration, data: Path) -> str:
    """The database's URL, its password included: not for the eyes of people (see `database_name`)."""
    from sqlalchemy.engine import make_url

    database = configuration.service.database
    if database.url is None:
        return f"sqlite:///{data / 'pilotage.sqlite'}"
    url = make_url(database.url)
    if database.password is not None:
        url = url.set(password=_read(configuration, database.password, "database", "password"))
    return url.render_as_string(hide_password=False)


def database_name(configuration: Configuration, data: Path) -> str:
    """The database as people may read it."""
    url = configuration.service.database.url  # the schema refuses a password here
    return f"in {data}" if url is None else url


async def _objects(configuration: Configuration, data: Path) -> Objects:
    from pilotage.storage.objects import Objects

    of = configuration.service.objects
    if of.url is None:
        return Objects(str(data / "objects"))
    try:
        objects = Objects(of.url, _options(configuration))
        await asyncio.wait_for(objects.ready(), REACH_SECONDS)
    except TimeoutError:
        raise CliError(f"the object store {of.url} does not answer (within {REACH_SECONDS:.0f} s)") from None
    except CliError:
        raise
    except Exception as error:  # obstore has many, and of no common kind
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise CliError(f"the object store {of.url} cannot be used: {why}") from error
    return objects


def _options(configuration: Configuration) -> dict[str, Any]:
    """What obstore is told; a value that is not given is left to the environment."""
    of = configuration.service.objects
    if not (of.url or "").startswith("s3:"):
        return {}
    secrets = {
        "access_key_id": of.access_key_id,
        "secret_access_key": of.secret_access_key,
        "session_token": of.session_token,
    }
    options: dict[str, Any] = {
        name: _read(configuration, secret, "objects", name) for name, secret in secrets.items() if secret is not None
    }
    options |= {name: value for name, value in (("endpoint", of.endpoint), ("region", of.region)) if value}
    if of.virtual_hosted_style:
        options["virtual_hosted_style_request"] = True
    return {**options, "allow_http": of.allow_http}


def _read(configuration: Configuration, secret: Secret, *path: str) -> str:
    try:
        return secret.read()
    except ValueError as error:
        where = configuration.where(("service", *path))
        raise CliError(f"{where}: service.{'.'.join(path)}: {error}") from None
