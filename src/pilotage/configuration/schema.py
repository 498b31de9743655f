"""What a configuration may say: the schema, by which files are validated.

Units stand in the names. Every layer of a pilot's configuration has the one shape `PilotPart`; how layers are put
together is in resolve.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints

from pilotage.configuration.document import Document, Location, PathInData
from pilotage.configuration.references import Secret

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
URL = r"^https?://[^\s/?#]+[^\s?#]*$"
Name = Annotated[str, StringConstraints(pattern=NAME)]
"""Names of VOs, sites, resources, queues: safe in file names, URLs and logs."""
Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER)]
Url = Annotated[str, StringConstraints(pattern=URL)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Days = Annotated[float, Field(gt=0, allow_inf_nan=False)] | None


def _option_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise ValueError("an option is a text, a number, true, false, null or a list of texts")


OptionValue = Annotated[Any, AfterValidator(_option_value)]


def _database_url(text: str) -> str:
    # The sentences never repeat the URL: somebody may have put a password there.
    parts = urlsplit(text)
    if parts.scheme == "sqlite":
        if parts.netloc or not parts.path.startswith("//") or parts.path.rstrip("/") == "":
            raise ValueError("a SQLite database is a file with an absolute path: sqlite:////PATH")
    elif parts.scheme not in ("postgresql", "postgresql+psycopg") or not parts.path.strip("/"):
        raise ValueError("a database is postgresql://USER@HOST/NAME or sqlite:////PATH")
    if parts.password is not None or any("password" in key.lower() for key in parse_qs(parts.query)):
        raise ValueError("a password is not written here; say where it is with password: {env: NAME} or {file: /PATH}")
    return text


def _objects_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme == "s3":
        if not parts.netloc or parts.query or parts.username is not None:
            raise ValueError("an object store on S3 is s3://BUCKET/PREFIX; options and keys stand beside it")
    elif not text.startswith(("/", "file:///")):
        raise ValueError("an object store is s3://BUCKET/PREFIX or a directory's absolute path")
    return text


class Part(BaseModel):
    """Base of all parts: unknown keys and silent conversions are refused; a loaded configuration never changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Limits(Part):
    """Ceilings for one pilot; null is what the node, or the queue, has."""

    cores: Positive | None = None
    memory_mib: Positive | None = None
    disk_mib: Positive | None = None
    gpus: Count | None = None
    wall_seconds: Positive | None = None


class PilotPart(Part):
    """What one layer says about a pilot; what it does not say is left to the layers before it."""

    commands: list[Identifier] = []
    options: dict[Identifier, dict[Identifier, OptionValue]] = {}
    limits: Limits = Limits()
    tags: list[Name] = []
    platform: Name | None = None
    python: list[str] = []
    """Interpreters to try after the usual ones, absolute paths on the node."""
    log_mib: Positive = 10


class Queue(Part):
    """One entrance of a resource: what a pilot gets there (null: unknown, or all that the node has), and its caps."""

    cores: Positive | None = None
    memory_mib: Positive | None = None
    disk_mib: Positive | None = None
    gpus: Count | None = None
    wall_seconds: Positive | None = None
    max_pilots: Count | None = None
    """Most pilots that are sent or running at once."""
    max_waiting: Count | None = None
    """Most pilots that are sent and have not started."""
    wait_seconds: Seconds = 86400.0
    """The longest that a pilot may wait here; its one-time secret is valid as long."""
    pilot: PilotPart = PilotPart()


class Resource(Part):
    """Something that runs pilots. `vos` null admits every VO; `slots` is most pilots at once, over all queues."""

    type: Name
    flavour: Name
    vos: list[Name] | None = None
    slots: Count | None = None
    queues: dict[Name, Queue] = Field(min_length=1)
    pilot: PilotPart = PilotPart()


class Site(Part):
    """A place with resources; what it says about pilots counts for all of them."""

    resources: dict[Name, Resource] = {}
    pilot: PilotPart = PilotPart()


class VO(Part):
    """A community. `share` is its part of busy resources against other VOs; `owners` the same within it, default 1."""

    share: Share = 1.0
    owners: dict[str, Share] = {}
    pilot: PilotPart = PilotPart()


class Retention(Part):
    """Days for which ended or superseded records are kept; null keeps them for ever. `logs` is for the logs and outputs
    of pilots, which go with their pilots at the latest."""

    jobs: Days = 30.0
    pilots: Days = 30.0
    events: Days = 90.0
    logs: Days = 14.0
    files: Days = 30.0


class Database(Part):
    """Where records are kept. `url` null: SQLite in the data directory. Several processes need PostgreSQL."""

    url: Annotated[str, AfterValidator(_database_url)] | None = None
    password: Secret | None = None


class ObjectStore(Part):
    """Where files and logs are kept. `url` null: in the data directory. The rest is for S3; keys that are not named are
    taken from the usual environment (AWS_...)."""

    url: Annotated[str, AfterValidator(_objects_url)] | None = None
    endpoint: Url | None = None
    region: str | None = None
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    virtual_hosted_style: bool = False
    """Whether the bucket is part of the host's name."""
    allow_http: bool = False
    """Whether the endpoint may be one without TLS."""


class Service(Part):
    """The service itself: its address, its patience, and where it keeps what it knows."""

    url: Url | None = None
    """What pilots call the service; null: what it listens on."""
    lease_seconds: Seconds = 120.0
    token_seconds: Seconds = 600.0
    sync_seconds: Seconds = 10.0
    retention: Retention = Retention()
    database: Database = Database()
    objects: ObjectStore = ObjectStore()


class Directors(Part):
    """How directors pace themselves; the rules are in directors/plan.py and directors/backoff.py."""

    interval_seconds: Seconds = 5.0
    """Between two cycles when nothing wakes the director."""
    max_per_cycle: Positive = 20
    """Most pilots that one cycle sends to one resource."""
    call_seconds: Seconds = 120.0
    """Longest that one call of a resource may take."""
    empty_seconds: Seconds = 10.0
    """Rest of a queue after its second empty pilot in a row; doubles with each further one."""
    failed_seconds: Seconds = 15.0
    """Rest of a queue after a failed pilot; doubles with each further one in a row."""
    rest_seconds: Seconds = 900.0
    """Longest rest."""
    lost_seconds: Seconds = 60.0
    """How long a pilot that its resource no longer knows may be silent before it is closed as lost."""
    lease_seconds: Seconds = 60.0
    """The director's lease of a resource: after a crash another director takes over when it has run out."""


class Configuration(Part):
    """A whole configuration: validated, with defaults. Made by `loader.load`."""

    service: Service = Service()
    directors: Directors = Directors()
    pilot: PilotPart = PilotPart()
    flavours: dict[Name, PilotPart] = {}
    vos: dict[Name, VO] = {}
    sites: dict[Name, Site] = {}

    _documents: tuple[Document, ...] = PrivateAttr(default=())
    _revision: str = PrivateAttr(default="")
    _resources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def revision(self) -> str:
        """Twelve hex digits of the SHA-256 of what was loaded, embedded defaults included."""
        return self._revision

    def where(self, path: PathInData) -> Location | None:
        """The file and line that set what is at `path`, or the nearest that there is."""
        for document in self._documents:
            if document.has(path):
                return document.where(path)
        return self._documents[0].where(path) if self._documents else None

    def site_of(self, resource: str) -> str | None:
        """The site of a resource, or None where there is no such resource (names are unique over all sites)."""
        return self._resources.get(resource)

    def resource(self, name: str) -> Resource:
        """The resource of that name; KeyError where there is none."""
        return self.sites[self._resources[name]].resources[name]

    def resources(self) -> Iterator[tuple[str, str, Resource]]:
        """(site, name, resource) of each, in the order of the files."""
        for site_name, site in self.sites.items():
            for name, resource in site.resources.items():
                yield site_name, name, resource

    def vos_of(self, resource: Resource) -> list[str]:
        """The VOs that a resource admits."""
        return list(self.vos) if resource.vos is None else list(resource.vos)

    def problems(self) -> Iterator[tuple[PathInData, str]]:
        """What the types cannot say: (path, sentence) of references that lead nowhere and names used twice."""
        yield from self._store_problems()
        seen: dict[str, str] = {}
        for site, name, resource in self.resources():
            path: PathInData = ("sites", site, "resources", name)
            if name in seen:
                yield path, f"the resource '{name}' is in site '{seen[name]}' too; a resource's name is unique"
            seen[name] = site
            if resource.flavour not in self.flavours:
                yield (*path, "flavour"), unknown("flavour", resource.flavour, self.flavours)
            for index, vo in enumerate(resource.vos or ()):
                if vo not in self.vos:
                    yield (*path, "vos", index), unknown("VO", vo, self.vos)

    def _store_problems(self) -> Iterator[tuple[PathInData, str]]:
        database, objects = self.service.database, self.service.objects
        if database.password and not (database.url or "").startswith("postgresql"):
            yield ("service", "database", "password"), "only a PostgreSQL database (url) has a password"
        on_s3 = (objects.url or "").startswith("s3:")
        for name in sorted(objects.model_fields_set - {"url"}) if not on_s3 else ():
            yield ("service", "objects", name), "this is for an object store on S3 (url: s3://BUCKET/PREFIX)"
        endpoint = objects.endpoint or ""
        if on_s3 and endpoint.startswith("http:") and not objects.allow_http:
            yield ("service", "objects", "endpoint"), "an endpoint without TLS needs allow_http: true"
        if (objects.access_key_id is None) != (objects.secret_access_key is None):
            yield ("service", "objects"), "access_key_id and secret_access_key belong together"


def unknown(kind: str, name: str, known: Any) -> str:
    """The sentence for a name that is not there, with the nearest one that is."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1)
    if near:
        return f"unknown {kind} '{name}'; did you mean '{near[0]}'?"
    names = ", ".join(sorted(known)[:12]) or "none"
    return f"unknown {kind} '{name}' (there are: {names})"
