"""Runs a pilot script on a fake node: the runner, the courier and the commands that the script carries, as they are.

Run by ``pilotage.testing.pilots`` as ``python -I -S -X utf8 driver.py SCENARIO``, under every Python that pilots run
under (3.6 and newer). What differs from the script's own start: what the node is said to be, where the service is,
which facts are there from the start, and that what is left in the working directory is kept.
"""

import json
import os
import shutil
import sys
from typing import Any


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def script_of(path: str, changes: Any) -> Any:
    """The script's own loader, as its first lines define it; ``changes`` are made to sections of the profile."""
    text = read(path)
    head, _, rest = text.rpartition("\nstart(")
    line, _, sections = rest.partition(", r'''")
    names: Any = {"__name__": "boot", "__file__": path}
    exec(compile(head + "\n", path, "exec", 0, True), names)
    digest = text.partition("sha256:")[2][:64]
    script = names["Script"](path, digest, int(line), sections[: -len("''')\n")])
    place, profile = script.sections["profile.json"]
    profile = json.loads(profile)
    for name, values in changes.items():
        profile[name] = dict(profile.get(name) or {}, **values)
    script.sections["profile.json"] = place, json.dumps(profile) + "\n"
    return script


def fake_node(scenario: Any) -> None:
    """In the place of ``facts.gather_node``: what the fake node says, within the pilot's limits."""
    from pilotage_node import facts

    gather = facts.gather_node

    def gather_node(profile: Any, workdir: str) -> Any:
        node = gather(profile, workdir, scenario["root"])
        limits = profile.get("limits") or {}
        for name, value in scenario["node"].items():
            least = [size for size in (value, limits.get(name)) if size is not None]
            node[name] = min(least) if name in limits and least else value
        return node

    facts.gather_node = gather_node


def main(path: str) -> None:
    scenario = json.loads(read(path))
    script = script_of(scenario["script"], scenario["profile"])
    sys.meta_path.insert(0, script)
    sys.dont_write_bytecode = True
    fake_node(scenario)
    from pilotage_node.runner import start

    remove = start.remove_tree

    def keep(directory: str) -> None:
        """The working directory is kept (but for what is no file) before it is removed."""
        start.remove_tree = remove  # which calls itself
        if not os.path.isdir(directory):  # a command removed it
            return
        os.chmod(directory, 0o700)
        shutil.copytree(directory, scenario["kept"], symlinks=True, ignore=others, ignore_dangling_symlinks=True)
        remove(directory)

    start.remove_tree = keep
    facts = scenario["facts"]
    try:
        code = start.start(script, scenario["words"], facts=facts, **scenario["runner"])
    finally:
        with open(scenario["told"], "w") as file:
            json.dump(facts, file)
    sys.exit(code)


def others(directory: str, names: Any) -> Any:
    """What cannot be copied: sockets, pipes, devices."""
    paths = [(name, os.path.join(directory, name)) for name in names]
    return [name for name, path in paths if not (os.path.isfile(path) or os.path.isdir(path))]


if __name__ == "__main__":
    main(sys.argv[1])
