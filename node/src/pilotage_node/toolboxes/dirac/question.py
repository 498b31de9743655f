"""The one question to DIRAC: is the configuration right? Asked in one process of DIRAC's own interpreter.

What DIRAC's pilots ask in several programs (platform, queue, CPU time, does the configuration server answer) costs a
start of Python and a connection each; here it is one of each.
"""

import json

from pilotage_node.toolboxes.dirac import programs
from pilotage_node.toolboxes.dirac.programs import Failed

MARK = "PILOTAGE-ANSWER "

PROGRAM = """
import json, sys
answer = {}
def tell():
    print("PILOTAGE-ANSWER " + json.dumps(answer))
    sys.exit(0)
try:
    import DIRAC
    from DIRAC.Core.Base.Script import Script
    proxy, site, ce, queue = sys.argv[1:5]
    sys.argv[1:5] = []
    answer["version"] = DIRAC.version
    if proxy:
        from DIRAC.Core.Security.X509Chain import X509Chain
        chain = X509Chain()
        result = chain.loadProxyFromFile(proxy)
        if not result["OK"]:
            answer["error"] = "the proxy %s cannot be used: %s" % (proxy, result["Message"])
            tell()
        answer["proxy_seconds"] = chain.getRemainingSecs().get("Value")
        if not answer["proxy_seconds"] or answer["proxy_seconds"] < 60:
            answer["expired"] = True
            tell()
    Script.parseCommandLine(ignoreErrors=True)
    from DIRAC import gConfig
    from DIRAC.ConfigurationSystem.Client.ConfigurationData import gConfigurationData
    from DIRAC.ConfigurationSystem.private.Refresher import gRefresher
    if not gConfigurationData.getName() or not gConfigurationData.remoteCFG.listSections():
        result = gRefresher.forceRefresh()
        answer["error"] = "no configuration server answers: %s" % (result.get("Message") or "it sent nothing")
        tell()
    answer["name"] = gConfigurationData.getName()
    answer["configuration"] = gConfigurationData.getVersion()
    top = "/Resources/Sites/%s/%s" % (site.split(".")[0], site)
    answer["site"] = gConfig.getSections(top)["OK"]
    answer["ce"] = gConfig.getOptionsDict("%s/CEs/%s" % (top, ce)).get("Value")
    answer["queue"] = gConfig.getOptionsDict("%s/CEs/%s/Queues/%s" % (top, ce, queue)).get("Value")
    answer["platform"] = DIRAC.getPlatform()
    if proxy:
        from DIRAC.Core.Security.ProxyInfo import getProxyInfo
        found = getProxyInfo(proxy, disableVOMS=True).get("Value") or {}
        for name in ("identity", "group", "username", "groupProperties"):
            answer[name] = found.get(name)
except Exception as error:
    answer["error"] = "%s: %s" % (type(error).__name__, error)
tell()
"""


def ask(software, configuration, directory, proxy, place, seconds):
    """What DIRAC says with a configuration: {"version", "proxy_seconds", "expired", "name", "configuration", "site",
    "ce", "queue", "platform", "identity", "group", "error"}, each where it is known.

    :param configuration: path of the file
    :param proxy: path, "" where a host certificate is used
    :param place: (site, CE, queue)
    :raises Failed: it did not answer
    """
    words = [software["python"], "-c", PROGRAM, proxy] + list(place) + ["--cfg", configuration]
    status, text = programs.attempt(words, seconds, software["environment"], directory)
    for line in text.splitlines():
        if line.startswith(MARK):
            answer = json.loads(line[len(MARK) :])
            said = programs.telling(text.replace(line, ""))
            if answer.get("error") and said:
                answer["error"] += " (DIRAC says: %s)" % said
            return answer
    raise Failed("DIRAC did not answer: %s" % (programs.telling(text) or "status %d, no words" % status))
