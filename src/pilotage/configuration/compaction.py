"""Sources for the node: checked for the oldest Python that a pilot meets, and stripped of what only their readers need.

Compaction removes docstrings, the help of options, comments and blank lines, and indents by one space where four were
written (3 % of a script's gzipped size); all else stays as written, so that what a site admin reads in a pilot script
is what was written. That the program is the same is checked, not hoped for: syntax trees are compared.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from typing import TypeGuard

MINIMUM = "3.6"
# Python 3.13 and newer cannot pretend to be older than 3.7; the server's own CI runs on what can.
_OLDEST = (3, 6) if sys.version_info < (3, 13) else (3, 7)
_STRING_STARTS = {tokenize.STRING} | {
    getattr(tokenize, n) for n in ("FSTRING_START", "TSTRING_START") if hasattr(tokenize, n)
}
_FSTRING_END = {getattr(tokenize, n) for n in ("FSTRING_END", "TSTRING_END") if hasattr(tokenize, n)}
_GENERIC = {"dict", "frozenset", "list", "set", "tuple", "type"}
_TYPES = {"bool", "bytes", "complex", "float", "int", "object", "str", *_GENERIC}
_SELF_NAMING = re.compile(r"\{[^{}'\"]*[^{}=!<>'\"]=\s*[}!:]")


class ToolboxError(Exception):
    """Why a toolbox cannot be built: ``file:line: one sentence``; the line is 0 where it is about all of the file."""

    def __init__(self, file: str, line: int, text: str) -> None:
        super().__init__(f"{file}:{line}: {text}" if line else f"{file}: {text}")
        self.file, self.line, self.text = file, line, text


def number(version: str) -> tuple[int, int]:
    """``"3.11"`` as (3, 11)."""
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def parse(source: str, file: str, minimum: str = MINIMUM) -> ast.Module:
    """The syntax tree of a module, which must be valid for the oldest Python of the nodes and for this one.

    :param minimum: that version, like "3.6"
    :raises ToolboxError: with file and line
    """
    try:
        tree = ast.parse(source, file)
        ast.parse(source, file, feature_version=min(max(number(minimum), _OLDEST), sys.version_info[:2]))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise ToolboxError(file, line, f"not valid for Python {minimum}: {getattr(error, 'msg', error)}") from None
    except (RecursionError, MemoryError):
        raise ToolboxError(file, 1, "this module is nested too deeply") from None
    for line, what, since in _newer(tree, source):
        if number(since) > number(minimum):
            raise ToolboxError(file, line, f"not valid for Python {minimum}: {what} came with {since}")
    return tree


def without_plans(source: str, file: str, tree: ast.Module, name: str) -> str:
    """A command's source without its method ``plan``, which only a dry run calls; the number of lines stays.

    :param name: the command's class
    :raises ToolboxError: something else of the class calls it, with file and line
    """
    kind = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    plans = [node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "plan"] if kind else []
    if not kind or not plans:
        return source
    for inner in (inner for item in kind.body if item not in plans for inner in ast.walk(item)):
        if (
            isinstance(inner, ast.Attribute)
            and inner.attr == "plan"
            and ast.unparse(inner.value) in ("self", "super()")
        ):
            text = "plan() is for dry runs and does not travel: nothing else may call it"
            raise ToolboxError(file, inner.lineno, text)
    lines = source.split("\n")
    for node in plans:
        first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
        assert node.end_lineno and node.end_col_offset is not None
        _erase(lines, first, node.col_offset, node.end_lineno, node.end_col_offset, "")
    if len(plans) == len([item for item in kind.body if not _is_text(item)]):
        lines[plans[0].lineno - 1] = " " * plans[0].col_offset + "pass"
    return "\n".join(lines)


def compact(source: str, file: str, tree: ast.Module) -> str:
    """A module's source without docstrings, the help of options, comments and blank lines, indented by one space.

    :raises ToolboxError: three single quotes in what remains (they would end the script's section), with file and line
    """
    lines = source.split("\n")
    notes = list(_docstrings(tree, lines))
    # From the end on: what is erased moves what follows in its line.
    for start, end in sorted(_helps(tree), reverse=True):
        _erase(lines, *start, *end, "")
    for node, replacement in notes:
        assert node.end_lineno and node.end_col_offset is not None
        _erase(lines, node.lineno, node.col_offset, node.end_lineno, node.end_col_offset, replacement)
    untouched, kept, comments = _layout("\n".join(lines))
    for row, column in comments:
        lines[row] = lines[row][:column]
    indents = {len(line) - len(line.lstrip(" ")) for row, line in enumerate(lines) if row not in kept and line.strip()}
    step = 1 if any(indent % 4 for indent in indents) else 4
    result: list[str] = []
    numbers: list[int] = []
    for row, text in enumerate(lines):
        line = text if row in untouched else text.rstrip()
        if row not in kept:
            indent = len(line) - len(line.lstrip(" "))
            line = " " * (indent // step) + line[indent:]
        # A blank line after a backslash ends the statement: it is not decoration.
        if line or row in kept or (result and result[-1].endswith("\\")):
            result.append(line)
            numbers.append(row + 1)
    for line, number in zip(result, numbers, strict=True):
        if "'''" in line:
            raise ToolboxError(file, number, 'three single quotes in a row cannot travel in a pilot script; use """')
        if line.startswith("#== "):
            raise ToolboxError(file, number, "a line that begins with '#== ' cannot travel in a pilot script")
    text = "\n".join(result) + "\n" if result else ""
    try:
        wanted = _Stripped({(node.lineno, node.col_offset) for node, _ in notes}).visit(ast.parse(source))
        same = ast.dump(ast.parse(text)) == ast.dump(wanted)
    except RecursionError:
        raise ToolboxError(file, 1, "this module is nested too deeply") from None
    if not same:
        raise ToolboxError(file, 1, "compaction would change this module; lay its statements out one per line")
    return text


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _docstrings(tree: ast.Module, lines: list[str]) -> Iterator[tuple[ast.stmt, str]]:
    """Statements that are nothing but a string and stand on lines of their own, and what to put in their place."""
    for parent in ast.walk(tree):
        for body in (getattr(parent, name, None) for name in ("body", "orelse", "finalbody")):
            if not isinstance(body, list):
                continue
            notes = [node for node in body if _is_text(node) and _alone(node, lines)]
            for index, node in enumerate(notes):
                last = len(notes) == len(body) and index == 0 and not isinstance(parent, ast.Module)
                yield node, "pass" if last else ""


def _alone(node: ast.stmt, lines: list[str]) -> bool:
    assert node.end_lineno and node.end_col_offset is not None
    before = lines[node.lineno - 1].encode()[: node.col_offset].decode().strip()
    after = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip()
    return not before and (not after or after.startswith("#"))


def _help_of(node: ast.AST) -> ast.expr | None:
    """The help of ``Option(type, default, help)``."""
    if not isinstance(node, ast.Call) or getattr(node.func, "attr", getattr(node.func, "id", "")) != "Option":
        return None
    return node.args[2] if len(node.args) == 3 else None


def _helps(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where the helps of options are, each from the end of what is before it: (line, column) of start and end."""
    for node in ast.walk(tree):
        text = _help_of(node)
        if isinstance(node, ast.Call) and text is not None:
            before = node.args[1]
            assert before.end_lineno and before.end_col_offset is not None
            assert text.end_lineno and text.end_col_offset is not None
            yield (before.end_lineno, before.end_col_offset), (text.end_lineno, text.end_col_offset)


def _erase(lines: list[str], line: int, column: int, end_line: int, end_column: int, replacement: str) -> None:
    """Put something in the place of a part of the text; the number of lines stays."""
    before = lines[line - 1].encode()[:column].decode()
    after = lines[end_line - 1].encode()[end_column:].decode()
    for row in range(line, end_line):
        lines[row] = ""
    lines[line - 1] = before + replacement + after


def _layout(source: str) -> tuple[set[int], set[int], list[tuple[int, int]]]:
    """Rows whose ends lie inside a string, rows whose starts do, and where comments begin (rows from 0)."""
    untouched: set[int] = set()
    kept: set[int] = set()
    comments: list[tuple[int, int]] = []
    starts: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, end = token.start[0] - 1, token.end[0] - 1
        if token.type == tokenize.COMMENT:
            comments.append((row, token.start[1]))
        if token.type in _STRING_STARTS:
            starts.append(row)
        if token.type == tokenize.STRING or token.type in _FSTRING_END:
            first = starts.pop()
            untouched.update(range(first, end))
            kept.update(range(first + 1, end + 1))
    return untouched, kept, comments


class _Stripped(ast.NodeTransformer):
    """The tree as it should be after compaction."""

    def __init__(self, notes: set[tuple[int, int]]) -> None:
        self.notes = notes

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list) and body:
                rest = [item for item in body if (item.lineno, item.col_offset) not in self.notes]
                setattr(node, name, rest if rest or isinstance(node, ast.Module) else [ast.Pass()])
        if isinstance(node, ast.Call) and _help_of(node):
            del node.args[2]
        return super().generic_visit(node)


def _newer(tree: ast.Module, source: str) -> Iterator[tuple[int, str, str]]:
    """What is newer than Python 3.6 and `feature_version` lets pass: (line, what, since which version)."""
    evaluated, late = _annotations(tree)
    noted = {id(node) for node in (*evaluated, *late)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            if any(alias.name == "annotations" for alias in node.names):
                yield node.lineno, "'from __future__ import annotations'", "3.7"
        elif isinstance(node, ast.NamedExpr):
            yield node.lineno, "':='", "3.8"
        elif isinstance(node, ast.BinOp) and id(node) not in noted and _makes_type(node):
            yield node.lineno, "a type written as `X | Y`", "3.10"
        elif isinstance(node, ast.JoinedStr):
            text = (ast.get_source_segment(source, node) or "").replace("{{", "").replace("}}", "")
            if _SELF_NAMING.search(text):
                yield node.lineno, "'=' inside the braces of an f-string", "3.8"
        elif isinstance(node, ast.Return | ast.Yield | ast.For) and _bare_star(node):
            yield node.lineno, "unpacking without parentheses here", "3.9" if isinstance(node, ast.For) else "3.8"
        elif isinstance(node, ast.Subscript) and _bare_star(node):
            yield node.lineno, "unpacking in an index", "3.11"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for item in node.decorator_list:
                plain = item.func if isinstance(item, ast.Call) else item
                while isinstance(plain, ast.Attribute):
                    plain = plain.value
                if not isinstance(plain, ast.Name):
                    yield item.lineno, "a decorator that is not a dotted name", "3.9"
        elif isinstance(node, ast.Try):
            for inner in (child for item in node.finalbody for child in ast.walk(item)):
                if isinstance(inner, ast.Continue) and not _in_loop(node.finalbody, inner):
                    yield inner.lineno, "'continue' in 'finally'", "3.8"
    for node in evaluated:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            yield node.lineno, "a type written as `X | Y`", "3.10"
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in _GENERIC:
            yield node.lineno, f"the type {ast.unparse(node)[:40]}", "3.9"
    yield from _free_strings(source)


def _makes_type(node: ast.BinOp) -> bool:
    """Whether this is a `|` beside a type of Python's own, or None."""
    sides = (node.left, node.right) if isinstance(node.op, ast.BitOr) else ()
    return any(
        side.id in _TYPES if isinstance(side, ast.Name) else isinstance(side, ast.Constant) and side.value is None
        for side in sides
    )


def _annotations(tree: ast.Module) -> tuple[list[ast.AST], list[ast.AST]]:
    """All that is in annotations: what is evaluated when a module is imported or a function defined, and the rest."""
    functions = [node for node in ast.walk(tree) if _is_function(node)]
    local = {id(item) for node in functions for item in ast.walk(node) if isinstance(item, ast.AnnAssign)}
    late = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(alias.name == "annotations" for alias in node.names)
        for node in tree.body
    )
    both: tuple[list[ast.AST], list[ast.AST]] = [], []
    for node in ast.walk(tree):
        one = node.returns if _is_function(node) else getattr(node, "annotation", None)
        if one is not None:
            both[late or id(node) in local].extend(ast.walk(one))
    return both


def _is_function(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _bare_star(node: ast.Return | ast.Yield | ast.For | ast.Subscript) -> bool:
    value = node.iter if isinstance(node, ast.For) else node.slice if isinstance(node, ast.Subscript) else node.value
    if not isinstance(value, ast.Tuple) or not any(isinstance(item, ast.Starred) for item in value.elts):
        return False
    # A tuple in parentheses begins before its first item.
    return (value.lineno, value.col_offset) == (value.elts[0].lineno, value.elts[0].col_offset)


def _in_loop(body: list[ast.stmt], wanted: ast.Continue) -> bool:
    loops = (child for item in body for child in ast.walk(item) if isinstance(child, ast.For | ast.While))
    return any(child is wanted for loop in loops for child in ast.walk(loop))


def _free_strings(source: str) -> Iterator[tuple[int, str, str]]:
    """F-strings as only 3.12 reads them: their own quote, a backslash or a comment inside the braces."""
    if not _FSTRING_END:
        return
    quotes: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _FSTRING_END:
            quotes.pop()
        elif quotes and token.type != getattr(tokenize, "FSTRING_MIDDLE", None):
            new = quotes[-1] in token.string or "\\" in token.string or token.type == tokenize.COMMENT
            if new or (token.type == tokenize.NL and len(quotes[-1]) == 1):
                yield token.start[0], "this inside the braces of an f-string", "3.12"
        if token.type in _STRING_STARTS and token.type != tokenize.STRING:
            quotes.append(token.string.lstrip("rRbBfFtTuU"))
