"""The command InstallDIRAC: DIRAC's programs, from the first source that has them."""

import os
import platform
import shlex

from pilotage_node import exitcodes
from pilotage_node.command import Command, CommandFailed, Option
from pilotage_node.toolboxes.dirac import programs, software
from pilotage_node.toolboxes.dirac.programs import Failed

CVMFS = """
ls "$1" > /dev/null || exit 1
shift
for file; do test -f "$file" && { echo "PILOTAGE $file"; exit; }; done
echo "not found: $*"
exit 1
"""
"""Lists a location, which mounts it, and prints the first of the files that is there."""


class InstallDIRAC(Command):
    """Find or make an installation of DIRAC; the first source that works wins.

    The sources, in the configured order; one for which nothing is configured is passed over:
        preinstalled: the environment script, else PREFIX/VERSION/SYSTEM-MACHINE/diracosrc
        cvmfs: each location is listed, with a time limit that a hanging mount cannot defeat; below it the first of
            VERSION/SYSTEM-MACHINE/diracosrc, dirac/VERSION/SYSTEM-MACHINE/diracosrc, diracosrc
        diracos: the DIRACOS2 installer from the first of its URLs with the right SHA-256, then DIRAC by pip in it
        pip: a virtual environment, and DIRAC by pip
    Whatever is found is started once before it counts. What was half made is removed before the next source is tried;
    why each one failed is in the log and, if none works, in the result. An installation in ``place`` is made by one
    pilot of the node at a time, and used again by others once its files are as they were.

    Options:
        sources: the sources and their order
        version: DIRAC's (or the project's) version, as 8.0.86; empty: the newest, or "pro" of what is installed already
        project: the extension whose version that is, as LHCb or LHCbDIRAC; empty: DIRAC itself
        installation: the name of an installation with defaults of its own: the project, where no project is named
        extensions: more packages of DIRAC's kind, NAME or NAME==VERSION
        preinstalled_environment: a script to source
        preinstalled_environment_prefix: the directory below which versions are installed
        cvmfs_locations: directories on CVMFS, in order
        cvmfs_seconds: most time for a location [s]
        diracos_urls: where the DIRACOS2 installer is, in order; {machine} is the machine
        diracos_sha256: its SHA-256; it is never run without
        python: the interpreter that makes the virtual environment
        index: URL of pip's index; empty: pip's own configuration; "none": only what `wheels` has
        wheels: a directory or URL with wheels to use as well
        pip_options: more options of pip
        packages: more packages, NAME, or VERSION:NAME for versions of DIRAC that begin so
        modules: packages to install from their source instead, URL:::NAME:::BRANCH
        generic_options: diracInstallOnly: never from CVMFS; cvmfsOnly: never install
        place: the directory of installations, shared by the node's pilots; empty: this pilot's own, which goes with it
        install_seconds: most time for making one [s]

    Facts given: software: how DIRAC's programs are started.

    Exit codes: ENVIRONMENT when no source works.
    """

    options = {
        "sources": Option(list, ["preinstalled", "cvmfs", "diracos", "pip"], "sources, in order"),
        "version": Option(str, "", "version of DIRAC or of the project"),
        "project": Option(str, "", "the extension whose version that is"),
        "installation": Option(str, "", "name of an installation with defaults of its own"),
        "extensions": Option(list, [], "more extensions, NAME or NAME==VERSION"),
        "preinstalled_environment": Option(str, "", "a script to source instead of installing"),
        "preinstalled_environment_prefix": Option(str, "", "directory below which versions are installed"),
        "cvmfs_locations": Option(list, [], "directories on CVMFS, in order"),
        "cvmfs_seconds": Option(float, 60.0, "most time for a location [s]"),
        "diracos_urls": Option(
            list,
            ["https://github.com/DIRACGrid/DIRACOS2/releases/latest/download/DIRACOS-Linux-{machine}.sh"],
            "where the DIRACOS2 installer is, in order",
        ),
        "diracos_sha256": Option(str, "", "SHA-256 of the installer; never run without"),
        "python": Option(str, "python3", "interpreter that makes the virtual environment"),
        "index": Option(str, "", "pip's index; none = only the wheels"),
        "wheels": Option(str, "", "a directory or URL with wheels"),
        "pip_options": Option(str, "", "more options of pip"),
        "packages": Option(list, ["9:mysqlclient", "9:opensearch-py"], "more packages, NAME or VERSION:NAME"),
        "modules": Option(list, [], "packages from their source, URL:::NAME:::BRANCH"),
        "generic_options": Option(list, [], "diracInstallOnly, cvmfsOnly"),
        "place": Option(str, "", "directory of installations that pilots share; empty = the pilot's own"),
        "install_seconds": Option(float, 1800.0, "most time for making an installation [s]"),
    }
    provides = ("software",)
    timeout = 7200

    def do(self):
        problems = []
        for name in self.chosen():
            try:
                found = getattr(self, "from_" + name)()
            except (Failed, OSError, ValueError) as problem:
                problems.append("%s: %s" % (name, problem))
                self.log("%s does not work: %s" % (name, problem))
                continue
            if found:
                self.log("DIRAC %(version)s from %(origin)s" % found)
                self.facts.software = found
                return
        text = "; ".join(problems) or "no source is configured"
        raise CommandFailed(exitcodes.ENVIRONMENT, "DIRAC cannot be installed: " + text)

    def plan(self):
        self.log("would try, in this order: %s" % ", ".join(self.chosen()))
        self.log("would install: %s" % " ".join(self.requirements()))

    def chosen(self):
        """The sources to try. :raises CommandFailed: one has an unknown name"""
        never = []
        if "diracInstallOnly" in self.options.generic_options:
            never += ["preinstalled", "cvmfs"]
        if "cvmfsOnly" in self.options.generic_options:
            never += ["diracos", "pip"]
        for name in self.options.sources:
            if name not in ("preinstalled", "cvmfs", "diracos", "pip"):
                text = "InstallDIRAC.sources: '%s' is none of preinstalled, cvmfs, diracos, pip" % name
                raise CommandFailed(exitcodes.USAGE, text)
        return [name for name in self.options.sources if name not in never]

    # -- the sources: each gives the software, None where nothing is configured for it, or raises Failed

    def from_preinstalled(self):
        options, script = self.options, self.options.preinstalled_environment
        if not script and not options.preinstalled_environment_prefix:
            return None
        scripts = [script] if script else self.scripts(options.preinstalled_environment_prefix)[:2]
        problems = []
        for script in scripts:
            try:
                return self.right(software.of_script(script, script, options.cvmfs_seconds))
            except Failed as problem:
                problems.append("%s: %s" % (script, problem))
        raise Failed("; ".join(problems))

    def from_cvmfs(self):
        problems = []
        for location in self.options.cvmfs_locations:
            try:
                scripts = self.scripts(location)
                text = programs.run(["sh", "-c", CVMFS, "sh", location] + scripts, self.options.cvmfs_seconds)
                script = text.rpartition("PILOTAGE ")[2].strip()
                return self.right(software.of_script(script, script, self.options.cvmfs_seconds))
            except Failed as problem:
                problems.append("%s: %s" % (location, problem))
        if problems:
            raise Failed("; ".join(problems))
        return None

    def from_diracos(self):
        options = self.options
        if not options.diracos_sha256:
            self.log("diracos is passed over: no diracos_sha256 is configured")
            return None
        from pilotage_node.toolboxes.dirac import installing

        urls = [url.replace("{machine}", platform.machine()) for url in options.diracos_urls]
        cores = self.facts.node["cores"]
        recipe = installing.diracos(urls, options.diracos_sha256, self.requirements(), self.pip(), cores)
        return self.installed(recipe)

    def from_pip(self):
        from pilotage_node.toolboxes.dirac import installing

        cores = self.facts.node["cores"]
        return self.installed(installing.virtual(self.options.python, self.requirements(), self.pip(), cores))

    # -- what they have in common

    def installed(self, recipe):
        """Made, or used again."""
        from pilotage_node.toolboxes.dirac.installing import Place

        place = Place(self.options.place or os.path.join(self.pilot.workdir, "dirac-software"))
        return self.right(place.installed(recipe[0], recipe[1], self.options.install_seconds, self.log))

    def scripts(self, top):
        """Where below a directory an installation's script may be, in order."""
        version = self.options.version or "pro"
        part = os.path.join(version, platform.system() + "-" + platform.machine(), "diracosrc")
        places = [part, "v" + part, os.path.join("dirac", part), os.path.join("dirac", "v" + part), "diracosrc"]
        return [os.path.join(top, place) for place in places]

    def right(self, found):
        """The software, if its version is the one wanted. :raises Failed: it is another"""
        wanted = self.options.version.lstrip("v")
        if wanted and not self.project() and found["version"].lstrip("v") != wanted:
            raise Failed("%s is DIRAC %s, not %s" % (found["origin"], found["version"], wanted))
        return found

    def project(self):
        """The name of the extension's package; "" for DIRAC itself."""
        name = self.options.project or self.options.installation
        if name in ("", "DIRAC"):
            return ""
        return name if name.endswith("DIRAC") else name + "DIRAC"

    def requirements(self):
        """What pip installs."""
        options, version = self.options, self.options.version.lstrip("v")
        wanted = [(self.project() or "DIRAC") + ("==" + version if version else "")]
        for extension in options.extensions:
            name, equals, pinned = extension.partition("==")
            wanted.append((name if name.endswith("DIRAC") else name + "DIRAC") + equals + pinned)
        for package in options.packages:
            prefix, colon, name = package.partition(":")
            if not colon or not prefix[:1].isdigit():
                wanted.append(package)
            elif version.startswith(prefix) or (not version and not self.project()):
                wanted.append(name)
        for module in options.modules:
            parts = (module.split(":::") + ["", ""])[:3]
            source, name = sorted(parts[:2], key=lambda part: "/" not in part)
            wanted = [other for other in wanted if other.partition("==")[0] != name]
            wanted.append("%s @ git+%s%s" % (name, source, parts[2] and "@" + parts[2]))
        return wanted

    def pip(self):
        """More words for pip."""
        options, words = self.options, []
        if options.index:
            words += ["--no-index"] if options.index == "none" else ["--index-url", options.index]
        if options.wheels:
            words += ["--find-links", options.wheels]
        return words + shlex.split(options.pip_options)
