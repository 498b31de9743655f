"""DIRAC's configuration files: nested sections of `name = value`, written and, line by line, never guessed."""

FORBIDDEN = "\n\r#{}"
"""What a value cannot hold: DIRAC's reader would end it there, or take it for a section."""


def text_of(options):
    """The text of a configuration file.

    :param options: {"/Section/Sub/Name": value}; None and "" are left out, lists are joined by ", "
    :raises ValueError: a value that the format cannot hold, or a path that is both an option and a section
    """
    tree = {}
    for path in options:
        value = as_text(options[path])
        if not value:
            continue
        *sections, name = path.strip("/").split("/")
        if any(character in value + path for character in FORBIDDEN) or not name:
            raise ValueError("DIRAC's configuration cannot hold %s = %r" % (path, value))
        at = tree
        for section in sections:
            at = at.setdefault(section, {})
            if not isinstance(at, dict):
                raise ValueError("%s: '%s' is an option and a section" % (path, section))
        if isinstance(at.get(name), dict):
            raise ValueError("%s: '%s' is an option and a section" % (path, name))
        at[name] = value
    return "".join(lines(tree, ""))


def as_text(value):
    """A value as DIRAC writes it."""
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def lines(tree, indent):
    """The lines of one section, options before sections."""
    for name in sorted(tree, key=lambda name: (isinstance(tree[name], dict), name)):
        if isinstance(tree[name], dict):
            yield "%s%s\n%s{\n" % (indent, name, indent)
            for line in lines(tree[name], indent + "  "):
                yield line
            yield indent + "}\n"
        else:
            yield "%s%s = %s\n" % (indent, name, tree[name])


def split_option(text):
    """`-o` as DIRAC's tools take it, "/Path/Name=value": (path, value).

    :raises ValueError: it has no "="
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip("/ "):
        raise ValueError("%r is not an option: PATH=VALUE is wanted" % text)
    return "/" + path.strip().strip("/"), value.strip()
