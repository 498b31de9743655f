"""What one layer may say about a pilot, and toolboxes: the parts of the schema that every layer shares.

How layers are put together is in layers.py, what an edit of a list does in edits.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
DOTTED = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
INTERPRETER = r"^/[A-Za-z0-9_./+@%,~-]+$"
SHA256 = r"^[0-9a-f]{64}$"
VERSION = r"^3\.([6-9]|[1-9][0-9])$"
Name = Annotated[str, StringConstraints(pattern=NAME)]
"""Names of VOs, sites, resources, queues: safe in file names, URLs and logs."""
Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Engine = Literal["builtin", "dirac"]

LISTS = ("commands", "tags", "python")
"""The keys of a `PilotPart` whose lists can be edited."""
LIST, EDIT, EDITS = "<list>", "<edit>", "<edits>"
"""Tags of the unions below. They stand in pydantic's error locations, and are no keys that a file could have."""
ARCHIVES = (".whl", ".tar.gz", ".zip")


def _option_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise ValueError("an option is a text, a number, true, false, null or a list of texts")


_PLAIN = [{"type": name} for name in ("null", "boolean", "number", "string")]
_JSON = {"anyOf": [*_PLAIN, {"type": "array", "items": {"type": "string"}}]}
OptionValue = Annotated[Any, AfterValidator(_option_value), WithJsonSchema(_JSON)]


class Part(BaseModel):
    """Base of all parts: unknown keys and silent conversions are refused; a loaded configuration never changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Insert(Part):
    """Put the items of `do` before or after the item of that name."""

    before: str | None = None
    """Name of the item before which they go."""
    after: str | None = None
    """Or name of the item after which they go."""
    do: list[str] = Field(min_length=1)
    """The new items."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Insert:
        if (self.before is None) == (self.after is None):
            raise ValueError("an insert says where: {before: NAME, do: [...]} or {after: NAME, do: [...]}")
        return self


def _several(value: Any) -> Any:
    return [value] if isinstance(value, dict | Insert) else value


class Edit(Part):
    """A change of the list that the layers before give. The order is: remove, replace, insert, prepend, append."""

    remove: list[str] = []
    """Items that go."""
    replace: dict[str, str] = {}
    """An item by another, in its place: {OLD: NEW}."""
    insert: Annotated[list[Insert], BeforeValidator(_several, json_schema_input_type=list[Insert] | Insert)] = []
    """One, or several one after the other."""
    prepend: list[str] = []
    """Items before all others."""
    append: list[str] = []
    """Items after all others."""

    @model_validator(mode="after")
    def _something(self) -> Edit:
        if not self.model_fields_set:
            raise ValueError("an edit of a list says remove, replace, insert, prepend or append; an empty list is []")
        return self

    def items(self) -> list[tuple[tuple[str | int, ...], str]]:
        """Each item that it brings, with its path in the edit."""
        found: list[tuple[tuple[str | int, ...], str]] = [(("replace", old), new) for old, new in self.replace.items()]
        for number, insert in enumerate(self.insert):
            found += [(("insert", number, "do", index), item) for index, item in enumerate(insert.do)]
        for key in ("prepend", "append"):
            found += [((key, index), item) for index, item in enumerate(getattr(self, key))]
        return found


def _kind(value: Any) -> str:
    if isinstance(value, dict | Edit):
        return EDIT
    return EDITS if isinstance(value, list) and any(isinstance(item, dict | Edit) for item in value) else LIST


def _edited(pattern: str, what: str) -> AfterValidator:
    """The items that edits bring are of the same kind as those of the list."""

    def check(value: Any) -> Any:
        for edit in [value] if isinstance(value, Edit) else value:
            for path, item in edit.items() if isinstance(edit, Edit) else ():
                if not re.match(pattern, item):
                    raise ValueError(f"{'.'.join(str(step) for step in path)}: '{item}' is not {what}")
        return value

    return AfterValidator(check)


_Edit = Annotated[Edit, Tag(EDIT)]
_Edits = Annotated[list[Edit], Field(min_length=1, description="Several edits, one after the other."), Tag(EDITS)]
_Commands = Annotated[
    Annotated[list[Identifier], Tag(LIST)] | _Edit | _Edits,
    Discriminator(_kind),
    _edited(IDENTIFIER, "the name of a command: a Python name"),
]
_Tags = Annotated[
    Annotated[list[Name], Tag(LIST)] | _Edit | _Edits,
    Discriminator(_kind),
    _edited(NAME, "a name: letters, digits, '.', '_', '-'"),
]
_Interpreter = Annotated[str, StringConstraints(pattern=INTERPRETER)]
_Paths = Annotated[
    Annotated[list[_Interpreter], Tag(LIST)] | _Edit | _Edits,
    Discriminator(_kind),
    _edited(INTERPRETER, "an absolute path of letters, digits and _./+@%,~-"),
]


class Limits(Part):
    """Ceilings for one pilot; null is what the node, or the queue, has."""

    cores: Positive | None = None
    memory_mib: Positive | None = None
    """Memory [MiB]."""
    disk_mib: Positive | None = None
    """Disk that it may fill [MiB]."""
    gpus: Count | None = None
    wall_seconds: Positive | None = None
    """How long it may run [s]."""


def _final_path(path: str) -> str:
    steps = path.split(".")
    known = [name for name in PilotPart.model_fields if name != "final"]
    if steps[0] not in known:
        raise ValueError(f"there is no '{steps[0]}' in what is said about a pilot (there are: {', '.join(known)})")
    deepest = {"options": 3, "limits": 2}.get(steps[0], 1)
    if len(steps) > deepest or not all(steps):
        example = {"options": "options.COMMAND.OPTION", "limits": "limits.cores"}.get(steps[0], steps[0])
        raise ValueError(f"'{path}' leads nowhere; a path is like {example}")
    if steps[0] == "limits" and not Limits.model_fields.keys() >= set(steps[1:]):
        raise ValueError(f"there is no limit '{steps[1]}' (there are: {', '.join(Limits.model_fields)})")
    return path


class PilotPart(Part):
    """What one layer says about a pilot; what it does not say is left to the layers before it.

    `commands`, `tags` and `python` are lists, which replace what the layers before say, or edits of it.
    """

    commands: _Commands = []
    """What the pilot does, in this order."""
    options: dict[Identifier, dict[Identifier, OptionValue]] = {}
    """By command, then by the name of its option."""
    limits: Limits = Limits()
    tags: _Tags = []
    """What jobs may ask for by name."""
    platform: Name | None = None
    """What jobs for a platform are matched with; null: what the node finds out."""
    python: _Paths = []
    """Interpreters to try after the usual ones, absolute paths on the node."""
    log_mib: Positive = 10
    """Most that a pilot logs [MiB]."""
    final: list[Annotated[str, AfterValidator(_final_path)]] = []
    """Dotted paths in this part (`options.RunJobAgent.idle_seconds`, `commands`) that no later layer may set."""


class Flavour(PilotPart):
    """A type of pilots. What `engines` says comes after the plain part, for pilots of VOs with that engine."""

    engines: dict[Engine, PilotPart] = {}
    """By engine."""


class PlacePart(PilotPart):
    """What a site, resource or queue says. What `vos` says comes after the plain part, for pilots of that VO."""

    vos: dict[Name, PilotPart] = {}
    """By VO."""


class Toolbox(Part):
    """A place where commands are found: exactly one of `path`, `package`, `entry_point`."""

    name: Name
    """What it is called in messages and in a pilot's provenance."""
    path: str | None = None
    """A directory, or a .whl, .tar.gz or .zip; absolute, on the server."""
    package: Annotated[str, StringConstraints(pattern=DOTTED)] | None = None
    """An installed package, dotted."""
    entry_point: str | None = None
    """The name of an entry point of the group `pilotage.toolboxes`."""
    sha256: Annotated[str, StringConstraints(pattern=SHA256)] | None = None
    """Of the file (64 hex digits); a .whl, .tar.gz or .zip must have it, nothing else may."""

    @model_validator(mode="after")
    def _one_place(self) -> Toolbox:
        given = [key for key in ("path", "package", "entry_point") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"a toolbox is at one of path, package, entry_point; '{self.name}' has {found}")
        if self.path is not None and not self.path.startswith("/"):
            raise ValueError(f"the path of a toolbox is absolute, not '{self.path}'")
        is_file = self.path is not None and self.path.endswith(ARCHIVES)
        if is_file and self.sha256 is None:
            raise ValueError(f"the toolbox '{self.name}' is a file and needs its sha256 (what `sha256sum` prints)")
        if not is_file and self.sha256 is not None:
            raise ValueError(
                f"sha256 is for toolboxes that are files ({', '.join(ARCHIVES)}), which '{self.name}' is not"
            )
        return self
