"""What is wrong with a toolbox, all of it at once: what `pilotage toolbox check` tells those who write one.

Beyond what building refuses: parts of the standard library that older Pythons do not have, what a pilot would not give
a command (see uses.py), and what importing the modules does (in a sandbox; see sandbox.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pilotage.configuration import sandbox, toolboxes, uses
from pilotage.configuration.commands import dotted
from pilotage.configuration.compaction import MINIMUM, ToolboxError, number
from pilotage.configuration.crossing import crossing
from pilotage.configuration.sandbox import Finding
from pilotage.configuration.sources import Tree
from pilotage.configuration.toolboxes import Built, plain_text


@dataclass(slots=True)
class Report:
    """What a check found.

    :ivar findings: all that is wrong; :ivar built: the toolbox, None where it cannot be built
    :ivar unused: modules that no command needs, which do not travel
    :ivar forbidden: why the modules could not be imported safely, "" where they were
    """

    findings: list[Finding] = field(default_factory=list)
    built: Built | None = None
    unused: list[str] = field(default_factory=list)
    forbidden: str = ""


def built(tree: Tree, others: Sequence[Tree], extension: str | None, minimum: str) -> list[Built]:
    """The toolboxes that come after one, in their order, built with what it imports; raises ToolboxError."""
    wanted = crossing([tree, *others], extension, minimum)[1:]
    named = [("checked", tree), *((f"other {index + 1}", other) for index, other in enumerate(others))]
    behind = [toolboxes.base(), toolboxes.core()]
    for index in range(len(others) - 1, -1, -1):
        more, name = sorted(wanted[index]), named[index + 1][0]
        before = {dotted(path): name_of for name_of, one in reversed(named[: index + 1]) for path in one.files}
        new = toolboxes.build(
            others[index], name, others=behind, before=before, more=more, extension=extension, minimum=minimum
        )
        behind = [new, *behind]
    return behind[:-2]


def check(
    tree: Tree,
    name: str,
    others: Sequence[Built] = (),
    *,
    extension: str | None = None,
    minimum: str = MINIMUM,
    trust: bool = False,
) -> Report:
    """Check a toolbox.

    :param others: built toolboxes of the community that come after it (see `built`); base and core are always there
    :param extension: of the community; :param minimum: the oldest Python that it must run on
    :param trust: import the modules without a sandbox
    """
    behind = [*others, toolboxes.base(), toolboxes.core()]
    errors = toolboxes.problems(tree, name, others=behind, extension=extension, minimum=minimum)
    report = Report([Finding(error.file, error.line, error.text) for error in errors])
    if errors:
        return report
    try:
        more = toolboxes.library(tree, toolboxes.commands_in(tree, extension))
        made = toolboxes.build(tree, name, others=behind, more=more, extension=extension, minimum=minimum)
    except ToolboxError as error:  # what is about all commands together
        report.findings.append(Finding(error.file, error.line, error.text))
        return report
    report.built = made
    report.unused = sorted(path for path in tree.files if path.endswith(".py") and path not in made["imports"])
    own = [path for path in sorted(made["imports"]) if path in tree.files]
    for path in own:
        report.findings += _features(plain_text(tree.files[path], tree.places[path]), tree.places[path], minimum)
    report.findings += uses.uses(tree, made, behind, minimum)
    try:
        report.findings += sandbox.side_effects(tree, made, behind, trust=trust)
    except sandbox.Forbidden as error:
        report.forbidden = str(error)
    return report


def _features(source: str, file: str, minimum: str) -> Iterator[Finding]:
    """Parts of the standard library that came after `minimum`; a line that ends in ``# novermin`` is not asked."""
    import vermin  # type: ignore[import-untyped]

    config = vermin.Config()
    config.set_format(vermin.formats.ParsableFormat())
    config.set_verbose(3)
    try:
        visitor = vermin.visit(source, config, "x")
        lines = visitor.output_text().splitlines() if isinstance(visitor, vermin.SourceVisitor) else []
    except vermin.InvalidVersionException:
        return  # it is written for two Pythons at once and knows what it does
    for line in lines:
        _, row, _, _, since, what = line.split(":", 5)
        if since.startswith("3.") and number(since) > number(minimum):
            text = f"{what} came with Python {since}; the nodes have {minimum}"
            yield Finding(file, int(row), text)
