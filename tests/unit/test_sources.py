"""Where toolboxes come from: the same tree from a directory, a wheel, an archive, a package; hostile ones refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pilotage.configuration import sources
from pilotage.configuration.compaction import ToolboxError
from pilotage.configuration.parts import Toolbox

FILES = {
    "mytools/__init__.py": b'__version__ = "1.2"\n',
    "mytools/RunX.py": b"class RunX:\n    def do(self): pass\n",
    "mytools/table.json": b"{}\n",
}


def lay(root: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def zipped(path: Path, files: dict[str, bytes] = FILES, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content)
    return path


def tarred(path: Path, files: dict[str, bytes] = FILES, prefix: str = "", *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in more:
            archive.addfile(entry)
    return path


def box(path: Path, sha256: str | None = None) -> Toolbox:
    if sha256 is None and path.is_file():
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Toolbox(name="mine", path=str(path), sha256=sha256)


def refused(path: Path) -> str:
    with pytest.raises(ToolboxError) as caught:
        sources.read(box(path))
    text = str(caught.value)
    assert text.startswith(str(path)), text
    return text[len(str(path)) :]


METADATA = {"mytools-1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: mytools\nVersion: 1.2\n"}
PROJECT = {"pyproject.toml": b"", "setup.py": b"raise SystemExit\n", "tests/test_x.py": b"", "README.md": b""}


def test_every_form_of_a_source_gives_the_same_files(tmp_path: Path) -> None:
    in_project = {**PROJECT, **FILES}
    in_src = {**PROJECT, **{f"src/{name}": content for name, content in FILES.items()}}
    found = [
        lay(tmp_path / "plain") / "mytools",
        lay(tmp_path / "folder"),
        lay(tmp_path / "project", in_project),
        lay(tmp_path / "mytools", in_src),
        lay(tmp_path / "with-dash", in_src),
        zipped(tmp_path / "mytools-1.2-py3-none-any.whl", {**FILES, **METADATA}),
        zipped(tmp_path / "plain.zip"),
        zipped(tmp_path / "github.zip", in_project, "mytools-main/"),
        tarred(tmp_path / "plain.tar.gz"),
        tarred(tmp_path / "dotted.tar.gz", FILES, "./"),
        tarred(tmp_path / "sdist.tar.gz", in_src, "mytools-1.2/"),
        tarred(tmp_path / "named.tar.gz", in_project, "mytools/"),
    ]
    for path in found:
        tree = sources.read(box(path))
        assert dict(tree.files) == FILES, path
        assert tree.version == "1.2", path
        assert tree.digest == sources.read(box(found[0])).digest, path
    (tmp_path / "current").mkdir()
    (tmp_path / "moved-1.2").symlink_to(found[0])
    (tmp_path / "current" / "mytools").symlink_to(tmp_path / "moved-1.2")
    assert dict(sources.read(box(tmp_path / "current" / "mytools")).files) == FILES
    archive = sources.read(box(found[8]))
    assert archive.places["mytools/RunX.py"] == f"{tmp_path}/plain.tar.gz!mytools/RunX.py"
    assert sources.read(box(found[0])).places["mytools/RunX.py"] == str(found[0] / "RunX.py")


def test_hidden_and_compiled_files_are_not_part_of_a_toolbox(tmp_path: Path) -> None:
    root = lay(tmp_path / "plain") / "mytools"
    lay(root, {".git/config": b"x", "__pycache__/RunX.cpython-36.pyc": b"x", "fast.so": b"x", ".RunY.py.swp": b"x"})
    assert dict(sources.read(box(root)).files) == FILES


def test_installed_packages_and_entry_points_are_found_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "imported"
    writes = f"open({str(proof)!r}, 'w')\n".encode()
    lay(tmp_path / "site", {"acme_pilots/__init__.py": writes, "acme_pilots/commands/RunX.py": writes})
    entry = b"[pilotage.toolboxes]\nacme = acme_pilots.commands\ntwice = acme_pilots\n"
    lay(tmp_path / "site", {"acme-1.dist-info/entry_points.txt": entry, "acme-1.dist-info/METADATA": b"Name: acme\n"})
    second = b"[pilotage.toolboxes]\ntwice = other\n"
    lay(tmp_path / "site", {"other-1.dist-info/entry_points.txt": second, "other-1.dist-info/METADATA": b"Name: o\n"})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    by_name = sources.read(Toolbox(name="a", package="acme_pilots.commands"))
    assert list(by_name.files) == ["acme_pilots/commands/RunX.py"]
    assert sources.read(Toolbox(name="a", entry_point="acme")) == by_name
    assert not proof.exists() and "acme_pilots" not in sys.modules
    wrong = [
        (Toolbox(name="a", package="acme_nowhere.commands"), "acme_nowhere.commands: there is no such package"),
        (Toolbox(name="a", entry_point="gone"), r"gone: no installed package has this entry point .* acme, twice"),
        (Toolbox(name="a", entry_point="twice"), "twice: several installed packages have it|several installed"),
    ]
    for toolbox, error in wrong:
        with pytest.raises(ToolboxError, match=error):
            sources.read(toolbox)


def test_a_wrong_digest_is_refused_with_the_right_one(tmp_path: Path) -> None:
    path = zipped(tmp_path / "mine.zip")
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ToolboxError, match=f"mine.zip: its SHA-256 is {right}, but the configuration says 0000"):
        sources.read(box(path, "0" * 64))
    with pytest.raises(ToolboxError, match=f"needs its SHA-256 in the configuration: sha256: {right}"):
        sources.read_path(path, None, checked=True)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("/etc/cron.d/x", "an absolute path"),
        ("mytools/../../x.py", "a path with .."),
        ("..", "a path with .."),
        ("C:/x.py", "an absolute path"),
        ("mytools\\..\\x.py", "an absolute path"),
        ("mytools/a\nb.py", "a name with control characters"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, error: str) -> None:
    files = {**FILES, name: b"x"}
    assert f"the archive holds {error}" in refused(tarred(tmp_path / "mine.tar.gz", files))
    assert f"the archive holds {error}" in refused(zipped(tmp_path / "mine.zip", files))


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (link("mytools/a.py", "/etc/passwd"), "a link: 'mytools/a.py'"),
        (link("mytools/a.py", "RunX.py"), "a link"),
        (link("mytools/a.py", "mytools/RunX.py", tarfile.LNKTYPE), "a link"),
        (link("mytools/null", "", tarfile.CHRTYPE), "a device"),
        (link("mytools/pipe", "", tarfile.FIFOTYPE), "a device"),
    ],
)
def test_links_and_devices_in_archives_are_refused(tmp_path: Path, entry: tarfile.TarInfo, error: str) -> None:
    assert f"the archive holds {error}" in refused(tarred(tmp_path / "mine.tar.gz", FILES, "", entry))


def test_links_and_encrypted_entries_of_zip_files_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "mine.zip")
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo("mytools/a.py")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert "the archive holds a link: 'mytools/a.py'" in refused(path)
    content = bytearray(zipped(tmp_path / "secret.zip").read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    (tmp_path / "secret.zip").write_bytes(content)
    assert "what is not a plain file" in refused(tmp_path / "secret.zip")


def test_bombs_are_refused_soon(tmp_path: Path) -> None:
    started = time.monotonic()
    big = b"\0" * (sources.MAX_BYTES + 1)
    assert "larger than 20 MiB" in refused(zipped(tmp_path / "big.zip", {"mytools/RunX.py": b"", "mytools/x": big}))
    assert "larger than 20 MiB" in refused(tarred(tmp_path / "big.tar.gz", {"mytools/x": big}))
    halves = {f"mytools/x{n}": big[: len(big) // 2 + 1] for n in range(2)}
    assert "larger than 20 MiB" in refused(zipped(tmp_path / "two.zip", halves))
    with gzip.open(tmp_path / "zeros.tar.gz", "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(big[: 1 << 20] * 8)
    assert "larger than 20 MiB" in refused(tmp_path / "zeros.tar.gz")
    many = {f"mytools/x{number}": b"" for number in range(sources.MAX_FILES + 1)}
    assert "more than 2,000 files" in refused(zipped(tmp_path / "many.zip", many))
    assert "more than 2,000 files" in refused(tarred(tmp_path / "many.tar.gz", many))
    assert "more than 2,000 files" in refused(lay(tmp_path / "many", many))
    assert time.monotonic() - started < 60


def test_a_size_that_is_only_claimed_is_not_believed(tmp_path: Path) -> None:
    """A sparse entry of a terabyte, and one whose data are not there."""
    entry = link("mytools/x", "", tarfile.GNUTYPE_SPARSE)
    entry.size = 1 << 40
    assert refused(tarred(tmp_path / "sparse.tar.gz", FILES, "", entry))
    entry = tarfile.TarInfo("mytools/x")
    entry.size = 1 << 40
    with tarfile.open(tmp_path / "short.tar.gz", "w:gz") as archive:
        archive.fileobj.write(entry.tobuf())  # type: ignore[union-attr]
    assert refused(tmp_path / "short.tar.gz")


@pytest.mark.parametrize("name", ["cut.zip", "cut.tar.gz", "cut.whl"])
def test_a_broken_archive_is_told_as_such(tmp_path: Path, name: str) -> None:
    make: Callable[[Path], Path] = tarred if name.endswith("gz") else zipped
    whole = make(tmp_path / name).read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        assert "is not a whole" in refused(tmp_path / name) or not content


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    path = tarred(tmp_path / "mine.tar.gz", {"mytools/RunX.py": b"a\n", "./mytools/RunX.py": b"b\n"})
    assert "holds 'mytools/RunX.py' twice" in refused(path)


def test_what_is_wrong_with_a_directory_is_told(tmp_path: Path) -> None:
    root = lay(tmp_path / "mytools", {"RunX.py": b"x\n"})
    (root / "Link.py").symlink_to("/etc/hostname")
    with pytest.raises(ToolboxError, match=r"Link.py: a link that leads out of the toolbox"):
        sources.read(box(root))
    (root / "Link.py").unlink()
    (root / "linked").symlink_to("/etc")
    with pytest.raises(ToolboxError, match=r"linked: a link that leads out of the toolbox"):
        sources.read(box(root))
    (root / "linked").unlink()
    (root / "Link.py").symlink_to("RunX.py")
    assert sources.read(box(root)).files["mytools/Link.py"] == b"x\n"
    os.mkfifo(root / "pipe")
    with pytest.raises(ToolboxError, match=r"pipe: neither a file nor a directory"):
        sources.read(box(root))
    loose = lay(tmp_path / "my-tools", {"RunX.py": b"x\n"})
    with pytest.raises(ToolboxError, match=r"my-tools/RunX.py: a module outside of a package"):
        sources.read(box(loose))
    with pytest.raises(ToolboxError, match="there are no Python modules in it"):
        sources.read(box(lay(tmp_path / "empty", {"README": b""})))
    with pytest.raises(ToolboxError, match=r"nowhere: there is no such directory or file"):
        sources.read(box(tmp_path / "nowhere"))
    with pytest.raises(ToolboxError, match=r"mine.rpm: is not an archive"):
        sources.read_path(lay(tmp_path, {"mine.rpm": b""}) / "mine.rpm")
    with pytest.raises(ToolboxError, match=r"gone.zip: cannot be read: No such file"):
        sources.read_path(tmp_path / "gone.zip")
