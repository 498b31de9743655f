"""The command ConfigureDIRAC: one pilot.cfg, checked by asking the Configuration System once."""

import os
import shlex

from pilotage_node import exitcodes
from pilotage_node.command import Command, CommandFailed, Option
from pilotage_node.toolboxes.dirac import cfg, programs, question, security, software
from pilotage_node.toolboxes.dirac.programs import Failed

DEFAULTS = "/Resources/Computing/CEDefaults/"
DAY = 86400
SI00 = 250.0
"""SpecInt2000 in one HS06."""


class ConfigureDIRAC(Command):
    """Write the configuration of DIRAC's programs for this pilot, and ask the Configuration System whether it is right.

    Each part of the configuration is a method of its own, which gives {"/Section/Name": value}: `servers`, `identity`,
    `security`, `place`, `node`, `work`, `more`. A VO's own ConfigureDIRAC inherits from this one and overrides one of
    them without the others. All goes into one file, ``pilot.cfg`` in the pilot's directory, which DIRAC's job agent
    shares with its jobs.

    It uses what InstallDIRAC gave; without, the image's own installation is discovered: the script of ``environment``,
    $DIRACOS/diracosrc, dirac-agent in the PATH, the usual places.

    Options:
        configuration_servers: URLs of configuration servers, dips://HOST:PORT/Configuration/Server
        setup: the DIRAC setup (DIRAC 8)
        environment: script that sets up the image's own DIRAC, for pilots that do not install one
        log_level: how much DIRAC's programs say
        generic_options: more options of the configuration, PATH=VALUE, as dirac-configure's -o
        extra_pilot_options: options of the DIRAC pilot; -o, -t, --requiredTag, -S, -C, -y, -l, -e have an effect
        user_environment: environment of jobs, NAME=VALUE
        shared_area: the directory of shared software
        proxy: the pilot's proxy; empty: $X509_USER_PROXY, else /tmp/x509up_uUID
        host_certificate, host_key: used instead of a proxy where both are set
        ca_directory: certificate authorities; empty: $X509_CERT_DIR, else the usual places
        skip_ca_checks: do not check the servers' certificates (DIRAC's SkipCAChecks); for tests only
        min_proxy_seconds: a proxy that ends sooner is refused [s]
        platform: the platform as DIRAC names it; empty: DIRAC's own word for this node
        cpu_power_hs06: CPU power of one core [HS06]; unset: the queue's SI00 in the Configuration System, else 10
        reserve_seconds: time kept at the end of the pilot, not offered to jobs [s]
        check_seconds: most time for the question to the Configuration System [s]

    Facts given: dirac: what `software` is, and "configuration" (path), "reference", "log_level", "cpu_power".

    Exit codes: ENVIRONMENT: no DIRAC, or no such site; NO_CREDENTIALS: a proxy or certificate that cannot be used;
    CONNECTIVITY: no configuration server answers; USAGE: an option that cannot be.
    """

    options = {
        "configuration_servers": Option(list, [], "URLs of configuration servers"),
        "setup": Option(str, "", "the DIRAC setup (DIRAC 8)"),
        "environment": Option(str, "", "script of the image's own DIRAC"),
        "log_level": Option(str, "INFO", "how much DIRAC's programs say"),
        "generic_options": Option(list, [], "more options of the configuration, PATH=VALUE"),
        "extra_pilot_options": Option(str, "", "options of the DIRAC pilot"),
        "user_environment": Option(list, [], "environment of jobs, NAME=VALUE"),
        "shared_area": Option(str, "", "the directory of shared software"),
        "proxy": Option(str, "", "the pilot's proxy; empty = as X509_USER_PROXY says"),
        "host_certificate": Option(str, "", "a host certificate to use instead of a proxy"),
        "host_key": Option(str, "", "and its key"),
        "ca_directory": Option(str, "", "certificate authorities; empty = as X509_CERT_DIR says"),
        "skip_ca_checks": Option(bool, False, "do not check servers' certificates"),
        "min_proxy_seconds": Option(float, 600.0, "a proxy that ends sooner is refused [s]"),
        "platform": Option(str, "", "the platform; empty = as DIRAC says"),
        "cpu_power_hs06": Option(float, None, "CPU power of one core [HS06]; unset = the queue's SI00"),
        "reserve_seconds": Option(float, 90.0, "time at the end that is not offered to jobs [s]"),
        "check_seconds": Option(float, 120.0, "most time for the question to the Configuration System [s]"),
    }
    wants = ("software",)
    provides = ("dirac",)
    timeout = 600

    def do(self):
        try:
            self.software = self.facts.software or software.discover(self.options.environment)
        except Failed as problem:
            raise CommandFailed(exitcodes.ENVIRONMENT, str(problem))
        self.log("DIRAC %(version)s from %(origin)s" % self.software)
        self.reference = self.pilot.record()["record"]["stamp"]
        self.path = os.path.join(self.pilot.workdir, "pilot.cfg")
        self.answer, self.environment = {}, {}
        try:
            extra = self.extra()
            for options in (self.servers(), self.identity(), self.security(), self.place(), self.node()):
                self.all_options = dict(getattr(self, "all_options", {}), **options)
            self.all_options.update(self.more(), **extra)
            self.write()
            self.check()
            self.all_options = dict(self.work(), **self.all_options)
            self.write()
        except ValueError as problem:
            raise CommandFailed(exitcodes.USAGE, str(problem))
        self.give()

    def plan(self):
        self.log("would write pilot.cfg and ask %s" % ", ".join(self.options.configuration_servers))

    # -- the parts of the configuration

    def servers(self):
        if not self.options.configuration_servers and "-C" not in shlex.split(self.options.extra_pilot_options):
            raise ValueError("ConfigureDIRAC.configuration_servers is empty: DIRAC cannot be asked for anything")
        return {"/DIRAC/Configuration/Servers": self.options.configuration_servers}

    def identity(self):
        """Who the pilot is for: VO, setup, version."""
        vo = self.pilot.profile["vo"]
        return {
            "/DIRAC/Setup": self.options.setup,
            "/DIRAC/VirtualOrganization": vo,
            DEFAULTS + "VirtualOrganization": vo,
            "/LocalSite/ReleaseVersion": self.software["version"],
        }

    def security(self):
        """Credentials and certificate authorities. Sets `self.proxy` and what DIRAC's programs need of environment."""
        options = self.options
        inherited = programs.environment(self.software["environment"])
        directory, problems = security.authorities(options.ca_directory, inherited, self.listing)
        for problem in security.voms(inherited, self.listing):
            self.log("note: " + problem)
        if problems and not options.skip_ca_checks:
            raise CommandFailed(exitcodes.ENVIRONMENT, "; ".join(problems))
        if directory:
            self.environment[security.CA] = directory
        found = {"/DIRAC/Security/UseServerCertificate": False, "/DIRAC/Security/CALocation": directory}
        found["/DIRAC/Security/SkipCAChecks"] = options.skip_ca_checks or None
        self.proxy = ""
        if options.host_certificate and options.host_key:
            problem = security.credential(options.host_key, "host key")
            found["/DIRAC/Security/UseServerCertificate"] = True
            found["/DIRAC/Security/CertFile"] = options.host_certificate
            found["/DIRAC/Security/KeyFile"] = options.host_key
        else:
            self.proxy = options.proxy or inherited.get(security.PROXY) or "/tmp/x509up_u%d" % os.getuid()
            self.environment[security.PROXY] = self.proxy
            problem = security.credential(self.proxy, "proxy")
        if problem:
            raise CommandFailed(exitcodes.NO_CREDENTIALS, problem)
        return found

    def place(self):
        """Where the pilot is."""
        profile = self.pilot.profile
        return {
            "/LocalSite/Site": profile["site"],
            "/LocalSite/GridCE": profile["resource"],
            "/LocalSite/CEQueue": profile["queue"],
            "/LocalSite/PilotReference": self.reference,
            "/LocalSite/SharedArea": self.options.shared_area,
        }

    def node(self):
        """What jobs may use of the node, and its tags."""
        node, tags = self.facts.node, self.pilot.profile.get("tags") or []
        return {
            DEFAULTS + "NumberOfProcessors": node["cores"],
            DEFAULTS + "MaxRAM": node["memory_mib"],
            DEFAULTS + "NumberOfGPUs": node["gpus"] or None,
            DEFAULTS + "Tag": tags,
        }

    def work(self):
        """The platform, and how much work fits into the time that is left; known only once DIRAC has answered."""
        queue, power = self.answer.get("queue") or {}, self.options.cpu_power_hs06
        power = power or number(queue.get("SI00")) / SI00 or 10.0
        left = self.facts.node["seconds_left"]
        if left is not None:
            work = max(0, left - self.options.reserve_seconds) * power
        else:
            work = number(queue.get("CPUTime")) or number(queue.get("maxCPUTime")) * 60 * power or DAY * power
        platform = self.options.platform or self.answer.get("platform")
        self.power = power
        return {
            "/LocalSite/Architecture": platform,
            "/LocalSite/Platform": platform,
            "/LocalSite/CPUNormalizationFactor": "%.2f" % power,
            "/LocalSite/CPUScalingFactor": "%.2f" % power,
            "/LocalSite/CPUTime": int(work),
            "/LocalSite/CPUTimeLeft": int(work),
        }

    def more(self):
        """What the operator sets by path; it wins over the rest."""
        return dict(cfg.split_option(text) for text in self.options.generic_options)

    def extra(self):
        """The options of the DIRAC pilot that have a counterpart here. :raises ValueError: one that has none"""
        words, found, tags = shlex.split(self.options.extra_pilot_options), {}, {"Tag": [], "RequiredTag": []}
        paths = {
            "-S": "/DIRAC/Setup",
            "-C": "/DIRAC/Configuration/Servers",
            "-y": "/LocalSite/LocalCE",
            "-l": "/LocalSite/ReleaseProject",
            "-e": "/DIRAC/Extensions",
        }
        while words:
            word = words.pop(0)
            name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
            if not equals:
                if not words:
                    raise ValueError("ConfigureDIRAC.extra_pilot_options: %s has no value" % word)
                value = words.pop(0)
            if name in ("-o", "--option"):
                found.update([cfg.split_option(value)])
            elif name in ("-t", "--tag", "--requiredTag"):
                tags["RequiredTag" if name == "--requiredTag" else "Tag"] += value.split(",")
            elif name in paths:
                found[paths[name]] = value
            else:
                text = "ConfigureDIRAC.extra_pilot_options: %s has no effect here; use the options of the commands"
                raise ValueError(text % name)
        found.update((DEFAULTS + name, tags[name]) for name in tags if tags[name])
        return found

    # -- writing and checking

    def write(self):
        with open(self.path + ".new", "w") as file:
            file.write(cfg.text_of(self.all_options))
        os.replace(self.path + ".new", self.path)

    def check(self):
        """Ask DIRAC with this configuration; say what is wrong."""
        site, ce, queue = (self.all_options.get("/LocalSite/" + name) or "" for name in ("Site", "GridCE", "CEQueue"))
        known = dict(self.software, environment=self.programs_environment())
        try:
            answer = question.ask(
                known, self.path, self.pilot.workdir, self.proxy, (site, ce, queue), self.options.check_seconds
            )
        except Failed as problem:
            raise CommandFailed(exitcodes.CONNECTIVITY, str(problem))
        self.answer, left = answer, answer.get("proxy_seconds")
        if answer.get("expired") or (left is not None and left < self.options.min_proxy_seconds):
            text = "the proxy %s has expired" if answer.get("expired") else "the proxy %s ends in %d s, too soon"
            raise CommandFailed(exitcodes.NO_CREDENTIALS, text % ((self.proxy, left or 0)[: text.count("%")]))
        if answer.get("error"):
            servers = cfg.as_text(self.all_options["/DIRAC/Configuration/Servers"])
            raise CommandFailed(exitcodes.CONNECTIVITY, "%s; servers: %s" % (answer["error"], servers))
        self.log("configuration %(name)s of %(configuration)s; proxy of %(identity)s, group %(group)s" % Said(answer))
        if not answer.get("site"):
            raise CommandFailed(exitcodes.ENVIRONMENT, "DIRAC's configuration has no site '%s'" % site)
        for what, name in (("ce", ce), ("queue", queue)):
            if answer.get(what) is None:
                self.log("note: DIRAC's configuration has no %s '%s' at %s" % (what, name, site))

    def programs_environment(self):
        """What DIRAC's programs get: the installation's, the credentials, this configuration, the jobs' own."""
        made = dict(self.software["environment"], **self.environment)
        made.update(DIRAC_ROOT_PATH=self.pilot.workdir, DIRACSYSCONFIG=self.path, PYTHONUNBUFFERED="yes")
        for text in self.options.user_environment:
            name, equals, value = text.partition("=")
            if not equals or not name:
                raise ValueError("ConfigureDIRAC.user_environment: %r is not NAME=VALUE" % text)
            made[name] = value
        return made

    def give(self):
        """The fact that RunJobAgent needs."""
        self.facts.dirac = dict(
            self.software,
            environment=self.programs_environment(),
            configuration=self.path,
            reference=self.reference,
            log_level=self.options.log_level,
            cpu_power=self.power,
        )

    def listing(self, path):
        """The names in a directory, which may be on a file system that hangs."""
        try:
            return programs.run(["ls", "-A", path], 30).split()
        except Failed as problem:
            raise OSError(str(problem))


class Said(dict):
    """An answer in which what is not known is a dash."""

    def __missing__(self, key):
        return "-"


def number(text):
    """A number of the Configuration System; 0 where it has none."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
