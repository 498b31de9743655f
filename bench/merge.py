"""Every pilot of a large configuration: layers put together and scripts composed, 1,500 queues x 10 VOs."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.figures import Report, progress

SITES = 200
RESOURCES = 300
QUEUES = 1_500
VOS = 10

MEASURE = """\
import json, resource, time
from bench.merge import configuration_text
from pilotage.configuration import check, compose_pilot, loads, resolve

text = configuration_text()
start = time.process_time()
configuration = loads(text)
loaded = time.process_time() - start
targets = [
    (vo, name, queue)
    for _, name, part in configuration.resources()
    for queue in part.queues
    for vo in configuration.vos_of(part)
]
compose_pilot(configuration, *targets[0])
start = time.process_time()
for target in targets:
    resolve(configuration, *target)
resolved = time.process_time() - start
start = time.process_time()
size = 0
for target in targets:
    size += len(compose_pilot(configuration, *target).script)
composed = time.process_time() - start
del configuration
configuration = loads(text)
start = time.process_time()
check(configuration)
checked = time.process_time() - start
print(json.dumps({
    "profiles": len(targets), "loaded": loaded, "resolved": resolved, "composed": composed, "bytes": size,
    "checked": checked,
    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def configuration_text() -> str:
    """A configuration as a large community has it: every kind of layer says something about pilots."""
    flavours = ["CREAM", "ARC", "HTCONDOR-CE", "SLURM"]
    vos = {f"vo{number}": _vo(number) for number in range(VOS)}
    sites: dict[str, dict[str, object]] = {f"SITE-{number}": _site(number) for number in range(SITES)}
    for number in range(RESOURCES):
        queues = {f"queue{one}": _queue(one) for one in range(QUEUES // RESOURCES)}
        settings = {"options": {"RunJobAgent": {"idle_seconds": 60 + number % 7}}, "vos": {"vo2": {"log_mib": 20}}}
        resource = {"type": "local", "flavour": flavours[number % 4], "queues": queues, "pilot": settings}
        sites[f"SITE-{number % SITES}"]["resources"][f"ce{number}.example.org"] = resource  # type: ignore[index]
    return json.dumps({"service": {"url": "https://pilots.example.org"}, "vos": vos, "sites": sites}, indent=1)


def _vo(number: int) -> dict[str, object]:
    pilot = {"tags": [f"vo{number}"], "options": {"RunEnvironmentTest": {"min_disk_mib": 1000 + number}}}
    flavour = {"commands": {"remove": ["RunJobAgent"], "append": ["RunJobAgent"]}}
    return {"share": 1 + number, "pilot": pilot, "flavours": {"ARC": flavour}}


def _site(number: int) -> dict[str, object]:
    vos = {"vo1": {"tags": {"append": ["near"]}}}
    return {"pilot": {"platform": "x86_64-el9", "tags": {"append": [f"site-{number}"]}, "vos": vos}, "resources": {}}


def _queue(number: int) -> dict[str, object]:
    pilot = {
        "limits": {"memory_mib": 3000},
        "vos": {"vo3": {"options": {"RunMonitoringAgent": {"interval_seconds": 9}}}},
    }
    return {"cores": 1 + number, "wall_seconds": 3600 * (1 + number), "memory_mib": 4000, "pilot": pilot}


def run(report: Report, runs: int) -> None:
    for number in range(runs):
        progress(f"all pilots of {QUEUES} queues and {VOS} VOs, run {number + 1} of {runs}")
        told = subprocess.run([sys.executable, "-c", MEASURE], stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(told.stdout)
        each = 1000 / found["profiles"]
        report.add("profiles", found["profiles"])
        report.add("loading and validating the configuration", found["loaded"], "s", assertable=False)
        report.add("layers of all profiles put together", found["resolved"], "s", assertable=False)
        report.add("all pilots, layers and scripts", found["composed"], "s", bar=5.0, assertable=False)
        report.add("whether all pilots compose (every change of it)", found["checked"], "s", bar=3.0, assertable=False)
        report.add("one profile", found["resolved"] * each, "ms", bar=2.0, assertable=False)
        report.add("one pilot", found["composed"] * each, "ms", assertable=False)
        report.add("memory at most", found["memory"], "MiB", bar=300.0)
