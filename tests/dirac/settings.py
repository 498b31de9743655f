"""The configuration of the test's DIRAC: what its services, its Configuration System and its user need.

Only DISET services (dips): those over https need DIRAC's own fork of tornado.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SETUP, VO, SITE, CE, QUEUE, STORAGE = "Test", "feas", "DIRAC.Feas.local", "feas-ce", "default", "ProductionSandboxSE"
DN = "/C=ch/O=DIRAC/OU=Test/CN="
DATABASE, DOCUMENTS = 23306, 29200
PORTS = {
    "Configuration/Server": 29135,
    "WorkloadManagement/JobManager": 29132,
    "WorkloadManagement/JobMonitoring": 29130,
    "WorkloadManagement/JobStateUpdate": 29136,
    "WorkloadManagement/Matcher": 29170,
    "WorkloadManagement/WMSAdministrator": 29145,
    "WorkloadManagement/PilotManager": 29171,
    "WorkloadManagement/SandboxStore": 29196,
    "WorkloadManagement/OptimizationMind": 29175,
    "Framework/ProxyManager": 29152,
    "Accounting/DataStore": 29133,
    "ResourceStatus/ResourceStatus": 29160,
}
SERVER = f"dips://localhost:{PORTS['Configuration/Server']}/Configuration/Server"
DATABASES = {
    "JobDB": "WorkloadManagement",
    "JobLoggingDB": "WorkloadManagement",
    "TaskQueueDB": "WorkloadManagement",
    "PilotAgentsDB": "WorkloadManagement",
    "SandboxMetadataDB": "WorkloadManagement",
    "ProxyDB": "Framework",
    "AccountingDB": "Accounting",
}
SYSTEMS = ("Configuration", "Framework", "WorkloadManagement", "Accounting", "DataManagement", "RequestManagement")
SYSTEMS += ("ResourceStatus", "StorageManagement", "Monitoring")
PROXIES = "FullDelegation, LimitedDelegation, PrivateLimitedDelegation"


def of(version: str, name: str) -> list[str]:
    """The services that this version has, each "System/Name"."""
    left_out = "ResourceStatus/ResourceStatus" if version.startswith("8.") else "WorkloadManagement/WMSAdministrator"
    return [service for service in PORTS if service != left_out and service.startswith(name)]


def system(version: str, name: str) -> str:
    """The section of a system: DIRAC 8 has an instance below it."""
    return f"/Systems/{name}/Production" if version.startswith("8.") else f"/Systems/{name}"


def local(version: str, pki: Path) -> dict[str, Any]:
    """The local file of every process of the server."""
    found: dict[str, Any] = {
        "/LocalSite/Site": SITE,
        "/DIRAC/Hostname": "localhost",
        "/DIRAC/VirtualOrganization": VO,
        "/DIRAC/Configuration/Servers": SERVER,
        "/DIRAC/Security/UseServerCertificate": "yes",
        "/DIRAC/Security/CertFile": pki / "hostcert.pem",
        "/DIRAC/Security/KeyFile": pki / "hostkey.pem",
        "/DIRAC/Security/CALocation": pki / "certificates",
        "/Systems/Databases/User": "Dirac",
        "/Systems/Databases/Password": "Dirac",
        "/Systems/Databases/Host": "127.0.0.1",
        "/Systems/Databases/Port": DATABASE,
    }
    if version.startswith("8."):
        found["/DIRAC/Setup"] = SETUP
    else:
        for name, value in {"User": "x", "Password": "x", "Host": "127.0.0.1", "Port": DOCUMENTS, "SSL": "No"}.items():
            found[f"/Systems/NoSQLDatabases/{name}"] = value
    return found


def master(version: str) -> dict[str, Any]:
    """What the master of the Configuration System reads besides: that it is one, and its own service."""
    top = system(version, "Configuration") + "/Services/Server/"
    found: dict[str, Any] = {
        "/DIRAC/Configuration/Master": "yes",
        "/DIRAC/Configuration/Name": SETUP,
        "/DIRAC/Configuration/AutoPublish": "no",
        top + "HandlerPath": "DIRAC/ConfigurationSystem/Service/ConfigurationHandler.py",
        top + "Port": PORTS["Configuration/Server"],
        top + "Authorization/Default": "authenticated",
        top + "Authorization/commitNewData": "CSAdministrator",
    }
    if version.startswith("8."):
        found[f"/DIRAC/Setups/{SETUP}/Configuration"] = "Production"
    return found


def served(version: str, sandboxes: Path) -> dict[str, Any]:
    """What the Configuration System serves."""
    found: dict[str, Any] = {
        "/DIRAC/Configuration/Name": SETUP,
        "/DIRAC/Configuration/Version": "2000-01-01 00:00:00.000000",
        "/DIRAC/Configuration/MasterServer": SERVER,
        "/DIRAC/Configuration/Servers": SERVER,
        "/Operations/Defaults/EnableSecurityLogging": "False",
        "/Operations/Defaults/EMail/Production": "root@localhost",
        "/Operations/Defaults/EMail/Logging": "root@localhost",
        "/Operations/Defaults/Pilot/CheckVersion": "False",
        "/Operations/Defaults/Pilot/Version": version,
        "/Operations/Defaults/Services/JobMonitoring/useESForJobParametersFlag": "False",
        "/Operations/Defaults/ResourceStatus/Config/State": "InActive",
        # empty or an unknown name makes job wrappers die
        "/Operations/Defaults/MonitoringBackends/Default": "Accounting",
    }
    found.update(registry())
    found.update(resources())
    found.update(systems(version, sandboxes))
    if version.startswith("8."):
        found.update((f"/DIRAC/Setups/{SETUP}/{name}", "Production") for name in SYSTEMS)
    else:
        found["/DiracX/DisabledVOs"] = VO
    return found


def registry() -> dict[str, Any]:
    """Two users: alice, who submits, and the pilot; the server's host."""
    found: dict[str, Any] = {"DefaultGroup": "feas_user", "DefaultProxyLifeTime": 86400, f"VO/{VO}/VOAdmin": "alice"}
    for user in ("alice", "pilot"):
        found[f"Users/{user}/DN"] = DN + user
        found[f"Users/{user}/Email"] = f"{user}@localhost"
    groups = {
        "feas_user": ("alice", "NormalUser"),
        "feas_pilot": ("pilot", "GenericPilot, LimitedDelegation"),
        "feas_admin": (
            "alice",
            "CSAdministrator, JobAdministrator, Operator, SiteManager, ProxyManagement, NormalUser",
        ),
    }
    for group, (user, properties) in groups.items():
        found |= {f"Groups/{group}/Users": user, f"Groups/{group}/Properties": properties, f"Groups/{group}/VO": VO}
    found["Groups/feas_user/AutoUploadProxy"] = "True"
    found["Hosts/localhost/DN"] = DN + "localhost"
    found["Hosts/localhost/Properties"] = (
        "TrustedHost, CSAdministrator, JobAdministrator, FullDelegation, ProxyManagement, SiteManager, Operator"
    )
    return {f"/Registry/{name}": value for name, value in found.items()}


def resources() -> dict[str, Any]:
    """One site with one computing element with one queue, and where sandboxes are."""
    top = f"/Resources/Sites/DIRAC/{SITE}"
    queue = f"{top}/CEs/{CE}/Queues/{QUEUE}"
    found: dict[str, Any] = {f"{top}/Name": "Test", f"{top}/CE": CE, f"{top}/CEs/{CE}/CEType": "Test"}
    found |= {f"{queue}/maxCPUTime": 1440, f"{queue}/SI00": 2500, f"{queue}/CPUTime": 86400}
    storage = f"/Resources/StorageElements/{STORAGE}"
    found |= {f"{storage}/BackendType": "DISET", f"{storage}/AccessProtocol": "dips"}
    access = {
        "Host": "localhost",
        "Port": PORTS["WorkloadManagement/SandboxStore"],
        "ProtocolName": "DIP",
        "Protocol": "dips",
        "Path": "/WorkloadManagement/SandboxStore",
        "Access": "remote",
    }
    return found | {f"{storage}/DIP/{name}": value for name, value in access.items()}


def systems(version: str, sandboxes: Path) -> dict[str, Any]:
    """Services with their ports, rights and URLs; databases; executors."""
    found: dict[str, Any] = {}
    more: dict[str, dict[str, Any]] = {
        "JobManager": {"MaxParametricJobs": 5000},
        "SandboxStore": {
            "LocalSE": STORAGE,
            "Backend": "local",
            "BasePath": sandboxes,
            "MaxSandboxSizeMiB": 10,
        },
        "ProxyManager": {"UseMyProxy": "False"},
        "ResourceStatus": {"Authorization/Default": "SiteManager", "Authorization/select": "all"},
    }
    for call in ("getProxy", "getVOMSProxy", "getProxyWithToken", "getVOMSProxyWithToken"):
        more["ProxyManager"][f"Authorization/{call}"] = PROXIES
    for service in of(version, ""):
        part, name = service.split("/")
        top = f"{system(version, part)}/Services/{name}/"
        found[f"{system(version, part)}/URLs/{name}"] = f"dips://localhost:{PORTS[service]}/{service}"
        found |= {top + "Port": PORTS[service], top + "MaxThreads": 40, top + "Authorization/Default": "authenticated"}
        found |= {top + option: value for option, value in more.get(name, {}).items()}
    for database, part in DATABASES.items():
        found[f"{system(version, part)}/Databases/{database}/DBName"] = database
    management = system(version, "WorkloadManagement")
    found[f"{management}/Executors/Optimizers/Load"] = "JobPath, JobSanity, JobScheduling"
    found[f"{management}/JobWrapper/MinOutputDataBufferGB"] = 1
    # kill orders of a job's owner are looked for that often (10 s is the least)
    found |= {f"{management}/JobWrapper/CheckingTime": 10, f"{management}/JobWrapper/MinCheckingTime": 10}
    if not version.startswith("8."):
        found[f"{management}/Databases/JobParametersDB/index_name"] = "job_parameters"
        found[f"{system(version, 'ResourceStatus')}/Databases/ResourceStatusDB/DBName"] = "ResourceStatusDB"
    return found
