"""What is called what: DIRAC's options, CE types and command list beside ours. Import and export both read this.

The option names and their units are the contract of the commands of the `dirac` toolbox.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CODE_COMMANDS = (
    "CheckWorkerNode",
    "InstallDIRAC",
    "ConfigureBasics",
    "RegisterPilot",
    "CheckCECapabilities",
    "CheckWNCapabilities",
    "ConfigureSite",
    "ConfigureArchitecture",
    "ConfigureCPURequirements",
    "LaunchAgent",
)
"""What a DIRAC pilot runs where the configuration has no list for its CE type (Pilot, pilotTools.py)."""

INSTALLING = ("diracInstallOnly", "cvmfsOnly")
"""The generic options that DIRAC's InstallDIRAC reads; all others are for the configuration."""

INSTALL, CONFIGURE, AGENT = "InstallDIRAC", "ConfigureDIRAC", "RunJobAgent"


@dataclass(frozen=True, slots=True)
class Row:
    """One option of DIRAC and what it is here: `kind` is text, number, list or pairs (NAME:::VALUE to NAME=VALUE)."""

    dirac: str
    command: str
    option: str
    kind: str
    text: str
    only: tuple[str, ...] = ()
    """Of a list, only these items ..."""
    but: tuple[str, ...] = ()
    """... or all but these."""


PILOT = (
    # Operations/.../Pilot, for all VOs (Defaults, the setup) or for one.
    Row("Version", INSTALL, "version", "text", "the DIRAC version to install; the first of a list"),
    Row("Project", INSTALL, "project", "text", "the project (extension) whose release that is"),
    Row("Installation", INSTALL, "installation", "text", "the name of an installation with defaults of its own"),
    Row("CVMFS_locations", INSTALL, "cvmfs_locations", "list", "directories on CVMFS to take DIRAC from, in order"),
    Row("PreinstalledEnv", INSTALL, "preinstalled_environment", "text", "a file to source instead of installing"),
    Row(
        "PreinstalledEnvPrefix",
        INSTALL,
        "preinstalled_environment_prefix",
        "text",
        "the directory below which versions are installed already",
    ),
    Row("Extensions", INSTALL, "extensions", "list", "the DIRAC extensions to install"),
    Row("ConfigurationServer", CONFIGURE, "configuration_servers", "list", "URLs of configuration servers"),
    Row("PilotLogLevel", CONFIGURE, "log_level", "text", "how much the DIRAC client says"),
    Row("NagiosProbes", "NagiosProbes", "probes", "list", "the probes to run"),
    Row("NagiosPutURL", "NagiosProbes", "put_url", "text", "where their results go"),
)

RESOURCE = (
    # Resources/Sites/.../CEs/<CE> and .../Queues/<queue>.
    Row("Modules", INSTALL, "modules", "list", "modules to install instead of a release, NAME:::SOURCE:::BRANCH"),
    Row("PipInstallOptions", INSTALL, "pip_options", "text", "more options of pip"),
    Row(
        "GenericOptions",
        INSTALL,
        "generic_options",
        "list",
        "diracInstallOnly (never from CVMFS), cvmfsOnly (never install)",
        only=INSTALLING,
    ),
    Row("GenericOptions", CONFIGURE, "generic_options", "list", "options of dirac-configure, as -o", but=INSTALLING),
    Row("ExtraPilotOptions", CONFIGURE, "extra_pilot_options", "text", "more options of the DIRAC pilot, verbatim"),
    Row("UserEnvVariables", CONFIGURE, "user_environment", "pairs", "environment of jobs, NAME=VALUE"),
    Row("SharedArea", CONFIGURE, "shared_area", "text", "the directory of shared software, /LocalSite/SharedArea"),
    Row("LocalCEType", AGENT, "local_ce_type", "text", "how jobs run on the node: InProcess, Pool, Pool/Singularity"),
    Row("RequiredTag", AGENT, "required_tags", "list", "tags that a job must have to run here"),
    Row("CPUTime", AGENT, "cpu_work_hs06_seconds", "number", "CPU work that a job may do here [HS06 seconds]"),
    Row("ContainerRoot", AGENT, "container_root", "text", "the image in which jobs run"),
    Row("ContainerBin", AGENT, "container_program", "text", "the program that starts containers"),
    Row("ContainerBind", AGENT, "container_binds", "list", "directories that jobs see, PATH or PATH:::INSIDE"),
    Row("ContainerOptions", AGENT, "container_options", "text", "more options of that program"),
)

GLOBAL = (
    # The rest of the configuration, once for all.
    Row("DIRAC/Setup", CONFIGURE, "setup", "text", "the DIRAC setup"),
    Row("DIRAC/Configuration/Servers", CONFIGURE, "configuration_servers", "list", "URLs of configuration servers"),
    Row("Resources/Computing/DefaultLocalCEType", AGENT, "local_ce_type", "text", "the same for where no CE says it"),
)

FIELDS = {
    # Options of a CE or queue that are fields of a queue here.
    "NumberOfProcessors": "cores",
    "NumberOfGPUs": "gpus",
    "MaxRAM": "memory_mib",
    "MaxTotalJobs": "max_pilots",
    "MaxWaitingJobs": "max_waiting",
}

ZERO_IS_UNKNOWN = ("NumberOfProcessors", "NumberOfGPUs", "MaxRAM")
"""0 asks DIRAC to find out on the node; that is what no value means here."""

SAME = {"PreInstalledEnv": "PreinstalledEnv", "PreInstalledEnvPrefix": "PreinstalledEnvPrefix"}
"""Spellings that DIRAC's documentation has too."""

_LOGGING = "pilots log to this service by themselves"
_FETCHED = "a pilot carries its commands; a VO's own come in a toolbox"
_CREDENTIALS = "credentials of pilots are not configured here"
WITHOUT = {
    # Options of Operations/.../Pilot without a counterpart, and why; others are just not known.
    "RemoteLogging": _LOGGING,
    "RemoteLoggerURL": _LOGGING,
    "RemoteLoggerTimerInterval": _LOGGING,
    "RemoteLoggerBufsize": _LOGGING,
    "RemoteLoggerCEsWhiteList": _LOGGING,
    "RemoteLogsPriority": _LOGGING,
    "UploadSE": "outputs and logs of pilots go to this service's object store",
    "UploadPath": "outputs and logs of pilots go to this service's object store",
    "pilotFileServer": _FETCHED,
    "pilotRepo": _FETCHED,
    "pilotRepoBranch": _FETCHED,
    "pilotScriptsPath": _FETCHED,
    "pilotVORepo": _FETCHED,
    "pilotVORepoBranch": _FETCHED,
    "pilotVOScriptsPath": _FETCHED,
    "projectDir": _FETCHED,
    "workDir": _FETCHED,
    "GenericPilotDN": _CREDENTIALS,
    "GenericPilotUser": _CREDENTIALS,
    "GenericPilotGroup": _CREDENTIALS,
    "CheckVersion": "DIRAC's matcher checks the version of pilots by its own configuration",
}

CE_TYPES = {
    # DIRAC's CE types, in lower case: (flavour, type of resource).
    "arex": ("ARC", "arc"),
    "arexenhanced": ("ARC", "arc"),
    "arc": ("ARC", "arc"),
    "arc6": ("ARC", "arc"),
    "htcondorce": ("HTCONDOR-CE", "htcondor"),
    "htcondor": ("HTCONDOR-CE", "htcondor"),
    "ssh": ("SSH", "ssh"),
    "sshbatch": ("SSH", "ssh"),
    "sshtorque": ("SSH", "ssh"),
    "sshge": ("SSH", "ssh"),
    "sshlsf": ("SSH", "ssh"),
    "sshoar": ("SSH", "ssh"),
    "sshcondor": ("SSH", "ssh"),
    "slurm": ("SLURM", "slurm"),
    "sshslurm": ("SLURM", "slurm"),
    "cloud": ("CLOUD", "cloud"),
    "vac": ("VAC", "vac"),
    "vcycle": ("VAC", "vac"),
    "boinc": ("BOINC", "boinc"),
    "kubernetes": ("KUBERNETES", "kubernetes"),
    "cream": ("CREAM", "cream"),
    "local": ("LOCAL", "local"),
}

EXPORTED = {
    # Our flavours as DIRAC's CE types; the first that is not itself the name of a flavour is taken.
    "ARC": ("AREX", "ARC", "ARC6"),
    "HTCONDOR-CE": ("HTCondorCE", "HTCondor"),
    "SSH": ("SSH", "SSHBatch"),
    "SLURM": ("Slurm", "SSHSlurm"),
    "CLOUD": ("Cloud", "CLOUD"),
    "VAC": ("Vac", "VAC", "Vcycle"),
    "BOINC": ("BOINC",),
    "KUBERNETES": ("Kubernetes",),
    "CREAM": ("CREAM",),
    "LOCAL": ("Local", "LOCAL"),
}

WITHOUT_DIRECTOR = ("vac", "boinc")
"""Types of resources to which nobody sends pilots: DIRAC's default caps of 1 are not theirs."""


def flavour_of(ce_type: str) -> str | None:
    """Our flavour for a CE type of DIRAC, or None."""
    return CE_TYPES.get(ce_type.lower(), (None, ""))[0]


def to_option(row: Row, value: str, parts: list[str]) -> Any:
    """A value of DIRAC as an option here, None where there is nothing of it; ValueError for what is not a number."""
    if row.kind == "text":
        return parts[0] if row.dirac == "Version" and parts else value or None
    if row.kind == "number":
        return int(float(value))
    if row.kind == "pairs":
        parts = [part.replace(":::", "=", 1) for part in parts]
    return [part for part in parts if part not in row.but and (not row.only or part in row.only)] or None


def to_value(row: Row, value: Any) -> str:
    """The inverse: an option as a value of DIRAC. ValueError for what DIRAC cannot hold."""
    if isinstance(value, list):
        if any("," in item or item != item.strip() for item in value):
            raise ValueError("an item with a comma")
        pairs = row.kind == "pairs"
        return ", ".join(item.replace("=", ":::", 1) if pairs else item for item in value)
    if value is None or isinstance(value, bool):
        raise ValueError("DIRAC has no such value")
    return str(value)


_ORDER = {(row.command, row.option): number for number, row in enumerate((*PILOT, *GLOBAL, *RESOURCE))}


def in_order(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Options in the order of the tables, so that the same ones always make the same text."""
    known = sorted((_ORDER[command, name], command, name) for command in options for name in options[command])
    made: dict[str, dict[str, Any]] = {}
    for _, command, name in known:
        made.setdefault(command, {})[name] = options[command][name]
    return made
