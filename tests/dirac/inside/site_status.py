"""Run in the environment of a DIRAC 9 server, with its host certificate: make the site and the sandbox storage Active.

usage: site_status.py SITE STORAGE
"""

import datetime
import sys

from DIRAC.Core.Base.Script import Script

site, storage = sys.argv[1:3]
sys.argv[1:3] = []
Script.localCfg.addDefaultEntry("/DIRAC/Security/UseServerCertificate", "yes")
Script.parseCommandLine(ignoreErrors=True)

from DIRAC.ResourceStatusSystem.Client.ResourceStatusClient import ResourceStatusClient  # noqa: E402

now, never = datetime.datetime.utcnow().replace(microsecond=0), datetime.datetime(9999, 12, 31, 23, 59, 59)
wanted = [("Site", site, "all", "DIRAC")]
for access in ("ReadAccess", "WriteAccess", "CheckAccess", "RemoveAccess"):
    wanted.append(("Resource", storage, access, "StorageElement"))
for element, name, status_type, element_type in wanted:
    result = ResourceStatusClient().addOrModifyStatusElement(
        element,
        "Status",
        name=name,
        statusType=status_type,
        status="Active",
        elementType=element_type,
        reason="a test",
        dateEffective=now,
        lastCheckTime=now,
        tokenOwner="rs_svc",
        tokenExpiration=never,
    )
    if not result["OK"]:
        sys.exit(f"{name} {status_type}: {result['Message']}")
