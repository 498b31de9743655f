"""Rules of the house that no linter knows: skips in CI, pinned versions, the pages' links, commands and examples."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("ci", ["true", ""])
def test_a_skip_is_a_failure_in_ci_and_only_there(tmp_path: Path, ci: str) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_skipped(): pytest.skip('no database here')\n"
        "@pytest.mark.skipif(True, reason='no such kernel')\ndef test_marked(): pass\n"
        "@pytest.mark.xfail\ndef test_expected(): assert False\n"
        "def test_good(): pass\n"
    )
    (tmp_path / "test_module.py").write_text("import pytest\npytest.skip('all of it', allow_module_level=True)\n")
    environment = {**os.environ, "CI": ci}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        str(tmp_path),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    if ci:
        assert done.returncode != 0
        for reason in ("no database here", "no such kernel", "all of it"):
            assert f"in CI nothing is skipped: {reason}" in done.stdout, done.stdout
        assert "skipped," not in done.stdout
    else:
        assert done.returncode == 0, done.stdout
        assert "3 skipped" in done.stdout


def test_versions_are_pinned_without_addresses() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s@]+", line) for line in lines)
    wanted = re.search(r"\ndependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.S)
    assert wanted
    names = {re.split(r"[\[>=<]", name)[0] for name in re.findall(r'"([^"]+)"', wanted[1])} - {"pilotage-node"}
    pinned = {line.partition("==")[0].lower() for line in lines}
    assert names <= pinned


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_make_target_that_the_pages_name_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    for page in PAGES:
        for name in re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.M):
            assert name in targets, f"{page.name}: make {name}"


@pytest.mark.parametrize("name", [".ci/run", "tools/provision", "tools/reference.py"])
def test_scripts_can_be_run(name: str) -> None:
    script = ROOT / name
    assert os.access(script, os.X_OK)
    if "bash" in script.read_text().splitlines()[0]:
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_examples_of_the_pages_are_good_yaml(tmp_path: Path) -> None:
    from pilotage.cli import jobfile
    from pilotage.configuration import loads

    text = (ROOT / "docs" / "job-files.md").read_text() + (ROOT / "docs" / "tutorial.md").read_text()
    files = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.S) if "command" in block]
    assert len(files) >= 4
    for block in files:
        (tmp_path / "job.yaml").write_text(block)
        assert jobfile.read(tmp_path / "job.yaml")
    text = (ROOT / "docs" / "configuration.md").read_text() + (ROOT / "docs" / "tutorial.md").read_text()
    configurations = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.S) if "command: " not in block]
    assert len(configurations) >= 2
    for block in configurations:
        loads(block)
