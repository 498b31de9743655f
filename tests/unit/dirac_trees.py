"""Made-up DIRAC configurations for hypothesis: valid `.cfg` trees with all that an import looks at, and odd values."""

from __future__ import annotations

from hypothesis import strategies as st

from pilotage.configuration.dirac.cfg import Option, Section

TYPES = ("ARC", "AREX", "ARC6", "HTCondorCE", "SSH", "SSHBatch", "Cloud", "CLOUD", "Vac", "Vcycle", "BOINC", "Globus")
VOS = ("lhcb", "biomed", "vo.cta.in2p3.fr")
SETUPS = ("Prod", "Cert")
COMMANDS = ("CheckWorkerNode", "InstallDIRAC", "ConfigureBasics", "LaunchAgent", "LHCbCommand", "not-one")


def section(**strategies: st.SearchStrategy[object]) -> st.SearchStrategy[Section]:
    """A section with some of these entries; a text is an option's value."""
    return st.fixed_dictionaries({}, optional=strategies).map(of)


def of(entries: dict[str, object]) -> Section:
    return Section({name: Option(value) if isinstance(value, str) else value for name, value in entries.items()})  # type: ignore[misc]


def lists(values: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(values), max_size=4).map(", ".join)


def below(names: st.SearchStrategy[str], inner: st.SearchStrategy[object], most: int = 3) -> st.SearchStrategy[Section]:
    return st.dictionaries(names, inner, max_size=most).map(of)


numbers = st.one_of(st.integers(0, 10**6).map(str), st.sampled_from(["", "-3", "12.5", "many", "8 # cores", "9" * 30]))
texts = st.sampled_from(["", "v8.0", "1e5", "08", "no", "a b", "/cvmfs/x y", "x # y", "null", "a=b", "ü"])

pilots = section(
    Version=st.sampled_from(["v8", "v8, v7", "", "10.2"]),
    Project=texts,
    CVMFS_locations=lists(("/cvmfs/a", "/cvmfs/b", "1.5")),
    PreInstalledEnv=texts,
    Extensions=lists(("LHCb", "WebApp")),
    CommandExtensions=st.sampled_from(["LHCb", "LHCbPilot", "A, B", "", "no-name"]),
    ConfigurationServer=lists(("dips://a:1/x", "dips://b:1/x")),
    RemoteLogging=texts,
    Surprise=texts,
    Commands=below(st.sampled_from((*TYPES, "Defaults")), lists(COMMANDS), 4),
)
levels = section(Pilot=pilots, JobScheduling=section(x=texts))
operations = st.fixed_dictionaries(
    {},
    optional={
        "Defaults": levels,
        **dict.fromkeys(SETUPS, levels),
        **{vo: section(Pilot=pilots, Defaults=levels, Prod=levels, Cert=levels) for vo in (*VOS, "LHCb2")},
    },
).map(of)

_common = {
    "VO": lists((*VOS, "LHCB", "other vo")),
    "Tag": lists(("GPU", "96RAM", "b@d")),
    "RequiredTag": lists(("GPU", "x")),
    "LocalCEType": st.sampled_from(["Pool", "Pool/Singularity", ""]),
    "GenericOptions": lists(("diracInstallOnly", "cvmfsOnly", "-o=x", "Foo")),
    "UserEnvVariables": lists(("A:::1", "B:::2:::3", "C")),
    "Platform": st.sampled_from(["x86_64-el9", "a b", ""]),
    "WholeNode": st.sampled_from(["True", "no"]),
    **dict.fromkeys(("NumberOfProcessors", "MaxRAM", "MaxTotalJobs", "MaxWaitingJobs"), numbers),
    **dict.fromkeys(("maxCPUTime", "SI00", "CPUTime"), numbers),
    "OS": texts,
}
queues = section(**_common)
ces = section(
    **_common,
    CEType=st.sampled_from((*TYPES, "", "bad type")),
    BatchSystem=st.sampled_from(["SLURM", "Torque"]),
    Queues=below(st.sampled_from(["long", "short", "a/b".replace("/", ":"), "a b", "a_b"]), queues),
)
sites = section(
    Name=texts,
    VO=lists(VOS),
    CEs=below(st.sampled_from(["ce1", "ce2", "ce1-biomed", "ce1:9619"]), ces),
)
resources = section(
    Computing=section(DefaultLocalCEType=texts, CEDefaults=queues, ARC=queues, OSCompatibility=section(x=texts)),
    Sites=below(
        st.sampled_from(["LCG", "EGI"]), below(st.sampled_from(["LCG.A.ch", "EGI.B.fr", "odd site"]), sites, 2), 2
    ),
)
roots = section(
    DIRAC=section(
        Setup=st.sampled_from(SETUPS),
        Setups=st.just(of({"Prod": Section(), "Cert": Section()})),
        VirtualOrganization=st.sampled_from(["", "solo"]),
        Configuration=section(Servers=lists(("dips://a:1/x", "dips://b:1/x")), Name=texts),
    ),
    Registry=section(
        VO=below(st.sampled_from(VOS), section(VOMSName=texts)),
        Groups=below(st.sampled_from(["u", "p"]), section(VO=st.sampled_from(VOS), Users=texts)),
    ),
    Operations=operations,
    Resources=resources,
    Systems=section(x=texts),
)
