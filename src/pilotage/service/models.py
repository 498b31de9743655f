"""The shapes of what users send, checked by pydantic: unknown keys are refused, nothing is converted silently."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_JOBS = 10_000
MAX_SECONDS = 10 * 365 * 86400
MAX_PRIORITY = 1_000_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def safe_name(name: str) -> str:
    """A file's name inside a job's directory: relative, normalised, with nothing that climbs, hides or breaks a line.

    Raises ValueError with the reason.
    """
    if _CONTROL.search(name):
        raise ValueError("a file name has no control characters")
    if name.startswith("/"):
        raise ValueError("a file name is relative to the job's directory, it does not begin with a slash")
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise ValueError("a file name is normalised: no empty part, no '.', no '..'")
        if len(part.encode()) > 255:
            raise ValueError("no part of a file name is longer than 255 bytes")
    if len(name.encode()) > 4000:
        raise ValueError("a file name has at most 4000 bytes")
    return name


def no_nul(text: str) -> str:
    """What can be handed to a program: no NUL, and text that UTF-8 can write."""
    if "\x00" in text:
        raise ValueError("a NUL character cannot be handed to a program")
    return text


def plain(text: str) -> str:
    """One line of text for people."""
    if _CONTROL.search(text):
        raise ValueError("no control characters here")
    return text


def variable(name: str) -> str:
    """A name that an environment can hold."""
    if not name or "=" in name or _CONTROL.search(name):
        raise ValueError("the name of an environment variable is not empty and has no '=' and no control characters")
    return name


FileName = Annotated[str, Field(min_length=1), AfterValidator(safe_name)]
Text = Annotated[str, AfterValidator(no_nul)]
Line = Annotated[str, Field(max_length=1000), AfterValidator(plain)]
Variable = Annotated[str, AfterValidator(variable)]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:+/-]{0,99}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Seconds = Annotated[int, Field(ge=1, le=MAX_SECONDS)]
Mib = Annotated[int, Field(ge=1, le=2**40)]


class Model(BaseModel):
    """Unknown keys are refused; 1 is not "1"."""

    model_config = ConfigDict(extra="forbid", strict=True)


class InputFile(Model):
    """A file that is there before the job starts; its content was uploaded with `PUT /files/{sha256}`."""

    name: FileName = Field(description="where it lies, relative to the job's directory")
    sha256: Sha256 = Field(description="SHA-256 of its content, lower-case hex")
    size: int = Field(ge=0, description="its length [bytes]")
    executable: bool = False


class JobSpec(Model):
    """One job: what runs, with which files, on what kind of node."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "tile-7",
                    "command": ["python3", "render.py", "tiles.txt", "7"],
                    "inputs": [{"name": "render.py", "sha256": "ab" * 32, "size": 1234}],
                    "outputs": ["tile-7.png"],
                    "wall_seconds": 600,
                }
            ]
        }
    )

    name: Line | None = Field(None, description="for people; need not be unique")
    command: list[Text] = Field(min_length=1, max_length=100_000, description="program and arguments; no shell")
    environment: dict[Variable, Text] = Field(default_factory=dict, description="added to the job's environment")
    inputs: list[InputFile] = Field(default_factory=list, max_length=10_000)
    outputs: list[FileName] = Field(default_factory=list, max_length=10_000, description="patterns; each must match")
    stdout_mib: int = Field(16, ge=0, le=10_240, description="how much of stdout, and of stderr, is kept [MiB]")
    cores: int = Field(1, ge=1, le=1_000_000)
    memory_mib: Mib | None = Field(None, description="limit of the whole job's resident memory [MiB]")
    disk_mib: Mib | None = Field(None, description="limit of the job's directory [MiB]")
    gpus: int = Field(0, ge=0, le=100_000)
    wall_seconds: Seconds = Field(3600, description="limit of wall time [s]")
    cpu_seconds: Seconds | None = Field(None, description="limit of CPU time [s]")
    tags: list[Label] = Field(default_factory=list, max_length=100, description="the node must have all of these")
    platform: Label | None = Field(None, description="the node must be of this platform")
    sites: list[Label] = Field(default_factory=list, max_length=1000, description="only here; empty: anywhere")
    banned_sites: list[Label] = Field(default_factory=list, max_length=1000, description="never here")
    priority: int = Field(0, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="higher runs first, among your own jobs")
    retries: int = Field(2, ge=0, le=100, description="how often it starts again after its pilot was lost")
    isolation: Literal["preferred", "required", "none"] = "preferred"

    @model_validator(mode="after")
    def files_do_not_collide(self) -> JobSpec:
        if not self.command[0]:
            raise ValueError("command[0] is empty: there is no program to run")
        if len(self.inputs) > 1:
            seen: set[str] = set()
            for item in self.inputs:
                if item.name in seen:
                    raise ValueError(f"two inputs have the name {item.name!r}")
                seen.add(item.name)
            for name in seen:
                for cut in [i for i, c in enumerate(name) if c == "/"]:
                    if name[:cut] in seen:
                        raise ValueError(f"the input {name[:cut]!r} is a file, and {name!r} needs it as a directory")
        if len(set(self.outputs)) != len(self.outputs):
            raise ValueError("two outputs have the same pattern")
        return self


class KillRequest(Model):
    """Which jobs to kill, and why."""

    ids: list[Annotated[int, Field(ge=1, lt=2**63)]] = Field(min_length=1, max_length=100_000)
    reason: Line = "killed by its owner"


class MissingRequest(Model):
    """Digests of which the service is asked what it lacks."""

    sha256: list[Sha256] = Field(max_length=100_000)


class OrderRequest(Model):
    """Why a pilot is told to leave."""

    reason: Line = ""


class TokenRequest(Model):
    """A token for a person or a program."""

    vo: Label
    owner: Label = Field(description="whose jobs these are")
    roles: list[Literal["user", "vo_admin", "admin"]] = Field(["user"], min_length=1)
    seconds: int = Field(30 * 86400, ge=1, le=MAX_SECONDS, description="how long it is valid [s]")


class BundleRequest(Model):
    """For which queue a pilot is to be started by hand."""

    vo: Label | None = None
    resource: Label | None = None
    queue: Label | None = None
    flavour: Label | None = Field(None, description="instead of the resource's, or where no resource is named")
    seconds: int = Field(86400, ge=1, le=MAX_SECONDS, description="how long its one-time secret is valid [s]")


class Trial(Model):
    """Which new pilots try a revision before it is current."""

    share: float = Field(gt=0, lt=1, description="this part of the new pilots: more than 0, less than 1")
    resource: Label | None = Field(None, description="only pilots of this resource")
    vo: Label | None = Field(None, description="only pilots of this VO")


class ConfigurationFiles(Model):
    """A configuration: its files."""

    files: dict[str, Text] = Field(description="{name: text}; names relative, like vos/NAME/pilot.yaml")


class ApplyRequest(ConfigurationFiles):
    """A new revision: what, made from which, why."""

    base: int = Field(ge=0, lt=2**63, description="the revision that it was made from, which must be current; 0: none")
    reason: Line = Field(min_length=1, description="why, for those who read the log")
    canary: Trial | None = None


class RollbackRequest(Model):
    """Back to the files of an earlier revision, as a new one."""

    number: int = Field(ge=0, lt=2**63, description="the revision; 0: the embedded defaults")
    base: int | None = Field(None, ge=0, lt=2**63, description="the current revision, when known")
    reason: Line = Field(min_length=1)


class TrialEnd(Model):
    """The end of a canary's trial."""

    number: int | None = Field(None, ge=1, lt=2**63, description="the canary's number, when known")
    reason: Line = ""
