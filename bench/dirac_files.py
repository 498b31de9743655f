"""A DIRAC configuration as big and as motley as a real one: its text, made the same each time."""

from __future__ import annotations

GRIDS = ("LCG", "EGI", "DIRAC", "CLOUD", "VAC")
TYPES = ("HTCondorCE", "AREX", "HTCondorCE", "AREX", "SSH", "Cloud", "Vac", "CREAM")
VOS = ("lhcb", "biomed", "ilc", "belle", "clas12", "vo.cta.in2p3.fr", "t2k.org", "na62", "km3net.org", "dteam")

HEAD = """\
DIRAC
{
  Setup = Dirac-Production
  Configuration
  {
    Name = Production
    Servers = dips://dirac01.example.org:9135/Configuration/Server
    Servers += dips://dirac02.example.org:9135/Configuration/Server
  }
}
Systems
{
  WorkloadManagement
  {
    Production
    {
      Agents
      {
        SiteDirectorLCG
        {
          Module = SiteDirector
          VO = lhcb
          CETypes = HTCondorCE, AREX
        }
      }
    }
  }
}
"""

PILOT = """\
  Defaults
  {
    Pilot
    {
      Version = v8.0.40
      Project = DIRAC
      CVMFS_locations = /cvmfs/dirac.egi.eu/dirac, /cvmfs/lhcb.cern.ch/lib
      RemoteLogging = True
      pilotFileServer = lbdirac.example.org
      Commands
      {
        Defaults = CheckWorkerNode
        Defaults += InstallDIRAC
        Defaults += ConfigureBasics
        Defaults += LaunchAgent
        AREX = CheckWorkerNode, InstallDIRAC, ConfigureBasics, RegisterPilot, LaunchAgent
        Vac = ConfigureBasics, LaunchAgent
      }
    }
    JobScheduling
    {
      EnableSharesCorrection = True
    }
  }
"""


def big(sites: int = 200, queues: int = 1500) -> str:
    """The text of a configuration with so many sites and queues; each site has about two CEs."""
    lines = [HEAD, "Registry\n{\n  VO\n  {\n"]
    lines += [f"    {vo}\n    {{\n      VOMSName = {vo}\n    }}\n" for vo in VOS]
    lines += ["  }\n  Groups\n  {\n"]
    lines += [f"    {vo}_user\n    {{\n      VO = {vo}\n      JobShare = 100\n    }}\n" for vo in VOS]
    lines += ["  }\n}\nOperations\n{\n", PILOT]
    for vo in VOS[:3]:
        lines.append(
            f"  {vo}\n  {{\n    Pilot\n    {{\n      Version = v11.0.{len(vo)}\n      Commands\n      {{\n"
            f"        HTCondorCE = CheckWorkerNode, InstallDIRAC, {vo.upper()}Configure, LaunchAgent\n"
            "      }\n    }\n  }\n"
        )
    lines.append("}\nResources\n{\n  Computing\n  {\n    DefaultLocalCEType = InProcess\n  }\n  Sites\n  {\n")
    for index, grid in enumerate(GRIDS):
        lines.append(f"    {grid}\n    {{\n")
        lines += [
            _site(grid, number, queues // sites + (number < queues % sites))
            for number in range(index, sites, len(GRIDS))
        ]
        lines.append("    }\n")
    return "".join([*lines, "  }\n}\n"])


def _site(grid: str, number: int, queues: int) -> str:
    """A site with its queues on two CEs."""
    name = f"{grid}.Site{number:03d}.{('ch', 'fr', 'uk', 'es', 'jp')[number % 5]}"
    lines = [
        f"      {name}\n      {{\n        Name = SITE-{number:03d}\n        Coordinates = {number % 90}.5:46.2\n",
        f"        Mail = grid-{number}@example.org\n        SE = SE-{number}-RAW\n        SE += SE-{number}-DST\n",
        f"        CE = ce0.site{number:03d}.example.org\n        CE += ce1.site{number:03d}.example.org\n",
        "        CEs\n        {\n",
    ]
    for ce in range(2):
        kind = TYPES[(number + ce) % len(TYPES)]
        lines.append(
            f"          ce{ce}.site{number:03d}.example.org\n          {{\n            CEType = {kind}\n"
            "            architecture = x86_64\n            OS = linux_AlmaLinux_9\n            SI00 = 2500\n"
            f"            LocalCEType = Pool/Singularity\n            Tag = Site{number}, MultiProcessor\n"
            "            Queues\n            {\n"
        )
        for queue in range(ce, queues, 2):
            vos = ", ".join(VOS[: 1 + (number + ce) % len(VOS)])
            lines.append(
                f"              queue-{queue}\n              {{\n                VO = {vos}\n"
                f"                maxCPUTime = {1440 * (1 + queue % 3)}\n                SI00 = 2500\n"
                f"                MaxTotalJobs = {1000 + queue}\n                MaxWaitingJobs = 50\n"
                f"                NumberOfProcessors = {(1, 8)[queue % 2]}\n"
                f"                MaxRAM = {2048 * (1 + queue)}\n"
                + ("                RequiredTag = GPU\n" if queue % 5 == 0 else "")
                + "              }\n"
            )
        lines.append("            }\n          }\n")
    return "".join([*lines, "        }\n      }\n"])
