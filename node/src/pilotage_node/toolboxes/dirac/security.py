"""The files that DIRAC's security needs on a node: which ones are used, and what is wrong with them, in words.

DIRAC itself says little of an empty directory: its connection just fails, or a tool of it ends without a message.
"""

import os
import re
import stat

CA, VOMS, VOMSES, PROXY = "X509_CERT_DIR", "X509_VOMS_DIR", "X509_VOMSES", "X509_USER_PROXY"
CA_PLACES = ("/etc/grid-security/certificates", "/cvmfs/grid.cern.ch/etc/grid-security/certificates")
HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+$")


def authorities(configured, inherited, seconds_listing):
    """The directory of certificate authorities: (path, problems).

    :param configured: the option, "" = what the environment says, else the usual places
    :param inherited: the environment of DIRAC's programs
    :param seconds_listing: gives the names in a directory; it may raise OSError, and bounds its time
    """
    named = configured or inherited.get(CA, "")
    places = [named] if named else list(CA_PLACES)
    problems = []
    for place in places:
        problem = directory_problem(place, seconds_listing, True)
        if not problem:
            return place, []
        problems.append(problem)
    how = "" if named else " (and %s is not set)" % CA
    return None, ["no certificate authorities%s: %s" % (how, "; ".join(problems))]


def directory_problem(path, listing, hashed=False):
    """What is wrong with a directory of security files; None when nothing is."""
    try:
        names = listing(path)
    except OSError as error:
        return "%s: %s" % (path, error.strerror or error)
    if not names:
        return "%s is empty" % path
    if hashed and not any(HASHED.match(name) for name in names):
        return "%s has no hashed names (like 1a2b3c4d.0) of certificates: run openssl rehash there" % path
    return None


def voms(inherited, listing):
    """What is odd about the VOMS directories: only proxies with VOMS attributes need them, so it stops nobody."""
    found = []
    for name in (VOMS, VOMSES):
        path = inherited.get(name)
        problem = path and not os.path.isfile(path) and directory_problem(path, listing)
        if problem:
            found.append("%s: %s; a proxy with VOMS attributes cannot be checked by it" % (name, problem))
    return found


def credential(path, what):
    """What is wrong with a file that holds a private key; None when nothing is that can be seen from outside."""
    try:
        with open(path, "rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(1 << 20)
    except OSError as error:
        return "the %s %s cannot be read: %s" % (what, path, error.strerror or error)
    if stat.S_IMODE(mode) & 0o077:
        return "the %s %s can be read by others (mode %03o): 600 is wanted" % (what, path, stat.S_IMODE(mode))
    if b"PRIVATE KEY" not in text:
        return "the %s %s holds no private key" % (what, path)
    if what == "proxy" and b"BEGIN CERTIFICATE" not in text:
        return "the proxy %s holds no certificate" % path
    return None
