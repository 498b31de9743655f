"""The files of a new toolbox, as `pilotage toolbox new` writes them; NAME stands for its name."""

from __future__ import annotations

README = """\
# NAME: commands for pilots

A toolbox: each module whose name begins with a capital letter is a command, a class of that name with `do()`.

    pilotage toolbox check .      # can it run on a worker node?
    python -m pytest              # the tests; they run the commands in real pilots on a fake node

Tell Pilotage about it, in the configuration of your VO:

```yaml
vos:
  MYVO:
    toolboxes:
      - {name: NAME, path: PATH}
    pilot:
      commands: {insert: {before: RunJobAgent, do: [CheckSoftware]}}
      options:
        CheckSoftware: {path: /opt/software}
```

To change a command that Pilotage has, inherit from it in a module of the same name, and call `super().do()`:

```python
from pilotage_node.toolbox.RunEnvironmentTest import RunEnvironmentTest as Base


class RunEnvironmentTest(Base):
    def do(self):
        super().do()
        self.log("and what else must be there")
```

Modules run on Python 3.6 and newer with nothing but the standard library; see docs/toolboxes.md of Pilotage.
"""

PROJECT = """\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "NAME"
version = "0.1.0"
description = "Commands for pilots"
requires-python = ">=3.6"

[project.entry-points."pilotage.toolboxes"]
NAME = "NAME"

[tool.setuptools]
packages = ["NAME"]
package-data = {NAME = ["*"]}
"""

PACKAGE = '''\
"""Commands for pilots."""

__version__ = "0.1.0"
'''

COMMAND = '''\
"""The command CheckSoftware: is our software on this node?"""

import os

from pilotage_node import exitcodes
from pilotage_node.command import Command, CommandFailed, Option


class CheckSoftware(Command):
    """Check that our software is there, before any job is asked for.

    Options:
        path: where it is installed

    Exit codes: ENVIRONMENT.
    """

    options = {"path": Option(str, "/usr/bin", "where it is installed")}
    provides = ("software",)
    timeout = 60

    def do(self):
        if not os.path.isdir(self.options.path):
            raise CommandFailed(exitcodes.ENVIRONMENT, "there is no software in %s" % self.options.path)
        self.log("software found in %s" % self.options.path)
        self.facts.software = self.options.path

    def plan(self):
        self.log("would look for software in %s" % self.options.path)
'''

TEST = '''\
"""The commands, each run in a real pilot on a fake node."""

from pathlib import Path

from pilotage_node import exitcodes

TOOLBOX = Path(__file__).parents[1] / "NAME"


def test_software_that_is_there_becomes_a_fact(run_command, tmp_path):
    result = run_command(TOOLBOX, "CheckSoftware", options={"path": str(tmp_path)})
    assert result.outcome == "done", result.log
    assert result.facts == {"software": str(tmp_path)}


def test_a_node_without_software_is_left(run_command):
    result = run_command(TOOLBOX, "CheckSoftware", options={"path": "/nowhere"})
    assert (result.outcome, result.code) == ("failed", exitcodes.ENVIRONMENT), result.log
    assert "/nowhere" in result.text
'''

FILES = {
    "README.md": README,
    "pyproject.toml": PROJECT,
    "NAME/__init__.py": PACKAGE,
    "NAME/CheckSoftware.py": COMMAND,
    "tests/test_NAME.py": TEST,
}
