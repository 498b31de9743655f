"""What a configuration may say: the schema, by which files are validated.

Units stand in the names. Every layer of a pilot's configuration has the one shape `PilotPart` (parts.py); how layers
are put together is in resolve.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, StringConstraints

from pilotage.configuration.document import Document, Location, PathInData, nearest
from pilotage.configuration.parts import (
    IDENTIFIER,
    NAME,
    VERSION,
    Count,
    Engine,
    Flavour,
    Identifier,
    Limits,
    Name,
    Part,
    PilotPart,
    PlacePart,
    Positive,
    Toolbox,
)
from pilotage.configuration.references import Secret

__all__ = [
    "IDENTIFIER",
    "NAME",
    "Configuration",
    "Flavour",
    "Identifier",
    "Limits",
    "PilotPart",
    "PlacePart",
    "Toolbox",
]

URL = r"^https?://[^\s/?#]+[^\s?#]*$"
Url = Annotated[str, StringConstraints(pattern=URL)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Days = Annotated[float, Field(gt=0, allow_inf_nan=False)] | None


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


class Queue(Part):
    """One entrance of a resource: what a pilot gets there (null: unknown, or all that the node has), and its caps."""

    cores: Positive | None = None
    memory_mib: Positive | None = None
    """Memory [MiB]."""
    disk_mib: Positive | None = None
    """Disk [MiB]."""
    gpus: Count | None = None
    wall_seconds: Positive | None = None
    """How long a pilot may run [s]."""
    max_pilots: Count | None = None
    """Most pilots that are sent or running at once."""
    max_waiting: Count | None = None
    """Most pilots that are sent and have not started."""
    wait_seconds: Seconds = 86400.0
    """The longest that a pilot may wait here [s]; its one-time secret is valid as long."""
    pilot: PlacePart = PlacePart()
    """What pilots have otherwise in this queue."""


class Resource(Part):
    """Something that runs pilots. Its name is unique over all sites."""

    type: Name
    """How pilots get there: local; vac or boinc where machines start by themselves and fetch theirs; needed."""
    flavour: Name
    """The type of pilots that it gets; needed."""
    vos: list[Name] | None = None
    """The VOs that it admits; null: every one."""
    slots: Count | None = None
    """Most pilots at once, over all queues."""
    queues: dict[Name, Queue] = Field(min_length=1)
    """At least one; needed."""
    pilot: PlacePart = PlacePart()
    """What pilots have otherwise on this resource."""


class Site(Part):
    """A place with resources; what it says about pilots counts for all of them."""

    resources: dict[Name, Resource] = {}
    """By name."""
    pilot: PlacePart = PlacePart()
    """What pilots have otherwise at this site."""


class VO(Part):
    """A community. `pilot`, `flavours` and `owners` are its own; all else is the operator's."""

    share: Share = 1.0
    """Its part of busy resources against other VOs."""
    owners: dict[str, Share] = {}
    """Shares of its members against each other, 1 for who is not named."""
    engine: Engine = "builtin"
    """Where its jobs come from."""
    extension: Identifier | None = None
    """Its extension of DIRAC: `LHCb` finds commands in LHCbDIRAC.WorkloadManagementSystem.Command first."""
    minimum_python: Annotated[str, StringConstraints(pattern=VERSION)] = "3.6"
    """The oldest Python that its commands have to run on."""
    toolboxes: list[Toolbox] = []
    """Where its commands are found, the first that has one wins; before those of all VOs."""
    pilot: PilotPart = PilotPart()
    """What its pilots have otherwise."""
    flavours: dict[Name, PilotPart] = {}
    """What its pilots of one flavour have otherwise."""


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
    """How long a pilot may be silent before its jobs are lost."""
    token_seconds: Seconds = 600.0
    """How long a pilot's token is valid before it is renewed."""
    sync_seconds: Seconds = 10.0
    """How often a pilot calls when nothing happens."""
    retention: Retention = Retention()
    database: Database = Database()
    objects: ObjectStore = ObjectStore()
    published: list[Name] = ["BOINC", "VAC"]
    """Flavours whose profiles and toolboxes anybody may fetch: those of machines that start by themselves."""


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


class Level(NamedTuple):
    """Files that were loaded together, and what they say in all; stronger levels are put over it."""

    documents: tuple[Document, ...]
    data: Mapping[str, Any]


class Configuration(Part):
    """A whole configuration: validated, with defaults. Made by `loader.load`."""

    service: Service = Service()
    directors: Directors = Directors()
    pilot: PilotPart = PilotPart()
    """What all pilots have, the weakest of the layers."""
    flavours: dict[Name, Flavour] = {}
    """The types of pilots. What a file says of one is put over what is built in, edits too."""
    toolboxes: list[Toolbox] = []
    """Toolboxes for all VOs, after their own."""
    vos: dict[Name, VO] = {}
    """A file that has `vos` gives all of them: the embedded one is not used then."""
    sites: dict[Name, Site] = {}
    """A file that has `sites` gives all of them: the embedded one is not used then."""

    _levels: tuple[Level, ...] = PrivateAttr(default=())
    _files: dict[str, str] = PrivateAttr(default_factory=dict)
    _revision: str = PrivateAttr(default="")
    _resources: dict[str, str] = PrivateAttr(default_factory=dict)
    _data: Mapping[str, Any] = PrivateAttr(default_factory=dict)
    _kept: dict[Any, Any] = PrivateAttr(default_factory=dict)

    @property
    def revision(self) -> str:
        """Twelve hex digits of the SHA-256 of what was loaded, embedded defaults included."""
        return self._revision

    @property
    def files(self) -> dict[str, str]:
        """What it was loaded from: {name: text}, names relative to the directory, without the embedded defaults."""
        return dict(self._files)

    @property
    def levels(self) -> tuple[Level, ...]:
        """What it is made of, the weakest first: the embedded defaults, then the files."""
        return self._levels

    @property
    def kept(self) -> dict[Any, Any]:
        """What resolve.py keeps between two profiles of this configuration."""
        return self._kept

    def said(self, *path: str | int) -> Mapping[str, Any]:
        """What the files say in all at `path`, without the defaults of the schema; nothing: an empty map."""
        return inside(self._data, *path)

    def where(self, path: PathInData) -> Location | None:
        """The file and line that set what is at `path`, or the nearest that there is.

        A path that begins with a number is in that level only; one that begins with "--..." is an option of the command
        line.
        """
        if path and isinstance(path[0], str) and path[0].startswith("--"):
            return Location(path[0])
        if path and isinstance(path[0], int):
            return nearest(self._levels[path[0]].documents, path[1:])
        documents = [document for level in reversed(self._levels) for document in level.documents]
        return nearest(documents, path) if documents else None

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
                elif vo in (resource.vos or ())[:index]:
                    yield (*path, "vos", index), f"the VO '{vo}' is in the list twice"
        yield from self._pilot_problems()
        yield from self._toolbox_problems()

    def places(self) -> Iterator[tuple[PathInData, PlacePart]]:
        """The pilot parts of sites, resources and queues, with their paths."""
        for site_name, site in self.sites.items():
            yield ("sites", site_name, "pilot"), site.pilot
            for name, resource in site.resources.items():
                path: PathInData = ("sites", site_name, "resources", name)
                yield (*path, "pilot"), resource.pilot
                for queue_name, queue in resource.queues.items():
                    yield (*path, "queues", queue_name, "pilot"), queue.pilot

    def _pilot_problems(self) -> Iterator[tuple[PathInData, str]]:
        for path, place in self.places():
            for vo in place.vos:
                if vo not in self.vos:
                    yield (*path, "vos", vo), unknown("VO", vo, self.vos)
        for vo, part in self.vos.items():
            for flavour in part.flavours:
                if flavour not in self.flavours:
                    yield ("vos", vo, "flavours", flavour), unknown("flavour", flavour, self.flavours)
        for index, flavour in enumerate(self.service.published):
            if flavour not in self.flavours:
                yield ("service", "published", index), unknown("flavour", flavour, self.flavours)

    def _toolbox_problems(self) -> Iterator[tuple[PathInData, str]]:
        own = [(("vos", vo), part.toolboxes) for vo, part in self.vos.items()]
        for at, boxes in [((), self.toolboxes), *own]:
            names = [box.name for box in (boxes if not at else [*boxes, *self.toolboxes])]
            for index, box in enumerate(boxes):
                if box.name in ("base", "core", "dirac"):
                    yield (*at, "toolboxes", index), f"'{box.name}' is the name of a toolbox of Pilotage's own"
                elif names.count(box.name) > 1:
                    yield (*at, "toolboxes", index), f"the toolbox '{box.name}' is there twice"

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


def inside(data: Any, *path: str | int) -> Mapping[str, Any]:
    """What is at `path` in plain data; nothing: an empty map."""
    for step in path:
        if step not in data:
            return {}
        data = data[step]
    found: Mapping[str, Any] = data
    return found


def schema_json() -> dict[str, Any]:
    """The JSON Schema of a configuration file, for editors."""
    from pilotage.configuration import jsonschema

    return jsonschema.made()


def unknown(kind: str, name: str, known: Any) -> str:
    """The sentence for a name that is not there, with the nearest one that is."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1)
    if near:
        return f"unknown {kind} '{name}'; did you mean '{near[0]}'?"
    names = ", ".join(sorted(known)[:12]) or "none"
    return f"unknown {kind} '{name}' (there are: {names})"
